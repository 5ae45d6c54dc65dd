//! What voters hold at the end, and what nodes see of themselves.

use serde::{Deserialize, Serialize};
use skep_client::v1;

use super::hex;

/// How far a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The voter's name.
    pub node: String,
    /// The index of the last entry that it applied.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The rolling digest of everything that it applied.
    pub digest: String,
}

/// A task as a voter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task's id.
    pub task: String,
    /// Its status, as the API names it.
    pub status: String,
    /// The epoch of its last claim.
    pub epoch: u64,
}

/// A transition of a task, as a voter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The index of its entry in the log.
    pub index: u64,
    /// The shard's log clock then.
    pub clock: u64,
    /// The task's id.
    pub task: String,
    /// The kind of the transition.
    pub change: String,
    /// The agent that did it, or lost the task.
    pub agent: String,
    /// The epoch of the claim.
    pub epoch: u64,
    /// The reason.
    pub detail: String,
    /// The id of the request that asked for it.
    pub request: String,
}

impl TaskRecord {
    /// Reads a task of the API.
    pub fn of(task: &v1::Task) -> Self {
        Self { task: hex(&task.id), status: task.status().as_str_name().to_owned(), epoch: task.epoch }
    }

    /// Whether the task has ended.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "TASK_STATUS_PENDING" | "TASK_STATUS_CLAIMED" | "TASK_STATUS_UNSPECIFIED")
    }
}

impl ChangeRecord {
    /// Reads a transition of the API.
    pub fn of(event: v1::TaskEvent) -> Self {
        Self {
            index: event.index,
            clock: event.clock,
            task: hex(&event.task_id),
            change: event.kind,
            agent: event.agent,
            epoch: event.epoch,
            detail: event.detail,
            request: hex(&event.request_id),
        }
    }
}

/// What one voter holds at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterRecord {
    /// How far the voter is.
    pub head: HeadRecord,
    /// Its tasks.
    pub tasks: Vec<TaskRecord>,
    /// Their transitions, in the order of the log for each task.
    pub changes: Vec<ChangeRecord>,
}

/// What a node saw of itself: a line of its own history. Keys that are not needed here are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The incarnation of its data directory.
    pub incarnation: String,
    /// The process id.
    pub pid: u32,
    /// The kind of line: `started`, or `shard` for how far it is.
    pub kind: String,
    /// When, in nanoseconds of the boot clock.
    #[serde(default)]
    pub mono_ns: u64,
    /// Whether it led the shard.
    #[serde(default)]
    pub leads: bool,
    /// The term.
    #[serde(default)]
    pub term: u64,
    /// The index of the last entry that it applied; that of the first one is 0.
    #[serde(default)]
    pub index: Option<u64>,
    /// The rolling digest of everything that it applied.
    #[serde(default)]
    pub digest: String,
}
