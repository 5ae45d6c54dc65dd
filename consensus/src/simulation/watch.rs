//! What must hold, as seen from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::raft::VoteResponse;
use skep_protocol::ballot::Ballot;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, RaftId, TaskId};
use tokio::time::Instant;

use crate::raft::types::{TypeConfig, Vote, decode};

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// How often each danger was met: an invariant that was never in danger is not proved.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct Coverage {
            $(pub(super) $name: u64,)*
        }

        impl Coverage {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// All counts, by name.
            pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    acknowledged, reads, leaders, kills, power_cuts, blackouts, cuts, bad_links, failed_syncs, flipped_bits,
    refused_to_start, wiped, voters_added, voters_removed, transfers, snapshots,
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// The first violation of an invariant, if there is one.
    pub(super) violation: Option<String>,
    /// How often each danger was met.
    pub(super) coverage: Coverage,
    /// What happened, line by line.
    pub(super) story: Vec<String>,
}

/// The most lines of a story.
const STORY_LINES_MAX: usize = 500;

#[derive(Default)]
struct State {
    begun: Option<Instant>,
    story: Vec<String>,
    violation: Option<String>,
    coverage: Coverage,
    /// Tasks whose creation was acknowledged.
    acknowledged: Vec<TaskId>,
    /// The leader of each term.
    leaders: BTreeMap<u64, RaftId>,
    /// The digest at each index that was seen, and the node that showed it.
    digests: BTreeMap<u64, (u128, NodeId)>,
    /// How far each process was seen: its term, and the index of the last entry that it applied.
    seen: BTreeMap<(NodeId, u64), (u64, u64)>,
    /// The index of the newest snapshot of each process.
    snapshots: BTreeMap<(NodeId, u64), u64>,
    /// The newest vote that each incarnation of a node has told others of.
    promised: BTreeMap<NodeId, Vote>,
}

/// Everything that is watched. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Mutex<State>>);

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first violation: the others follow from it.
    pub(super) fn violate(&self, invariant: &str, what: &str) {
        self.state().violation.get_or_insert_with(|| format!("{invariant}: {what}"));
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub(super) fn outcome(&self) -> Outcome {
        let state = self.state();
        Outcome { violation: state.violation.clone(), coverage: state.coverage, story: state.story.clone() }
    }

    /// Counts an event.
    pub(super) fn count(&self, count: impl FnOnce(&mut Coverage)) {
        count(&mut self.state().coverage);
    }

    /// Keeps what happened, for a reader of the story.
    pub(super) fn tell(&self, what: &str) {
        let mut state = self.state();
        let at = state.begun.get_or_insert_with(Instant::now).elapsed();
        if state.story.len() < STORY_LINES_MAX {
            state.story.push(format!("{:.3} s {what}", at.as_secs_f64()));
        }
    }

    pub(super) fn acknowledge(&self, task: TaskId) {
        let mut state = self.state();
        state.acknowledged.push(task);
        state.coverage.acknowledged += 1;
    }

    pub(super) fn acknowledged(&self) -> Vec<TaskId> {
        self.state().acknowledged.clone()
    }

    /// S8: a term has one leader.
    pub(super) fn leads(&self, term: u64, leader: RaftId) {
        let mut state = self.state();
        let known = state.leaders.insert(term, leader);
        state.coverage.leaders += u64::from(known.is_none());
        let first = known.is_none();
        if known.is_some_and(|known| known != leader) {
            drop(state);
            self.violate("S8", &format!("term {term} has two leaders"));
        } else if first {
            drop(state);
            self.tell(&format!("{leader} leads term {term}"));
        }
    }

    /// S8: digests at an equal index are equal; term and index never go back within a process.
    pub(super) fn applied(&self, node: NodeId, process: u64, term: u64, index: u64, digest: u128) {
        let mut state = self.state();
        let (known, by) = *state.digests.entry(index).or_insert((digest, node));
        let seen = state.seen.entry((node, process)).or_default();
        let back = seen.0 > term || seen.1 > index;
        *seen = (term.max(seen.0), index.max(seen.1));
        drop(state);
        if known != digest {
            self.violate("S8", &format!("{node} and {by} differ at entry {index}"));
        }
        if back {
            self.violate("S8", &format!("{node} went back to entry {index} of term {term}"));
        }
    }

    /// Notes that a process has a snapshot up to an index.
    pub(super) fn has_snapshot(&self, node: NodeId, process: u64, index: u64) {
        let mut state = self.state();
        let new = state.snapshots.insert((node, process), index) != Some(index);
        state.coverage.snapshots += u64::from(new);
    }

    /// S18: a vote is durable before a node tells others of it.
    pub(super) fn answer_leaves(&self, node: NodeId, kind: FrameKind, answer: &[u8]) {
        if kind != FrameKind::Vote {
            return;
        }
        let Ok((response, _)) = decode::<(VoteResponse<TypeConfig>, Option<Ballot>)>("vote", answer) else { return };
        let mut state = self.state();
        let promised = state.promised.entry(node).or_insert(response.vote);
        if response.vote > *promised {
            *promised = response.vote;
        }
    }

    /// S18, S17: what a node that starts again knows of its vote.
    pub(super) fn starts_with(&self, node: NodeId, vote: Option<&Vote>) {
        let promised = self.state().promised.get(&node).copied();
        let forgot = match (&promised, vote) {
            (Some(promised), Some(vote)) => vote < promised,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if forgot {
            self.violate("S18", &format!("{node} told others of vote {promised:?}, and starts again with {vote:?}"));
        }
    }

    /// Forgets the promises of a node that lost its disk.
    pub(super) fn forget_promises(&self, node: NodeId) {
        self.state().promised.remove(&node);
    }
}
