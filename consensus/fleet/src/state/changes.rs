//! What an entry changes, and by what it is judged.

use skep_protocol::change::{Change, ChangeKind};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::RequestId;
use skep_protocol::query::Dropped;
use skep_protocol::time::LogInstant;

/// What one entry has changed so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The request that is being answered; none while the software decides by itself.
    pub(super) request: Option<RequestId>,
    pub(super) list: Vec<Change>,
}

impl Changes {
    pub(crate) fn record(&mut self, at: LogInstant, what: impl Into<ChangeKind>) {
        self.list.push(Change { at, request: self.request, what: what.into() });
    }
}

/// So many more were let go of.
pub(crate) fn count_dropped(dropped: &mut u64, more: u64) {
    *dropped = dropped.saturating_add(more);
}

/// What a table is given to be changed with: the place of the entry that is applied, by what it is judged, and where what it
/// does is taken down. A table sees nothing else of the state, but what it is handed of its peers.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    /// The clock of the shard, as the entry moved it on.
    pub(crate) now: LogInstant,
    /// The index of the entry.
    pub(crate) index: u64,
    /// The term of the leader that wrote it.
    pub(crate) term: u64,
    /// What the shard has agreed on.
    pub(crate) limits: &'a FleetLimits,
    /// What was let go of for want of room.
    pub(crate) dropped: &'a mut Dropped,
    pub(super) next_seq: &'a mut u64,
    pub(super) changes: &'a mut Changes,
}

impl Cx<'_> {
    /// Something changed.
    pub(crate) fn record(&mut self, what: impl Into<ChangeKind>) {
        self.changes.record(self.now, what);
    }

    /// The next number of the order in which tasks are made and end, and agents attached.
    pub(crate) fn take_seq(&mut self) -> u64 {
        let seq = *self.next_seq;
        *self.next_seq += 1;
        seq
    }
}
