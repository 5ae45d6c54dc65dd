//! The replicated state of a shard.

mod agents;
mod apply;
mod dedup;
mod snapshot;
mod tasks;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::agent::Role;
use skep_protocol::change::Change;
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::limits;
use skep_protocol::outcome::Reply;
use skep_protocol::query::{AgentView, Counts};
use skep_protocol::task::{Priority, Task};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use dedup::Dedup;
pub use snapshot::SnapshotError;

/// The newest meaning of entries that this Skep can apply.
pub const FLEET_VERSION: u32 = 1;

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Its index, from 0.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
}

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One reply for each request of the entry, in order.
    pub replies: Vec<Reply>,
    /// What changed, in order. Belongs into the history.
    pub changes: Vec<Change>,
}

/// Bounds of the state. They are part of it: every replica must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FleetLimits {
    /// Most tasks that are not terminal.
    pub live_tasks_max: u64,
    /// Terminal tasks that are kept.
    pub terminal_tasks_kept: u64,
    /// Bytes that all tasks may take.
    pub task_bytes_max: u64,
    /// Bytes of terminal tasks that are kept.
    pub terminal_task_bytes_kept: u64,
    /// Most registered agents.
    pub agents_max: u64,
    /// Most request ids that are remembered.
    pub dedup_ids_max: u64,
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self {
            live_tasks_max: limits::LIVE_TASKS_MAX as u64,
            terminal_tasks_kept: limits::TERMINAL_TASKS_KEPT as u64,
            task_bytes_max: limits::TASK_BYTES_MAX as u64,
            terminal_task_bytes_kept: limits::TERMINAL_TASK_BYTES_KEPT as u64,
            agents_max: limits::AGENTS_MAX as u64,
            dedup_ids_max: limits::DEDUP_IDS_MAX as u64,
        }
    }
}

/// Why the orchestrator has to look at a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Its claim is without progress.
    StaleClaim,
    /// It is worthless by now.
    TaskExpiry,
}

/// The state of a shard after some entry: live objects, and a bounded tail of ended ones.
///
/// A clone is cheap and shares everything until one of the two changes.
#[derive(Clone, Debug)]
pub struct FleetState {
    limits: FleetLimits,
    fleet_version: u32,
    applied: Option<LogPosition>,
    clock: LogInstant,
    digest: u128,
    /// Counts creations and endings, to order tasks that tie.
    next_seq: u64,
    tasks: OrdMap<TaskId, Arc<Task>>,
    /// Pending tasks, most urgent first, then oldest first.
    pending: OrdSet<(std::cmp::Reverse<Priority>, u64, TaskId)>,
    /// When claims become stale and tasks expire.
    due: OrdSet<(LogInstant, Due, TaskId)>,
    /// Terminal tasks in the order of their ends.
    ended: OrdSet<(u64, TaskId)>,
    ended_seq: OrdMap<TaskId, u64>,
    /// Bytes of all tasks, and of the terminal ones among them.
    task_bytes: u64,
    ended_bytes: u64,
    /// The highest epoch of any task that was forgotten: one that takes up its id again goes on above it.
    epoch_floor: ClaimEpoch,
    agents: OrdMap<AgentId, Arc<Role>>,
    /// Tasks that agents hold.
    held: OrdMap<AgentId, OrdSet<TaskId>>,
    dedup: Dedup,
}

impl FleetState {
    /// The state before the first entry.
    pub fn new(limits: FleetLimits) -> Self {
        Self {
            limits,
            fleet_version: FLEET_VERSION,
            applied: None,
            clock: LogInstant::ZERO,
            digest: 0,
            next_seq: 0,
            tasks: OrdMap::new(),
            pending: OrdSet::new(),
            due: OrdSet::new(),
            ended: OrdSet::new(),
            ended_seq: OrdMap::new(),
            task_bytes: 0,
            ended_bytes: 0,
            epoch_floor: ClaimEpoch::default(),
            agents: OrdMap::new(),
            held: OrdMap::new(),
            dedup: Dedup::default(),
        }
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// The stamp of the last stamped entry.
    pub fn clock(&self) -> LogInstant {
        self.clock
    }

    /// The rolling digest: equal at equal index on every replica.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The meaning of entries that the shard has agreed on.
    pub fn fleet_version(&self) -> u32 {
        self.fleet_version
    }

    /// Request ids that are remembered.
    pub fn dedup_ids(&self) -> usize {
        self.dedup.len()
    }

    /// A task, if it is live or ended lately.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(AsRef::as_ref)
    }

    /// Tasks in order of their ids, from after one.
    pub fn tasks_after(&self, after: Option<TaskId>) -> impl Iterator<Item = &Task> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.tasks.range((from, Unbounded)).map(|(_, task)| task.as_ref())
    }

    /// Registered agents in order of their ids, from after one.
    pub fn agents_after(&self, after: Option<&AgentId>) -> impl Iterator<Item = AgentView> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(id.clone()));
        let kinds = self.kinds_of_agents();
        self.agents.range((from, Unbounded)).map(move |(id, role)| AgentView {
            id: id.clone(),
            role: role.as_ref().clone(),
            held: self.held_count(id),
            overlaps: agents::overlaps(&kinds, role),
        })
    }

    /// How many objects there are.
    pub fn counts(&self) -> Counts {
        let terminal = self.ended.len() as u64;
        let pending = self.pending.len() as u64;
        Counts {
            pending,
            claimed: (self.tasks.len() as u64).saturating_sub(terminal).saturating_sub(pending),
            terminal,
            agents: self.agents.len() as u64,
        }
    }

    /// What is due at an instant, oldest first.
    pub(crate) fn due(&self, now: LogInstant) -> impl Iterator<Item = (Due, TaskId)> + '_ {
        self.due.iter().take_while(move |(at, _, _)| *at <= now).map(|(_, due, task)| (*due, *task))
    }

    /// All that will be due, soonest first.
    pub(crate) fn dues(&self) -> impl Iterator<Item = (LogInstant, Due, TaskId)> + '_ {
        self.due.iter().copied()
    }
}
