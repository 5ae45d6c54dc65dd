//! Agents and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_protocol::agent::Role;
use skep_protocol::change::ChangeKind;
use skep_protocol::ids::TaskId;
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::text::{AgentId, Capability, RoleName};

use super::FleetState;
use super::apply::Journal;

impl FleetState {
    pub(super) fn register_agent(
        &mut self,
        agent: &AgentId,
        role: &Role,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        role.check()?;
        let known = self.agents.get(agent);
        if known.is_none() && self.agents.len() as u64 >= self.limits.agents_max {
            let count = self.agents.len() as u64;
            return Err(Refusal::ShardFull { what: ShardFullOf::Agents, count });
        }
        if known.is_none_or(|known| known.as_ref() != role) {
            self.agents.insert(agent.clone(), Arc::new(role.clone()));
            journal.record(self.clock, ChangeKind::AgentRegistered { agent: agent.clone(), role: role.clone() });
        }
        Ok(Receipt::Agent(agent.clone()))
    }

    pub(super) fn remove_agent(&mut self, agent: &AgentId, journal: &mut Journal) -> Result<Receipt, Refusal> {
        let Some(role) = self.agents.get(agent) else { return Err(Refusal::NoSuchAgent(agent.clone())) };
        let (held, max) = (self.held_count(agent), role.max_concurrent);
        if held > 0 {
            return Err(Refusal::AgentBusy { agent: agent.clone(), held, max });
        }
        self.agents.remove(agent);
        journal.record(self.clock, ChangeKind::AgentRemoved { agent: agent.clone() });
        Ok(Receipt::Agent(agent.clone()))
    }

    /// The role of an agent; one that never registered has one too.
    pub(super) fn role_of(&self, agent: &AgentId) -> Arc<Role> {
        self.agents.get(agent).cloned().unwrap_or_else(|| Arc::new(Role::unregistered()))
    }

    pub(super) fn held_count(&self, agent: &AgentId) -> u32 {
        self.held.get(agent).map_or(0, |tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn hold(&mut self, agent: &AgentId, task: TaskId) {
        self.held.entry(agent.clone()).or_default().insert(task);
    }

    pub(super) fn release(&mut self, agent: &AgentId, task: TaskId) {
        if let Some(tasks) = self.held.get_mut(agent) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.held.remove(agent);
            }
        }
    }

    /// How many agents there are of each role and set of capabilities. There are few such kinds.
    pub(super) fn kinds_of_agents(&self) -> Kinds {
        let mut kinds = Kinds::new();
        for role in self.agents.values() {
            *kinds.entry((role.name.clone(), role.capabilities.clone())).or_default() += 1;
        }
        kinds
    }
}

/// Agents by role and capabilities.
pub(super) type Kinds = BTreeMap<(RoleName, BTreeSet<Capability>), u32>;

/// Agents of other roles that share a capability with this one.
pub(super) fn overlaps(kinds: &Kinds, role: &Role) -> u32 {
    let shares = |capabilities: &BTreeSet<Capability>| !capabilities.is_disjoint(&role.capabilities);
    let others = kinds.iter().filter(|((name, capabilities), _)| *name != role.name && shares(capabilities));
    others.map(|(_, count)| *count).sum()
}
