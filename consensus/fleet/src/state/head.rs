//! How far a shard has come, and by which rules it goes on.

use skep_protocol::fleet::FleetLimits;
use skep_protocol::query::Dropped;
use skep_protocol::time::LogInstant;

use super::LogPosition;
use super::changes::{Changes, Cx};

/// The parts of a shard's state that exist once, whatever it holds.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// The limits by which the state applies entries; never those of the build.
    pub(super) limits: FleetLimits,
    /// The fleet version; zero before the shard has agreed on one.
    pub(super) fleet_version: u32,
    pub(super) applied: Option<LogPosition>,
    /// The place of the entry that is being applied.
    pub(super) applying: LogPosition,
    pub(super) clock: LogInstant,
    pub(super) digest: u128,
    /// The next number of creations and endings, which orders tasks that tie.
    pub(super) next_seq: u64,
    /// Counts of what the shard let go of for want of room.
    pub(super) dropped: Dropped,
}

impl Head {
    /// The head of a shard that has agreed on these limits, and applied no entry.
    pub(super) fn new(limits: FleetLimits, fleet_version: u32) -> Self {
        Self {
            limits,
            fleet_version,
            applied: None,
            applying: LogPosition::default(),
            clock: LogInstant::ZERO,
            digest: 0,
            next_seq: 0,
            dropped: Dropped::default(),
        }
    }

    /// What tables are changed with by the entry that is being applied.
    pub(super) fn cx<'a>(&'a mut self, changes: &'a mut Changes) -> Cx<'a> {
        Cx {
            now: self.clock,
            index: self.applying.index,
            term: self.applying.term,
            limits: &self.limits,
            dropped: &mut self.dropped,
            next_seq: &mut self.next_seq,
            changes,
        }
    }
}
