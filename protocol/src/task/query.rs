//! What is told of a task.

use serde::{Deserialize, Serialize};

use super::Task;
use crate::text::{AgentId, Capability};
use crate::time::LogInstant;

/// A task, and why nobody has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// The task.
    pub task: Task,
    /// Why it waits, if it does.
    pub waits: Option<WaitReason>,
}

/// Why a pending task is not being worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum WaitReason {
    /// The last attempt failed.
    #[error("its last attempt failed; the next may begin at {until}")]
    BackingOff {
        /// When the next may begin.
        until: LogInstant,
    },
    /// Its former holder may be back.
    #[error("it is kept for its former holder {agent} until {until}")]
    KeptFor {
        /// The former holder.
        agent: AgentId,
        /// How long.
        until: LogInstant,
    },
    /// There are no agents.
    #[error("no agent is attached to any node")]
    NoAgents,
    /// Nobody has what it requires.
    #[error("none of the {attached} attached agents has all that it requires: {}", list(lacking))]
    NobodyCapable {
        /// Agents that are attached.
        attached: u32,
        /// What no attached agent has; all that is required if somebody has each but nobody all.
        lacking: Vec<Capability>,
    },
    /// Everybody who could is busy.
    #[error("all {capable} capable agents hold as many tasks as they may")]
    AllBusy {
        /// How many.
        capable: u32,
    },
    /// Somebody could, and has not asked for work.
    #[error("{free} of {capable} capable agents have room and none has asked for work")]
    NobodyReady {
        /// How many could.
        capable: u32,
        /// How many of them have room.
        free: u32,
    },
}

fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(Capability::as_str).collect::<Vec<_>>().join(", ")
}
