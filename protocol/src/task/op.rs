//! What clients and agents ask of tasks.

use serde::{Deserialize, Serialize};

use super::TaskSpec;
use crate::ids::{AttachmentId, ClaimEpoch, TaskId};
use crate::text::{AgentId, Reason};

/// What a client can ask of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskOp {
    /// Add a task.
    Create {
        /// Id of the task, made by the client.
        task: TaskId,
        /// What the task is, as its creator wrote it.
        spec: Box<TaskSpec>,
    },
    /// Claim a task: the first committed claim wins.
    Claim {
        /// Id of the agent that takes it.
        agent: AgentId,
        /// Id of the task; none for the most urgent one that suits the agent.
        task: Option<TaskId>,
        /// Id of the agent's attachment: a claim that comes after its lease has ended is refused. None for an agent
        /// that is not attached: its claims have no lease and end by want of progress only.
        attachment: Option<AttachmentId>,
    },
    /// Say how far a claimed task has come; keeps the claim from becoming stale.
    Report {
        /// The claim: task, holder and epoch.
        claim: Claim,
        /// How much of the work is done, in thousandths.
        permille: u16,
        /// What the holder says of it, for people.
        note: Reason,
        /// The checkpoint where the next holder would go on; none leaves the last one.
        checkpoint: Option<Vec<u8>>,
    },
    /// Finish a claimed task.
    Complete {
        /// The claim: task, holder and epoch.
        claim: Claim,
        /// The result; its bytes are opaque to Skep.
        result: Vec<u8>,
    },
    /// Give a claimed task back as failed.
    Fail {
        /// The claim: task, holder and epoch.
        claim: Claim,
        /// The reason, for people.
        reason: Reason,
        /// Whether trying again may help; otherwise it becomes a dead letter at once.
        retryable: bool,
    },
    /// Cancel a task, claimed or not.
    Cancel {
        /// Id of the task.
        task: TaskId,
        /// The reason, for people.
        reason: Reason,
    },
    /// Make a terminal or claimed task pending again, with all its attempts. A completed one stays completed.
    Requeue {
        /// Id of the task.
        task: TaskId,
        /// The reason, for people.
        reason: Reason,
    },
    /// Settle a task that is a dead letter; one that is not is left as it is.
    Settle {
        /// Id of the task.
        task: TaskId,
        /// Whether it becomes pending again. Otherwise no operator need look at it any more.
        again: bool,
        /// The reason, for people.
        reason: Reason,
    },
    /// Give a claimed task back, neither done nor failed: the next agent that asks for work may have it.
    Release {
        /// The claim: task, holder and epoch.
        claim: Claim,
    },
}

/// A claim: which agent says that it holds which task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Id of the task.
    pub task: TaskId,
    /// Id of the holder.
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
