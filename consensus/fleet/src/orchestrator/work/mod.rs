//! Work for the agents that asked for it.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::entry::Decision;
use skep_protocol::heartbeat::AgentHeartbeat;
use skep_protocol::ids::{AttachmentId, TaskId};
use skep_protocol::position::Position;
use skep_protocol::task::{Task, TaskState};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::crew::{Capacity, Crew};
use super::leases::Leases;
use super::policy::{Allocator, Policy};
use super::{DECISIONS_PER_PROPOSAL_MAX, RETRY_AFTER_MS};
use crate::state::FleetState;
#[cfg(test)]
use crate::state::looks;

/// What the node of an agent said last.
#[derive(Clone, Copy, Debug)]
struct Wants {
    attachment: AttachmentId,
    credit_limit: u64,
    place: Option<Position>,
    heard: LogInstant,
}

/// Matches pending tasks with agents that asked for work.
///
/// A credit is an upper bound of the tasks ever assigned under an attachment, and the state counts those. So no agent
/// is given more than it asked for, whatever is lost or repeated on the network.
#[derive(Clone, Debug)]
pub(super) struct Work {
    allocator: Allocator,
    wants: BTreeMap<AgentId, Wants>,
    /// Agents that may have room; each is checked again before a task is assigned to it.
    hungry: BTreeSet<AgentId>,
    /// Tasks in proposals whose outcome is not known yet.
    proposed: BTreeMap<TaskId, (AgentId, LogInstant)>,
    /// What held when nothing could be assigned at the last attempt; nothing can be before a part of it changes.
    fruitless: Option<Fruitless>,
}

/// The state in which no task could be assigned.
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

    /// An agent said how many tasks it wants.
    pub(super) fn hear(&mut self, said: &AgentHeartbeat, now: LogInstant) {
        let mut wants =
            Wants { attachment: said.attachment, credit_limit: said.credit_limit, place: said.place, heard: now };
        let known = self.wants.get(&said.agent).copied();
        if let Some(known) = known.filter(|known| known.attachment >= said.attachment) {
            if known.attachment > said.attachment {
                return;
            }
            // A heartbeat that arrives late takes nothing back.
            wants.credit_limit = wants.credit_limit.max(known.credit_limit);
        }
        // The position of an agent decides which task it is given, and not whether there is a task for it.
        let same = |known: Wants| (known.attachment, known.credit_limit) == (wants.attachment, wants.credit_limit);
        let news = !known.is_some_and(same);
        self.wants.insert(said.agent.clone(), wants);
        // An agent that was silent for too long was dropped, and counts again.
        if self.hungry.insert(said.agent.clone()) || news {
            self.fruitless = None;
        }
    }

    /// Notes that what an agent holds, or its attachment, changed.
    pub(super) fn note(&mut self, agent: &AgentId) {
        if self.wants.contains_key(agent) {
            self.hungry.insert(agent.clone());
            self.fruitless = None;
        }
    }

    /// Forgets an agent that no node serves.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.wants.remove(agent);
        self.hungry.remove(agent);
        self.allocator.forget(agent);
    }

    /// The last proposal was applied, or its outcome is unknown.
    pub(super) fn proposal_ended(&mut self, applied: bool, now: LogInstant) {
        self.proposed.retain(|_, (_, at)| !applied && now.since_ms(*at) < RETRY_AFTER_MS);
        self.fruitless = None;
    }

    /// How many more tasks an agent may be assigned; none if it may be assigned no task.
    fn room(&self, state: &FleetState, leases: &Leases, agent: &AgentId, now: LogInstant) -> Option<Capacity> {
        #[cfg(test)]
        looks::count();
        let (wants, record) = (self.wants.get(agent)?, state.agent(agent)?);
        let attachment = record.attachment.filter(|known| known.id == wants.attachment)?;
        // An agent that was silent for half its lease may be gone: its credits wait until its node reports it again.
        let fresh = now.since_ms(wants.heard) <= attachment.lease.ttl_ms / 2;
        if !fresh || !leases.is_live(agent, attachment.id) {
            return None;
        }
        let held = state.held_by(agent).count() as u64;
        let room = u64::from(record.role.max_concurrent).saturating_sub(held);
        let credits = wants.credit_limit.saturating_sub(attachment.assigned);
        let free = room.min(credits);
        let (attachment, nth, place) = (attachment.id, attachment.assigned, wants.place);
        (free > 0).then_some(Capacity { attachment, free, nth, place })
    }

    /// What to assign at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, leases: &Leases, now: LogInstant) -> Vec<Decision> {
        self.proposed.retain(|_, (_, at)| now.since_ms(*at) < RETRY_AFTER_MS);
        let stands = |f: &Fruitless| f.offered_at == state.offered_at() && f.until.is_none_or(|until| now < until);
        if state.is_nothing_pending() || self.fruitless.as_ref().is_some_and(stands) {
            return Vec::new();
        }
        let decisions = self.assign(state, leases, now);
        let until = [state.next_gate(now), self.poll_timeout()].into_iter().flatten().min();
        self.fruitless = decisions.is_empty().then(|| Fruitless { offered_at: state.offered_at(), until });
        decisions
    }

    /// The hungry agents that have room, after the tasks in proposals whose outcome is not known yet.
    fn crew<'a>(&mut self, state: &'a FleetState, leases: &Leases, now: LogInstant) -> Crew<'a> {
        let mut on_their_way: BTreeMap<AgentId, u64> = BTreeMap::new();
        for (agent, _) in self.proposed.values() {
            *on_their_way.entry(agent.clone()).or_default() += 1;
        }
        let mut crew = Crew::default();
        for agent in std::mem::take(&mut self.hungry) {
            let (room, record) = (self.room(state, leases, &agent, now), state.agent(&agent));
            let (Some(room), Some(record)) = (room, record) else { continue };
            let proposed = on_their_way.get(&agent).copied().unwrap_or(0);
            if room.free > proposed {
                let room = Capacity { free: room.free - proposed, nth: room.nth + proposed, ..room };
                let turn = self.allocator.turn_of(&agent);
                crew.add(agent.clone(), turn, &record.role.capabilities, room);
            }
            self.hungry.insert(agent);
        }
        crew
    }

    fn assign(&mut self, state: &FleetState, leases: &Leases, now: LogInstant) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut crew = self.crew(state, leases, now);
        if crew.is_empty() {
            return decisions;
        }
        let mut claimable = state.claimable(now, crew.agents());
        while !crew.is_empty() && decisions.len() < DECISIONS_PER_PROPOSAL_MAX {
            let Some(task) = claimable.next() else { break };
            if self.proposed.contains_key(&task.id) {
                continue;
            }
            let Some(agent) = self.choose(task, &crew, now) else {
                // A task that no agent with room can do at this point stays so for the rest of this turn: room only
                // shrinks.
                claimable.pass_over(&task.spec.required);
                continue;
            };
            let Some(room) = crew.give(&agent, self.allocator.note(&agent)) else { continue };
            let Capacity { attachment, free, nth, .. } = room;
            decisions.push(Decision::AssignTask { task: task.id, agent: agent.clone(), attachment, nth });
            if free == 1 {
                claimable.has_enough(&agent);
            }
            self.proposed.insert(task.id, (agent, now));
        }
        decisions
    }

    /// The agent that gets a task: its former holder if the task is kept for that agent, else the choice of the policy.
    fn choose(&self, task: &Task, crew: &Crew<'_>, now: LogInstant) -> Option<AgentId> {
        let TaskState::Pending { kept_for, .. } = &task.state else { return None };
        match kept_for.as_ref().filter(|kept| kept.until > now) {
            Some(kept) if crew.can(&kept.agent, &task.spec.required) => Some(kept.agent.clone()),
            Some(kept) if kept.exclusive => None,
            Some(_) | None => self.allocator.choose(task, crew),
        }
    }

    /// When a proposal whose outcome is not known is given up.
    pub(super) fn poll_timeout(&self) -> Option<LogInstant> {
        self.proposed.values().map(|(_, at)| at.plus_ms(RETRY_AFTER_MS)).min()
    }

    /// How many entries are kept of agents.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.wants.len() + self.hungry.len() + self.proposed.len() + self.allocator.kept()
    }

    /// Whether any agent asked for work.
    pub(super) fn is_anybody_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }
}

#[cfg(test)]
mod tests;
