//! Tasks that ended: the latest are kept, dead letters apart from the others.
//!
//! A dead letter waits until an operator settles it. Tasks that end well end by the thousand, and push out no dead
//! letter.

use imbl::{OrdMap, OrdSet};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::TaskId;
use skep_protocol::task::{Task, TaskStatus};

use super::{Agents, Cx, Tasks};
use crate::state::changes::count_dropped;

/// Tasks that ended, in the order of their ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    dead: Kind,
    others: Kind,
    seqs: OrdMap<TaskId, u64>,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    order: OrdSet<(u64, TaskId)>,
    bytes: u64,
}

impl Kind {
    /// Whether there are too many, or they take too many bytes. One is kept however large it is.
    fn is_beyond(&self, count_max: u64, is_too_large: bool) -> bool {
        let count = self.order.len() as u64;
        count > count_max || (is_too_large && count > 1)
    }
}

impl Ended {
    /// How many tasks that ended are kept.
    pub(super) fn len(&self) -> usize {
        self.dead.order.len() + self.others.order.len()
    }

    /// All of them, each with its place in the order of ends.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(u64, TaskId)> {
        self.others.order.iter().chain(self.dead.order.iter())
    }

    fn kind(&mut self, status: TaskStatus) -> &mut Kind {
        if status == TaskStatus::DeadLettered { &mut self.dead } else { &mut self.others }
    }

    /// Notes how many bytes a task that ended takes from here on.
    pub(super) fn weigh(&mut self, task: &Task) {
        self.kind(task.state.status()).bytes += task.bytes();
    }

    /// Notes that a task ended with this status.
    pub(super) fn note(&mut self, seq: u64, id: TaskId, status: TaskStatus) {
        self.kind(status).order.insert((seq, id));
        self.seqs.insert(id, seq);
    }

    /// Takes out a task that is about to change or to be forgotten.
    pub(super) fn remove(&mut self, task: &Task) {
        let seq = self.seqs.remove(&task.id);
        let kind = self.kind(task.state.status());
        kind.bytes = kind.bytes.saturating_sub(task.bytes());
        if let Some(seq) = seq {
            kind.order.remove(&(seq, task.id));
        }
    }

    /// The next task to be forgotten, if one is to be. Dead letters have at most half of the room, so that some is left
    /// for tasks that end well.
    fn surplus(&self, limits: &FleetLimits) -> Option<TaskId> {
        let (count_max, bytes_max) = (limits.terminal_tasks_kept, limits.terminal_task_bytes_kept);
        let (dead, all) = (self.dead.bytes, self.dead.bytes.saturating_add(self.others.bytes));
        let kind = if self.dead.is_beyond(count_max, dead > bytes_max / 2) {
            &self.dead
        } else if self.others.is_beyond(count_max, all > bytes_max) {
            &self.others
        } else {
            return None;
        };
        kind.order.get_min().map(|(_, id)| *id)
    }
}

impl Tasks {
    /// Forgets the tasks that ended first, while there are too many of them or they take too many bytes. All of them
    /// are in the history.
    pub(super) fn forget_ended(&mut self, agents: &mut Agents, cx: &mut Cx<'_>) {
        while let Some(id) = self.ended.surplus(cx.limits) {
            let Some(task) = self.records.remove(&id) else { break };
            self.unindex(&task, agents, cx);
            self.epoch_floor = self.epoch_floor.max(task.epoch);
            count_dropped(&mut cx.dropped.tasks, 1);
            let is_dead_letter = task.state.status() == TaskStatus::DeadLettered;
            count_dropped(&mut cx.dropped.dead_letters, u64::from(is_dead_letter));
        }
    }
}
