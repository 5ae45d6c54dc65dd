//! What a replica tells of the history that it keeps, and of where that ends.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::time::LogInstant;

/// One transition of a task and where it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Index of the entry.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
    /// The transition.
    pub change: Change,
}

/// Where the history of a replica ends, below and in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEdge {
    /// The first index whose changes the replica keeps. Earlier changes are gone, also from each replica that keeps as
    /// much.
    pub begins: u64,
    /// When the oldest changes that it keeps were made, on the shard's clock; none if it keeps none.
    pub begins_at: Option<LogInstant>,
    /// The entries from the first index of the question on whose changes the replica lacks; none if it has them, or has
    /// not applied them yet.
    pub missing: Option<Missing>,
}

/// Entries whose changes a replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Index of the first of them.
    pub from: u64,
    /// Index of the first entry after them.
    pub end: u64,
    /// Whether no replica has them; otherwise the replica fetches them.
    pub lost: bool,
}

impl HistoryEdge {
    /// The entries around an index whose changes the replica lacks, and does not get by applying the log: the first
    /// one, and the first one after them.
    pub fn lacks(&self, index: u64) -> Option<(u64, u64)> {
        if index < self.begins {
            return Some((0, self.begins));
        }
        let missing = self.missing.filter(|missing| (missing.from..missing.end).contains(&index))?;
        Some((missing.from, missing.end))
    }
}
