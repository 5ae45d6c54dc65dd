//! What can be claimed, in its order.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use imbl::OrdSet;
use skep_protocol::task::{Priority, Task, TaskState};
use skep_protocol::text::Capability;
use skep_protocol::time::LogInstant;

use super::FleetState;
use skep_protocol::ids::TaskId;

/// Where a pending task stands among all: the most urgent first, then the oldest.
type Rank = (Reverse<Priority>, u64, TaskId);

/// Pending tasks that require the same.
pub(super) type Waiting = OrdSet<Rank>;

fn rank(task: &Task) -> Rank {
    (Reverse(task.spec.priority), task.seq, task.id)
}

impl FleetState {
    pub(super) fn add_pending(&mut self, task: &Task) {
        self.pending.entry(task.spec.required.clone()).or_default().insert(rank(task));
        self.pending_count += 1;
    }

    pub(super) fn remove_pending(&mut self, task: &Task) {
        let Some(waiting) = self.pending.get_mut(&task.spec.required) else { return };
        if waiting.remove(&rank(task)).is_some() {
            self.pending_count -= 1;
        }
        if waiting.is_empty() {
            self.pending.remove(&task.spec.required);
        }
    }
}

/// One set of requirements and those of its tasks that were not looked at yet.
struct Kind<'a> {
    required: &'a BTreeSet<Capability>,
    next: Rank,
    rest: Box<dyn Iterator<Item = &'a Rank> + 'a>,
}

/// Tasks that can be claimed, most urgent first, over all requirements that somebody meets. Looks at a bounded number of
/// tasks.
pub(crate) struct Claimable<'a> {
    state: &'a FleetState,
    now: LogInstant,
    kinds: Vec<Kind<'a>>,
    looks: u64,
}

impl<'a> Claimable<'a> {
    pub(super) fn new(
        state: &'a FleetState,
        now: LogInstant,
        somebody_can: impl Fn(&BTreeSet<Capability>) -> bool,
    ) -> Self {
        let able = state.pending.iter().filter(|(required, _)| somebody_can(required));
        let kinds = able.filter_map(|(required, waiting)| {
            let mut rest = waiting.iter();
            Some(Kind { required, next: *rest.next()?, rest: Box::new(rest) })
        });
        Self { state, now, kinds: kinds.collect(), looks: state.limits.claim_scan_max }
    }

    /// Nobody can do any more what requires this.
    pub(crate) fn pass_over(&mut self, required: &BTreeSet<Capability>) {
        self.kinds.retain(|kind| kind.required != required);
    }

    fn is_free(&self, task: &Task) -> bool {
        matches!(&task.state, TaskState::Pending { not_before, .. } if *not_before <= self.now)
            && task.expires_at.is_none_or(|at| at > self.now)
    }
}

impl<'a> Iterator for Claimable<'a> {
    type Item = &'a Task;

    fn next(&mut self) -> Option<&'a Task> {
        while self.looks > 0 {
            let (at, _) = self.kinds.iter().enumerate().min_by_key(|(_, kind)| kind.next)?;
            let (_, _, id) = self.kinds[at].next;
            match self.kinds[at].rest.next() {
                Some(next) => self.kinds[at].next = *next,
                None => drop(self.kinds.swap_remove(at)),
            }
            self.looks -= 1;
            if let Some(task) = self.state.tasks.get(&id).filter(|task| self.is_free(task)) {
                return Some(task);
            }
        }
        None
    }
}
