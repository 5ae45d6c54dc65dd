//! How work that a node was asked for ended, whatever it was.

use crate::heartbeat::HeartbeatReply;
use crate::outcome::{NotDone, Receipt};
use crate::pull::Pulled;
use crate::query::QueryReply;
use crate::time::LogInstant;

/// How a piece of work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The request was done.
    Done {
        /// Its index in the log.
        index: u64,
        /// The shard's clock then.
        stamp: LogInstant,
        /// What it did.
        receipt: Receipt,
    },
    /// The query was answered.
    Read(Box<QueryReply>),
    /// The orchestrator heard the heartbeat.
    Heard(HeartbeatReply),
    /// The leader answered the pull.
    Pulled(Box<Pulled>),
    /// It was not done.
    NotDone(NotDone),
    /// Nobody knows whether it was done. Sending it again under the same id is safe.
    Unknown,
}
