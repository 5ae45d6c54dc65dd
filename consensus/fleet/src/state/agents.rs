//! Agents and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_protocol::agent::{AgentRecord, Attachment, LeaseTerms, Role};
use skep_protocol::change::{ChangeKind, ReclaimCause};
use skep_protocol::ids::{AttachmentId, NodeId, SessionId, TaskId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::text::{AgentId, Capability, RoleName};
use skep_protocol::time::LogInstant;

use super::FleetState;
use super::changes::{Changes, count_dropped};

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
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        self.know_agent(agent, role, true, changes)?;
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Makes an agent known, or changes its role. `registered`: it is to stay known, served or not.
    fn know_agent(
        &mut self,
        agent: &AgentId,
        role: &Role,
        registered: bool,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        role.check_within(&self.head.limits)?;
        let known = self.agents.get(agent).cloned();
        if known.is_none() && self.agents.len() as u64 >= self.head.limits.agents_max {
            let count = self.agents.len() as u64;
            return Err(Refusal::ShardFull { what: ShardFullOf::Agents, count });
        }
        let is_news = known.as_ref().is_none_or(|known| known.role != *role);
        let record = match &known {
            Some(known) => AgentRecord {
                role: role.clone(),
                registered: registered || known.registered,
                ..AgentRecord::clone(known)
            },
            None => AgentRecord { role: role.clone(), attachment: None, registered, idle_since: self.head.clock },
        };
        if known.is_none_or(|known| *known != record) {
            self.put_agent(agent, record);
        }
        if is_news {
            changes.record(self.head.clock, ChangeKind::AgentRegistered { agent: agent.clone(), role: role.clone() });
        }
        Ok(())
    }

    pub(super) fn remove_agent(&mut self, agent: &AgentId, changes: &mut Changes) -> Result<Receipt, Refusal> {
        let Some(record) = self.agents.get(agent) else { return Err(Refusal::NoSuchAgent(agent.clone())) };
        let (held, max) = (self.held_count(agent), record.role.max_concurrent);
        if held > 0 {
            return Err(Refusal::AgentBusy { agent: agent.clone(), held, max });
        }
        if let Some(attachment) = &record.attachment {
            return Err(elsewhere(agent, attachment));
        }
        self.drop_agent(agent, changes);
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Forgets an agent that no node has served for its time to live, if it was last served when the orchestrator says. An agent
    /// that has a task or a command that has not ended stays known, and its time begins anew.
    ///
    /// Nothing that it did before can be taken for something that it does after it has come again. Its lease was over long
    /// before; the shard counts attachments for all agents together; its claims are judged by the epochs of the tasks; and
    /// its commands go to a home that is behind every one that a journal may remember.
    pub(super) fn forget_agent(&mut self, agent: &AgentId, idle_since: LogInstant, changes: &mut Changes) {
        let is_over = idle_since.plus_ms(self.head.limits.agent_ttl_ms) <= self.head.clock;
        if !is_over || !self.is_idle_since(agent, idle_since) {
            return;
        }
        let has_work = self.held_count(agent) > 0 || self.has_open_commands(agent);
        if has_work && !is_on(Mutant::AgentForgottenAtWork) {
            self.count_idle_anew(agent);
        } else {
            self.drop_agent(agent, changes);
            count_dropped(&mut self.head.dropped.agents, 1);
        }
    }

    fn drop_agent(&mut self, agent: &AgentId, changes: &mut Changes) {
        self.uncount(agent);
        if let Some(since) = self.agents.remove(agent).and_then(|record| record.forgettable_since()) {
            self.idle.remove(&(since, agent.clone()));
        }
        self.close_inbox(agent);
        if let Some(at) = self.changed_at.remove(agent) {
            self.by_change.remove(&(at, agent.clone()));
        }
        changes.record(self.head.clock, ChangeKind::AgentRemoved { agent: agent.clone() });
    }

    fn count_idle_anew(&mut self, agent: &AgentId) {
        if let Some(record) = self.agents.get(agent) {
            let record = AgentRecord { idle_since: self.head.clock, ..AgentRecord::clone(record) };
            self.set_agent(agent, record);
        }
    }

    /// The shard lost its clock, and cannot tell how long it had none: the time to live of each idle agent begins anew.
    pub(super) fn count_idle_agents_anew(&mut self) {
        let idle: Vec<AgentId> = self.idle.iter().map(|(_, agent)| agent.clone()).collect();
        idle.iter().for_each(|agent| self.count_idle_anew(agent));
    }

    pub(super) fn attach_agent(
        &mut self,
        agent: &AgentId,
        wish: &Wish<'_>,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        wish.lease.check_within(&self.head.limits)?;
        let known = self.agents.get(agent).and_then(|record| record.attachment);
        if let Some(known) = known.filter(|known| (known.node, known.session) != (wish.node, wish.session)) {
            return Err(elsewhere(agent, &known));
        }
        let starts_again = !self.agents.contains_key(agent) && is_on(Mutant::AttachmentsStartAgain);
        self.know_agent(agent, wish.role, false, changes)?;
        let (node, session) = (wish.node, wish.session);
        // The same run may still rely on the longer lease that it had.
        let lease = known.map_or(wish.lease, |known| known.lease.max(wish.lease));
        // Zero stands for none at the API.
        let attachment = AttachmentId(if starts_again { 0 } else { self.take_seq() } + 1);
        let attached = Attachment { id: attachment, node, session, lease, assigned: 0, since: self.head.clock };
        let registered = self.agents.get(agent).is_some_and(|record| record.registered);
        let (role, attached) = (wish.role.clone(), Some(attached));
        self.put_agent(agent, AgentRecord { role, attachment: attached, registered, idle_since: self.head.clock });
        self.note_attachment(agent);
        changes.record(self.head.clock, ChangeKind::AgentAttached { agent: agent.clone(), node, attachment });
        Ok(Receipt::Attached { agent: agent.clone(), attachment, lease })
    }

    pub(super) fn detach_agent(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        self.check_attachment(agent, attachment)?;
        self.end_attachment(agent, attachment, false, changes);
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Ends an attachment if it is still the one that is meant, and takes back everything that the agent holds.
    pub(super) fn end_attachment(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        expired: bool,
        changes: &mut Changes,
    ) {
        let Some(record) = self.agents.get(agent) else { return };
        if record.attachment.is_none_or(|known| known.id != attachment) {
            return;
        }
        let record = AgentRecord { attachment: None, idle_since: self.head.clock, ..AgentRecord::clone(record) };
        self.put_agent(agent, record);
        self.note_attachment(agent);
        changes.record(self.head.clock, ChangeKind::AgentDetached { agent: agent.clone(), attachment, expired });
        let cause = if expired { ReclaimCause::LeaseExpired } else { ReclaimCause::Detached };
        let held: Vec<TaskId> = self.held.get(agent).into_iter().flatten().copied().collect();
        for task in held {
            self.reclaim(task, agent, cause, changes);
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
        self.set_agent(agent, record);
        self.touch(agent);
    }

    /// Changes what is known of an agent, and nothing that anybody has to be told.
    pub(super) fn set_agent(&mut self, agent: &AgentId, record: AgentRecord) {
        let since = record.forgettable_since();
        self.uncount(agent);
        let before = self.agents.insert(agent.clone(), Arc::new(record));
        self.count_again(agent);
        if let Some(before) = before.and_then(|before| before.forgettable_since()) {
            self.idle.remove(&(before, agent.clone()));
        }
        if let Some(since) = since {
            self.idle.insert((since, agent.clone()));
        }
    }

    /// Notes that the attachment of an agent, or what it holds, changed.
    pub(super) fn touch(&mut self, agent: &AgentId) {
        if let Some(at) = self.changed_at.insert(agent.clone(), self.head.applying.index) {
            self.by_change.remove(&(at, agent.clone()));
        }
        self.by_change.insert((self.head.applying.index, agent.clone()));
    }

    /// The role of an agent; one that never registered has one too.
    pub(super) fn role_of(&self, agent: &AgentId) -> Role {
        self.agents.get(agent).map_or_else(Role::unregistered, |record| record.role.clone())
    }

    pub(super) fn held_count(&self, agent: &AgentId) -> u32 {
        self.held.get(agent).map_or(0, |tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn hold(&mut self, agent: &AgentId, task: TaskId) {
        self.uncount(agent);
        self.held.entry(agent.clone()).or_default().insert(task);
        self.count_again(agent);
        self.touch_if_known(agent);
    }

    pub(super) fn release(&mut self, agent: &AgentId, task: TaskId) {
        self.uncount(agent);
        if let Some(tasks) = self.held.get_mut(agent) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.held.remove(agent);
            }
        }
        self.count_again(agent);
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
