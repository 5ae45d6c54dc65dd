//! Tasks at the border.

use std::collections::BTreeSet;

use skep_protocol::change::ChangeKind;
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::history::HistoryRecord;
use skep_protocol::ids::{AttachmentId, ClaimEpoch, RequestId, TaskId};
use skep_protocol::outcome::Receipt;
use skep_protocol::task::{
    Claim, DisconnectPolicy, Feed, Priority, Reconcile, RetryPolicy, Task, TaskChange, TaskOp, TaskSpec, TaskState,
    TaskStatus, TaskView, check_checkpoint, check_payload,
};
use skep_protocol::text::{AgentId, Reason, TaskKind, Title};
use skep_protocol::time::LogInstant;

use super::agents::{position, position_to_proto};
use super::{Meta, capabilities, duration_ms, duration_to_proto, meta, permille};
use crate::v1;

/// Reads a task id of 16 bytes.
///
/// # Errors
/// [`FieldError`] if there are not exactly 16.
pub fn task_id(bytes: &[u8]) -> Result<TaskId, FieldError> {
    bytes.try_into().map(TaskId::from_bytes).map_err(|_| field("task_id", "give the 16 bytes of a UUID"))
}

/// Reads a task id of 16 bytes, or none.
///
/// # Errors
/// [`FieldError`] if there are neither 0 nor 16 bytes.
pub fn optional_task_id(bytes: &[u8]) -> Result<Option<TaskId>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { task_id(bytes).map(Some) }
}

/// Reads what a client wants done.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn task_spec(spec: Option<v1::TaskSpec>) -> Result<TaskSpec, FieldError> {
    let spec = spec.ok_or_else(|| field("spec", "it is missing"))?;
    let retry = match spec.retry {
        None => RetryPolicy::default(),
        Some(retry) => {
            let default = RetryPolicy::default();
            let initial = duration_ms("spec.retry.backoff_initial", retry.backoff_initial)?;
            let backoff_initial_ms = initial.unwrap_or(default.backoff_initial_ms);
            let max = duration_ms("spec.retry.backoff_max", retry.backoff_max)?;
            RetryPolicy {
                attempts_max: retry.attempts_max.unwrap_or(default.attempts_max),
                backoff_initial_ms,
                backoff_max_ms: max.unwrap_or(default.backoff_max_ms.max(backoff_initial_ms)),
            }
        }
    };
    let kind = if spec.r#type.is_empty() { "task" } else { &spec.r#type };
    let priority = v1::Priority::try_from(spec.priority).map_err(|_| field("spec.priority", "it is unknown"))?;
    let spec = TaskSpec {
        title: Title::new(&spec.title).in_field("spec.title")?,
        kind: TaskKind::new(kind).in_field("spec.type")?,
        priority: match priority {
            v1::Priority::Unspecified | v1::Priority::Normal => Priority::Normal,
            v1::Priority::Low => Priority::Low,
            v1::Priority::High => Priority::High,
            v1::Priority::Urgent => Priority::Urgent,
        },
        required: capabilities("spec.required_capabilities", &spec.required_capabilities)?,
        payload: spec.payload,
        retry,
        stale_after_ms: duration_ms("spec.stale_after", spec.stale_after)?.unwrap_or(TaskSpec::STALE_AFTER_MS_DEFAULT),
        valid_for_ms: duration_ms("spec.valid_for", spec.valid_for)?,
        disconnect: disconnect(spec.disconnect)?,
        place: spec.place.map(position),
    };
    spec.check().in_field("spec")?;
    Ok(spec)
}

fn disconnect(policy: Option<v1::DisconnectPolicy>) -> Result<DisconnectPolicy, FieldError> {
    let Some(policy) = policy else { return Ok(DisconnectPolicy::default()) };
    let reconcile = v1::Reconcile::try_from(policy.reconcile);
    Ok(DisconnectPolicy {
        lost_after_ms: duration_ms("spec.disconnect.lost_after", policy.lost_after)?.unwrap_or(0),
        replace: !policy.do_not_replace,
        reconcile: match reconcile.map_err(|_| field("spec.disconnect.reconcile", "it is unknown"))? {
            v1::Reconcile::Unspecified | v1::Reconcile::FirstCome => Reconcile::FirstCome,
            v1::Reconcile::KeepOriginal => Reconcile::KeepOriginal,
        },
    })
}

/// The protobuf form of a specification.
pub fn task_spec_to_proto(spec: &TaskSpec) -> v1::TaskSpec {
    v1::TaskSpec {
        title: spec.title.to_string(),
        r#type: spec.kind.to_string(),
        priority: priority_to_proto(spec.priority).into(),
        required_capabilities: spec.required.iter().map(ToString::to_string).collect(),
        payload: spec.payload.clone(),
        retry: Some(v1::RetryPolicy {
            attempts_max: Some(spec.retry.attempts_max),
            backoff_initial: Some(duration_to_proto(spec.retry.backoff_initial_ms)),
            backoff_max: Some(duration_to_proto(spec.retry.backoff_max_ms)),
        }),
        stale_after: Some(duration_to_proto(spec.stale_after_ms)),
        valid_for: spec.valid_for_ms.map(duration_to_proto),
        disconnect: Some(v1::DisconnectPolicy {
            lost_after: Some(duration_to_proto(spec.disconnect.lost_after_ms)),
            do_not_replace: !spec.disconnect.replace,
            reconcile: match spec.disconnect.reconcile {
                Reconcile::FirstCome => v1::Reconcile::FirstCome,
                Reconcile::KeepOriginal => v1::Reconcile::KeepOriginal,
            }
            .into(),
        }),
        place: spec.place.map(position_to_proto),
    }
}

/// The protobuf form of a priority.
pub fn priority_to_proto(priority: Priority) -> v1::Priority {
    match priority {
        Priority::Low => v1::Priority::Low,
        Priority::Normal => v1::Priority::Normal,
        Priority::High => v1::Priority::High,
        Priority::Urgent => v1::Priority::Urgent,
    }
}

fn claim(claim: Option<v1::Claim>) -> Result<Claim, FieldError> {
    let claim = claim.ok_or_else(|| field("claim", "it is missing"))?;
    Ok(Claim {
        task: task_id(&claim.task_id)?,
        agent: AgentId::new(&claim.agent).in_field("claim.agent")?,
        epoch: ClaimEpoch(claim.epoch),
    })
}

/// Reads what a request asks of a task, with its identity.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn task_request(op: v1::task_request::Op) -> Result<(Meta, TaskOp), FieldError> {
    use v1::task_request::Op;
    match op {
        Op::Create(request) => create(request),
        Op::Claim(request) => take(request),
        Op::Progress(request) => report(request),
        Op::Complete(request) => complete(request),
        Op::Fail(request) => fail(request),
        Op::Cancel(request) => cancel(request),
        Op::Release(request) => release(request),
        Op::Requeue(request) => requeue(request),
    }
}

/// The id that a client gave a request; empty if it gave none.
pub fn request_id(op: &v1::task_request::Op) -> Vec<u8> {
    use v1::task_request::Op;
    let meta = match op {
        Op::Create(request) => &request.meta,
        Op::Claim(request) => &request.meta,
        Op::Progress(request) => &request.meta,
        Op::Complete(request) => &request.meta,
        Op::Fail(request) => &request.meta,
        Op::Cancel(request) => &request.meta,
        Op::Requeue(request) => &request.meta,
        Op::Release(request) => &request.meta,
    };
    meta.as_ref().map(|meta| meta.request_id.clone()).unwrap_or_default()
}

fn create(request: v1::CreateTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    let meta = meta(request.meta)?;
    let task = match (optional_task_id(&request.task_id)?, meta.id) {
        (Some(task), _) => task,
        (None, Some(id)) => TaskId::from_bytes(*id.as_bytes()),
        (None, None) => return Err(field("task_id", "give it, or meta.request_id")),
    };
    Ok((meta, TaskOp::Create { task, spec: Box::new(task_spec(request.spec)?) }))
}

fn take(request: v1::ClaimTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    let op = TaskOp::Claim {
        agent: AgentId::new(&request.agent).in_field("agent")?,
        task: optional_task_id(&request.task_id)?,
        attachment: (request.attachment != 0).then_some(AttachmentId(request.attachment)),
    };
    Ok((meta(request.meta)?, op))
}

fn report(request: v1::ReportProgressRequest) -> Result<(Meta, TaskOp), FieldError> {
    if let Some(checkpoint) = &request.checkpoint {
        check_checkpoint(checkpoint).in_field("checkpoint")?;
    }
    let op = TaskOp::Report {
        claim: claim(request.claim)?,
        permille: permille(request.permille)?,
        note: Reason::truncated(&request.note),
        checkpoint: request.checkpoint,
    };
    Ok((meta(request.meta)?, op))
}

fn complete(request: v1::CompleteTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    check_payload(&request.result).in_field("result")?;
    Ok((meta(request.meta)?, TaskOp::Complete { claim: claim(request.claim)?, result: request.result }))
}

fn fail(request: v1::FailTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    let op = TaskOp::Fail {
        claim: claim(request.claim)?,
        reason: Reason::truncated(&request.reason),
        retryable: !request.permanent,
    };
    Ok((meta(request.meta)?, op))
}

fn cancel(request: v1::CancelTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    let (task, reason) = (task_id(&request.task_id)?, Reason::new(&request.reason).in_field("reason")?);
    let op = match request.only_dead_letter {
        true => TaskOp::Settle { task, again: false, reason },
        false => TaskOp::Cancel { task, reason },
    };
    Ok((meta(request.meta)?, op))
}

fn release(request: v1::ReleaseTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    Ok((meta(request.meta)?, TaskOp::Release { claim: claim(request.claim)? }))
}

fn requeue(request: v1::RequeueTaskRequest) -> Result<(Meta, TaskOp), FieldError> {
    let (task, reason) = (task_id(&request.task_id)?, Reason::new(&request.reason).in_field("reason")?);
    let op = match request.only_dead_letter {
        true => TaskOp::Settle { task, again: true, reason },
        false => TaskOp::Requeue { task, reason },
    };
    Ok((meta(request.meta)?, op))
}

/// The protobuf form of a status.
pub fn status_to_proto(status: TaskStatus) -> v1::TaskStatus {
    match status {
        TaskStatus::Pending => v1::TaskStatus::Pending,
        TaskStatus::Claimed => v1::TaskStatus::Claimed,
        TaskStatus::Completed => v1::TaskStatus::Completed,
        TaskStatus::DeadLettered => v1::TaskStatus::DeadLettered,
        TaskStatus::Cancelled => v1::TaskStatus::Cancelled,
        TaskStatus::Expired => v1::TaskStatus::Expired,
    }
}

/// Reads a status that a client asks for.
///
/// # Errors
/// [`FieldError`] if it is unknown or unspecified.
pub fn status(status: i32) -> Result<TaskStatus, FieldError> {
    match v1::TaskStatus::try_from(status) {
        Ok(v1::TaskStatus::Pending) => Ok(TaskStatus::Pending),
        Ok(v1::TaskStatus::Claimed) => Ok(TaskStatus::Claimed),
        Ok(v1::TaskStatus::Completed) => Ok(TaskStatus::Completed),
        Ok(v1::TaskStatus::DeadLettered) => Ok(TaskStatus::DeadLettered),
        Ok(v1::TaskStatus::Cancelled) => Ok(TaskStatus::Cancelled),
        Ok(v1::TaskStatus::Expired) => Ok(TaskStatus::Expired),
        Ok(v1::TaskStatus::Unspecified) | Err(_) => Err(field("statuses", format!("{status} is unknown"))),
    }
}

/// Reads the feeds that a watcher names; all if it names none.
///
/// # Errors
/// [`FieldError`] if one is unknown.
pub fn feeds(names: &[String]) -> Result<BTreeSet<Feed>, FieldError> {
    if names.is_empty() {
        return Ok([Feed::NewOrders, Feed::AssignedTasks, Feed::TaskCompletions].into());
    }
    let unknown = |name: &String| {
        field("feeds", format!("{name:?} is unknown; use new-orders, assigned-tasks, task-completions"))
    };
    names.iter().map(|name| Feed::named(name).ok_or_else(|| unknown(name))).collect()
}

/// The protobuf form of what a request did to a task; none if it did nothing to a task.
pub fn receipt_to_proto(id: RequestId, receipt: &Receipt, index: u64, clock: LogInstant) -> Option<v1::TaskReceipt> {
    match receipt {
        Receipt::Task { task, status, epoch, attempts } => Some(v1::TaskReceipt {
            request_id: id.as_bytes().to_vec(),
            task_id: task.as_bytes().to_vec(),
            status: status_to_proto(*status).into(),
            epoch: epoch.0,
            attempts: *attempts,
            index,
            clock: clock.raw(),
        }),
        _ => None,
    }
}

/// The protobuf form of a task, and why it waits.
pub fn task_view_to_proto(view: &TaskView) -> v1::Task {
    v1::Task { waits: view.waits.as_ref().map(ToString::to_string).unwrap_or_default(), ..task_to_proto(&view.task) }
}

/// The protobuf form of a task.
pub fn task_to_proto(task: &Task) -> v1::Task {
    let mut proto = v1::Task {
        id: task.id.as_bytes().to_vec(),
        spec: Some(task_spec_to_proto(&task.spec)),
        status: status_to_proto(task.state.status()).into(),
        epoch: task.epoch.0,
        attempts: task.attempts,
        created_at: task.created_at.raw(),
        updated_at: task.updated_at.raw(),
        expires_at: task.expires_at.map_or(0, LogInstant::raw),
        progress: task.progress.as_ref().map(|p| v1::TaskProgress {
            permille: p.permille.into(),
            note: p.note.to_string(),
            at: p.at.raw(),
        }),
        checkpoint: task.checkpoint.as_ref().map(|checkpoint| checkpoint.to_vec()).unwrap_or_default(),
        failures: task
            .failures
            .iter()
            .map(|f| v1::TaskFailure { attempt: f.attempt, reason: f.reason.to_string(), at: f.at.raw() })
            .collect(),
        ..v1::Task::default()
    };
    match &task.state {
        TaskState::Pending { not_before, kept_for } => {
            proto.not_before = not_before.raw();
            if let Some(kept) = kept_for {
                (proto.kept_for, proto.kept_until) = (kept.agent.to_string(), kept.until.raw());
            }
        }
        TaskState::Claimed { by, since, stale_at, .. } => {
            proto.claimed_by = by.to_string();
            proto.claimed_at = since.raw();
            proto.stale_at = stale_at.raw();
        }
        TaskState::Completed { by, at, result } => {
            proto.claimed_by = by.to_string();
            proto.ended_at = at.raw();
            proto.result = result.to_vec();
        }
        TaskState::DeadLettered { reason, at } | TaskState::Cancelled { reason, at } => {
            proto.reason = reason.to_string();
            proto.ended_at = at.raw();
        }
        TaskState::Expired { at } => proto.ended_at = at.raw(),
    }
    proto
}

/// The protobuf form of a transition; none if it is not a transition of a task.
pub fn event_to_proto(record: &HistoryRecord) -> Option<v1::TaskEvent> {
    let ChangeKind::Task { task, change } = &record.change.what else { return None };
    let mut event = v1::TaskEvent {
        index: record.index,
        term: record.term,
        clock: record.change.at.raw(),
        feed: change.feed().name().to_owned(),
        request_id: record.change.request.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        task_id: task.as_bytes().to_vec(),
        ..v1::TaskEvent::default()
    };
    let kind = match change {
        TaskChange::Created { spec } => {
            event.spec = Some(task_spec_to_proto(spec));
            "created"
        }
        TaskChange::Claimed { by, epoch, attempt } => {
            (event.agent, event.epoch, event.attempt) = (by.to_string(), epoch.0, *attempt);
            "claimed"
        }
        TaskChange::Progressed { epoch, permille, note, checkpoint } => {
            (event.epoch, event.permille, event.detail) = (epoch.0, u32::from(*permille), note.to_string());
            event.checkpoint = checkpoint.as_ref().map(|checkpoint| checkpoint.to_vec()).unwrap_or_default();
            "progressed"
        }
        TaskChange::Completed { by, epoch, result } => {
            (event.agent, event.epoch, event.result) = (by.to_string(), epoch.0, result.to_vec());
            "completed"
        }
        TaskChange::Retried { epoch, reason, not_before } => {
            (event.epoch, event.detail, event.not_before) = (epoch.0, reason.to_string(), not_before.raw());
            "retried"
        }
        TaskChange::Reclaimed { from, epoch, cause, not_before, .. } => {
            (event.agent, event.epoch, event.not_before) = (from.to_string(), epoch.0, not_before.raw());
            event.detail = cause.text().to_owned();
            "reclaimed"
        }
        TaskChange::DeadLettered { reason } => {
            event.detail = reason.to_string();
            "dead-lettered"
        }
        TaskChange::Cancelled { reason } => {
            event.detail = reason.to_string();
            "cancelled"
        }
        TaskChange::Expired => "expired",
        TaskChange::Requeued { reason, .. } => {
            event.detail = reason.to_string();
            "requeued"
        }
    };
    event.kind = kind.to_owned();
    Some(event)
}
