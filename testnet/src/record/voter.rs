//! What voters hold in the end, and what nodes see of themselves.

use serde::{Deserialize, Serialize};
use skep_client::v1;

use super::hex;

/// How far a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// Its name.
    pub node: String,
    /// The last entry that it applied.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The rolling digest of everything that it applied.
    pub digest: String,
}

/// A task as a voter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its id.
    pub task: String,
    /// Where it stands, as the API names it.
    pub status: String,
    /// Its last claim.
    pub epoch: u64,
}

/// A transition of a task, as a voter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Where it stands in the log.
    pub index: u64,
    /// The shard's log clock.
    pub clock: u64,
    /// The task.
    pub task: String,
    /// What happened.
    pub change: String,
    /// By whom, or from whom.
    pub agent: String,
    /// Under which claim.
    pub epoch: u64,
    /// Why.
    pub detail: String,
    /// The request that asked for it.
    pub request: String,
}

impl TaskRecord {
    /// From the API.
    pub fn of(task: &v1::Task) -> Self {
        Self { task: hex(&task.id), status: task.status().as_str_name().to_owned(), epoch: task.epoch }
    }

    /// Whether nothing more happens to it.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "TASK_STATUS_PENDING" | "TASK_STATUS_CLAIMED" | "TASK_STATUS_UNSPECIFIED")
    }
}

impl ChangeRecord {
    /// From the API.
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

/// What one voter holds in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterRecord {
    /// How far it is.
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
    /// The process.
    pub pid: u32,
    /// `started`, or `shard`: how far it is.
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
    /// The last entry that it applied, the first one being 0.
    #[serde(default)]
    pub index: Option<u64>,
    /// The rolling digest of everything that it applied.
    #[serde(default)]
    pub digest: String,
}
