//! How agents come and go, and what is asked of them.

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
    /// Does what somebody asks of the agents, and what follows from it for their tasks and commands.
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

    /// Nobody has served an agent for its time to live, as far as the orchestrator saw.
    pub(super) fn forget_agent(&mut self, agent: &AgentId, idle_since: LogInstant, changes: &mut Changes) {
        let has_work = self.tasks.held_count(agent) > 0 || self.commands.has_open_commands(agent);
        if self.agents.forget(agent, idle_since, has_work, &mut self.head.cx(changes)) {
            self.commands.close_inbox(agent, &self.agents, self.head.applying.index);
        }
    }

    /// The lease of an agent ended, as far as the orchestrator saw.
    pub(super) fn expire_lease(&mut self, agent: &AgentId, attachment: AttachmentId, changes: &mut Changes) {
        let held = self.tasks.held_count(agent);
        if self.agents.end_attachment(agent, attachment, true, held, &mut self.head.cx(changes)) {
            self.take_back(agent, ReclaimCause::LeaseExpired, changes);
        }
    }

    /// Takes back everything that an agent holds whose attachment ended.
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

    /// An agent, if it is known.
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

    /// Agents that will be forgotten unless somebody serves them: when, since when nobody does, and who. Soonest first.
    pub(crate) fn idle_agents(&self) -> impl Iterator<Item = (LogInstant, LogInstant, AgentId)> + '_ {
        let known_ms = self.head.limits.agent_ttl_ms;
        let idle = self.agents.idle().map(move |(since, agent)| (since.plus_ms(known_ms), since, agent.clone()));
        idle.inspect(|_| {
            #[cfg(test)]
            looks::count();
        })
    }

    /// Whether nobody has served an agent since then.
    pub(crate) fn is_idle_since(&self, agent: &AgentId, since: LogInstant) -> bool {
        self.agents.is_idle_since(agent, since)
    }
}
