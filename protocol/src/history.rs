//! What is told of the history that a replica keeps, and of where it ends.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::time::LogInstant;

/// One transition of a task and where it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// The transition.
    pub change: Change,
}

/// Where the history of a replica ends, below and in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEdge {
    /// The first index whose changes are kept. What is before it is gone, and is with no replica that keeps as much.
    pub begins: u64,
    /// When the oldest changes that are kept were made; none if there are none.
    pub begins_at: Option<LogInstant>,
    /// The entries from the first one wanted on whose changes the replica lacks; none if it has them, or has not
    /// applied them yet.
    pub missing: Option<Missing>,
}

/// Entries whose changes a replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first of them.
    pub from: u64,
    /// The first one after them.
    pub end: u64,
    /// Whether no replica has them: otherwise they are being fetched.
    pub lost: bool,
}

impl HistoryEdge {
    /// The entries around one that the replica has no changes of and gets none of by applying the log: from, and the
    /// first one after them.
    pub fn lacks(&self, index: u64) -> Option<(u64, u64)> {
        if index < self.begins {
            return Some((0, self.begins));
        }
        let missing = self.missing.filter(|missing| (missing.from..missing.end).contains(&index))?;
        Some((missing.from, missing.end))
    }
}
