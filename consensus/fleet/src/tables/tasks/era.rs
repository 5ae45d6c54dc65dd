//! What outlives a lost clock.

use skep_protocol::ids::TaskId;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::task::{Task, TaskState};
use skep_protocol::time::LogInstant;

use super::{Agents, Cx, Tasks};

/// When a live task expires. A claim from an earlier era continues until it is stale: nobody knows how long ago the
/// task expired.
pub(super) fn expiry_of(task: &Task) -> Option<LogInstant> {
    let at = task.expires_at?;
    match &task.state {
        TaskState::Claimed { stale_at, .. } if at.era() < stale_at.era() => Some(*stale_at),
        TaskState::Pending { .. }
        | TaskState::Claimed { .. }
        | TaskState::Completed { .. }
        | TaskState::DeadLettered { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Expired { .. } => Some(at),
    }
}

/// Whether, when the clock was lost, the claim was not stale and its task had not expired.
fn is_in_time(task: &Task, stale_at: LogInstant, before: LogInstant) -> bool {
    stale_at > before && task.expires_at.is_none_or(|at| at > before)
}

/// Whether an instant of a task was still to come when the clock was lost, and has to be counted anew.
fn is_carried_over(task: &Task, before: LogInstant) -> bool {
    let waits = match &task.state {
        TaskState::Pending { not_before, kept_for } => {
            *not_before > before || kept_for.as_ref().is_some_and(|kept| kept.until > before)
        }
        TaskState::Claimed { stale_at, .. } => is_in_time(task, *stale_at, before),
        TaskState::Completed { .. }
        | TaskState::DeadLettered { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Expired { .. } => false,
    };
    waits || task.fenced_until > before
}

impl Tasks {
    /// A new era has begun. `before` is the clock of the old one.
    ///
    /// Nobody knows how long there was no clock. What must not be late has passed: deadlines of requests and commands,
    /// waves with the deadlines of their commands, and the time for which pending tasks are valid. What must not be
    /// early counts its remaining time again, from the start of the new era: fences, because the robot behind one may
    /// still act; retry backoff; the time for which a task is kept for its former holder. A claim that was in time is
    /// as good as new, since its holder had no leader to report to; if the holder is gone, its lease ends and takes the
    /// claim with it.
    pub(crate) fn carry_over(&mut self, before: LogInstant, agents: &mut Agents, cx: &mut Cx<'_>) {
        let carried = self.records.values().filter(|task| is_carried_over(task, before)).map(|task| task.id);
        let carried: Vec<TaskId> = carried.collect();
        for id in carried {
            let Ok(mut task) = self.take(id, agents, cx) else { continue };
            carry_one_over(&mut task, before, cx.now);
            self.insert(task, agents, cx);
        }
    }
}

fn carry_one_over(task: &mut Task, before: LogInstant, now: LogInstant) {
    let carry = |at: &mut LogInstant| {
        if *at > before {
            *at = now.plus_ms(at.since_ms(before));
        }
    };
    let fresh = matches!(&task.state, TaskState::Claimed { stale_at, .. } if is_in_time(task, *stale_at, before));
    carry(&mut task.fenced_until);
    match &mut task.state {
        TaskState::Pending { not_before, kept_for } => {
            carry(not_before);
            *not_before = (*not_before).max(task.fenced_until);
            if let Some(kept) = kept_for {
                carry(&mut kept.until);
            }
        }
        TaskState::Claimed { stale_at, .. } if fresh && !is_on(Mutant::ClaimsEndWithTheEra) => {
            *stale_at = now.plus_ms(task.spec.stale_after_ms);
        }
        TaskState::Claimed { .. }
        | TaskState::Completed { .. }
        | TaskState::DeadLettered { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Expired { .. } => {}
    }
}
