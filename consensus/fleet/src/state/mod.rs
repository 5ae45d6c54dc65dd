//! The replicated state of a shard.

mod agents;
mod apply;
pub(crate) mod changes;
mod claimable;
pub(crate) mod commands;
mod dedup;
mod ended;
mod era;
mod head;
#[cfg(test)]
pub(crate) mod looks;
mod operators;
mod snapshot;
mod tasks;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::change::Change;
use skep_protocol::fleet::{FLEET_VERSIONS, FleetLimits};
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::outcome::Reply;
use skep_protocol::query::{Counts, Dropped};
use skep_protocol::task::Task;
use skep_protocol::text::{AgentId, Capability};
use skep_protocol::time::LogInstant;

use claimable::{Claimable, Ranks, Waiting};
pub(crate) use commands::CommandDue;
use commands::Commands;
use dedup::Dedup;
use ended::Ended;
use head::Head;
pub use snapshot::SnapshotError;

use crate::tables::agents::Agents;
use crate::tables::operators::Operators;

/// About how many bytes of a snapshot a request id, an agent, and everything else take.
const DEDUP_ID_BYTES: u64 = 64;
const AGENT_BYTES: u64 = 1_024;
const STATE_BYTES: u64 = 64 * 1_024;

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
    head: Head,
    tasks: OrdMap<TaskId, Arc<Task>>,
    /// Pending tasks by what they require: nobody is kept from work by tasks that others have to do.
    pending: OrdMap<BTreeSet<Capability>, Waiting>,
    /// Pending tasks that are kept for one agent alone, by what they require.
    kept: OrdMap<(AgentId, BTreeSet<Capability>), Ranks>,
    pending_count: u64,
    /// When claims become stale and tasks expire.
    due: OrdSet<(LogInstant, Due, TaskId)>,
    /// Terminal tasks.
    ended: Ended,
    /// Bytes of all tasks.
    task_bytes: u64,
    /// The highest epoch of any task that was forgotten: one that takes up its id again goes on above it.
    epoch_floor: ClaimEpoch,
    /// Tasks that agents hold.
    held: OrdMap<AgentId, OrdSet<TaskId>>,
    /// The last entry that made a task pending.
    offered_at: u64,
    /// When pending tasks stand otherwise than they do: when they can be had by whoever cannot have them yet, and when they
    /// are worthless.
    gates: OrdSet<(LogInstant, TaskId)>,
    agents: Agents,
    operators: Operators,
    commands: Commands,
    dedup: Dedup,
}

impl FleetState {
    /// The state of a shard that has agreed on these limits, and on the newest version that this Skep can apply.
    pub fn new(limits: FleetLimits) -> Self {
        Self::of_head(Head::new(limits, FLEET_VERSIONS.max))
    }

    /// The state before the first entry. Nothing is agreed on, so that no request is heard before an entry says by which
    /// rules it is: what this build would propose is read by nobody.
    pub fn empty() -> Self {
        Self::of_head(Head::new(FleetLimits::default(), 0))
    }

    /// The state of a shard of which this is known, and that holds nothing.
    fn of_head(head: Head) -> Self {
        Self {
            head,
            tasks: OrdMap::new(),
            pending: OrdMap::new(),
            kept: OrdMap::new(),
            pending_count: 0,
            due: OrdSet::new(),
            ended: Ended::default(),
            task_bytes: 0,
            epoch_floor: ClaimEpoch::default(),
            held: OrdMap::new(),
            offered_at: 0,
            gates: OrdSet::new(),
            agents: Agents::default(),
            operators: Operators::default(),
            commands: Commands::default(),
            dedup: Dedup::default(),
        }
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> Option<LogPosition> {
        self.head.applied
    }

    /// The stamp of the last stamped entry.
    pub fn clock(&self) -> LogInstant {
        self.head.clock
    }

    /// The rolling digest: equal at equal index on every replica.
    pub fn digest(&self) -> u128 {
        self.head.digest
    }

    /// The meaning of entries that the shard has agreed on; zero before it has.
    pub fn fleet_version(&self) -> u32 {
        self.head.fleet_version
    }

    /// The limits that the shard has agreed on.
    pub fn limits(&self) -> &FleetLimits {
        &self.head.limits
    }

    /// Request ids that are remembered.
    pub fn dedup_ids(&self) -> usize {
        self.dedup.len()
    }

    /// What the shard has let go of since it was made, because it keeps no more.
    pub fn dropped(&self) -> Dropped {
        self.head.dropped
    }

    /// About how many bytes a snapshot takes.
    pub fn bytes(&self) -> u64 {
        let ids = self.dedup.len() as u64 * DEDUP_ID_BYTES;
        let commands = self.commands.bytes() + self.operators.bytes();
        self.task_bytes + self.agents.count() * AGENT_BYTES + commands + ids + STATE_BYTES
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

    /// What an agent holds.
    pub(crate) fn held_by(&self, agent: &AgentId) -> impl Iterator<Item = &Task> {
        let tasks = self.held.get(agent).into_iter().flat_map(|held| held.iter());
        tasks.filter_map(|id| self.tasks.get(id).map(AsRef::as_ref))
    }

    /// Pending tasks that one of these agents may have now, most urgent first, of those that it can do.
    pub(crate) fn claimable<'b>(
        &self,
        now: LogInstant,
        agents: impl IntoIterator<Item = (&'b AgentId, &'b BTreeSet<Capability>)>,
    ) -> Claimable<'_> {
        Claimable::new(self, now, agents)
    }

    /// Whether no task waits for anybody.
    pub(crate) fn is_nothing_pending(&self) -> bool {
        self.pending_count == 0
    }

    /// The last entry that made a task pending.
    pub(crate) fn offered_at(&self) -> u64 {
        self.offered_at
    }

    /// When the next pending task stands otherwise than at an instant: it may be had by somebody then.
    pub(crate) fn next_gate(&self, now: LogInstant) -> Option<LogInstant> {
        let after = (now.plus_ms(1), TaskId::from_bytes([0; 16]));
        self.gates.range(after..).next().map(|(at, _)| *at)
    }

    /// How many objects there are.
    pub fn counts(&self) -> Counts {
        let terminal = self.ended.len() as u64;
        let pending = self.pending_count;
        Counts {
            pending,
            claimed: (self.tasks.len() as u64).saturating_sub(terminal).saturating_sub(pending),
            terminal,
            agents: self.agents.count(),
        }
    }

    /// All that will be due, soonest first.
    pub(crate) fn dues(&self) -> impl Iterator<Item = (LogInstant, Due, TaskId)> + '_ {
        self.due.iter().copied().inspect(|_| {
            #[cfg(test)]
            looks::count();
        })
    }

    /// Whether that is still to come, or has come and was not done.
    pub(crate) fn is_due(&self, due: &(LogInstant, Due, TaskId)) -> bool {
        self.due.contains(due)
    }
}
