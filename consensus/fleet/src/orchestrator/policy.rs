//! Who gets a task.

use std::collections::BTreeMap;

use skep_protocol::agent::Position;
use skep_protocol::task::Task;
use skep_protocol::text::AgentId;

/// How work is allocated. Every policy sees only agents that asked for work, can do it and have room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In turns: who has waited longest since its last task.
    #[default]
    RoundRobin,
    /// Who is nearest to where the task begins; in turns where places are unknown or equal.
    Nearest,
}

/// An agent that could have a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) agent: &'a AgentId,
    pub(super) place: Option<Position>,
}

/// Chooses among candidates. An auction would be one more of these.
pub(super) trait Allocate {
    /// Which of the candidates gets the task; none if there is no candidate.
    fn choose<'a>(&self, task: &Task, candidates: &[Candidate<'a>]) -> Option<&'a AgentId>;
    /// Takes note of who got a task.
    fn note(&mut self, agent: &AgentId);
    /// Forgets an agent that is gone.
    fn forget(&mut self, agent: &AgentId);
}

/// The turns of all agents, and what comes before them.
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

    fn distance(&self, task: &Task, candidate: &Candidate<'_>) -> u64 {
        match (self.policy, task.spec.place, candidate.place) {
            (Policy::Nearest, Some(from), Some(to)) => from.distance_mm(to),
            (Policy::Nearest, Some(_), None) => u64::MAX,
            (Policy::Nearest, None, _) | (Policy::RoundRobin, ..) => 0,
        }
    }
}

impl Allocate for Allocator {
    fn choose<'a>(&self, task: &Task, candidates: &[Candidate<'a>]) -> Option<&'a AgentId> {
        let rank = |candidate: &&Candidate<'a>| {
            let turn = self.last.get(candidate.agent).copied().unwrap_or(0);
            (self.distance(task, candidate), turn, candidate.agent)
        };
        candidates.iter().min_by_key(rank).map(|candidate| candidate.agent)
    }

    fn note(&mut self, agent: &AgentId) {
        self.turn += 1;
        self.last.insert(agent.clone(), self.turn);
    }

    fn forget(&mut self, agent: &AgentId) {
        self.last.remove(agent);
    }
}
