//! What an entry changes, and what a table judges it by.

use skep_protocol::change::{Change, ChangeKind};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::RequestId;
use skep_protocol::query::Dropped;
use skep_protocol::time::LogInstant;

/// What one entry has changed so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Id of the request that the entry answers; none while the software decides by itself.
    pub(super) request: Option<RequestId>,
    pub(super) list: Vec<Change>,
}

impl Changes {
    pub(crate) fn record(&mut self, at: LogInstant, what: impl Into<ChangeKind>) {
        self.list.push(Change { at, request: self.request, what: what.into() });
    }
}

/// Counts this many more objects that the shard let go of.
pub(crate) fn count_dropped(dropped: &mut u64, more: u64) {
    *dropped = dropped.saturating_add(more);
}

/// What a table gets to be changed with: the place of the entry, what the table judges it by, and where it writes down
/// its changes. A table sees nothing else of the state, but what the state hands it of its peers.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    /// The shard's clock, as the entry moved it on.
    pub(crate) now: LogInstant,
    /// Index of the entry.
    pub(crate) index: u64,
    /// Term of the leader that wrote the entry.
    pub(crate) term: u64,
    /// The limits on which the shard has agreed.
    pub(crate) limits: &'a FleetLimits,
    /// Counts of what the shard let go of for want of room.
    pub(crate) dropped: &'a mut Dropped,
    pub(super) next_seq: &'a mut u64,
    pub(super) changes: &'a mut Changes,
}

impl Cx<'_> {
    /// Writes down a change.
    pub(crate) fn record(&mut self, what: impl Into<ChangeKind>) {
        self.changes.record(self.now, what);
    }

    /// The next number of the order in which tasks are made and end, and agents are attached.
    pub(crate) fn take_seq(&mut self) -> u64 {
        let seq = *self.next_seq;
        *self.next_seq += 1;
        seq
    }
}
