//! What an entry changes.

use skep_protocol::change::{Change, ChangeKind};
use skep_protocol::ids::RequestId;
use skep_protocol::time::LogInstant;

/// What one entry has changed so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The request that is being answered; none while the software decides by itself.
    pub(super) request: Option<RequestId>,
    pub(super) list: Vec<Change>,
}

impl Changes {
    pub(crate) fn record(&mut self, at: LogInstant, what: ChangeKind) {
        self.list.push(Change { at, request: self.request, what });
    }
}

/// So many more were let go of.
pub(crate) fn count_dropped(dropped: &mut u64, more: u64) {
    *dropped = dropped.saturating_add(more);
}
