//! How far a shard has come, and by which rules it goes on.

use skep_protocol::fleet::FleetLimits;
use skep_protocol::query::Dropped;
use skep_protocol::time::LogInstant;

use super::LogPosition;
use super::changes::{Changes, Cx};

/// What there is of a shard once, whatever it holds.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// What applying goes by, and never by what the build that applies has of its own.
    pub(super) limits: FleetLimits,
    /// Zero before anything is agreed on.
    pub(super) fleet_version: u32,
    pub(super) applied: Option<LogPosition>,
    /// The entry that is being applied.
    pub(super) applying: LogPosition,
    pub(super) clock: LogInstant,
    pub(super) digest: u128,
    /// Counts creations and endings, to order tasks that tie.
    pub(super) next_seq: u64,
    /// What was let go of for want of room.
    pub(super) dropped: Dropped,
}

impl Head {
    /// One of a shard that has agreed on these, and heard nothing.
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
