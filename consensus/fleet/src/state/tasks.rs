//! The life of a task.

use std::sync::Arc;

use skep_protocol::agent::Role;
use skep_protocol::change::{ChangeKind, ReclaimCause};
use skep_protocol::entry::Claim;
use skep_protocol::ids::{AttachmentId, ClaimEpoch, TaskId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::task::{
    Failure, KeptFor, Progress, Task, TaskSpec, TaskState, TaskStatus, check_checkpoint_within, check_payload_within,
};
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::changes::Changes;
use super::era::worthless_at;
use super::{Due, FleetState};

/// The attempt after one that did not succeed, and the change that tells of it.
struct Next {
    not_before: LogInstant,
    kept_for: Option<KeptFor>,
    change: ChangeKind,
}

fn receipt(task: &Task) -> Receipt {
    Receipt::Task { task: task.id, status: task.state.status(), epoch: task.epoch, attempts: task.attempts }
}

impl FleetState {
    pub(super) fn create_task(
        &mut self,
        id: TaskId,
        spec: &TaskSpec,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        spec.check_within(&self.head.limits)?;
        if self.tasks.contains_key(&id) {
            return Err(Refusal::TaskExists(id));
        }
        self.check_room()?;
        let count = self.pending.len() as u64;
        if count >= self.head.limits.requirements_max && !self.pending.contains_key(&spec.required) {
            return Err(Refusal::ShardFull { what: ShardFullOf::Requirements, count });
        }
        let spec = Arc::new(spec.clone());
        let task = Task {
            id,
            state: TaskState::Pending { not_before: LogInstant::ZERO, kept_for: None },
            seq: self.take_seq(),
            epoch: self.epoch_floor,
            attempts: 0,
            created_at: self.head.clock,
            updated_at: self.head.clock,
            expires_at: spec.valid_for_ms.map(|ms| self.head.clock.plus_ms(ms)),
            progress: None,
            fenced_until: LogInstant::ZERO,
            checkpoint: None,
            failures: Vec::new(),
            spec: Arc::clone(&spec),
        };
        let receipt = receipt(&task);
        self.insert(task);
        changes.record(self.head.clock, ChangeKind::Created { task: id, spec });
        Ok(receipt)
    }

    pub(super) fn claim_task(
        &mut self,
        agent: &AgentId,
        task: Option<TaskId>,
        attachment: Option<AttachmentId>,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        if let Some(attachment) = attachment {
            self.agents.check_attachment(agent, attachment)?;
        }
        let role = self.agents.role_of(agent);
        let id = match task {
            Some(id) => {
                self.check_claimable(id, agent, &role)?;
                id
            }
            None => match self.most_urgent_for(agent, &role) {
                Some(id) => id,
                None => return Ok(Receipt::NothingToClaim),
            },
        };
        let held = self.held_count(agent);
        if held >= role.max_concurrent {
            return Err(Refusal::AgentBusy { agent: agent.clone(), held, max: role.max_concurrent });
        }
        self.give(id, agent, None, changes)
    }

    /// Gives a task to an agent that asked for work, if everything is still as the orchestrator saw it.
    pub(super) fn assign_task(
        &mut self,
        id: TaskId,
        agent: &AgentId,
        attachment: AttachmentId,
        nth: u64,
        changes: &mut Changes,
    ) {
        let Some(record) = self.agents.get(agent) else { return };
        let expected = record.attachment.is_some_and(|a| a.id == attachment && a.assigned == nth);
        let room = self.held_count(agent) < record.role.max_concurrent;
        if !expected || !room || self.check_claimable(id, agent, &record.role).is_err() {
            return;
        }
        if self.give(id, agent, Some(attachment), changes).is_ok() {
            let held = self.held_count(agent);
            self.agents.count_assigned(agent, held, self.head.applying.index);
        }
    }

    fn give(
        &mut self,
        id: TaskId,
        agent: &AgentId,
        assigned: Option<AttachmentId>,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        let mut task = self.take(id)?;
        task.epoch = task.epoch.next();
        task.attempts = task.attempts.saturating_add(1);
        task.progress = None;
        let stale_at = self.head.clock.plus_ms(task.spec.stale_after_ms);
        task.state = TaskState::Claimed { by: agent.clone(), since: self.head.clock, stale_at, assigned };
        let (epoch, attempt) = (task.epoch, task.attempts);
        let receipt = self.put(task);
        changes.record(self.head.clock, ChangeKind::Claimed { task: id, by: agent.clone(), epoch, attempt });
        Ok(receipt)
    }

    pub(super) fn report_progress(
        &mut self,
        claim: &Claim,
        permille: u16,
        note: &Reason,
        checkpoint: Option<&[u8]>,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        checkpoint.map_or(Ok(()), |checkpoint| check_checkpoint_within(checkpoint, &self.head.limits))?;
        let (since, assigned) = self.check_claim(claim)?;
        let checkpoint: Option<Arc<[u8]>> = checkpoint.map(Arc::from);
        let mut task = self.take(claim.task)?;
        task.checkpoint = checkpoint.clone().or(task.checkpoint);
        task.progress = Some(Progress { permille, note: note.clone(), at: self.head.clock });
        let stale_at = self.head.clock.plus_ms(task.spec.stale_after_ms);
        task.state = TaskState::Claimed { by: claim.agent.clone(), since, stale_at, assigned };
        let receipt = self.put(task);
        changes.record(
            self.head.clock,
            ChangeKind::Progressed { task: claim.task, epoch: claim.epoch, permille, note: note.clone(), checkpoint },
        );
        Ok(receipt)
    }

    pub(super) fn complete_task(
        &mut self,
        claim: &Claim,
        result: &[u8],
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        check_payload_within(result, &self.head.limits)?;
        self.check_claim(claim)?;
        let result: Arc<[u8]> = Arc::from(result);
        let mut task = self.take(claim.task)?;
        task.state = TaskState::Completed { by: claim.agent.clone(), at: self.head.clock, result: Arc::clone(&result) };
        let receipt = self.put(task);
        let (task, by, epoch) = (claim.task, claim.agent.clone(), claim.epoch);
        changes.record(self.head.clock, ChangeKind::Completed { task, by, epoch, result });
        Ok(receipt)
    }

    pub(super) fn fail_task(
        &mut self,
        claim: &Claim,
        reason: &Reason,
        retryable: bool,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        self.check_claim(claim)?;
        let task = self.take(claim.task)?;
        let mut not_before = self.head.clock.plus_ms(task.spec.retry.backoff_ms(task.attempts));
        if is_on(Mutant::NondeterministicApply) {
            // Spread, since states that lie side by side may be a multiple of any number apart.
            let place = (std::ptr::from_ref(self) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            not_before = not_before.plus_ms(place >> 61);
        }
        let retried = ChangeKind::Retried { task: claim.task, epoch: claim.epoch, reason: reason.clone(), not_before };
        let next = Next { not_before, kept_for: None, change: retried };
        Ok(self.end_attempt(task, reason.clone(), retryable.then_some(next), changes))
    }

    pub(super) fn cancel_task(
        &mut self,
        id: TaskId,
        reason: &Reason,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        // Also a dead letter, which nobody need look at any more then.
        self.check_status(id, |status| !status.is_terminal() || status == TaskStatus::DeadLettered)?;
        let mut task = self.take(id)?;
        self.fence(&mut task);
        task.state = TaskState::Cancelled { reason: reason.clone(), at: self.head.clock };
        let receipt = self.put(task);
        changes.record(self.head.clock, ChangeKind::Cancelled { task: id, reason: reason.clone() });
        Ok(receipt)
    }

    /// Whoever looked at a dead letter may be late: somebody may have redriven it, and it may be done by now.
    pub(super) fn settle_dead_letter(
        &mut self,
        id: TaskId,
        again: bool,
        reason: &Reason,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        self.check_status(id, |status| status == TaskStatus::DeadLettered)?;
        if again { self.requeue_task(id, reason, changes) } else { self.cancel_task(id, reason, changes) }
    }

    pub(super) fn requeue_task(
        &mut self,
        id: TaskId,
        reason: &Reason,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        let from = self.check_status(id, |status| !matches!(status, TaskStatus::Pending | TaskStatus::Completed))?;
        if from.is_terminal() {
            self.check_room()?;
        }
        let mut task = self.take(id)?;
        self.fence(&mut task);
        task.state = TaskState::Pending { not_before: task.fenced_until, kept_for: None };
        task.attempts = 0;
        task.progress = None;
        task.checkpoint = None;
        task.expires_at = task.spec.valid_for_ms.map(|ms| self.head.clock.plus_ms(ms));
        let receipt = self.put(task);
        changes.record(self.head.clock, ChangeKind::Requeued { task: id, from, reason: reason.clone() });
        Ok(receipt)
    }

    /// Takes a stale claim back, if it is still the one that the orchestrator saw and still stale.
    pub(super) fn expire_claim(&mut self, id: TaskId, epoch: ClaimEpoch, changes: &mut Changes) {
        let Some(task) = self.tasks.get(&id) else { return };
        let TaskState::Claimed { by, stale_at, .. } = &task.state else { return };
        if task.epoch != epoch || *stale_at > self.head.clock {
            return;
        }
        let (from, ms) = (by.clone(), task.spec.stale_after_ms);
        let Ok(mut task) = self.take(id) else { return };
        self.fence(&mut task);
        let reason = Reason::truncated(&format!("{from} reported no progress for {ms} ms"));
        let not_before = self.head.clock.plus_ms(task.spec.retry.backoff_ms(task.attempts)).max(task.fenced_until);
        let cause = ReclaimCause::Stale;
        let change = ChangeKind::Reclaimed { task: id, from, epoch, cause, not_before, kept_for: None };
        self.end_attempt(task, reason, Some(Next { not_before, kept_for: None, change }), changes);
    }

    pub(super) fn release_task(&mut self, claim: &Claim, changes: &mut Changes) -> Result<Receipt, Refusal> {
        self.check_claim(claim)?;
        self.reclaim(claim.task, &claim.agent, ReclaimCause::Released, changes);
        self.tasks.get(&claim.task).map(|task| receipt(task)).ok_or(Refusal::NoSuchTask(claim.task))
    }

    /// Takes back a claim whose holder went away. There is no wait before the next attempt: the task did not fail.
    pub(super) fn reclaim(&mut self, id: TaskId, from: &AgentId, cause: ReclaimCause, changes: &mut Changes) {
        let Ok(mut task) = self.take(id) else { return };
        if matches!(cause, ReclaimCause::Detached | ReclaimCause::Released) {
            // Neither done nor failed: it is as if it had not been tried.
            task.attempts = task.attempts.saturating_sub(1);
            let (not_before, epoch, from) = (self.head.clock, task.epoch, from.clone());
            task.state = TaskState::Pending { not_before, kept_for: None };
            let change = ChangeKind::Reclaimed { task: id, from, epoch, cause, not_before, kept_for: None };
            changes.record(self.head.clock, change);
            self.put(task);
            return;
        }
        let reason = Reason::truncated(&format!("{from} does not have it any more: {}", cause.text()));
        let kept_for = match cause {
            ReclaimCause::LeaseExpired => task.spec.disconnect.kept_for(from, self.head.clock),
            ReclaimCause::Stale | ReclaimCause::Detached | ReclaimCause::Released => None,
        };
        let not_before = self.head.clock;
        let (from, epoch) = (from.clone(), task.epoch);
        let change = ChangeKind::Reclaimed { task: id, from, epoch, cause, not_before, kept_for: kept_for.clone() };
        self.end_attempt(task, reason, Some(Next { not_before, kept_for, change }), changes);
    }

    /// Ends a task that is worthless by now, claimed or not.
    pub(super) fn expire_task(&mut self, id: TaskId, changes: &mut Changes) {
        let Some(task) = self.tasks.get(&id) else { return };
        let due = worthless_at(task).is_some_and(|at| at <= self.head.clock);
        if !due || task.state.status().is_terminal() {
            return;
        }
        let Ok(mut task) = self.take(id) else { return };
        self.fence(&mut task);
        task.state = TaskState::Expired { at: self.head.clock };
        self.put(task);
        changes.record(self.head.clock, ChangeKind::Expired { task: id });
    }

    /// A claim is taken back while its holder's lease may run: nobody else gets the task before that has ended.
    fn fence(&self, task: &mut Task) {
        let TaskState::Claimed { by, .. } = &task.state else { return };
        if let Some(attachment) = self.agents.attachment(by) {
            task.fenced_until = self.head.clock.plus_ms(attachment.lease.orchestrator_ms());
        }
    }

    /// Ends an attempt that did not succeed: another one, unless there is none or they are used up, or a dead letter.
    fn end_attempt(&mut self, mut task: Task, reason: Reason, next: Option<Next>, changes: &mut Changes) -> Receipt {
        while !task.failures.is_empty() && task.failures.len() as u64 >= self.head.limits.failures_kept {
            task.failures.remove(0);
        }
        task.failures.push(Failure { attempt: task.attempts, reason: reason.clone(), at: self.head.clock });
        let attempts = task.attempts;
        match next {
            Some(Next { not_before, kept_for, change }) if attempts < task.spec.retry.attempts_max => {
                task.state = TaskState::Pending { not_before, kept_for };
                changes.record(self.head.clock, change);
            }
            next => {
                let reason = match next {
                    Some(_) => Reason::truncated(&format!("all {attempts} attempts failed; the last: {reason}")),
                    None => reason,
                };
                task.state = TaskState::DeadLettered { reason: reason.clone(), at: self.head.clock };
                changes.record(self.head.clock, ChangeKind::DeadLettered { task: task.id, reason });
            }
        }
        self.put(task)
    }

    fn check_claimable(&self, id: TaskId, agent: &AgentId, role: &Role) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or(Refusal::NoSuchTask(id))?;
        match &task.state {
            TaskState::Pending { not_before, .. } if *not_before > self.head.clock => {
                Err(Refusal::BackingOff { task: id, not_before: *not_before })
            }
            TaskState::Pending { kept_for: Some(kept), .. } if self.excludes(kept, agent) => {
                Err(Refusal::KeptFor { task: id, agent: kept.agent.clone(), until: kept.until })
            }
            TaskState::Pending { .. } if !task.spec.required.is_subset(&role.capabilities) => {
                Err(Refusal::NotCapable { task: id, agent: agent.clone() })
            }
            TaskState::Pending { .. } if self.is_worthless(task) => {
                Err(Refusal::WrongStatus { task: id, status: TaskStatus::Expired })
            }
            TaskState::Pending { .. } => Ok(()),
            TaskState::Claimed { by, .. } => Err(Refusal::LostRace { task: id, by: by.clone() }),
            ended @ (TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. }) => Err(Refusal::WrongStatus { task: id, status: ended.status() }),
        }
    }

    fn excludes(&self, kept: &KeptFor, agent: &AgentId) -> bool {
        kept.exclusive && kept.until > self.head.clock && kept.agent != *agent
    }

    fn most_urgent_for(&self, agent: &AgentId, role: &Role) -> Option<TaskId> {
        self.claimable(self.head.clock, [(agent, &role.capabilities)]).next().map(|task| task.id)
    }

    fn is_worthless(&self, task: &Task) -> bool {
        task.expires_at.is_some_and(|at| at <= self.head.clock)
    }

    /// Whether a claim is the latest of its task and belongs to its agent; since when it is held, and what it was
    /// assigned under.
    fn check_claim(&self, claim: &Claim) -> Result<(LogInstant, Option<AttachmentId>), Refusal> {
        let task = self.tasks.get(&claim.task).ok_or(Refusal::NoSuchTask(claim.task))?;
        if claim.epoch != task.epoch && !is_on(Mutant::NoFenceInApply) {
            let (given, current) = (claim.epoch, task.epoch);
            return Err(Refusal::StaleEpoch { task: claim.task, given, current });
        }
        match &task.state {
            TaskState::Claimed { by, since, assigned, .. } if *by == claim.agent || is_on(Mutant::NoFenceInApply) => {
                Ok((*since, *assigned))
            }
            TaskState::Claimed { by, .. } => Err(Refusal::NotHolder { task: claim.task, holder: by.clone() }),
            other @ (TaskState::Pending { .. }
            | TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. }) => Err(Refusal::WrongStatus { task: claim.task, status: other.status() }),
        }
    }

    fn check_status(&self, id: TaskId, allowed: impl Fn(TaskStatus) -> bool) -> Result<TaskStatus, Refusal> {
        let task = self.tasks.get(&id).ok_or(Refusal::NoSuchTask(id))?;
        let status = task.state.status();
        if allowed(status) { Ok(status) } else { Err(Refusal::WrongStatus { task: id, status }) }
    }

    /// Whether there is room for one more live task.
    fn check_room(&self) -> Result<(), Refusal> {
        let live = self.tasks.len().saturating_sub(self.ended.len()) as u64;
        if live >= self.head.limits.live_tasks_max {
            return Err(Refusal::ShardFull { what: ShardFullOf::Tasks, count: live });
        }
        if self.task_bytes >= self.head.limits.task_bytes_max {
            return Err(Refusal::ShardFull { what: ShardFullOf::TaskBytes, count: self.task_bytes });
        }
        Ok(())
    }

    pub(super) fn take_seq(&mut self) -> u64 {
        let seq = self.head.next_seq;
        self.head.next_seq += 1;
        seq
    }

    /// Takes a task out of every index, to be changed and put back.
    pub(super) fn take(&mut self, id: TaskId) -> Result<Task, Refusal> {
        let task = self.tasks.get(&id).cloned().ok_or(Refusal::NoSuchTask(id))?;
        self.unindex(&task);
        Ok(Arc::unwrap_or_clone(task))
    }

    /// Puts a changed task back.
    fn put(&mut self, mut task: Task) -> Receipt {
        task.updated_at = self.head.clock;
        let receipt = receipt(&task);
        self.insert(task);
        receipt
    }

    /// Puts a task that was taken out back into every index.
    pub(super) fn insert(&mut self, task: Task) {
        if task.state.status().is_terminal() {
            let seq = self.take_seq();
            self.ended.note(seq, task.id, task.state.status());
        }
        self.index(&task);
        self.tasks.insert(task.id, Arc::new(task));
        self.forget_ended_tasks();
    }

    /// Everything that can be told from the task itself.
    pub(super) fn index(&mut self, task: &Task) {
        self.task_bytes += task.bytes();
        match &task.state {
            TaskState::Pending { .. } => {
                self.add_pending(task);
                self.offered_at = self.head.applying.index;
            }
            TaskState::Claimed { by, stale_at, .. } => {
                self.due.insert((*stale_at, Due::StaleClaim, task.id));
                self.hold(by, task.id);
            }
            TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. } => {
                self.ended.weigh(task);
                return;
            }
        }
        if let Some(at) = worthless_at(task) {
            self.due.insert((at, Due::TaskExpiry, task.id));
        }
    }

    pub(super) fn unindex(&mut self, task: &Task) {
        self.task_bytes = self.task_bytes.saturating_sub(task.bytes());
        match &task.state {
            TaskState::Pending { .. } => self.remove_pending(task),
            TaskState::Claimed { by, stale_at, .. } => {
                self.due.remove(&(*stale_at, Due::StaleClaim, task.id));
                self.release(by, task.id);
            }
            TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. } => {
                self.ended.remove(task);
                return;
            }
        }
        if let Some(at) = worthless_at(task) {
            self.due.remove(&(at, Due::TaskExpiry, task.id));
        }
    }

    pub(super) fn held_count(&self, agent: &AgentId) -> u32 {
        self.held.get(agent).map_or(0, |tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }

    fn hold(&mut self, agent: &AgentId, task: TaskId) {
        let before = self.held_count(agent);
        self.held.entry(agent.clone()).or_default().insert(task);
        let held = self.held_count(agent);
        self.agents.note_held(agent, before, held, self.head.applying.index);
    }

    fn release(&mut self, agent: &AgentId, task: TaskId) {
        let before = self.held_count(agent);
        if let Some(tasks) = self.held.get_mut(agent) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.held.remove(agent);
            }
        }
        let held = self.held_count(agent);
        self.agents.note_held(agent, before, held, self.head.applying.index);
    }
}
