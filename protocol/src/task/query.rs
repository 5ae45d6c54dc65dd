//! What a shard tells of a task.

use serde::{Deserialize, Serialize};

use super::Task;
use crate::text::{AgentId, Capability};
use crate::time::LogInstant;

/// A task, and why no agent has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// The task.
    pub task: Task,
    /// Why it waits; none if it does not.
    pub waits: Option<WaitReason>,
}

/// Why a pending task is not being worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum WaitReason {
    /// The last attempt failed.
    #[error("its last attempt failed; the next may begin at {until}")]
    BackingOff {
        /// When the next attempt may begin, on the shard's clock.
        until: LogInstant,
    },
    /// The task waits for its former holder, which may come back.
    #[error("it is kept for its former holder {agent} until {until}")]
    KeptFor {
        /// The former holder.
        agent: AgentId,
        /// Until when it is kept, on the shard's clock.
        until: LogInstant,
    },
    /// There are no agents.
    #[error("no agent is attached to any node")]
    NoAgents,
    /// No attached agent has all that it requires.
    #[error("none of the {attached} attached agents has all that it requires: {}", list(lacking))]
    NobodyCapable {
        /// Number of attached agents.
        attached: u32,
        /// Capabilities that no attached agent has; all that the task requires if each is there but no agent has all.
        lacking: Vec<Capability>,
    },
    /// All agents that could do it are busy.
    #[error("all {capable} capable agents hold as many tasks as they may")]
    AllBusy {
        /// Number of attached agents that have all required capabilities.
        capable: u32,
    },
    /// An agent could do it, and has not asked for work.
    #[error("{free} of {capable} capable agents have room and none has asked for work")]
    NobodyReady {
        /// Number of attached agents that have all required capabilities.
        capable: u32,
        /// Number of those that hold fewer tasks than they may.
        free: u32,
    },
}

fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(Capability::as_str).collect::<Vec<_>>().join(", ")
}
