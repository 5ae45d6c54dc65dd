//! Agents and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_protocol::agent::{AgentRecord, Attachment, LeaseTerms, Role};
use skep_protocol::change::{ChangeKind, ReclaimCause};
use skep_protocol::ids::{AttachmentId, NodeId, SessionId, TaskId};
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::text::{AgentId, Capability, RoleName};

use super::FleetState;
use super::apply::Journal;

/// How an agent wants to be attached.
pub(super) struct Wish<'a> {
    pub(super) role: &'a Role,
    pub(super) node: NodeId,
    pub(super) session: SessionId,
    pub(super) lease: LeaseTerms,
}

impl FleetState {
    pub(super) fn register_agent(
        &mut self,
        agent: &AgentId,
        role: &Role,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        role.check_within(&self.limits)?;
        let known = self.agents.get(agent);
        if known.is_none() && self.agents.len() as u64 >= self.limits.agents_max {
            let count = self.agents.len() as u64;
            return Err(Refusal::ShardFull { what: ShardFullOf::Agents, count });
        }
        if known.is_none_or(|known| known.role != *role) {
            let attachment = known.and_then(|known| known.attachment);
            self.put_agent(agent, AgentRecord { role: role.clone(), attachment });
            journal.record(self.clock, ChangeKind::AgentRegistered { agent: agent.clone(), role: role.clone() });
        }
        Ok(Receipt::Agent(agent.clone()))
    }

    pub(super) fn remove_agent(&mut self, agent: &AgentId, journal: &mut Journal) -> Result<Receipt, Refusal> {
        let Some(record) = self.agents.get(agent) else { return Err(Refusal::NoSuchAgent(agent.clone())) };
        let (held, max) = (self.held_count(agent), record.role.max_concurrent);
        if held > 0 {
            return Err(Refusal::AgentBusy { agent: agent.clone(), held, max });
        }
        if let Some(attachment) = &record.attachment {
            return Err(elsewhere(agent, attachment));
        }
        self.agents.remove(agent);
        self.close_inbox(agent);
        if let Some(at) = self.changed_at.remove(agent) {
            self.by_change.remove(&(at, agent.clone()));
        }
        journal.record(self.clock, ChangeKind::AgentRemoved { agent: agent.clone() });
        Ok(Receipt::Agent(agent.clone()))
    }

    pub(super) fn attach_agent(
        &mut self,
        agent: &AgentId,
        wish: &Wish<'_>,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        wish.lease.check_within(&self.limits)?;
        let known = self.agents.get(agent).and_then(|record| record.attachment);
        if let Some(known) = known.filter(|known| (known.node, known.session) != (wish.node, wish.session)) {
            return Err(elsewhere(agent, &known));
        }
        self.register_agent(agent, wish.role, journal)?;
        let (node, session) = (wish.node, wish.session);
        // The same run may still rely on the longer lease that it had.
        let lease = known.map_or(wish.lease, |known| known.lease.max(wish.lease));
        // Zero stands for none at the API.
        let attachment = AttachmentId(self.take_seq() + 1);
        let attached = Attachment { id: attachment, node, session, lease, assigned: 0, since: self.clock };
        self.put_agent(agent, AgentRecord { role: wish.role.clone(), attachment: Some(attached) });
        self.note_attachment(agent);
        journal.record(self.clock, ChangeKind::AgentAttached { agent: agent.clone(), node, attachment });
        Ok(Receipt::Attached { agent: agent.clone(), attachment, lease })
    }

    pub(super) fn detach_agent(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        self.check_attachment(agent, attachment)?;
        self.end_attachment(agent, attachment, false, journal);
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Ends an attachment if it is still the one that is meant, and takes back everything that the agent holds.
    pub(super) fn end_attachment(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        expired: bool,
        journal: &mut Journal,
    ) {
        let Some(record) = self.agents.get(agent) else { return };
        if record.attachment.is_none_or(|known| known.id != attachment) {
            return;
        }
        let role = record.role.clone();
        self.put_agent(agent, AgentRecord { role, attachment: None });
        self.note_attachment(agent);
        journal.record(self.clock, ChangeKind::AgentDetached { agent: agent.clone(), attachment, expired });
        let cause = if expired { ReclaimCause::LeaseExpired } else { ReclaimCause::Detached };
        let held: Vec<TaskId> = self.held.get(agent).into_iter().flatten().copied().collect();
        for task in held {
            self.reclaim(task, agent, cause, journal);
        }
    }

    pub(super) fn check_attachment(&self, agent: &AgentId, attachment: AttachmentId) -> Result<(), Refusal> {
        let known = self.agents.get(agent).and_then(|record| record.attachment);
        if known.is_some_and(|known| known.id == attachment) {
            return Ok(());
        }
        Err(Refusal::NotAttached { agent: agent.clone(), attachment })
    }

    /// One more task was assigned to an agent against a credit.
    pub(super) fn count_assigned(&mut self, agent: &AgentId) {
        let Some(record) = self.agents.get(agent) else { return };
        let mut record = AgentRecord::clone(record);
        if let Some(attachment) = &mut record.attachment {
            attachment.assigned += 1;
        }
        self.put_agent(agent, record);
    }

    fn put_agent(&mut self, agent: &AgentId, record: AgentRecord) {
        self.agents.insert(agent.clone(), Arc::new(record));
        self.touch(agent);
    }

    /// Notes that the attachment of an agent, or what it holds, changed.
    pub(super) fn touch(&mut self, agent: &AgentId) {
        if let Some(at) = self.changed_at.insert(agent.clone(), self.applying) {
            self.by_change.remove(&(at, agent.clone()));
        }
        self.by_change.insert((self.applying, agent.clone()));
    }

    /// The role of an agent; one that never registered has one too.
    pub(super) fn role_of(&self, agent: &AgentId) -> Role {
        self.agents.get(agent).map_or_else(Role::unregistered, |record| record.role.clone())
    }

    pub(super) fn held_count(&self, agent: &AgentId) -> u32 {
        self.held.get(agent).map_or(0, |tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn hold(&mut self, agent: &AgentId, task: TaskId) {
        self.held.entry(agent.clone()).or_default().insert(task);
        self.touch_if_known(agent);
    }

    pub(super) fn release(&mut self, agent: &AgentId, task: TaskId) {
        if let Some(tasks) = self.held.get_mut(agent) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.held.remove(agent);
            }
        }
        self.touch_if_known(agent);
    }

    fn touch_if_known(&mut self, agent: &AgentId) {
        if self.changed_at.contains_key(agent) {
            self.touch(agent);
        }
    }

    /// How many agents there are of each role and set of capabilities. There are few such kinds.
    pub(super) fn kinds_of_agents(&self) -> Kinds {
        let mut kinds = Kinds::new();
        for record in self.agents.values() {
            let kind = (record.role.name.clone(), record.role.capabilities.clone());
            *kinds.entry(kind).or_default() += 1;
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

fn elsewhere(agent: &AgentId, attachment: &Attachment) -> Refusal {
    Refusal::AgentElsewhere { agent: agent.clone(), node: attachment.node, lease_ms: attachment.lease.ttl_ms }
}
