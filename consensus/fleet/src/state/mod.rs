//! The replicated state of a shard.

mod agents;
mod apply;
pub(crate) mod changes;
mod commands;
mod dedup;
mod head;
#[cfg(test)]
pub(crate) mod looks;
mod operators;
mod pulls;
mod site;
mod snapshot;
mod tasks;
#[cfg(test)]
mod tests;

use skep_protocol::change::Change;
use skep_protocol::fleet::{FLEET_VERSIONS, FleetLimits};
use skep_protocol::outcome::Reply;
use skep_protocol::query::{Counts, Dropped};
use skep_protocol::time::LogInstant;

use dedup::Dedup;
use head::Head;
pub use snapshot::SnapshotError;

use crate::tables::agents::Agents;
pub(crate) use crate::tables::commands::CommandDue;
use crate::tables::commands::Commands;
use crate::tables::operators::Operators;
use crate::tables::site::Site;
pub(crate) use crate::tables::tasks::Due;
use crate::tables::tasks::Tasks;

/// About how many bytes of a snapshot a request id, an agent, and all else take.
const DEDUP_ID_BYTES: u64 = 64;
const AGENT_BYTES: u64 = 1_024;
const STATE_BYTES: u64 = 64 * 1_024;

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Index of the entry, from 0.
    pub index: u64,
    /// Term of the leader that wrote it.
    pub term: u64,
}

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One reply for each request of the entry, in order.
    pub replies: Vec<Reply>,
    /// All changes, in order. They belong into the history.
    pub changes: Vec<Change>,
}

/// The state of a shard after some entry: live objects, and a bounded tail of ended ones.
///
/// Each table owns what it holds. The state hands a table what it needs of the others, and does what concerns several.
///
/// A clone is cheap and shares everything until one of the two changes.
#[derive(Clone, Debug)]
pub struct FleetState {
    head: Head,
    tasks: Tasks,
    agents: Agents,
    operators: Operators,
    commands: Commands,
    /// The table of the site; only in its directory.
    site: Option<Site>,
    dedup: Dedup,
}

impl FleetState {
    /// The state of a shard that has agreed on these limits, and on the newest version that this Skep can apply.
    pub fn new(limits: FleetLimits) -> Self {
        Self::of_head(Head::new(limits, FLEET_VERSIONS.max))
    }

    /// The state before the first entry. The shard has agreed on nothing, so that it does no request before an entry
    /// gives the rules: it never reads what this build would propose.
    pub fn empty() -> Self {
        Self::of_head(Head::new(FleetLimits::default(), 0))
    }

    /// The state of a shard with this head, and no objects.
    fn of_head(head: Head) -> Self {
        Self {
            head,
            tasks: Tasks::default(),
            agents: Agents::default(),
            operators: Operators::default(),
            commands: Commands::default(),
            site: None,
            dedup: Dedup::default(),
        }
    }

    /// Place of the last entry that was applied.
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

    /// The fleet version on which the shard has agreed; zero before it has.
    pub fn fleet_version(&self) -> u32 {
        self.head.fleet_version
    }

    /// The limits on which the shard has agreed.
    pub fn limits(&self) -> &FleetLimits {
        &self.head.limits
    }

    /// Number of remembered request ids.
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
        let site = self.site.as_ref().map_or(0, Site::bytes);
        self.tasks.bytes() + site + self.agents.count() * AGENT_BYTES + commands + ids + STATE_BYTES
    }

    /// Numbers of objects.
    pub fn counts(&self) -> Counts {
        let terminal = self.tasks.ended_count() as u64;
        let pending = self.tasks.pending_count();
        Counts {
            pending,
            claimed: (self.tasks.count() as u64).saturating_sub(terminal).saturating_sub(pending),
            terminal,
            agents: self.agents.count(),
        }
    }
}
