//! How work ended that a caller asked a node for, whatever it was.

use crate::heartbeat::HeartbeatReply;
use crate::outcome::{NotDone, Receipt};
use crate::pull::Pulled;
use crate::query::QueryReply;
use crate::time::LogInstant;

/// How a piece of work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The shard did the request.
    Done {
        /// Index of its entry in the log.
        index: u64,
        /// The stamp of that entry, on the shard's clock.
        stamp: LogInstant,
        /// What the request did.
        receipt: Receipt,
    },
    /// A replica answered the query.
    Read(Box<QueryReply>),
    /// The orchestrator heard the heartbeat.
    Heard(HeartbeatReply),
    /// The leader answered the pull.
    Pulled(Box<Pulled>),
    /// The work was not done.
    NotDone(NotDone),
    /// Nothing shows whether it was done. The caller may safely send it again under the same id.
    Unknown,
}
