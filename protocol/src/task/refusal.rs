//! Why a shard refuses what is asked of a task.

use serde::{Deserialize, Serialize};

use super::TaskStatus;
use crate::code::Code;
use crate::ids::{ClaimEpoch, TaskId};
use crate::text::AgentId;
use crate::time::LogInstant;

/// Why a shard did not do what was asked of a task.
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
        /// The task.
        task: TaskId,
        /// Where it stands.
        status: TaskStatus,
    },
    /// Another agent claimed it first.
    #[error("agent {by} claimed task {task} first")]
    LostRace {
        /// The task.
        task: TaskId,
        /// The winner.
        by: AgentId,
    },
    /// The claim is not the task's latest: the shard took it back.
    #[error("claim epoch {given} of task {task} is stale; the latest is {current}")]
    StaleEpoch {
        /// The task.
        task: TaskId,
        /// The epoch that was given.
        given: ClaimEpoch,
        /// The latest epoch.
        current: ClaimEpoch,
    },
    /// The claim belongs to another agent.
    #[error("agent {holder} holds task {task}; only its holder may do this")]
    NotHolder {
        /// The task.
        task: TaskId,
        /// The agent that holds it.
        holder: AgentId,
    },
    /// It waits for its next attempt.
    #[error("task {task} waits for its next attempt until {not_before}")]
    BackingOff {
        /// The task.
        task: TaskId,
        /// Until when.
        not_before: LogInstant,
    },
    /// The agent lacks what the task requires.
    #[error("agent {agent} lacks capabilities that task {task} requires")]
    NotCapable {
        /// The task.
        task: TaskId,
        /// The agent.
        agent: AgentId,
    },
    /// It waits for its former holder.
    #[error("task {task} is kept for its former holder {agent} until {until}")]
    KeptFor {
        /// The task.
        task: TaskId,
        /// The former holder.
        agent: AgentId,
        /// Until when.
        until: LogInstant,
    },
}

impl TaskRefusal {
    /// What clients know it by.
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
