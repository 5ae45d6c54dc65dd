//! Tasks: what is to be done, which agent does it, and how it ended.

mod claimable;
mod claims;
mod ended;
mod endings;
mod era;
mod index;
mod why_waiting;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::task::{Task, TaskChange, TaskOp, TaskRefusal, TaskSpec, TaskState, TaskStatus};
use skep_protocol::text::{AgentId, Capability};
use skep_protocol::time::LogInstant;

use super::agents::Agents;
use crate::state::changes::Cx;
pub(crate) use claimable::Claimable;
use claimable::{Ranks, Waiting};
use ended::Ended;
pub(crate) use why_waiting::why_waiting;

/// Why the orchestrator has to look at a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Its claim shows no progress.
    StaleClaim,
    /// It has expired.
    TaskExpiry,
}

/// All tasks: the live ones, and a bounded number of those that ended last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    records: OrdMap<TaskId, Arc<Task>>,
    /// Pending tasks by what they require: tasks that other agents have to do keep no agent from work.
    pending: OrdMap<BTreeSet<Capability>, Waiting>,
    /// Pending tasks that are kept for one agent alone, by what they require.
    kept: OrdMap<(AgentId, BTreeSet<Capability>), Ranks>,
    pending_count: u64,
    /// When claims become stale and tasks expire.
    due: OrdSet<(LogInstant, Due, TaskId)>,
    /// Tasks that ended.
    ended: Ended,
    /// Bytes of all tasks.
    bytes: u64,
    /// The highest epoch of any task that was forgotten: a new task with the same id continues above it.
    epoch_floor: ClaimEpoch,
    /// Tasks that agents hold.
    held: OrdMap<AgentId, OrdSet<TaskId>>,
    /// The last entry that made a task pending.
    offered_at: u64,
    /// The instants at which the standing of pending tasks changes: when an agent may have a task that it cannot have
    /// yet, and when the task expires.
    gates: OrdSet<(LogInstant, TaskId)>,
}

fn receipt(task: &Task) -> Receipt {
    Receipt::Task { task: task.id, status: task.state.status(), epoch: task.epoch, attempts: task.attempts }
}

impl Tasks {
    /// An empty table, in a shard that has forgotten tasks up to an epoch.
    pub(crate) fn above(epoch_floor: ClaimEpoch) -> Self {
        Self { epoch_floor, ..Self::default() }
    }

    /// Restores a task as it was after the last applied entry. The order of those that ended is restored later.
    pub(crate) fn restore(&mut self, task: Task, agents: &mut Agents, cx: &Cx<'_>) {
        self.index(&task, agents, cx);
        self.records.insert(task.id, Arc::new(task));
    }

    /// Restores the place of a task in the order of ends; returns whether the task has ended.
    pub(crate) fn restore_ended(&mut self, seq: u64, id: TaskId) -> bool {
        let status = self.get(&id).map(|task| task.state.status()).filter(|status| status.is_terminal());
        if let Some(status) = status {
            self.ended.note(seq, id, status);
        }
        status.is_some()
    }

    /// The highest epoch of any task that was forgotten.
    pub(crate) fn epoch_floor(&self) -> ClaimEpoch {
        self.epoch_floor
    }

    /// Bytes of all tasks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn get(&self, id: &TaskId) -> Option<&Task> {
        self.records.get(id).map(AsRef::as_ref)
    }

    /// All tasks, in the order of their ids.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Task> {
        self.records.values().map(AsRef::as_ref)
    }

    /// The tasks with ids after this one, in the order of their ids.
    pub(crate) fn after(&self, after: Option<TaskId>) -> impl Iterator<Item = &Task> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.records.range((from, Unbounded)).map(|(_, task)| task.as_ref())
    }

    /// How many tasks there are.
    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    /// How many have ended.
    pub(crate) fn ended_count(&self) -> usize {
        self.ended.len()
    }

    /// The tasks that ended, each with its place in the order of ends.
    pub(crate) fn ended(&self) -> impl Iterator<Item = &(u64, TaskId)> {
        self.ended.iter()
    }

    /// How many tasks are pending.
    pub(crate) fn pending_count(&self) -> u64 {
        self.pending_count
    }

    /// The tasks that an agent holds.
    pub(crate) fn held_by(&self, agent: &AgentId) -> impl Iterator<Item = &Task> {
        let tasks = self.held.get(agent).into_iter().flat_map(|held| held.iter());
        tasks.filter_map(|id| self.records.get(id).map(AsRef::as_ref))
    }

    /// The last entry that made a task pending.
    pub(crate) fn offered_at(&self) -> u64 {
        self.offered_at
    }

    /// The next instant at which the standing of a pending task changes: an agent may be able to claim it then.
    pub(crate) fn next_gate(&self, now: LogInstant) -> Option<LogInstant> {
        let after = (now.plus_ms(1), TaskId::from_bytes([0; 16]));
        self.gates.range(after..).next().map(|(at, _)| *at)
    }

    /// All that will be due, soonest first.
    pub(crate) fn dues(&self) -> impl Iterator<Item = (LogInstant, Due, TaskId)> + '_ {
        self.due.iter().copied().inspect(|_| {
            #[cfg(test)]
            crate::state::looks::count();
        })
    }

    /// Whether this is still to be done, due already or not.
    pub(crate) fn is_due(&self, due: &(LogInstant, Due, TaskId)) -> bool {
        self.due.contains(due)
    }

    /// Applies an operation to a task.
    pub(crate) fn apply(&mut self, op: &TaskOp, agents: &mut Agents, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        match op {
            TaskOp::Create { task, spec } => self.create(*task, spec, agents, cx),
            TaskOp::Claim { agent, task, attachment } => self.claim(agent, *task, *attachment, agents, cx),
            TaskOp::Report { claim, permille, note, checkpoint } => {
                self.report_progress(claim, *permille, note, checkpoint.as_deref(), agents, cx)
            }
            TaskOp::Complete { claim, result } => self.complete(claim, result, agents, cx),
            TaskOp::Fail { claim, reason, retryable } => self.fail(claim, reason, *retryable, agents, cx),
            TaskOp::Cancel { task, reason } => self.cancel(*task, reason, agents, cx),
            TaskOp::Requeue { task, reason } => self.requeue(*task, reason, agents, cx),
            TaskOp::Settle { task, again, reason } => self.settle_dead_letter(*task, *again, reason, agents, cx),
            TaskOp::Release { claim } => self.give_back(claim, agents, cx),
        }
    }

    /// Creates a task.
    fn create(
        &mut self,
        id: TaskId,
        spec: &TaskSpec,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        spec.check_within(cx.limits)?;
        if self.records.contains_key(&id) {
            return Err(TaskRefusal::Exists(id).into());
        }
        self.check_room(cx.limits)?;
        let count = self.pending.len() as u64;
        if count >= cx.limits.requirements_max && !self.pending.contains_key(&spec.required) {
            return Err(Refusal::Full { what: ShardFullOf::Requirements, count });
        }
        let spec = Arc::new(spec.clone());
        let task = Task {
            id,
            state: TaskState::Pending { not_before: LogInstant::ZERO, kept_for: None },
            seq: cx.take_seq(),
            epoch: self.epoch_floor,
            attempts: 0,
            created_at: cx.now,
            updated_at: cx.now,
            expires_at: spec.valid_for_ms.map(|ms| cx.now.plus_ms(ms)),
            progress: None,
            fenced_until: LogInstant::ZERO,
            checkpoint: None,
            failures: Vec::new(),
            spec: Arc::clone(&spec),
        };
        let receipt = receipt(&task);
        self.insert(task, agents, cx);
        cx.record((id, TaskChange::Created { spec }));
        Ok(receipt)
    }

    fn check_status(&self, id: TaskId, allowed: impl Fn(TaskStatus) -> bool) -> Result<TaskStatus, Refusal> {
        let task = self.records.get(&id).ok_or(TaskRefusal::NoSuchTask(id))?;
        let status = task.state.status();
        if allowed(status) { Ok(status) } else { Err(TaskRefusal::WrongStatus { task: id, status }.into()) }
    }

    /// Whether there is room for one more live task.
    fn check_room(&self, limits: &FleetLimits) -> Result<(), Refusal> {
        let live = self.records.len().saturating_sub(self.ended.len()) as u64;
        if live >= limits.live_tasks_max {
            return Err(Refusal::Full { what: ShardFullOf::Tasks, count: live });
        }
        if self.bytes >= limits.task_bytes_max {
            return Err(Refusal::Full { what: ShardFullOf::TaskBytes, count: self.bytes });
        }
        Ok(())
    }
}
