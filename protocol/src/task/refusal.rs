//! Why a shard refuses what a client asks of a task.

use serde::{Deserialize, Serialize};

use super::TaskStatus;
use crate::code::Code;
use crate::ids::{ClaimEpoch, TaskId};
use crate::text::AgentId;
use crate::time::LogInstant;

/// Why a shard did not do what a client asked of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TaskRefusal {
    /// There is no such task, or it ended long ago.
    #[error("there is no live task {0}")]
    NoSuchTask(TaskId),
    /// Another request created a task with this id.
    #[error("task {0} exists already")]
    Exists(TaskId),
    /// The task's state does not allow it.
    #[error("task {task} is {status}")]
    WrongStatus {
        /// Id of the task.
        task: TaskId,
        /// The task's status.
        status: TaskStatus,
    },
    /// Another agent claimed it first.
    #[error("agent {by} claimed task {task} first")]
    LostRace {
        /// Id of the task.
        task: TaskId,
        /// Id of the agent whose claim came first.
        by: AgentId,
    },
    /// The claim is not the task's latest: the shard took it back.
    #[error("claim epoch {given} of task {task} is stale; the latest is {current}")]
    StaleEpoch {
        /// Id of the task.
        task: TaskId,
        /// The epoch that was given.
        given: ClaimEpoch,
        /// The latest epoch.
        current: ClaimEpoch,
    },
    /// The claim belongs to another agent.
    #[error("agent {holder} holds task {task}; only its holder may do this")]
    NotHolder {
        /// Id of the task.
        task: TaskId,
        /// The agent that holds it.
        holder: AgentId,
    },
    /// The task waits for its next attempt.
    #[error("task {task} waits for its next attempt until {not_before}")]
    BackingOff {
        /// Id of the task.
        task: TaskId,
        /// When the attempt may begin, on the shard's clock.
        not_before: LogInstant,
    },
    /// The agent lacks what the task requires.
    #[error("agent {agent} lacks capabilities that task {task} requires")]
    NotCapable {
        /// Id of the task.
        task: TaskId,
        /// Id of the agent.
        agent: AgentId,
    },
    /// The task is kept for its former holder.
    #[error("task {task} is kept for its former holder {agent} until {until}")]
    KeptFor {
        /// Id of the task.
        task: TaskId,
        /// The former holder.
        agent: AgentId,
        /// Until when it is kept, on the shard's clock.
        until: LogInstant,
    },
}

impl TaskRefusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSuchTask(_) => Code::NoSuchTask,
            Self::Exists(_) => Code::TaskExists,
            Self::WrongStatus { .. } => Code::WrongStatus,
            Self::LostRace { .. } => Code::LostRace,
            Self::StaleEpoch { .. } => Code::StaleEpoch,
            Self::NotHolder { .. } => Code::NotHolder,
            Self::BackingOff { .. } => Code::BackingOff,
            Self::NotCapable { .. } => Code::NotCapable,
            Self::KeptFor { .. } => Code::KeptFor,
        }
    }
}
