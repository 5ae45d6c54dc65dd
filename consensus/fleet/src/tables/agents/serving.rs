//! How many agents nodes serve, by the capabilities of these agents. There are few such kinds, however many agents
//! there are.

use std::sync::Arc;

use skep_protocol::agent::AgentRecord;
use skep_protocol::text::AgentId;

use super::Agents;

/// Agents with the same capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    /// How many of them nodes serve.
    pub(crate) agents: u32,
    /// How many of those hold as many tasks as they may.
    pub(crate) busy: u32,
}

impl Agents {
    /// Takes an agent out of the counts before its record, or the number of tasks that it holds, changes.
    pub(super) fn uncount(&mut self, agent: &AgentId, held: u32) {
        let Some((record, busy)) = self.served(agent, held) else { return };
        let capabilities = &record.role.capabilities;
        let Some(serving) = self.serving.get_mut(capabilities) else { return };
        serving.agents = serving.agents.saturating_sub(1);
        serving.busy = serving.busy.saturating_sub(busy);
        if serving.agents == 0 {
            self.serving.remove(capabilities);
        }
    }

    /// Puts an agent back into the counts after its change; the agent holds this many tasks.
    pub(super) fn count_again(&mut self, agent: &AgentId, held: u32) {
        let Some((record, busy)) = self.served(agent, held) else { return };
        let serving = self.serving.entry(record.role.capabilities.clone()).or_default();
        serving.agents += 1;
        serving.busy += busy;
    }

    /// The record of an agent that a node serves, and 1 if the agent is busy, 0 if not; none if no node serves it.
    fn served(&self, agent: &AgentId, held: u32) -> Option<(Arc<AgentRecord>, u32)> {
        let record = self.records.get(agent).filter(|record| record.attachment.is_some())?;
        let is_busy = held >= record.role.max_concurrent;
        Some((Arc::clone(record), u32::from(is_busy)))
    }
}
