//! How a task, or an attempt at it, ends.

use std::sync::Arc;

use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{
    Claim, KeptFor, ReclaimCause, Task, TaskChange, TaskFailure, TaskState, TaskStatus, check_payload_within,
};
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::era::expiry_of;
use super::{Agents, Cx, Tasks};

/// The attempt after one that failed, and the change that tells of it.
struct Next {
    not_before: LogInstant,
    kept_for: Option<KeptFor>,
    change: TaskChange,
}

/// Fences a claim that is taken back while the lease of its holder may run: no other agent gets the task before that
/// lease has ended.
fn fence(task: &mut Task, agents: &Agents, now: LogInstant) {
    let TaskState::Claimed { by, .. } = &task.state else { return };
    if let Some(attachment) = agents.attachment(by) {
        task.fenced_until = now.plus_ms(attachment.lease.orchestrator_ms());
    }
}

impl Tasks {
    /// Completes a task at its holder's word.
    pub(super) fn complete(
        &mut self,
        claim: &Claim,
        result: &[u8],
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        check_payload_within(result, cx.limits)?;
        self.check_claim(claim)?;
        let result: Arc<[u8]> = Arc::from(result);
        let mut task = self.take(claim.task, agents, cx)?;
        task.state = TaskState::Completed { by: claim.agent.clone(), at: cx.now, result: Arc::clone(&result) };
        let receipt = self.put(task, agents, cx);
        let (by, epoch) = (claim.agent.clone(), claim.epoch);
        cx.record((claim.task, TaskChange::Completed { by, epoch, result }));
        Ok(receipt)
    }

    /// Ends an attempt whose holder failed.
    pub(super) fn fail(
        &mut self,
        claim: &Claim,
        reason: &Reason,
        retryable: bool,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        self.check_claim(claim)?;
        let task = self.take(claim.task, agents, cx)?;
        let mut not_before = cx.now.plus_ms(task.spec.retry.backoff_ms(task.attempts));
        if is_on(Mutant::NondeterministicApply) {
            // Spread, since states that lie side by side may be a multiple of any number apart.
            let place = (std::ptr::from_ref(self) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            not_before = not_before.plus_ms(place >> 61);
        }
        let retried = TaskChange::Retried { epoch: claim.epoch, reason: reason.clone(), not_before };
        let next = Next { not_before, kept_for: None, change: retried };
        Ok(self.end_attempt(task, reason.clone(), retryable.then_some(next), agents, cx))
    }

    /// Cancels a task: no agent is to do it.
    pub(super) fn cancel(
        &mut self,
        id: TaskId,
        reason: &Reason,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        // This holds for a dead letter too, which is then settled.
        self.check_status(id, |status| !status.is_terminal() || status == TaskStatus::DeadLettered)?;
        let mut task = self.take(id, agents, cx)?;
        fence(&mut task, agents, cx.now);
        task.state = TaskState::Cancelled { reason: reason.clone(), at: cx.now };
        let receipt = self.put(task, agents, cx);
        cx.record((id, TaskChange::Cancelled { reason: reason.clone() }));
        Ok(receipt)
    }

    /// Changes a dead letter if it still is one. The operator may be late: another may have redriven the task, and it
    /// may be done already.
    pub(super) fn settle_dead_letter(
        &mut self,
        id: TaskId,
        again: bool,
        reason: &Reason,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        self.check_status(id, |status| status == TaskStatus::DeadLettered)?;
        if again { self.requeue(id, reason, agents, cx) } else { self.cancel(id, reason, agents, cx) }
    }

    /// Requeues a task as if no agent had tried it.
    pub(super) fn requeue(
        &mut self,
        id: TaskId,
        reason: &Reason,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        let from = self.check_status(id, |status| !matches!(status, TaskStatus::Pending | TaskStatus::Completed))?;
        if from.is_terminal() {
            self.check_room(cx.limits)?;
        }
        let mut task = self.take(id, agents, cx)?;
        fence(&mut task, agents, cx.now);
        task.state = TaskState::Pending { not_before: task.fenced_until, kept_for: None };
        task.attempts = 0;
        task.progress = None;
        task.checkpoint = None;
        task.expires_at = task.spec.valid_for_ms.map(|ms| cx.now.plus_ms(ms));
        let receipt = self.put(task, agents, cx);
        cx.record((id, TaskChange::Requeued { from, reason: reason.clone() }));
        Ok(receipt)
    }

    /// Takes a stale claim back, if it is still the one that the orchestrator saw and still stale.
    pub(crate) fn expire_claim(&mut self, id: TaskId, epoch: ClaimEpoch, agents: &mut Agents, cx: &mut Cx<'_>) {
        let Some(task) = self.records.get(&id) else { return };
        let TaskState::Claimed { by, stale_at, .. } = &task.state else { return };
        if task.epoch != epoch || *stale_at > cx.now {
            return;
        }
        let (from, ms) = (by.clone(), task.spec.stale_after_ms);
        let Ok(mut task) = self.take(id, agents, cx) else { return };
        fence(&mut task, agents, cx.now);
        let reason = Reason::truncated(&format!("{from} reported no progress for {ms} ms"));
        let not_before = cx.now.plus_ms(task.spec.retry.backoff_ms(task.attempts)).max(task.fenced_until);
        let cause = ReclaimCause::Stale;
        let change = TaskChange::Reclaimed { from, epoch, cause, not_before, kept_for: None };
        self.end_attempt(task, reason, Some(Next { not_before, kept_for: None, change }), agents, cx);
    }

    /// Takes back everything that an agent holds that went away.
    pub(crate) fn reclaim_all(&mut self, from: &AgentId, cause: ReclaimCause, agents: &mut Agents, cx: &mut Cx<'_>) {
        let held: Vec<TaskId> = self.held.get(from).into_iter().flatten().copied().collect();
        for task in held {
            self.reclaim(task, from, cause, agents, cx);
        }
    }

    /// Takes back a claim whose holder went away. There is no wait before the next attempt: the task did not fail.
    pub(super) fn reclaim(
        &mut self,
        id: TaskId,
        from: &AgentId,
        cause: ReclaimCause,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) {
        let Ok(mut task) = self.take(id, agents, cx) else { return };
        if matches!(cause, ReclaimCause::Detached | ReclaimCause::Released) {
            // The attempt neither succeeded nor failed: it does not count.
            task.attempts = task.attempts.saturating_sub(1);
            let (not_before, epoch, from) = (cx.now, task.epoch, from.clone());
            task.state = TaskState::Pending { not_before, kept_for: None };
            let change = TaskChange::Reclaimed { from, epoch, cause, not_before, kept_for: None };
            cx.record((id, change));
            self.put(task, agents, cx);
            return;
        }
        let reason = Reason::truncated(&format!("{from} does not have it any more: {}", cause.text()));
        let kept_for = match cause {
            ReclaimCause::LeaseExpired => task.spec.disconnect.kept_for(from, cx.now),
            ReclaimCause::Stale | ReclaimCause::Detached | ReclaimCause::Released => None,
        };
        let not_before = cx.now;
        let (from, epoch) = (from.clone(), task.epoch);
        let change = TaskChange::Reclaimed { from, epoch, cause, not_before, kept_for: kept_for.clone() };
        self.end_attempt(task, reason, Some(Next { not_before, kept_for, change }), agents, cx);
    }

    /// Ends a task that has expired, claimed or not.
    pub(crate) fn expire(&mut self, id: TaskId, agents: &mut Agents, cx: &mut Cx<'_>) {
        let Some(task) = self.records.get(&id) else { return };
        let due = expiry_of(task).is_some_and(|at| at <= cx.now);
        if !due || task.state.status().is_terminal() {
            return;
        }
        let Ok(mut task) = self.take(id, agents, cx) else { return };
        fence(&mut task, agents, cx.now);
        task.state = TaskState::Expired { at: cx.now };
        self.put(task, agents, cx);
        cx.record((id, TaskChange::Expired));
    }

    /// Ends an attempt that did not succeed. Another attempt follows, or a dead letter if none is allowed or they are
    /// used up.
    fn end_attempt(
        &mut self,
        mut task: Task,
        reason: Reason,
        next: Option<Next>,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Receipt {
        while !task.failures.is_empty() && task.failures.len() as u64 >= cx.limits.failures_kept {
            task.failures.remove(0);
        }
        task.failures.push(TaskFailure { attempt: task.attempts, reason: reason.clone(), at: cx.now });
        let attempts = task.attempts;
        match next {
            Some(Next { not_before, kept_for, change }) if attempts < task.spec.retry.attempts_max => {
                task.state = TaskState::Pending { not_before, kept_for };
                cx.record((task.id, change));
            }
            next => {
                let reason = match next {
                    Some(_) => Reason::truncated(&format!("all {attempts} attempts failed; the last: {reason}")),
                    None => reason,
                };
                task.state = TaskState::DeadLettered { reason: reason.clone(), at: cx.now };
                cx.record((task.id, TaskChange::DeadLettered { reason }));
            }
        }
        self.put(task, agents, cx)
    }
}
