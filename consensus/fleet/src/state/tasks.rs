//! The life of a task.

use std::cmp::Reverse;
use std::sync::Arc;

use skep_protocol::agent::Role;
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::Claim;
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::task::{Failure, Progress, Task, TaskSpec, TaskState, TaskStatus, check_payload};
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::apply::Journal;
use super::{Due, FleetState};

fn receipt(task: &Task) -> Receipt {
    Receipt::Task { task: task.id, status: task.state.status(), epoch: task.epoch, attempts: task.attempts }
}

impl FleetState {
    pub(super) fn create_task(
        &mut self,
        id: TaskId,
        spec: &TaskSpec,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        spec.check()?;
        if self.tasks.contains_key(&id) {
            return Err(Refusal::TaskExists(id));
        }
        self.check_room()?;
        let spec = Arc::new(spec.clone());
        let task = Task {
            id,
            state: TaskState::Pending { not_before: LogInstant::ZERO },
            seq: self.take_seq(),
            epoch: self.epoch_floor,
            attempts: 0,
            created_at: self.clock,
            updated_at: self.clock,
            expires_at: spec.valid_for_ms.map(|ms| self.clock.plus_ms(ms)),
            progress: None,
            failures: Vec::new(),
            spec: Arc::clone(&spec),
        };
        let receipt = receipt(&task);
        self.insert(task);
        journal.record(self.clock, ChangeKind::Created { task: id, spec });
        Ok(receipt)
    }

    pub(super) fn claim_task(
        &mut self,
        agent: &AgentId,
        task: Option<TaskId>,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        let role = self.role_of(agent);
        let id = match task {
            Some(id) => {
                self.check_claimable(id, agent, &role)?;
                id
            }
            None => match self.most_urgent_for(&role) {
                Some(id) => id,
                None => return Ok(Receipt::NothingToClaim),
            },
        };
        let held = self.held_count(agent);
        if held >= role.max_concurrent {
            return Err(Refusal::AgentBusy { agent: agent.clone(), held, max: role.max_concurrent });
        }
        let mut task = self.take(id)?;
        task.epoch = task.epoch.next();
        task.attempts = task.attempts.saturating_add(1);
        task.progress = None;
        let stale_at = self.clock.plus_ms(task.spec.stale_after_ms);
        task.state = TaskState::Claimed { by: agent.clone(), since: self.clock, stale_at };
        let (epoch, attempt) = (task.epoch, task.attempts);
        let receipt = self.put(task);
        journal.record(self.clock, ChangeKind::Claimed { task: id, by: agent.clone(), epoch, attempt });
        Ok(receipt)
    }

    pub(super) fn report_progress(
        &mut self,
        claim: &Claim,
        permille: u16,
        note: &Reason,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        let since = self.check_claim(claim)?;
        let mut task = self.take(claim.task)?;
        task.progress = Some(Progress { permille, note: note.clone(), at: self.clock });
        let stale_at = self.clock.plus_ms(task.spec.stale_after_ms);
        task.state = TaskState::Claimed { by: claim.agent.clone(), since, stale_at };
        let receipt = self.put(task);
        journal.record(
            self.clock,
            ChangeKind::Progressed { task: claim.task, epoch: claim.epoch, permille, note: note.clone() },
        );
        Ok(receipt)
    }

    pub(super) fn complete_task(
        &mut self,
        claim: &Claim,
        result: &[u8],
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        check_payload(result)?;
        self.check_claim(claim)?;
        let result: Arc<[u8]> = Arc::from(result);
        let mut task = self.take(claim.task)?;
        task.state = TaskState::Completed { by: claim.agent.clone(), at: self.clock, result: Arc::clone(&result) };
        let receipt = self.put(task);
        let (task, by, epoch) = (claim.task, claim.agent.clone(), claim.epoch);
        journal.record(self.clock, ChangeKind::Completed { task, by, epoch, result });
        Ok(receipt)
    }

    pub(super) fn fail_task(
        &mut self,
        claim: &Claim,
        reason: &Reason,
        retryable: bool,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        self.check_claim(claim)?;
        let task = self.take(claim.task)?;
        let retry = |not_before| ChangeKind::Retried {
            task: claim.task,
            epoch: claim.epoch,
            reason: reason.clone(),
            not_before,
        };
        Ok(self.end_attempt(task, reason.clone(), retryable, retry, journal))
    }

    pub(super) fn cancel_task(
        &mut self,
        id: TaskId,
        reason: &Reason,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        self.check_status(id, |status| !status.is_terminal())?;
        let mut task = self.take(id)?;
        task.state = TaskState::Cancelled { reason: reason.clone(), at: self.clock };
        let receipt = self.put(task);
        journal.record(self.clock, ChangeKind::Cancelled { task: id, reason: reason.clone() });
        Ok(receipt)
    }

    pub(super) fn requeue_task(
        &mut self,
        id: TaskId,
        reason: &Reason,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        let from = self.check_status(id, |status| !matches!(status, TaskStatus::Pending | TaskStatus::Completed))?;
        if from.is_terminal() {
            self.check_room()?;
        }
        let mut task = self.take(id)?;
        task.state = TaskState::Pending { not_before: LogInstant::ZERO };
        task.attempts = 0;
        task.progress = None;
        task.expires_at = task.spec.valid_for_ms.map(|ms| self.clock.plus_ms(ms));
        let receipt = self.put(task);
        journal.record(self.clock, ChangeKind::Requeued { task: id, from, reason: reason.clone() });
        Ok(receipt)
    }

    /// Takes a stale claim back, if it is still the one that the orchestrator saw and still stale.
    pub(super) fn expire_claim(&mut self, id: TaskId, epoch: ClaimEpoch, journal: &mut Journal) {
        let Some(task) = self.tasks.get(&id) else { return };
        let TaskState::Claimed { by, stale_at, .. } = &task.state else { return };
        if task.epoch != epoch || *stale_at > self.clock {
            return;
        }
        let (from, ms) = (by.clone(), task.spec.stale_after_ms);
        let Ok(task) = self.take(id) else { return };
        let reason = Reason::truncated(&format!("{from} reported no progress for {ms} ms"));
        let reclaim = |not_before| ChangeKind::Reclaimed { task: id, from, epoch, not_before };
        self.end_attempt(task, reason, true, reclaim, journal);
    }

    /// Ends a task that is worthless by now, claimed or not.
    pub(super) fn expire_task(&mut self, id: TaskId, journal: &mut Journal) {
        let Some(task) = self.tasks.get(&id) else { return };
        let due = task.expires_at.is_some_and(|at| at <= self.clock);
        if !due || task.state.status().is_terminal() {
            return;
        }
        let Ok(mut task) = self.take(id) else { return };
        task.state = TaskState::Expired { at: self.clock };
        self.put(task);
        journal.record(self.clock, ChangeKind::Expired { task: id });
    }

    /// Ends an attempt that failed: another one after a wait, or a dead letter.
    fn end_attempt(
        &mut self,
        mut task: Task,
        reason: Reason,
        retryable: bool,
        retry: impl FnOnce(LogInstant) -> ChangeKind,
        journal: &mut Journal,
    ) -> Receipt {
        if task.failures.len() == limits::FAILURES_KEPT {
            task.failures.remove(0);
        }
        task.failures.push(Failure { attempt: task.attempts, reason: reason.clone(), at: self.clock });
        if retryable && task.attempts < task.spec.retry.attempts_max {
            let not_before = self.clock.plus_ms(task.spec.retry.backoff_ms(task.attempts));
            task.state = TaskState::Pending { not_before };
            journal.record(self.clock, retry(not_before));
        } else {
            let attempts = task.attempts;
            let reason = if retryable {
                Reason::truncated(&format!("all {attempts} attempts failed; the last: {reason}"))
            } else {
                reason
            };
            task.state = TaskState::DeadLettered { reason: reason.clone(), at: self.clock };
            journal.record(self.clock, ChangeKind::DeadLettered { task: task.id, reason });
        }
        self.put(task)
    }

    fn check_claimable(&self, id: TaskId, agent: &AgentId, role: &Role) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or(Refusal::NoSuchTask(id))?;
        match &task.state {
            TaskState::Pending { not_before } if *not_before > self.clock => {
                Err(Refusal::BackingOff { task: id, not_before: *not_before })
            }
            TaskState::Pending { .. } if !task.spec.required.is_subset(&role.capabilities) => {
                Err(Refusal::NotCapable { task: id, agent: agent.clone() })
            }
            TaskState::Pending { .. } if self.is_worthless(task) => {
                Err(Refusal::WrongStatus { task: id, status: TaskStatus::Expired })
            }
            TaskState::Pending { .. } => Ok(()),
            TaskState::Claimed { by, .. } => Err(Refusal::LostRace { task: id, by: by.clone() }),
            ended => Err(Refusal::WrongStatus { task: id, status: ended.status() }),
        }
    }

    fn most_urgent_for(&self, role: &Role) -> Option<TaskId> {
        let suits = |task: &Task| {
            matches!(task.state, TaskState::Pending { not_before } if not_before <= self.clock)
                && task.spec.required.is_subset(&role.capabilities)
                && !self.is_worthless(task)
        };
        self.pending
            .iter()
            .take(limits::CLAIM_SCAN_MAX)
            .map(|(_, _, id)| id)
            .find(|id| self.tasks.get(*id).is_some_and(|task| suits(task)))
            .copied()
    }

    fn is_worthless(&self, task: &Task) -> bool {
        task.expires_at.is_some_and(|at| at <= self.clock)
    }

    /// Whether a claim is the latest of its task and belongs to its agent; since when it is held.
    fn check_claim(&self, claim: &Claim) -> Result<LogInstant, Refusal> {
        let task = self.tasks.get(&claim.task).ok_or(Refusal::NoSuchTask(claim.task))?;
        if claim.epoch != task.epoch {
            let (given, current) = (claim.epoch, task.epoch);
            return Err(Refusal::StaleEpoch { task: claim.task, given, current });
        }
        match &task.state {
            TaskState::Claimed { by, since, .. } if *by == claim.agent => Ok(*since),
            TaskState::Claimed { by, .. } => Err(Refusal::NotHolder { task: claim.task, holder: by.clone() }),
            other => Err(Refusal::WrongStatus { task: claim.task, status: other.status() }),
        }
    }

    fn check_status(&self, id: TaskId, allowed: impl Fn(TaskStatus) -> bool) -> Result<TaskStatus, Refusal> {
        let task = self.tasks.get(&id).ok_or(Refusal::NoSuchTask(id))?;
        let status = task.state.status();
        if allowed(status) { Ok(status) } else { Err(Refusal::WrongStatus { task: id, status }) }
    }

    /// Whether there is room for one more live task.
    fn check_room(&self) -> Result<(), Refusal> {
        let live = (self.tasks.len() - self.ended.len()) as u64;
        if live >= self.limits.live_tasks_max {
            return Err(Refusal::ShardFull { what: ShardFullOf::Tasks, count: live });
        }
        if self.task_bytes >= self.limits.task_bytes_max {
            return Err(Refusal::ShardFull { what: ShardFullOf::TaskBytes, count: self.task_bytes });
        }
        Ok(())
    }

    fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Takes a task out of every index, to be changed and put back.
    fn take(&mut self, id: TaskId) -> Result<Task, Refusal> {
        let task = self.tasks.get(&id).cloned().ok_or(Refusal::NoSuchTask(id))?;
        self.unindex(&task);
        Ok(Arc::unwrap_or_clone(task))
    }

    /// Puts a changed task back.
    fn put(&mut self, mut task: Task) -> Receipt {
        task.updated_at = self.clock;
        let receipt = receipt(&task);
        self.insert(task);
        receipt
    }

    fn insert(&mut self, task: Task) {
        if task.state.status().is_terminal() {
            let seq = self.take_seq();
            self.note_end(seq, task.id);
        }
        self.index(&task);
        self.tasks.insert(task.id, Arc::new(task));
        self.forget_oldest_ended();
    }

    pub(super) fn note_end(&mut self, seq: u64, id: TaskId) {
        self.ended.insert((seq, id));
        self.ended_seq.insert(id, seq);
    }

    /// Everything that can be told from the task itself.
    pub(super) fn index(&mut self, task: &Task) {
        self.task_bytes += task.bytes();
        match &task.state {
            TaskState::Pending { .. } => {
                self.pending.insert((Reverse(task.spec.priority), task.seq, task.id));
            }
            TaskState::Claimed { by, stale_at, .. } => {
                self.due.insert((*stale_at, Due::StaleClaim, task.id));
                self.hold(by, task.id);
            }
            _ => {
                self.ended_bytes += task.bytes();
                return;
            }
        }
        if let Some(at) = task.expires_at {
            self.due.insert((at, Due::TaskExpiry, task.id));
        }
    }

    fn unindex(&mut self, task: &Task) {
        self.task_bytes = self.task_bytes.saturating_sub(task.bytes());
        match &task.state {
            TaskState::Pending { .. } => {
                self.pending.remove(&(Reverse(task.spec.priority), task.seq, task.id));
            }
            TaskState::Claimed { by, stale_at, .. } => {
                self.due.remove(&(*stale_at, Due::StaleClaim, task.id));
                self.release(&by.clone(), task.id);
            }
            _ => {
                self.ended_bytes = self.ended_bytes.saturating_sub(task.bytes());
                if let Some(seq) = self.ended_seq.remove(&task.id) {
                    self.ended.remove(&(seq, task.id));
                }
                return;
            }
        }
        if let Some(at) = task.expires_at {
            self.due.remove(&(at, Due::TaskExpiry, task.id));
        }
    }

    fn forget_oldest_ended(&mut self) {
        while self.ended.len() as u64 > self.limits.terminal_tasks_kept
            || (self.ended_bytes > self.limits.terminal_task_bytes_kept && self.ended.len() > 1)
        {
            let Some((_, id)) = self.ended.get_min().copied() else { break };
            let Some(task) = self.tasks.remove(&id) else { break };
            self.unindex(&task);
            self.epoch_floor = self.epoch_floor.max(task.epoch);
        }
    }
}
