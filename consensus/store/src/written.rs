//! What the bytes of the log are.

use std::ops::AddAssign;

use super::record::{RecordKind, padded};

/// Bytes that a store has written to its log since it was opened, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenBytes {
    /// Entries, as the Raft adapter encodes them; those too that were moved out of an old segment.
    pub entries: u64,
    /// What is written around each of them: what and where it is, its checksum, and what aligns it.
    pub around_entries: u64,
    /// Votes.
    pub votes: u64,
    /// What truncates and purges a log.
    pub bounds: u64,
    /// How far logs are committed, where entries do not say it.
    pub committed: u64,
    /// Headers of segments, and which of them are kept.
    pub segments: u64,
    /// What fills sectors that are written whole: what they held before, and zeros.
    pub sectors: u64,
}

impl WrittenBytes {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { entries, around_entries, votes, bounds, committed, segments, sectors } = self;
        entries + around_entries + votes + bounds + committed + segments + sectors
    }

    /// Counts a record whose body has these two parts, of so many bytes each.
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
