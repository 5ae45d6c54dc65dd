//! Tasks: work that agents claim.

mod change;
mod op;
mod query;
mod refusal;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fleet::FleetLimits;
use crate::ids::{AttachmentId, ClaimEpoch, TaskId};
use crate::position::Position;
use crate::text::{AgentId, Capability, Reason, TaskKind, Title};
use crate::time::LogInstant;

pub use change::{Feed, ReclaimCause, TaskChange};
pub use op::{Claim, TaskOp};
pub use query::{TaskView, WaitReason};
pub use refusal::TaskRefusal;

/// The priority of a task. Higher ones first; equal ones in order of creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// When no other work waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all normal work.
    High,
    /// Before all other work.
    Urgent,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        })
    }
}

/// What happens after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Number of attempts in all, the first included. When they are used up the task becomes a dead letter.
    pub attempts_max: u32,
    /// Time to wait before the second attempt, in milliseconds. It doubles with every attempt.
    pub backoff_initial_ms: u64,
    /// Longest time to wait between attempts, in milliseconds.
    pub backoff_max_ms: u64,
}

impl RetryPolicy {
    /// The wait before the attempt after `failed` failed ones, in milliseconds: exponential, without jitter, because
    /// every replica must compute the same.
    pub fn backoff_ms(&self, failed: u32) -> u64 {
        let doublings = failed.saturating_sub(1).min(63);
        let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
        self.backoff_initial_ms.saturating_mul(factor).min(self.backoff_max_ms)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 3, backoff_initial_ms: 1_000, backoff_max_ms: 60_000 }
    }
}

/// Which agent goes on with a task whose holder is back before the task was given to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconcile {
    /// The first agent that claims it: its former holder has no precedence.
    #[default]
    FirstCome,
    /// Its former holder, if it is back in time and no other agent has begun.
    KeepOriginal,
}

/// What becomes of a task when the lease of its holder ends (after Nomad's `disconnect` block).
///
/// No agent's work is cut off: once another agent holds the task, its former holder does not get it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisconnectPolicy {
    /// How long the shard expects its former holder back, in milliseconds from the end of the lease.
    pub lost_after_ms: u64,
    /// Whether other agents may have the task meanwhile. Otherwise it waits for its former holder for `lost_after_ms`.
    pub replace: bool,
    /// Which agent goes on when the former holder is back in time.
    pub reconcile: Reconcile,
}

impl Default for DisconnectPolicy {
    fn default() -> Self {
        Self { lost_after_ms: 0, replace: true, reconcile: Reconcile::FirstCome }
    }
}

impl DisconnectPolicy {
    /// The former holder for whom the task is kept from an instant on; none if for no agent.
    pub fn kept_for(&self, agent: &AgentId, now: LogInstant) -> Option<KeptFor> {
        let precedence = !self.replace || self.reconcile == Reconcile::KeepOriginal;
        let kept = self.lost_after_ms > 0 && precedence;
        kept.then(|| KeptFor { agent: agent.clone(), until: now.plus_ms(self.lost_after_ms), exclusive: !self.replace })
    }
}

/// A task as its creator wrote it. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The title, one line for people.
    pub title: Title,
    /// The kind of work.
    pub kind: TaskKind,
    /// The priority: how urgent the task is.
    pub priority: Priority,
    /// Capabilities that an agent must have to take it.
    pub required: BTreeSet<Capability>,
    /// What the agent needs to know; the bytes are opaque to Skep.
    pub payload: Vec<u8>,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// After how long without progress the shard takes a claim back, in milliseconds.
    pub stale_after_ms: u64,
    /// For how long the task is valid after its creation, in milliseconds; none for no end.
    pub valid_for_ms: Option<u64>,
    /// What happens when the lease of its holder ends.
    pub disconnect: DisconnectPolicy,
    /// Where the work begins, for policies that assign by distance; none if nowhere in particular.
    pub place: Option<Position>,
}

impl TaskSpec {
    /// A claim without progress for 15 minutes is stale unless its task says otherwise.
    pub const STALE_AFTER_MS_DEFAULT: u64 = 15 * 60 * 1_000;

    /// Checks the limits of this build that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the field.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        self.check_within(&FleetLimits::default())
    }

    /// Checks the limits of a shard that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the field.
    pub fn check_within(&self, limits: &FleetLimits) -> Result<(), InvalidSpec> {
        if self.required.len() as u64 > limits.capabilities_max {
            return Err(InvalidSpec::Capabilities { given: self.required.len(), max: limits.capabilities_max });
        }
        check_payload_within(&self.payload, limits)?;
        let (attempts, max) = (self.retry.attempts_max, limits.attempts_max);
        if attempts == 0 || attempts > max {
            return Err(InvalidSpec::Attempts { given: attempts, max });
        }
        if self.stale_after_ms == 0 {
            return Err(InvalidSpec::StaleAfter);
        }
        if self.valid_for_ms == Some(0) {
            return Err(InvalidSpec::ValidFor);
        }
        let (given, max) = (self.disconnect.lost_after_ms, limits.lost_after_ms_max);
        if given > max {
            return Err(InvalidSpec::LostAfter { given, max });
        }
        Ok(())
    }
}

/// Checks the size of a checkpoint by the limit of this build.
///
/// # Errors
/// [`InvalidSpec::Checkpoint`] if it is over the limit.
pub fn check_checkpoint(bytes: &[u8]) -> Result<(), InvalidSpec> {
    check_checkpoint_within(bytes, &FleetLimits::default())
}

/// Checks the size of a checkpoint by the limit of a shard.
///
/// # Errors
/// [`InvalidSpec::Checkpoint`] if it is over the limit.
pub fn check_checkpoint_within(bytes: &[u8], limits: &FleetLimits) -> Result<(), InvalidSpec> {
    let (bytes, max) = (bytes.len(), limits.checkpoint_bytes_max);
    if bytes as u64 > max { Err(InvalidSpec::Checkpoint { bytes, max }) } else { Ok(()) }
}

/// Checks the size of a task's payload or result by the limit of this build.
///
/// # Errors
/// [`InvalidSpec::Payload`] if it is over the limit.
pub fn check_payload(bytes: &[u8]) -> Result<(), InvalidSpec> {
    check_payload_within(bytes, &FleetLimits::default())
}

/// Checks the size of a task's payload or result by the limit of a shard.
///
/// # Errors
/// [`InvalidSpec::Payload`] if it is over the limit.
pub fn check_payload_within(bytes: &[u8], limits: &FleetLimits) -> Result<(), InvalidSpec> {
    let (bytes, max) = (bytes.len(), limits.payload_bytes_max);
    if bytes as u64 > max { Err(InvalidSpec::Payload { bytes, max }) } else { Ok(()) }
}

/// A task or role that no shard would accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum InvalidSpec {
    /// Too many capabilities.
    #[error("{given} capabilities; at most {max} are allowed")]
    Capabilities {
        /// The number that was given.
        given: usize,
        /// The most that are allowed.
        max: u64,
    },
    /// The payload or result is too large.
    #[error("the payload has {bytes} bytes; at most {max} are allowed")]
    Payload {
        /// Its size, in bytes.
        bytes: usize,
        /// The largest that is allowed, in bytes.
        max: u64,
    },
    /// No attempt, or too many.
    #[error("{given} attempts; give 1 to {max}")]
    Attempts {
        /// The number that was given.
        given: u32,
        /// The most that are allowed.
        max: u32,
    },
    /// The claim would be stale at once.
    #[error("stale_after is zero; give at least 1 ms")]
    StaleAfter,
    /// The task would be worthless at once.
    #[error("valid_for is zero; give at least 1 ms, or leave it out")]
    ValidFor,
    /// The shard would wait for a former holder for too long.
    #[error("lost_after is {given} ms; at most {max} are allowed")]
    LostAfter {
        /// How long was given, in milliseconds.
        given: u64,
        /// The longest that is allowed, in milliseconds.
        max: u64,
    },
    /// The checkpoint is too large.
    #[error("the checkpoint has {bytes} bytes; at most {max} are allowed")]
    Checkpoint {
        /// Its size, in bytes.
        bytes: usize,
        /// The largest that is allowed, in bytes.
        max: u64,
    },
    /// The lease is too short to be renewed, or too long to wait for.
    #[error("a lease of {given} ms; give {min} to {max} ms")]
    LeaseTtl {
        /// How long was given, in milliseconds.
        given: u64,
        /// The shortest that is allowed, in milliseconds.
        min: u64,
        /// The longest that is allowed, in milliseconds.
        max: u64,
    },
    /// The agent could hold no task, or too many.
    #[error("max_concurrent is {given}; give 1 to {max}")]
    MaxConcurrent {
        /// The number of tasks that was given.
        given: u32,
        /// The most that are allowed.
        max: u32,
    },
}

/// A former holder with precedence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFor {
    /// Id of the agent.
    pub agent: AgentId,
    /// Until when it is kept, on the shard's clock.
    pub until: LogInstant,
    /// Whether no other agent may have the task before that.
    pub exclusive: bool,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// The task waits for a claim.
    Pending {
        /// The instant before which no agent may claim it (retry backoff).
        not_before: LogInstant,
        /// Its former holder, while it may come back; none if the task is kept for no agent.
        kept_for: Option<KeptFor>,
    },
    /// An agent works on the task.
    Claimed {
        /// Id of the agent.
        by: AgentId,
        /// Since when the agent holds it, on the shard's clock.
        since: LogInstant,
        /// When the shard takes the claim back unless there is progress before, on the shard's clock.
        stale_at: LogInstant,
        /// Id of the attachment under which the orchestrator assigned it, against a credit; none if its holder named
        /// it.
        assigned: Option<AttachmentId>,
    },
    /// Its holder completed the task.
    Completed {
        /// Id of the holder.
        by: AgentId,
        /// When the holder completed it, on the shard's clock.
        at: LogInstant,
        /// The result; its bytes are opaque to Skep.
        result: Arc<[u8]>,
    },
    /// Its attempts are used up, or its agent said that trying again is useless.
    DeadLettered {
        /// The reason, for people.
        reason: Reason,
        /// When the shard gave it up, on the shard's clock.
        at: LogInstant,
    },
    /// A client cancelled the task.
    Cancelled {
        /// The reason, for people.
        reason: Reason,
        /// When the shard cancelled it, on the shard's clock.
        at: LogInstant,
    },
    /// The task was not done while it was valid.
    Expired {
        /// When it expired, on the shard's clock.
        at: LogInstant,
    },
}

impl TaskState {
    /// The state without its particulars.
    pub fn status(&self) -> TaskStatus {
        match self {
            Self::Pending { .. } => TaskStatus::Pending,
            Self::Claimed { .. } => TaskStatus::Claimed,
            Self::Completed { .. } => TaskStatus::Completed,
            Self::DeadLettered { .. } => TaskStatus::DeadLettered,
            Self::Cancelled { .. } => TaskStatus::Cancelled,
            Self::Expired { .. } => TaskStatus::Expired,
        }
    }
}

/// A task's state without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskStatus {
    /// The task waits for a claim.
    Pending,
    /// An agent works on the task.
    Claimed,
    /// Its holder completed the task.
    Completed,
    /// The shard gave the task up.
    DeadLettered,
    /// A client cancelled the task.
    Cancelled,
    /// The task was not done while it was valid.
    Expired,
}

impl TaskStatus {
    /// All statuses, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Claimed, Self::Completed, Self::DeadLettered, Self::Cancelled, Self::Expired];

    /// Whether nothing more happens to the task unless it is requeued.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Claimed)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Completed => "completed",
            Self::DeadLettered => "dead-lettered",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        })
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The reason, for people.
    pub reason: Reason,
    /// When the attempt failed, on the shard's clock.
    pub at: LogInstant,
}

/// How far the holder of a claim says it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProgress {
    /// How much of the work is done, in thousandths.
    pub permille: u16,
    /// What the holder says of it, for people.
    pub note: Reason,
    /// When the shard applied the report, on the shard's clock.
    pub at: LogInstant,
}

/// A task as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Id of the task.
    pub id: TaskId,
    /// What is to be done, as its creator wrote it.
    pub spec: Arc<TaskSpec>,
    /// The task's state.
    pub state: TaskState,
    /// Its place in the order of creation within its shard.
    pub seq: u64,
    /// The epoch of its latest claim; zero if it was never claimed.
    pub epoch: ClaimEpoch,
    /// Number of attempts begun since it was created or requeued.
    pub attempts: u32,
    /// When it was created, on the shard's clock.
    pub created_at: LogInstant,
    /// When it last changed, on the shard's clock.
    pub updated_at: LogInstant,
    /// When it becomes worthless, on the shard's clock; none if never.
    pub expires_at: Option<LogInstant>,
    /// The latest progress of the latest claim; none before the first report.
    pub progress: Option<TaskProgress>,
    /// Until when its former holder may believe that it still holds the task, on the shard's clock: no other agent may
    /// have it before.
    pub fenced_until: LogInstant,
    /// The checkpoint where the next holder goes on, as the last holder that gave one left it; opaque to Skep.
    pub checkpoint: Option<Arc<[u8]>>,
    /// The latest failures, oldest first, at most [`FleetLimits::failures_kept`].
    pub failures: Vec<TaskFailure>,
}

impl Task {
    /// About how many bytes the task takes, by what it holds and not by how it is encoded.
    pub fn bytes(&self) -> u64 {
        const FIXED: usize = 512;
        let result = match &self.state {
            TaskState::Completed { result, .. } => result.len(),
            TaskState::DeadLettered { reason, .. } | TaskState::Cancelled { reason, .. } => reason.as_str().len(),
            TaskState::Pending { .. } | TaskState::Claimed { .. } | TaskState::Expired { .. } => 0,
        };
        let failures: usize = self.failures.iter().map(|failure| 32 + failure.reason.as_str().len()).sum();
        let progress = self.progress.as_ref().map_or(0, |progress| progress.note.as_str().len());
        let checkpoint = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.len());
        (FIXED + self.spec.payload.len() + result + failures + progress + checkpoint) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit_and_never_overflows() {
        let retry = RetryPolicy { attempts_max: 9, backoff_initial_ms: 100, backoff_max_ms: 1_000 };
        let waits: Vec<u64> = (1..=6).map(|failed| retry.backoff_ms(failed)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        let vast = RetryPolicy { attempts_max: 1, backoff_initial_ms: u64::MAX, backoff_max_ms: u64::MAX };
        assert_eq!(vast.backoff_ms(u32::MAX), u64::MAX);
    }
}
