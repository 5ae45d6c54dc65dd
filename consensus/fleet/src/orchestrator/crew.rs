//! Agents that may get work at this instant.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::AttachmentId;
use skep_protocol::position::Position;
use skep_protocol::text::{AgentId, Capability};

#[cfg(test)]
use crate::state::looks;

/// The turn in which an agent last got a task, and the agent: the agent that waited longest comes first.
pub(super) type Turn = (u64, AgentId);

/// How much more work an agent takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// The attachment of the agent.
    pub(super) attachment: AttachmentId,
    /// How many more tasks the agent takes; at least one.
    pub(super) free: u64,
    /// How many tasks the agent was given before under this attachment.
    pub(super) nth: u64,
    /// Where the agent is; none if nobody knows.
    pub(super) place: Option<Position>,
}

/// Agents that have room, grouped by what they can do and ordered by their turns. Agents of one group are equal to a
/// task, until one of them is given the task.
#[derive(Debug, Default)]
pub(super) struct Crew<'a> {
    kinds: BTreeMap<&'a BTreeSet<Capability>, BTreeMap<Turn, Capacity>>,
    members: BTreeMap<AgentId, (u64, &'a BTreeSet<Capability>)>,
}

impl<'a> Crew<'a> {
    /// Adds an agent that last got a task in this turn.
    pub(super) fn add(&mut self, agent: AgentId, turn: u64, capabilities: &'a BTreeSet<Capability>, room: Capacity) {
        self.members.insert(agent.clone(), (turn, capabilities));
        self.kinds.entry(capabilities).or_default().insert((turn, agent), room);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All agents of the crew, and what each can do.
    pub(super) fn agents(&self) -> impl Iterator<Item = (&AgentId, &'a BTreeSet<Capability>)> {
        self.members.iter().map(|(agent, (_, capabilities))| (agent, *capabilities))
    }

    /// Whether this agent is in the crew and has all of these capabilities.
    pub(super) fn can(&self, agent: &AgentId, required: &BTreeSet<Capability>) -> bool {
        self.members.get(agent).is_some_and(|(_, capabilities)| required.is_subset(capabilities))
    }

    /// For each kind of agent that has all of these capabilities: its agents in their turns.
    pub(super) fn able(
        &self,
        required: &BTreeSet<Capability>,
    ) -> impl Iterator<Item = impl Iterator<Item = (&Turn, &Capacity)>> {
        let able = self.kinds.iter().filter(move |(capabilities, _)| required.is_subset(capabilities));
        able.map(|(_, turns)| {
            turns.iter().inspect(|_| {
                #[cfg(test)]
                looks::count();
            })
        })
    }

    /// Gives an agent a task as turn number `turn`. Returns the room that the agent had before; none if the agent is not in the
    /// crew.
    pub(super) fn give(&mut self, agent: &AgentId, turn: u64) -> Option<Capacity> {
        let (before, capabilities) = self.members.remove(agent)?;
        let turns = self.kinds.get_mut(capabilities)?;
        let room = turns.remove(&(before, agent.clone()))?;
        if turns.is_empty() {
            self.kinds.remove(capabilities);
        }
        if room.free > 1 {
            let rest = Capacity { free: room.free - 1, nth: room.nth + 1, ..room };
            self.add(agent.clone(), turn, capabilities, rest);
        }
        Some(room)
    }
}
