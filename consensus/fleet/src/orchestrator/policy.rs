//! How the orchestrator chooses the agent that gets a task.

use std::collections::BTreeMap;

use skep_protocol::position::Position;
use skep_protocol::task::Task;
use skep_protocol::text::AgentId;

use super::crew::Crew;

/// How work is allocated. Every policy sees only agents that asked for work, can do the task and have room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In turns: the agent that has waited longest since its last task.
    #[default]
    RoundRobin,
    /// The agent that is nearest to where the task begins; in turns where positions are unknown or equal.
    Nearest,
}

/// When each agent last got a task, and the policy that overrides the turns.
#[derive(Clone, Debug)]
pub(super) struct Allocator {
    policy: Policy,
    /// Counts assignments.
    turn: u64,
    /// The turn in which each agent last got a task.
    last: BTreeMap<AgentId, u64>,
}

impl Allocator {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, turn: 0, last: BTreeMap::new() }
    }

    /// The agent of a crew that gets a task; none if no agent of the crew can do it. If the position does not count,
    /// this looks at one agent of each kind: all agents of a kind can do the same.
    pub(super) fn choose(&self, task: &Task, crew: &Crew<'_>) -> Option<AgentId> {
        let able = crew.able(&task.spec.required);
        let next = match (self.policy, task.spec.place) {
            (Policy::Nearest, Some(from)) => {
                able.flatten().min_by_key(|(turn, room)| (distance_mm(from, room.place), *turn))
            }
            (Policy::Nearest, None) | (Policy::RoundRobin, _) => {
                able.filter_map(|mut turns| turns.next()).min_by_key(|of| of.0)
            }
        };
        next.map(|((_, agent), _)| agent.clone())
    }

    /// The turn in which an agent last got a task.
    pub(super) fn turn_of(&self, agent: &AgentId) -> u64 {
        self.last.get(agent).copied().unwrap_or(0)
    }

    /// Notes that an agent got a task, and returns the turn of that.
    pub(super) fn note(&mut self, agent: &AgentId) -> u64 {
        self.turn += 1;
        self.last.insert(agent.clone(), self.turn);
        self.turn
    }

    /// How many agents are remembered.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.last.len()
    }

    /// Forgets an agent that is gone.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.last.remove(agent);
    }
}

fn distance_mm(from: Position, to: Option<Position>) -> u64 {
    to.map_or(u64::MAX, |to| from.distance_mm(to))
}
