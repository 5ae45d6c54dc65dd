//! Agents, which node serves each, and since when no node does.

mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::agent::{AgentChange, AgentOp, AgentRecord, AgentRefusal, Attachment, Role};
use skep_protocol::ids::{AttachmentId, NodeId, SessionId};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::text::{AgentId, Capability, RoleName};
use skep_protocol::time::LogInstant;

use crate::state::changes::{Cx, count_dropped};
use serving::Serving;

/// How an agent wants to be attached.
struct Wish<'a> {
    role: &'a Role,
    node: NodeId,
    session: SessionId,
    lease: LeaseTerms,
}

/// All agents. The tasks know what an agent holds: a caller that changes what is known of an agent says how many tasks
/// the agent holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agents {
    records: OrdMap<AgentId, Arc<AgentRecord>>,
    /// How many agents nodes serve, by the capabilities of these agents.
    serving: OrdMap<BTreeSet<Capability>, Serving>,
    /// Agents by the last entry that changed their attachment or their claims; the orchestrator reads this to tell
    /// nodes.
    by_change: OrdSet<(u64, AgentId)>,
    changed_at: OrdMap<AgentId, u64>,
    /// Agents that no node serves and no operator registered, by when that began.
    idle: OrdSet<(LogInstant, AgentId)>,
}

impl Agents {
    /// How many agents are known.
    pub(crate) fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// An agent, if it is known.
    pub(crate) fn get(&self, id: &AgentId) -> Option<&AgentRecord> {
        self.records.get(id).map(AsRef::as_ref)
    }

    pub(crate) fn is_known(&self, id: &AgentId) -> bool {
        self.records.contains_key(id)
    }

    /// The attachment of an agent; none if no node serves the agent.
    pub(crate) fn attachment(&self, id: &AgentId) -> Option<Attachment> {
        self.records.get(id).and_then(|record| record.attachment)
    }

    /// All agents, in the order of their ids.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = (&AgentId, &AgentRecord)> {
        self.records.iter().map(|(id, record)| (id, record.as_ref()))
    }

    /// The agents with ids after this one, in the order of their ids.
    pub(crate) fn after(&self, after: Option<AgentId>) -> impl Iterator<Item = (&AgentId, &AgentRecord)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.records.range((from, Unbounded)).map(|(id, record)| (id, record.as_ref()))
    }

    /// Agents whose attachment or claims were changed by entries after an index.
    pub(crate) fn changed_after(&self, index: Option<u64>) -> impl Iterator<Item = &AgentId> {
        let first = AgentId::first();
        let from = index.map_or((0, first.clone()), |index| (index.saturating_add(1), first));
        self.by_change.range(from..).map(|(_, agent)| agent)
    }

    /// Agents that no node serves and no operator registered, and since when; the longest idle first.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (LogInstant, &AgentId)> {
        self.idle.iter().map(|(since, agent)| (*since, agent))
    }

    /// Whether no node has served an agent since this instant.
    pub(crate) fn is_idle_since(&self, agent: &AgentId, since: LogInstant) -> bool {
        self.get(agent).and_then(AgentRecord::forgettable_since) == Some(since)
    }

    /// How many agents nodes serve, by the capabilities of these agents.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (&BTreeSet<Capability>, &Serving)> {
        self.serving.iter()
    }

    /// The role of an agent; an agent that never registered has one too.
    pub(crate) fn role_of(&self, agent: &AgentId) -> Role {
        self.records.get(agent).map_or_else(Role::unregistered, |record| record.role.clone())
    }

    /// How many agents there are of each role and set of capabilities. There are few such kinds.
    pub(crate) fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::new();
        for record in self.records.values() {
            let kind = (record.role.name.clone(), record.role.capabilities.clone());
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    pub(crate) fn check_attachment(&self, agent: &AgentId, attachment: AttachmentId) -> Result<(), Refusal> {
        if self.attachment(agent).is_some_and(|known| known.id == attachment) {
            return Ok(());
        }
        Err(AgentRefusal::NotAttached { agent: agent.clone(), attachment }.into())
    }

    /// Applies an operation to an agent that holds this many tasks.
    pub(crate) fn apply(&mut self, op: &AgentOp, held: u32, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        match op {
            AgentOp::Register { agent, role } => self.register(agent, role, held, cx),
            AgentOp::Remove { agent } => self.remove(agent, held, cx),
            AgentOp::Attach { agent, role, node, session, lease } => {
                let wish = Wish { role, node: *node, session: *session, lease: *lease };
                self.attach(agent, &wish, held, cx)
            }
            AgentOp::Detach { agent, attachment } => self.detach(agent, *attachment, held, cx),
        }
    }

    /// Registers an agent: it stays known, whether a node serves it or not.
    fn register(&mut self, agent: &AgentId, role: &Role, held: u32, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        self.know(agent, role, true, held, cx)?;
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Makes an agent known, or changes its role. `registered`: the agent stays known, whether a node serves it or not.
    fn know(
        &mut self,
        agent: &AgentId,
        role: &Role,
        registered: bool,
        held: u32,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        role.check_within(cx.limits)?;
        let known = self.records.get(agent).cloned();
        if known.is_none() && self.count() >= cx.limits.agents_max {
            return Err(Refusal::Full { what: ShardFullOf::Agents, count: self.count() });
        }
        let is_news = known.as_ref().is_none_or(|known| known.role != *role);
        let record = match &known {
            Some(known) => AgentRecord {
                role: role.clone(),
                registered: registered || known.registered,
                ..AgentRecord::clone(known)
            },
            None => AgentRecord { role: role.clone(), attachment: None, registered, idle_since: cx.now },
        };
        if known.is_none_or(|known| *known != record) {
            self.put(agent, record, held, cx.index);
        }
        if is_news {
            cx.record((agent.clone(), AgentChange::Registered { role: role.clone() }));
        }
        Ok(())
    }

    /// Removes an agent on request. Refused while the agent holds tasks, or a node serves it.
    fn remove(&mut self, agent: &AgentId, held: u32, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        let Some(record) = self.records.get(agent) else { return Err(AgentRefusal::NoSuchAgent(agent.clone()).into()) };
        let max = record.role.max_concurrent;
        if held > 0 {
            return Err(AgentRefusal::Busy { agent: agent.clone(), held, max }.into());
        }
        if let Some(attachment) = &record.attachment {
            return Err(elsewhere(agent, attachment));
        }
        self.take_out(agent, cx);
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Forgets an agent that no node has served for its time to live, if the agent was last served at the instant that
    /// the orchestrator names; returns whether the agent is forgotten. An agent that has a task, or a command that has
    /// not ended, stays known, and its time to live begins anew.
    ///
    /// Nothing that the agent did before can be taken for something that it does after it returns. Its lease was over
    /// long before; the shard counts attachments over all agents; the epochs of the tasks judge its claims; and its
    /// commands go to a home epoch that is higher than every one that a journal may remember.
    pub(crate) fn forget(&mut self, agent: &AgentId, idle_since: LogInstant, has_work: bool, cx: &mut Cx<'_>) -> bool {
        let is_over = idle_since.plus_ms(cx.limits.agent_ttl_ms) <= cx.now;
        if !is_over || !self.is_idle_since(agent, idle_since) {
            return false;
        }
        if has_work && !is_on(Mutant::AgentForgottenAtWork) {
            self.count_idle_anew(agent, cx.now);
            return false;
        }
        self.take_out(agent, cx);
        count_dropped(&mut cx.dropped.agents, 1);
        true
    }

    /// Removes an agent that no node serves.
    fn take_out(&mut self, agent: &AgentId, cx: &mut Cx<'_>) {
        if let Some(since) = self.records.remove(agent).and_then(|record| record.forgettable_since()) {
            self.idle.remove(&(since, agent.clone()));
        }
        if let Some(at) = self.changed_at.remove(agent) {
            self.by_change.remove(&(at, agent.clone()));
        }
        cx.record((agent.clone(), AgentChange::Removed));
    }

    /// Begins the time to live of an agent that no node serves anew.
    fn count_idle_anew(&mut self, agent: &AgentId, now: LogInstant) {
        if let Some(record) = self.records.get(agent) {
            let record = AgentRecord { idle_since: now, ..AgentRecord::clone(record) };
            // The agent is not counted among the served agents, whatever it holds.
            self.set(agent, record, 0);
        }
    }

    /// The shard lost its clock and cannot tell for how long: the time to live of each idle agent begins anew.
    pub(crate) fn count_all_idle_anew(&mut self, now: LogInstant) {
        let idle: Vec<AgentId> = self.idle.iter().map(|(_, agent)| agent.clone()).collect();
        idle.iter().for_each(|agent| self.count_idle_anew(agent, now));
    }

    /// Attaches an agent to a node, or renews its attachment there.
    fn attach(&mut self, agent: &AgentId, wish: &Wish<'_>, held: u32, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        wish.lease.check_within(cx.limits)?;
        let known = self.attachment(agent);
        if let Some(known) = known.filter(|known| (known.node, known.session) != (wish.node, wish.session)) {
            return Err(elsewhere(agent, &known));
        }
        let starts_again = !self.is_known(agent) && is_on(Mutant::AttachmentsStartAgain);
        self.know(agent, wish.role, false, held, cx)?;
        let (node, session) = (wish.node, wish.session);
        // The same session may still rely on its earlier, longer lease.
        let lease = known.map_or(wish.lease, |known| known.lease.max(wish.lease));
        // In the API, zero stands for no attachment.
        let attachment = AttachmentId(if starts_again { 0 } else { cx.take_seq() } + 1);
        let attached = Attachment { id: attachment, node, session, lease, assigned: 0, since: cx.now };
        let registered = self.get(agent).is_some_and(|record| record.registered);
        let (role, attached) = (wish.role.clone(), Some(attached));
        let record = AgentRecord { role, attachment: attached, registered, idle_since: cx.now };
        self.put(agent, record, held, cx.index);
        cx.record((agent.clone(), AgentChange::Attached { node, attachment }));
        Ok(Receipt::Attached { agent: agent.clone(), attachment, lease })
    }

    /// Ends the attachment of an agent that has stopped.
    fn detach(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        held: u32,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        self.check_attachment(agent, attachment)?;
        self.end_attachment(agent, attachment, false, held, cx);
        Ok(Receipt::Agent(agent.clone()))
    }

    /// Ends an attachment if it is still the one that is meant; returns whether it was.
    pub(crate) fn end_attachment(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        expired: bool,
        held: u32,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(record) = self.records.get(agent) else { return false };
        if record.attachment.is_none_or(|known| known.id != attachment) {
            return false;
        }
        let record = AgentRecord { attachment: None, idle_since: cx.now, ..AgentRecord::clone(record) };
        self.put(agent, record, held, cx.index);
        cx.record((agent.clone(), AgentChange::Detached { attachment, expired }));
        true
    }

    /// Counts one more task that was assigned to an agent against a credit.
    pub(crate) fn count_assigned(&mut self, agent: &AgentId, held: u32, index: u64) {
        let Some(record) = self.records.get(agent) else { return };
        let mut record = AgentRecord::clone(record);
        if let Some(attachment) = &mut record.attachment {
            attachment.assigned += 1;
        }
        self.put(agent, record, held, index);
    }

    /// Notes that the entry at this index changed how many tasks an agent holds, or which. The agent need not be known.
    pub(crate) fn note_held(&mut self, agent: &AgentId, before: u32, held: u32, index: u64) {
        self.uncount(agent, before);
        self.count_again(agent, held);
        if self.changed_at.contains_key(agent) {
            self.touch(agent, index);
        }
    }

    /// Restores an agent as it was after the entry at this index.
    pub(crate) fn restore(&mut self, agent: &AgentId, record: AgentRecord, held: u32, index: u64) {
        self.put(agent, record, held, index);
    }

    fn put(&mut self, agent: &AgentId, record: AgentRecord, held: u32, index: u64) {
        self.set(agent, record, held);
        self.touch(agent, index);
    }

    /// Changes what is known of an agent, where no node has to be told.
    fn set(&mut self, agent: &AgentId, record: AgentRecord, held: u32) {
        let since = record.forgettable_since();
        self.uncount(agent, held);
        let before = self.records.insert(agent.clone(), Arc::new(record));
        self.count_again(agent, held);
        if let Some(before) = before.and_then(|before| before.forgettable_since()) {
            self.idle.remove(&(before, agent.clone()));
        }
        if let Some(since) = since {
            self.idle.insert((since, agent.clone()));
        }
    }

    /// Notes that the attachment of an agent, or what it holds, changed.
    fn touch(&mut self, agent: &AgentId, index: u64) {
        if let Some(at) = self.changed_at.insert(agent.clone(), index) {
            self.by_change.remove(&(at, agent.clone()));
        }
        self.by_change.insert((index, agent.clone()));
    }
}

/// Agents by role and capabilities.
pub(crate) type Kinds = BTreeMap<(RoleName, BTreeSet<Capability>), u32>;

/// Agents of other roles that share a capability with this role.
pub(crate) fn overlaps(kinds: &Kinds, role: &Role) -> u32 {
    let shares = |capabilities: &BTreeSet<Capability>| !capabilities.is_disjoint(&role.capabilities);
    let others = kinds.iter().filter(|((name, capabilities), _)| *name != role.name && shares(capabilities));
    others.map(|(_, count)| *count).sum()
}

fn elsewhere(agent: &AgentId, attachment: &Attachment) -> Refusal {
    let (node, lease_ms) = (attachment.node, attachment.lease.ttl_ms);
    AgentRefusal::Elsewhere { agent: agent.clone(), node, lease_ms }.into()
}
