//! What changes of tasks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KeptFor, TaskSpec, TaskStatus};
use crate::ids::ClaimEpoch;
use crate::text::{AgentId, Reason};
use crate::time::LogInstant;

/// A change of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskChange {
    /// A client created it.
    Created {
        /// What is to be done, as its creator wrote it.
        spec: Arc<TaskSpec>,
    },
    /// An agent claimed it.
    Claimed {
        /// Id of the agent.
        by: AgentId,
        /// Epoch of the claim: its fencing token.
        epoch: ClaimEpoch,
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// Its holder reported progress.
    Progressed {
        /// Epoch of the claim.
        epoch: ClaimEpoch,
        /// How much of the work is done, in thousandths.
        permille: u16,
        /// What the holder says of it, for people.
        note: Reason,
        /// The checkpoint where the next holder would go on, if this changed.
        checkpoint: Option<Arc<[u8]>>,
    },
    /// Its holder completed it.
    Completed {
        /// Id of the holder.
        by: AgentId,
        /// Epoch of the claim.
        epoch: ClaimEpoch,
        /// The result; its bytes are opaque to Skep.
        result: Arc<[u8]>,
    },
    /// An attempt failed and there is another one.
    Retried {
        /// Epoch of the claim that ended.
        epoch: ClaimEpoch,
        /// The reason, for people.
        reason: Reason,
        /// When the next attempt may begin, on the shard's clock.
        not_before: LogInstant,
    },
    /// A claim was taken back, and there is another attempt.
    Reclaimed {
        /// Id of the agent that held it.
        from: AgentId,
        /// Epoch of the claim that ended.
        epoch: ClaimEpoch,
        /// Why the claim was taken back.
        cause: ReclaimCause,
        /// When the next attempt may begin, on the shard's clock.
        not_before: LogInstant,
        /// The former holder for whom the task is kept meanwhile; none if for no agent.
        kept_for: Option<KeptFor>,
    },
    /// The shard gave it up.
    DeadLettered {
        /// The reason, for people.
        reason: Reason,
    },
    /// A client cancelled it.
    Cancelled {
        /// The reason, for people.
        reason: Reason,
    },
    /// It was not done while it was valid.
    Expired,
    /// A client made it pending again.
    Requeued {
        /// The task's status before.
        from: TaskStatus,
        /// The reason, for people.
        reason: Reason,
    },
}

impl TaskChange {
    /// The feed that tells watchers of the change.
    pub fn feed(&self) -> Feed {
        match self {
            Self::Created { .. } | Self::Requeued { .. } | Self::Retried { .. } | Self::Reclaimed { .. } => {
                Feed::NewOrders
            }
            Self::Claimed { .. } | Self::Progressed { .. } => Feed::AssignedTasks,
            Self::Completed { .. } | Self::DeadLettered { .. } | Self::Cancelled { .. } | Self::Expired => {
                Feed::TaskCompletions
            }
        }
    }
}

/// Why a claim was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimCause {
    /// There was no progress for too long.
    Stale,
    /// The lease of its holder ended.
    LeaseExpired,
    /// Its holder stopped.
    Detached,
    /// Its holder gave it back.
    Released,
}

impl ReclaimCause {
    /// The cause, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Stale => "no progress for too long",
            Self::LeaseExpired => "the lease of its holder ended",
            Self::Detached => "its holder stopped",
            Self::Released => "its holder gave it back",
        }
    }
}

/// What a watcher of tasks may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Feed {
    /// Work that waits: created, requeued, or given back for another attempt.
    NewOrders,
    /// Work that an agent has: claimed, progressing.
    AssignedTasks,
    /// Work that ended, whichever way.
    TaskCompletions,
}

impl Feed {
    /// The feed's name, as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewOrders => "new-orders",
            Self::AssignedTasks => "assigned-tasks",
            Self::TaskCompletions => "task-completions",
        }
    }

    /// The feed with this name; none if there is none.
    pub fn named(name: &str) -> Option<Self> {
        [Self::NewOrders, Self::AssignedTasks, Self::TaskCompletions].into_iter().find(|t| t.name() == name)
    }
}
