//! The log of one shard as memory knows it: the place of each entry, and the latest entries themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use skep_protocol::limits;

/// The place of an entry in the log of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPoint {
    /// The index of the entry.
    pub index: u64,
    /// The term of the leader that wrote the entry.
    pub term: u64,
}

/// The place of an entry's bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) segment: u64,
    /// The offset of the record in its segment, in bytes.
    pub(super) offset: u64,
    /// The size of the whole record, in bytes.
    pub(super) bytes: u32,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) term: u64,
    /// None until the entry is durable.
    pub(super) extent: Option<Extent>,
    /// None once the entry was evicted from memory.
    pub(super) cached: Option<Bytes>,
}

/// The log of one shard. Entries are contiguous: this type cannot express a hole.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardLog {
    /// The index of the first entry, or of the next one if there are none.
    pub(super) first: u64,
    pub(super) slots: VecDeque<Slot>,
    pub(super) purged: Option<LogPoint>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<LogPoint>,
    /// For each truncation and purge whose record is not durable yet, the oldest segment that it drops: until then a
    /// restart reads that segment.
    pins: VecDeque<Option<u64>>,
    cached_bytes: usize,
    /// Slots before this one hold no cached entry.
    evicted: usize,
}

impl ShardLog {
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The last entry, or the last purged one if there are none.
    pub(super) fn last(&self) -> Option<LogPoint> {
        match self.slots.back() {
            Some(slot) => Some(LogPoint { index: self.end() - 1, term: slot.term }),
            None => self.purged,
        }
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get(at)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// The part of a range that the log holds.
    pub(super) fn held(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start.max(self.first);
        start..range.end.min(self.end()).max(start)
    }

    /// Adds an entry at the end. False if that would leave a hole.
    pub(super) fn push(&mut self, point: LogPoint, entry: Bytes) -> bool {
        if self.slots.is_empty() && self.purged.is_none_or(|purged| point.index > purged.index) {
            self.first = point.index;
        }
        if point.index != self.end() {
            return false;
        }
        self.cached_bytes += entry.len();
        self.slots.push_back(Slot { term: point.term, extent: None, cached: Some(entry) });
        true
    }

    /// Notes that an entry became durable. Does nothing if the entry was truncated or purged meanwhile.
    pub(super) fn settle(&mut self, point: LogPoint, extent: Extent) {
        if let Some(slot) = self.slot_mut(point.index).filter(|slot| slot.term == point.term) {
            slot.extent = Some(extent);
        }
        self.evict();
    }

    /// Evicts the oldest durable entries beyond the bound of the cache.
    fn evict(&mut self) {
        while self.cached_bytes > limits::LOG_CACHE_BYTES_MAX {
            let Some(slot) = self.slots.get_mut(self.evicted) else { break };
            if slot.extent.is_none() {
                break;
            }
            if let Some(entry) = slot.cached.take() {
                self.cached_bytes -= entry.len();
            }
            self.evicted += 1;
        }
    }

    /// Keeps the entries before `end`. The segments of the others are needed until [`unpin`](Self::unpin).
    pub(super) fn truncate(&mut self, end: u64) {
        let from = end.max(self.first);
        self.pin(from..self.end());
        while self.end() > from {
            if let Some(entry) = self.slots.pop_back().and_then(|slot| slot.cached) {
                self.cached_bytes -= entry.len();
            }
        }
        self.evicted = self.evicted.min(self.slots.len());
    }

    /// Drops entries up to a point, which may lie beyond the last one. Their segments are needed until
    /// [`unpin`](Self::unpin).
    pub(super) fn purge(&mut self, upto: LogPoint) {
        self.pin(self.first..upto.index.saturating_add(1));
        while self.first <= upto.index {
            let Some(slot) = self.slots.pop_front() else {
                self.first = upto.index + 1;
                break;
            };
            if let Some(entry) = slot.cached {
                self.cached_bytes -= entry.len();
            }
            self.first += 1;
            self.evicted = self.evicted.saturating_sub(1);
        }
        self.purged = self.purged.max(Some(upto));
    }

    fn pin(&mut self, range: Range<u64>) {
        // The place of an entry that is not durable yet is unknown: then nothing is dropped.
        let segment = |index| Some(self.slot(index)?.extent.map_or(0, |extent| extent.segment));
        self.pins.push_back(self.held(range).filter_map(segment).min());
    }

    /// Notes that the record of the oldest truncation or purge that was not durable is durable.
    pub(super) fn unpin(&mut self) {
        self.pins.pop_front();
    }

    /// How far the log is known to be committed. None while the log on disk is not yet the log in memory: an entry that
    /// is being replaced can stand on disk at the place of the committed one.
    pub(super) fn committed_as_written(&self) -> Option<LogPoint> {
        self.committed.filter(|_| self.pins.is_empty())
    }

    /// The oldest segment that a restart needs for the entries of this shard.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        let held = self.slots.iter().filter_map(|slot| slot.extent.map(|extent| extent.segment));
        held.chain(self.pins.iter().copied().flatten()).min()
    }
}

/// What recovery has read of a shard so far. Entries may come in any order of their indexes, since they can have been
/// moved.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    pub(super) entries: BTreeMap<u64, (u64, Extent)>,
    pub(super) purged: Option<LogPoint>,
    pub(super) vote: Option<Bytes>,
    /// The last entry that a later record calls committed.
    pub(super) committed: Option<u64>,
}

impl Recovering {
    /// Notes how far the log is said to be committed. That only rises.
    pub(super) fn note_committed(&mut self, index: u64) {
        self.committed = self.committed.max(Some(index));
    }

    /// The log, if what was read has no hole.
    pub(super) fn finish(mut self) -> Result<ShardLog, String> {
        let start = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries = self.entries.split_off(&start);
        let first = self.entries.first_key_value().map_or(start, |(index, _)| *index);
        if self.purged.is_some() && first != start {
            return Err(format!("entries {start} to {} are missing", first - 1));
        }
        let mut log = ShardLog { first, purged: self.purged, vote: self.vote, ..ShardLog::default() };
        for (index, (term, extent)) in self.entries {
            if index != log.end() {
                return Err(format!("entries {} to {} are missing", log.end(), index - 1));
            }
            if log.slots.back().is_some_and(|last| last.term > term) {
                return Err(format!("entry {index} is of an earlier term than the one before it"));
            }
            log.slots.push_back(Slot { term, extent: Some(extent), cached: None });
        }
        log.evicted = log.slots.len();
        log.committed = match self.committed {
            Some(index) if index < start => log.purged,
            // Only records behind the entry call it committed: if it is missing, it was lost.
            Some(index) => match log.slot(index) {
                Some(slot) => Some(LogPoint { index, term: slot.term }),
                None => return Err(format!("entry {index} was committed and is missing")),
            },
            None => None,
        };
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(places: &[u64]) -> ShardLog {
        let mut log = ShardLog::default();
        for (index, segment) in (1..).zip(places) {
            let point = LogPoint { index, term: 1 };
            assert!(log.push(point, Bytes::from_static(b"x")));
            log.settle(point, Extent { segment: *segment, offset: 64, bytes: 40 });
        }
        log
    }

    #[test]
    fn what_is_committed_is_told_to_the_disk_only_once_it_holds_the_same_entries() {
        let mut log = log(&[1, 1, 1]);
        log.committed = Some(LogPoint { index: 2, term: 1 });
        assert_eq!(log.committed_as_written(), log.committed);
        log.truncate(3);
        assert!(log.push(LogPoint { index: 3, term: 0 }, Bytes::new()));
        log.committed = Some(LogPoint { index: 3, term: 0 });
        assert_eq!(log.committed_as_written(), None, "another entry stands in its place on disk");
        log.unpin();
        assert_eq!(log.committed_as_written(), log.committed);
    }

    #[test]
    fn a_log_that_lacks_what_was_committed_is_refused() {
        let extent = Extent { segment: 1, offset: 64, bytes: 40 };
        let recovering = |committed| {
            let purged = Some(LogPoint { index: 3, term: 1 });
            let entries = [(4, (1, extent)), (5, (2, extent))].into();
            Recovering { entries, purged, vote: None, committed }.finish().map(|log| log.committed)
        };
        assert_eq!(recovering(None), Ok(None));
        assert_eq!(recovering(Some(2)), Ok(Some(LogPoint { index: 3, term: 1 })), "what was purged was committed");
        assert_eq!(recovering(Some(5)), Ok(Some(LogPoint { index: 5, term: 2 })));
        assert!(recovering(Some(6)).unwrap_err().contains("entry 6"));
    }

    #[test]
    fn a_segment_is_needed_until_what_lets_go_of_it_is_durable() {
        let mut log = log(&[1, 1, 2, 3]);
        log.purge(LogPoint { index: 2, term: 1 });
        log.truncate(4);
        assert_eq!(log.oldest_segment(), Some(1), "a restart would read it");
        log.unpin();
        assert_eq!(log.oldest_segment(), Some(2));
        log.purge(LogPoint { index: 9, term: 2 });
        log.unpin();
        assert_eq!(log.oldest_segment(), Some(2), "the truncation is durable and the purge is not");
        log.unpin();
        assert_eq!(log.oldest_segment(), None);
        assert!(log.push(LogPoint { index: 10, term: 2 }, Bytes::new()));
        log.truncate(10);
        assert_eq!(log.oldest_segment(), Some(0), "it is not known yet where it is written");
    }
}
