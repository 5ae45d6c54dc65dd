//! What clients ask of the tasks.

use std::collections::BTreeSet;

use skep_protocol::ids::TaskId;
use skep_protocol::task::{Task, WaitReason};
use skep_protocol::text::{AgentId, Capability};
use skep_protocol::time::LogInstant;

use super::FleetState;
use crate::tables::tasks::{Claimable, Due, why_waiting};

impl FleetState {
    /// A task, if it is live or ended lately.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// Tasks in order of their ids, from after one.
    pub fn tasks_after(&self, after: Option<TaskId>) -> impl Iterator<Item = &Task> {
        self.tasks.after(after)
    }

    /// Why no agent works on a task at an instant; none if an agent does, or if it has ended.
    pub fn why_waiting(&self, task: &Task, now: LogInstant) -> Option<WaitReason> {
        why_waiting(task, now, &self.agents)
    }

    /// Ids of the tasks that an agent holds.
    pub(crate) fn held_by(&self, agent: &AgentId) -> impl Iterator<Item = &Task> {
        self.tasks.held_by(agent)
    }

    /// Pending tasks that one of these agents may have at this moment and can do, most urgent first.
    pub(crate) fn claimable<'b>(
        &self,
        now: LogInstant,
        agents: impl IntoIterator<Item = (&'b AgentId, &'b BTreeSet<Capability>)>,
    ) -> Claimable<'_> {
        self.tasks.claimable(now.max(self.head.clock), agents, self.head.limits.claim_scan_max)
    }

    /// Whether no task is pending.
    pub(crate) fn is_nothing_pending(&self) -> bool {
        self.tasks.pending_count() == 0
    }

    /// Index of the last entry that made a task pending.
    pub(crate) fn offered_at(&self) -> u64 {
        self.tasks.offered_at()
    }

    /// When the next pending task becomes one that an agent may have.
    pub(crate) fn next_gate(&self, now: LogInstant) -> Option<LogInstant> {
        self.tasks.next_gate(now)
    }

    /// All due items of the tasks, soonest first.
    pub(crate) fn dues(&self) -> impl Iterator<Item = (LogInstant, Due, TaskId)> + '_ {
        self.tasks.dues()
    }

    /// Whether an item is still to come, or has come and was not done.
    pub(crate) fn is_due(&self, due: &(LogInstant, Due, TaskId)) -> bool {
        self.tasks.is_due(due)
    }
}
