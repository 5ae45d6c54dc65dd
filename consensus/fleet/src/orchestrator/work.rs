//! Work for those who asked for it.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::agent::{AgentRecord, Position};
use skep_protocol::entry::Decision;
use skep_protocol::heartbeat::AgentHeartbeat;
use skep_protocol::ids::{AttachmentId, TaskId};
use skep_protocol::task::{Task, TaskState};
use skep_protocol::text::{AgentId, Capability};
use skep_protocol::time::LogInstant;

use super::leases::Leases;
use super::policy::{Allocate, Allocator, Candidate, Policy};
use super::{DECISIONS_PER_PROPOSAL_MAX, RETRY_AFTER_MS};
use crate::state::FleetState;

/// What an agent said last.
#[derive(Clone, Copy, Debug)]
struct Wants {
    attachment: AttachmentId,
    credit_limit: u64,
    place: Option<Position>,
    heard: LogInstant,
}

/// Matches pending tasks with agents that asked for work.
///
/// A credit is an upper bound of the tasks ever assigned under an attachment, and the state counts those: whatever is
/// lost or repeated on the way, nobody is given more than was asked for.
#[derive(Clone, Debug)]
pub(super) struct Work {
    allocator: Allocator,
    wants: BTreeMap<AgentId, Wants>,
    /// Agents that may have room; looked at again before anything is assigned.
    hungry: BTreeSet<AgentId>,
    /// Tasks in a proposal of which nothing was heard yet.
    proposed: BTreeMap<TaskId, (AgentId, LogInstant)>,
    /// Nothing could be assigned when it was last tried, nor can it before one of these changes.
    fruitless: Option<Fruitless>,
}

/// What work stood still on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fruitless {
    offered_at: u64,
    until: Option<LogInstant>,
}

impl Work {
    pub(super) fn new(policy: Policy) -> Self {
        let (wants, hungry, proposed) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { allocator: Allocator::new(policy), wants, hungry, proposed, fruitless: None }
    }

    /// An agent said how much it wants.
    pub(super) fn hear(&mut self, said: &AgentHeartbeat, now: LogInstant) {
        let mut wants =
            Wants { attachment: said.attachment, credit_limit: said.credit_limit, place: said.place, heard: now };
        let known = self.wants.get(&said.agent).copied();
        if let Some(known) = known.filter(|known| known.attachment >= said.attachment) {
            if known.attachment > said.attachment {
                return;
            }
            // A heartbeat that was overtaken takes nothing back.
            wants.credit_limit = wants.credit_limit.max(known.credit_limit);
        }
        let same = |known: Wants| (known.credit_limit, known.place) == (wants.credit_limit, wants.place);
        let news = !known.is_some_and(|known| known.attachment == wants.attachment && same(known));
        self.wants.insert(said.agent.clone(), wants);
        // One that was silent for too long was let go, and counts again.
        if self.hungry.insert(said.agent.clone()) || news {
            self.fruitless = None;
        }
    }

    /// What an agent holds changed, or how it is attached.
    pub(super) fn note(&mut self, agent: &AgentId) {
        if self.wants.contains_key(agent) {
            self.hungry.insert(agent.clone());
            self.fruitless = None;
        }
    }

    /// Nobody serves an agent any more.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.wants.remove(agent);
        self.hungry.remove(agent);
        self.allocator.forget(agent);
    }

    /// The last proposal has been applied, or nobody knows.
    pub(super) fn proposal_ended(&mut self, applied: bool, now: LogInstant) {
        self.proposed.retain(|_, (_, at)| !applied && now.since_ms(*at) < RETRY_AFTER_MS);
        self.fruitless = None;
    }

    /// How many more tasks an agent may be assigned, and how many it was.
    fn room(&self, state: &FleetState, leases: &Leases, agent: &AgentId, now: LogInstant) -> Option<(u64, u64)> {
        let (wants, record) = (self.wants.get(agent)?, state.agent(agent)?);
        let attachment = record.attachment.filter(|known| known.id == wants.attachment)?;
        // One that was not heard of for half its lease may be gone: its credits wait until it is heard again.
        let fresh = now.since_ms(wants.heard) <= attachment.lease.ttl_ms / 2;
        if !fresh || !leases.is_live(agent, attachment.id) {
            return None;
        }
        let held = state.held_by(agent).count() as u64;
        let room = u64::from(record.role.max_concurrent).saturating_sub(held);
        let credits = wants.credit_limit.saturating_sub(attachment.assigned);
        let free = room.min(credits);
        (free > 0).then_some((free, attachment.assigned))
    }

    /// What to assign at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, leases: &Leases, now: LogInstant) -> Vec<Decision> {
        let stands = |f: &Fruitless| f.offered_at == state.offered_at() && f.until.is_none_or(|until| now < until);
        if self.fruitless.as_ref().is_some_and(stands) {
            return Vec::new();
        }
        let decisions = self.assign(state, leases, now);
        let until = [state.next_gate(now), self.poll_timeout()].into_iter().flatten().min();
        self.fruitless = decisions.is_empty().then(|| Fruitless { offered_at: state.offered_at(), until });
        decisions
    }

    fn assign(&mut self, state: &FleetState, leases: &Leases, now: LogInstant) -> Vec<Decision> {
        self.proposed.retain(|_, (_, at)| now.since_ms(*at) < RETRY_AFTER_MS);
        let mut rooms = BTreeMap::new();
        let hungry = std::mem::take(&mut self.hungry);
        for agent in hungry {
            if let Some((free, nth)) = self.room(state, leases, &agent, now) {
                let proposed = self.proposed.values().filter(|(to, _)| *to == agent).count() as u64;
                if free > proposed {
                    rooms.insert(agent.clone(), (free - proposed, nth + proposed));
                }
                self.hungry.insert(agent);
            }
        }
        let mut decisions = Vec::new();
        if rooms.is_empty() {
            return decisions;
        }
        let roles = rooms.keys().filter_map(|id| state.agent(id));
        let offered: BTreeSet<&BTreeSet<Capability>> = roles.map(|record| &record.role.capabilities).collect();
        let mut claimable = state.claimable(now, |required| offered.iter().any(|some| required.is_subset(some)));
        while let Some(task) = claimable.next() {
            if rooms.is_empty() || decisions.len() == DECISIONS_PER_PROPOSAL_MAX {
                break;
            }
            if self.proposed.contains_key(&task.id) {
                continue;
            }
            let able = rooms.keys().filter_map(|id| state.agent(id).map(|record| (id, record)));
            let Some(agent) = self.choose(task, able, now).cloned() else {
                // What nobody with room can do now, nobody can later in this turn: room only shrinks.
                if matches!(&task.state, TaskState::Pending { kept_for: None, .. }) {
                    claimable.pass_over(&task.spec.required);
                }
                continue;
            };
            let (Some((free, nth)), Some(wants)) = (rooms.remove(&agent), self.wants.get(&agent)) else { continue };
            let attachment = wants.attachment;
            decisions.push(Decision::AssignTask { task: task.id, agent: agent.clone(), attachment, nth });
            self.proposed.insert(task.id, (agent.clone(), now));
            self.allocator.note(&agent);
            if free > 1 {
                rooms.insert(agent, (free - 1, nth + 1));
            }
        }
        decisions
    }

    /// Who gets a task: its former holder, if it is kept for it, else whom the policy chooses.
    fn choose<'a>(
        &self,
        task: &Task,
        able: impl Iterator<Item = (&'a AgentId, &'a AgentRecord)>,
        now: LogInstant,
    ) -> Option<&'a AgentId> {
        let TaskState::Pending { kept_for, .. } = &task.state else { return None };
        let kept = kept_for.as_ref().filter(|kept| kept.until > now);
        let able: Vec<Candidate<'a>> = able
            .filter(|(_, record)| task.spec.required.is_subset(&record.role.capabilities))
            .map(|(agent, _)| Candidate { agent, place: self.wants.get(agent).and_then(|wants| wants.place) })
            .collect();
        let original = kept.and_then(|kept| able.iter().find(|c| *c.agent == kept.agent)).map(|c| c.agent);
        match (original, kept) {
            (Some(original), _) => Some(original),
            (None, Some(kept)) if kept.exclusive => None,
            (None, _) => self.allocator.choose(task, &able),
        }
    }

    /// When a proposal of which nothing was heard is given up.
    pub(super) fn poll_timeout(&self) -> Option<LogInstant> {
        self.proposed.values().map(|(_, at)| at.plus_ms(RETRY_AFTER_MS)).min()
    }

    /// Whether anybody asked for work.
    pub(super) fn is_anybody_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }
}
