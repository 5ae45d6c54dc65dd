//! What changes of tasks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KeptFor, TaskSpec, TaskStatus};
use crate::ids::ClaimEpoch;
use crate::text::{AgentId, Reason};
use crate::time::LogInstant;

/// What changed of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskChange {
    /// It was created.
    Created {
        /// What is to be done.
        spec: Arc<TaskSpec>,
    },
    /// An agent took it.
    Claimed {
        /// Who.
        by: AgentId,
        /// The claim's fencing token.
        epoch: ClaimEpoch,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Its holder reported progress.
    Progressed {
        /// The claim.
        epoch: ClaimEpoch,
        /// Thousandths of the work.
        permille: u16,
        /// In the holder's words.
        note: Reason,
        /// Where the next holder would go on, if this changed.
        checkpoint: Option<Arc<[u8]>>,
    },
    /// It is done.
    Completed {
        /// By whom.
        by: AgentId,
        /// The claim.
        epoch: ClaimEpoch,
        /// What came of it.
        result: Arc<[u8]>,
    },
    /// An attempt failed and there is another one.
    Retried {
        /// The claim that ended.
        epoch: ClaimEpoch,
        /// Why.
        reason: Reason,
        /// When the next attempt may begin.
        not_before: LogInstant,
    },
    /// A claim was taken back, and there is another attempt.
    Reclaimed {
        /// Who held it.
        from: AgentId,
        /// The claim that ended.
        epoch: ClaimEpoch,
        /// Why.
        cause: ReclaimCause,
        /// When the next attempt may begin.
        not_before: LogInstant,
        /// For whom it is kept meanwhile.
        kept_for: Option<KeptFor>,
    },
    /// It was given up.
    DeadLettered {
        /// Why.
        reason: Reason,
    },
    /// It was called off.
    Cancelled {
        /// Why.
        reason: Reason,
    },
    /// It was not done while it was worth doing.
    Expired,
    /// It was made pending again.
    Requeued {
        /// Where it stood.
        from: TaskStatus,
        /// Why.
        reason: Reason,
    },
}

impl TaskChange {
    /// The feed in which watchers are told.
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
    /// For people.
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

    /// The feed with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::NewOrders, Self::AssignedTasks, Self::TaskCompletions].into_iter().find(|t| t.name() == name)
    }
}
