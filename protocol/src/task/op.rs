//! What clients ask of tasks.

use serde::{Deserialize, Serialize};

use super::TaskSpec;
use crate::ids::{AttachmentId, ClaimEpoch, TaskId};
use crate::text::{AgentId, Reason};

/// What a client can ask of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskOp {
    /// Add a task.
    Create {
        /// Its id, made by the client.
        task: TaskId,
        /// What is to be done.
        spec: Box<TaskSpec>,
    },
    /// Take a task: the first committed claim wins.
    Claim {
        /// Who takes it.
        agent: AgentId,
        /// Which; none for the most urgent that suits the agent.
        task: Option<TaskId>,
        /// Only under this attachment: a claim that comes after its lease has ended is refused. None for an agent
        /// that is not attached: its claims have no lease and end by want of progress only.
        attachment: Option<AttachmentId>,
    },
    /// Say how far a claimed task has come; keeps the claim from becoming stale.
    Report {
        /// The claim.
        claim: Claim,
        /// Thousandths of the work.
        permille: u16,
        /// In the holder's words.
        note: Reason,
        /// Where the next holder would go on; none leaves the last one.
        checkpoint: Option<Vec<u8>>,
    },
    /// Finish a claimed task.
    Complete {
        /// The claim.
        claim: Claim,
        /// What came of it.
        result: Vec<u8>,
    },
    /// Give a claimed task back as failed.
    Fail {
        /// The claim.
        claim: Claim,
        /// Why.
        reason: Reason,
        /// Whether trying again may help; otherwise it becomes a dead letter at once.
        retryable: bool,
    },
    /// Call a task off, claimed or not.
    Cancel {
        /// Which.
        task: TaskId,
        /// Why.
        reason: Reason,
    },
    /// Make a terminal or claimed task pending again, with all its attempts. A completed one stays completed.
    Requeue {
        /// Which.
        task: TaskId,
        /// Why.
        reason: Reason,
    },
    /// Settle a task that is a dead letter; one that is not is left as it is.
    Settle {
        /// Which.
        task: TaskId,
        /// Whether it is made pending again. Otherwise nobody need look at it any more.
        again: bool,
        /// Why.
        reason: Reason,
    },
    /// Give a claimed task back, neither done nor failed: whoever asks for work next may have it.
    Release {
        /// The claim.
        claim: Claim,
    },
}

/// Who says it holds which claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The task.
    pub task: TaskId,
    /// The holder.
    pub agent: AgentId,
    /// The epoch that the claim was given.
    pub epoch: ClaimEpoch,
}

impl TaskOp {
    /// Whether it brings work, or has an agent begin some.
    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::Create { .. } | Self::Claim { .. } | Self::Requeue { .. } | Self::Settle { again: true, .. } => true,
            Self::Report { .. }
            | Self::Complete { .. }
            | Self::Fail { .. }
            | Self::Cancel { .. }
            | Self::Settle { again: false, .. }
            | Self::Release { .. } => false,
        }
    }

    /// Bytes of what the client put into it that the software does not read.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Create { spec, .. } => spec.payload.len(),
            Self::Complete { result, .. } => result.len(),
            Self::Report { checkpoint, .. } => checkpoint.as_ref().map_or(0, Vec::len),
            Self::Claim { .. }
            | Self::Fail { .. }
            | Self::Cancel { .. }
            | Self::Requeue { .. }
            | Self::Settle { .. }
            | Self::Release { .. } => 0,
        }
    }
}
