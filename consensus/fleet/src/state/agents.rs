//! How agents come and go, and what clients and nodes ask of them.

use skep_protocol::agent::{AgentOp, AgentRecord, AgentView};
use skep_protocol::ids::AttachmentId;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::ReclaimCause;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::FleetState;
use super::changes::Changes;
use crate::tables::agents::overlaps;

#[cfg(test)]
use super::looks;

impl FleetState {
    /// Does what a client or a node asks of the agents, and what follows from it for their tasks and commands.
    pub(super) fn apply_to_agents(&mut self, op: &AgentOp, changes: &mut Changes) -> Result<Receipt, Refusal> {
        let held = self.tasks.held_count(op.agent());
        let receipt = self.agents.apply(op, held, &mut self.head.cx(changes))?;
        match op {
            AgentOp::Register { .. } => {}
            AgentOp::Remove { agent } => self.commands.close_inbox(agent, &self.agents, self.head.applying.index),
            AgentOp::Attach { agent, .. } => self.commands.note_attachment(agent, self.head.applying.index),
            AgentOp::Detach { agent, .. } => self.take_back(agent, ReclaimCause::Detached, changes),
        }
        Ok(receipt)
    }

    /// Forgets an agent that no node has served for its time to live, as far as the orchestrator saw.
    pub(super) fn forget_agent(&mut self, agent: &AgentId, idle_since: LogInstant, changes: &mut Changes) {
        let has_work = self.tasks.held_count(agent) > 0 || self.commands.has_open_commands(agent);
        if self.agents.forget(agent, idle_since, has_work, &mut self.head.cx(changes)) {
            self.commands.close_inbox(agent, &self.agents, self.head.applying.index);
        }
    }

    /// Ends the lease of an agent, as far as the orchestrator saw that it is over.
    pub(super) fn expire_lease(&mut self, agent: &AgentId, attachment: AttachmentId, changes: &mut Changes) {
        let held = self.tasks.held_count(agent);
        if self.agents.end_attachment(agent, attachment, true, held, &mut self.head.cx(changes)) {
            self.take_back(agent, ReclaimCause::LeaseExpired, changes);
        }
    }

    /// Takes back all tasks of an agent whose attachment ended.
    fn take_back(&mut self, agent: &AgentId, cause: ReclaimCause, changes: &mut Changes) {
        self.commands.note_attachment(agent, self.head.applying.index);
        self.tasks.reclaim_all(agent, cause, &mut self.agents, &mut self.head.cx(changes));
    }

    /// Registered agents in order of their ids, from after one.
    pub fn agents_after(&self, after: Option<&AgentId>) -> impl Iterator<Item = AgentView> + '_ {
        let kinds = self.agents.kinds();
        self.agents.after(after.cloned()).map(move |(id, record)| AgentView {
            id: id.clone(),
            role: record.role.clone(),
            held: self.tasks.held_count(id),
            overlaps: overlaps(&kinds, &record.role),
            attachment: record.attachment,
        })
    }

    /// An agent; none if the shard does not know it.
    pub fn agent(&self, id: &AgentId) -> Option<&AgentRecord> {
        self.agents.get(id)
    }

    /// Every agent that a node serves, with its attachment.
    #[cfg(test)]
    pub(crate) fn attached(&self) -> impl Iterator<Item = (&AgentId, &AgentRecord)> {
        self.agents.records().filter(|(_, record)| record.attachment.is_some())
    }

    /// Agents whose attachment or claims were changed by entries after an index.
    pub(crate) fn changed_after(&self, index: Option<u64>) -> impl Iterator<Item = &AgentId> {
        self.agents.changed_after(index)
    }

    /// Agents that the shard will forget unless a node serves them: when, since when none does, and the id. Soonest
    /// first.
    pub(crate) fn idle_agents(&self) -> impl Iterator<Item = (LogInstant, LogInstant, AgentId)> + '_ {
        let known_ms = self.head.limits.agent_ttl_ms;
        let idle = self.agents.idle().map(move |(since, agent)| (since.plus_ms(known_ms), since, agent.clone()));
        idle.inspect(|_| {
            #[cfg(test)]
            looks::count();
        })
    }

    /// Whether no node has served an agent since then.
    pub(crate) fn is_idle_since(&self, agent: &AgentId, since: LogInstant) -> bool {
        self.agents.is_idle_since(agent, since)
    }
}
