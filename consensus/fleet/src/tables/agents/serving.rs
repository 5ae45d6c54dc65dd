//! How many agents nodes serve, by what these can do: there are few such kinds, however many agents there are.

use std::sync::Arc;

use skep_protocol::agent::AgentRecord;
use skep_protocol::text::AgentId;

use super::Agents;

/// Agents that can do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    /// How many nodes serve.
    pub(crate) agents: u32,
    /// How many of them hold as many tasks as they may.
    pub(crate) busy: u32,
}

impl Agents {
    /// What is known of an agent that holds so many tasks, or how many it holds, is about to change: it is not counted meanwhile.
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

    /// It has changed, and holds so many by now.
    pub(super) fn count_again(&mut self, agent: &AgentId, held: u32) {
        let Some((record, busy)) = self.served(agent, held) else { return };
        let serving = self.serving.entry(record.role.capabilities.clone()).or_default();
        serving.agents += 1;
        serving.busy += busy;
    }

    /// An agent, if a node serves it, and whether it is busy, as a number of agents.
    fn served(&self, agent: &AgentId, held: u32) -> Option<(Arc<AgentRecord>, u32)> {
        let record = self.records.get(agent).filter(|record| record.attachment.is_some())?;
        let is_busy = held >= record.role.max_concurrent;
        Some((Arc::clone(record), u32::from(is_busy)))
    }
}
