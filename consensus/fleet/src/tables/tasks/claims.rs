//! Who holds a task, and its progress.

use std::sync::Arc;

use skep_protocol::agent::{AgentRefusal, Role};
use skep_protocol::ids::{AttachmentId, TaskId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{
    Claim, KeptFor, ReclaimCause, Task, TaskChange, TaskProgress, TaskRefusal, TaskState, TaskStatus,
    check_checkpoint_within,
};
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::{Agents, Cx, Tasks, receipt};

fn excludes(kept: &KeptFor, agent: &AgentId, now: LogInstant) -> bool {
    kept.exclusive && kept.until > now && kept.agent != *agent
}

fn is_worthless(task: &Task, now: LogInstant) -> bool {
    task.expires_at.is_some_and(|at| at <= now)
}

impl Tasks {
    /// Gives an agent a task that it names, or the most urgent task that it may have.
    pub(super) fn claim(
        &mut self,
        agent: &AgentId,
        task: Option<TaskId>,
        attachment: Option<AttachmentId>,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        if let Some(attachment) = attachment {
            agents.check_attachment(agent, attachment)?;
        }
        let role = agents.role_of(agent);
        let id = match task {
            Some(id) => {
                self.check_claimable(id, agent, &role, cx)?;
                id
            }
            None => match self.most_urgent_for(agent, &role, cx) {
                Some(id) => id,
                None => return Ok(Receipt::NothingToClaim),
            },
        };
        let held = self.held_count(agent);
        if held >= role.max_concurrent {
            return Err(AgentRefusal::Busy { agent: agent.clone(), held, max: role.max_concurrent }.into());
        }
        self.give(id, agent, None, agents, cx)
    }

    /// Assigns a task to an agent that asked for work, if everything is still as the orchestrator saw it.
    pub(crate) fn assign(
        &mut self,
        id: TaskId,
        agent: &AgentId,
        attachment: AttachmentId,
        nth: u64,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) {
        let Some(record) = agents.get(agent) else { return };
        let expected = record.attachment.is_some_and(|a| a.id == attachment && a.assigned == nth);
        let room = self.held_count(agent) < record.role.max_concurrent;
        if !expected || !room || self.check_claimable(id, agent, &record.role, cx).is_err() {
            return;
        }
        if self.give(id, agent, Some(attachment), agents, cx).is_ok() {
            agents.count_assigned(agent, self.held_count(agent), cx.index);
        }
    }

    fn give(
        &mut self,
        id: TaskId,
        agent: &AgentId,
        assigned: Option<AttachmentId>,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        let mut task = self.take(id, agents, cx)?;
        task.epoch = task.epoch.next();
        task.attempts = task.attempts.saturating_add(1);
        task.progress = None;
        let stale_at = cx.now.plus_ms(task.spec.stale_after_ms);
        task.state = TaskState::Claimed { by: agent.clone(), since: cx.now, stale_at, assigned };
        let (epoch, attempt) = (task.epoch, task.attempts);
        let receipt = self.put(task, agents, cx);
        cx.record((id, TaskChange::Claimed { by: agent.clone(), epoch, attempt }));
        Ok(receipt)
    }

    /// Takes a progress report from the holder of a task.
    pub(super) fn report_progress(
        &mut self,
        claim: &Claim,
        permille: u16,
        note: &Reason,
        checkpoint: Option<&[u8]>,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        checkpoint.map_or(Ok(()), |checkpoint| check_checkpoint_within(checkpoint, cx.limits))?;
        let (since, assigned) = self.check_claim(claim)?;
        let checkpoint: Option<Arc<[u8]>> = checkpoint.map(Arc::from);
        let mut task = self.take(claim.task, agents, cx)?;
        task.checkpoint = checkpoint.clone().or(task.checkpoint);
        task.progress = Some(TaskProgress { permille, note: note.clone(), at: cx.now });
        let stale_at = cx.now.plus_ms(task.spec.stale_after_ms);
        task.state = TaskState::Claimed { by: claim.agent.clone(), since, stale_at, assigned };
        let receipt = self.put(task, agents, cx);
        let (epoch, note) = (claim.epoch, note.clone());
        cx.record((claim.task, TaskChange::Progressed { epoch, permille, note, checkpoint }));
        Ok(receipt)
    }

    /// Releases a task that its holder does not want.
    pub(super) fn give_back(
        &mut self,
        claim: &Claim,
        agents: &mut Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        self.check_claim(claim)?;
        self.reclaim(claim.task, &claim.agent, ReclaimCause::Released, agents, cx);
        self.records.get(&claim.task).map(|task| receipt(task)).ok_or(TaskRefusal::NoSuchTask(claim.task).into())
    }

    fn check_claimable(&self, id: TaskId, agent: &AgentId, role: &Role, cx: &Cx<'_>) -> Result<(), Refusal> {
        let task = self.records.get(&id).ok_or(TaskRefusal::NoSuchTask(id))?;
        match &task.state {
            TaskState::Pending { not_before, .. } if *not_before > cx.now => {
                Err(TaskRefusal::BackingOff { task: id, not_before: *not_before }.into())
            }
            TaskState::Pending { kept_for: Some(kept), .. } if excludes(kept, agent, cx.now) => {
                Err(TaskRefusal::KeptFor { task: id, agent: kept.agent.clone(), until: kept.until }.into())
            }
            TaskState::Pending { .. } if !task.spec.required.is_subset(&role.capabilities) => {
                Err(TaskRefusal::NotCapable { task: id, agent: agent.clone() }.into())
            }
            TaskState::Pending { .. } if is_worthless(task, cx.now) => {
                Err(TaskRefusal::WrongStatus { task: id, status: TaskStatus::Expired }.into())
            }
            TaskState::Pending { .. } => Ok(()),
            TaskState::Claimed { by, .. } => Err(TaskRefusal::LostRace { task: id, by: by.clone() }.into()),
            ended @ (TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. }) => Err(TaskRefusal::WrongStatus { task: id, status: ended.status() }.into()),
        }
    }

    fn most_urgent_for(&self, agent: &AgentId, role: &Role, cx: &Cx<'_>) -> Option<TaskId> {
        self.claimable(cx.now, [(agent, &role.capabilities)], cx.limits.claim_scan_max).next().map(|task| task.id)
    }

    /// Checks that a claim is the latest of its task and belongs to its agent; returns since when the agent holds it,
    /// and what it was assigned under.
    pub(super) fn check_claim(&self, claim: &Claim) -> Result<(LogInstant, Option<AttachmentId>), Refusal> {
        let task = self.records.get(&claim.task).ok_or(TaskRefusal::NoSuchTask(claim.task))?;
        if claim.epoch != task.epoch && !is_on(Mutant::NoFenceInApply) {
            let (given, current) = (claim.epoch, task.epoch);
            return Err(TaskRefusal::StaleEpoch { task: claim.task, given, current }.into());
        }
        match &task.state {
            TaskState::Claimed { by, since, assigned, .. } if *by == claim.agent || is_on(Mutant::NoFenceInApply) => {
                Ok((*since, *assigned))
            }
            TaskState::Claimed { by, .. } => {
                Err(TaskRefusal::NotHolder { task: claim.task, holder: by.clone() }.into())
            }
            other @ (TaskState::Pending { .. }
            | TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. }) => {
                Err(TaskRefusal::WrongStatus { task: claim.task, status: other.status() }.into())
            }
        }
    }
}
