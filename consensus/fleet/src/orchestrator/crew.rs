//! Those who could have work now.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::AttachmentId;
use skep_protocol::position::Position;
use skep_protocol::text::{AgentId, Capability};

#[cfg(test)]
use crate::state::looks;

/// When an agent last got a task, and which it is: who waited longest comes first.
pub(super) type Turn = (u64, AgentId);

/// How much more work an agent takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Under which attachment.
    pub(super) attachment: AttachmentId,
    /// How many tasks; at least one.
    pub(super) free: u64,
    /// How many it was given before.
    pub(super) nth: u64,
    /// Where it is.
    pub(super) place: Option<Position>,
}

/// Agents that have room, by what they can do and in their turns: agents that can do the same are one to a task, until one of
/// them is given it.
#[derive(Debug, Default)]
pub(super) struct Crew<'a> {
    kinds: BTreeMap<&'a BTreeSet<Capability>, BTreeMap<Turn, Capacity>>,
    members: BTreeMap<AgentId, (u64, &'a BTreeSet<Capability>)>,
}

impl<'a> Crew<'a> {
    /// Takes in an agent that last got a task in some turn.
    pub(super) fn add(&mut self, agent: AgentId, turn: u64, capabilities: &'a BTreeSet<Capability>, room: Capacity) {
        self.members.insert(agent.clone(), (turn, capabilities));
        self.kinds.entry(capabilities).or_default().insert((turn, agent), room);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All of them, and what each can do.
    pub(super) fn agents(&self) -> impl Iterator<Item = (&AgentId, &'a BTreeSet<Capability>)> {
        self.members.iter().map(|(agent, (_, capabilities))| (agent, *capabilities))
    }

    /// Whether one of them is this agent, and can do what requires this.
    pub(super) fn can(&self, agent: &AgentId, required: &BTreeSet<Capability>) -> bool {
        self.members.get(agent).is_some_and(|(_, capabilities)| required.is_subset(capabilities))
    }

    /// Those who can do what requires this, in their turns, for each kind of them.
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
