//! The bytes of the log, by kind.

use std::ops::AddAssign;

use super::record::{RecordKind, padded};

/// How many bytes a store has written to its log since it was opened, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenBytes {
    /// Entries, as the Raft adapter encodes them, those that were moved out of an old segment included.
    pub entries: u64,
    /// The bytes around entries: kind and place, checksum, and alignment.
    pub around_entries: u64,
    /// Votes.
    pub votes: u64,
    /// Truncations and purges of logs.
    pub bounds: u64,
    /// How far logs are committed, where entries do not say it.
    pub committed: u64,
    /// Headers of segments, and which of them are kept.
    pub segments: u64,
    /// What fills up sectors that are written whole: their former content, and zeros.
    pub sectors: u64,
}

impl WrittenBytes {
    /// All of these together.
    pub fn total(&self) -> u64 {
        let Self { entries, around_entries, votes, bounds, committed, segments, sectors } = self;
        entries + around_entries + votes + bounds + committed + segments + sectors
    }

    /// Counts a record whose body has two parts of these sizes, in bytes.
    pub(super) fn count(&mut self, kind: RecordKind, head: usize, tail: usize) {
        let whole = padded(head + tail) as u64;
        match kind {
            RecordKind::Append => {
                self.entries += tail as u64;
                self.around_entries += whole - tail as u64;
            }
            RecordKind::Vote => self.votes += whole,
            RecordKind::Truncate | RecordKind::Purge => self.bounds += whole,
            RecordKind::Committed => self.committed += whole,
            RecordKind::Kept => self.segments += whole,
        }
    }
}

impl AddAssign for WrittenBytes {
    fn add_assign(&mut self, other: Self) {
        let Self { entries, around_entries, votes, bounds, committed, segments, sectors } = other;
        self.entries += entries;
        self.around_entries += around_entries;
        self.votes += votes;
        self.bounds += bounds;
        self.committed += committed;
        self.segments += segments;
        self.sectors += sectors;
    }
}
