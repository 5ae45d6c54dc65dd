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

/// How urgent a task is. Higher first; equal priorities in order of creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all normal work.
    High,
    /// Before everything.
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
    /// Attempts in all, the first included. When they are used up the task becomes a dead letter.
    pub attempts_max: u32,
    /// Wait before the second attempt, in milliseconds. It doubles with every attempt.
    pub backoff_initial_ms: u64,
    /// Longest wait between attempts, in milliseconds.
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

/// Who goes on with a task whose holder is back before the task was given to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconcile {
    /// Whoever is first: its former holder has no precedence.
    #[default]
    FirstCome,
    /// Its former holder goes first, if it is back in time and nobody else has begun.
    KeepOriginal,
}

/// What becomes of a task when the lease of its holder ends (after Nomad's `disconnect` block).
///
/// Nobody's work is cut off: once another agent holds the task, its former holder does not get it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisconnectPolicy {
    /// How long its former holder counts as coming back, in milliseconds from the end of the lease.
    pub lost_after_ms: u64,
    /// Whether others may have the task meanwhile. Otherwise it waits for its former holder for `lost_after_ms`.
    pub replace: bool,
    /// Who goes on when the former holder is back in time.
    pub reconcile: Reconcile,
}

impl Default for DisconnectPolicy {
    fn default() -> Self {
        Self { lost_after_ms: 0, replace: true, reconcile: Reconcile::FirstCome }
    }
}

impl DisconnectPolicy {
    /// For whom a task is kept whose holder went away at an instant; none if for nobody.
    pub fn kept_for(&self, agent: &AgentId, now: LogInstant) -> Option<KeptFor> {
        let precedence = !self.replace || self.reconcile == Reconcile::KeepOriginal;
        let kept = self.lost_after_ms > 0 && precedence;
        kept.then(|| KeptFor { agent: agent.clone(), until: now.plus_ms(self.lost_after_ms), exclusive: !self.replace })
    }
}

/// What is to be done, as its creator wrote it. Never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// One line for people.
    pub title: Title,
    /// What sort of work it is.
    pub kind: TaskKind,
    /// How urgent it is.
    pub priority: Priority,
    /// What an agent must be able to do.
    pub required: BTreeSet<Capability>,
    /// What the agent needs to know; opaque to Skep.
    pub payload: Vec<u8>,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// A claim without progress for this long is taken back, in milliseconds.
    pub stale_after_ms: u64,
    /// The task is worthless this long after its creation, in milliseconds.
    pub valid_for_ms: Option<u64>,
    /// What happens when the lease of its holder ends.
    pub disconnect: DisconnectPolicy,
    /// Where it begins, for policies that assign by distance.
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
        /// How many were given.
        given: usize,
        /// How many may be.
        max: u64,
    },
    /// The payload or result is too large.
    #[error("the payload has {bytes} bytes; at most {max} are allowed")]
    Payload {
        /// Its size.
        bytes: usize,
        /// The largest.
        max: u64,
    },
    /// No attempt, or too many.
    #[error("{given} attempts; give 1 to {max}")]
    Attempts {
        /// How many were given.
        given: u32,
        /// How many may be.
        max: u32,
    },
    /// A claim that is stale at once.
    #[error("stale_after is zero; give at least 1 ms")]
    StaleAfter,
    /// A task that is worthless at once.
    #[error("valid_for is zero; give at least 1 ms, or leave it out")]
    ValidFor,
    /// A former holder that is waited for too long.
    #[error("lost_after is {given} ms; at most {max} are allowed")]
    LostAfter {
        /// How long was given, in milliseconds.
        given: u64,
        /// The longest, in milliseconds.
        max: u64,
    },
    /// The checkpoint is too large.
    #[error("the checkpoint has {bytes} bytes; at most {max} are allowed")]
    Checkpoint {
        /// Its size.
        bytes: usize,
        /// The largest.
        max: u64,
    },
    /// A lease that is too short to be renewed, or too long to wait for.
    #[error("a lease of {given} ms; give {min} to {max} ms")]
    LeaseTtl {
        /// How long was given, in milliseconds.
        given: u64,
        /// The shortest, in milliseconds.
        min: u64,
        /// The longest, in milliseconds.
        max: u64,
    },
    /// An agent that may hold nothing, or too much.
    #[error("max_concurrent is {given}; give 1 to {max}")]
    MaxConcurrent {
        /// How many were given.
        given: u32,
        /// How many may be.
        max: u32,
    },
}

/// A former holder with precedence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFor {
    /// Who.
    pub agent: AgentId,
    /// How long.
    pub until: LogInstant,
    /// Whether nobody else may have the task before that.
    pub exclusive: bool,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Waits to be claimed.
    Pending {
        /// Not before this instant (retry backoff).
        not_before: LogInstant,
        /// Its former holder, while it may be back.
        kept_for: Option<KeptFor>,
    },
    /// An agent works on it.
    Claimed {
        /// Who.
        by: AgentId,
        /// Since when.
        since: LogInstant,
        /// When it is taken back unless there is progress before.
        stale_at: LogInstant,
        /// Under which attachment the orchestrator gave it, against a credit; none if its holder named it.
        assigned: Option<AttachmentId>,
    },
    /// Done.
    Completed {
        /// By whom.
        by: AgentId,
        /// When.
        at: LogInstant,
        /// What came of it; opaque to Skep.
        result: Arc<[u8]>,
    },
    /// Its attempts are used up, or its agent said that trying again is useless.
    DeadLettered {
        /// Why.
        reason: Reason,
        /// When.
        at: LogInstant,
    },
    /// Called off.
    Cancelled {
        /// Why.
        reason: Reason,
        /// When.
        at: LogInstant,
    },
    /// Not done while it was worth doing.
    Expired {
        /// When.
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
    /// Waits to be claimed.
    Pending,
    /// An agent works on it.
    Claimed,
    /// Done.
    Completed,
    /// Given up.
    DeadLettered,
    /// Called off.
    Cancelled,
    /// Not done while it was worth doing.
    Expired,
}

impl TaskStatus {
    /// All of them, in the order of a life.
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
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: LogInstant,
}

/// How far the holder of a claim says it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProgress {
    /// Thousandths of the work.
    pub permille: u16,
    /// In the holder's words.
    pub note: Reason,
    /// When it was committed.
    pub at: LogInstant,
}

/// A task as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What is to be done.
    pub spec: Arc<TaskSpec>,
    /// Where it stands.
    pub state: TaskState,
    /// Its place in the order of creation within its shard.
    pub seq: u64,
    /// The epoch of its latest claim; zero if it was never claimed.
    pub epoch: ClaimEpoch,
    /// Attempts begun since it was created or requeued.
    pub attempts: u32,
    /// When it was created.
    pub created_at: LogInstant,
    /// When it last changed.
    pub updated_at: LogInstant,
    /// When it becomes worthless.
    pub expires_at: Option<LogInstant>,
    /// The latest progress of the latest claim.
    pub progress: Option<TaskProgress>,
    /// Until then its former holder may believe that it still holds it: nobody else may have it before.
    pub fenced_until: LogInstant,
    /// Where the next holder goes on, as the last one that said so left it; opaque to Skep.
    pub checkpoint: Option<Arc<[u8]>>,
    /// The latest failures, oldest first, at most [`FleetLimits::failures_kept`].
    pub failures: Vec<TaskFailure>,
}

impl Task {
    /// About how many bytes it takes, by what it holds and not by how it is encoded.
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
