//! What the history of one shard holds: which entries, and in which segments. This code reads and writes nothing.
//!
//! A segment is a part of the history that is dropped as a whole. It holds consecutive entries, so that the segment of
//! an entry is known without a look at the disk. New entries go to the last segment, and fetched entries of earlier
//! times to the first; a full one is followed, or preceded, by another.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use skep_protocol::history::{HistoryEdge, Missing};
use skep_protocol::limits;
use skep_protocol::time::LogInstant;

/// How long the history is kept, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// How long what an entry did is kept, in milliseconds of the shard's clock.
    pub retention_ms: u64,
    /// The most bytes of all shards; above this the oldest segment is dropped.
    pub bytes_max: u64,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self { retention_ms: limits::HISTORY_RETENTION_MS_DEFAULT, bytes_max: limits::HISTORY_BYTES_DEFAULT }
    }
}

impl HistoryOptions {
    pub(super) fn segment_bytes(&self) -> u64 {
        (self.bytes_max / limits::HISTORY_SEGMENTS).max(1)
    }

    fn segment_ms(&self) -> u64 {
        (self.retention_ms / limits::HISTORY_SEGMENTS).max(1)
    }
}

/// Entries that are missing, up to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    pub(super) end: u64,
    /// Whether no voter has them, so that they are not looked for.
    pub(super) lost: bool,
}

/// A part of the history that is dropped as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    oldest: Option<LogInstant>,
    newest: Option<LogInstant>,
}

impl Segment {
    fn is_full(&self, options: &HistoryOptions) -> bool {
        let spans = self.newest.zip(self.oldest).map_or(0, |(newest, oldest)| elapsed_ms(newest, oldest));
        self.bytes >= options.segment_bytes() || spans >= options.segment_ms()
    }
}

/// What a segment records of itself on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The first index of the history: everything before it is gone.
    pub(super) floor: u64,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) gaps: BTreeMap<u64, Gap>,
    pub(super) bytes: u64,
    pub(super) oldest: Option<LogInstant>,
    pub(super) newest: Option<LogInstant>,
}

/// How long it was at least from one instant to a later one, in milliseconds; the time between two eras is unknown and
/// counts nothing.
fn elapsed_ms(later: LogInstant, earlier: LogInstant) -> u64 {
    if later <= earlier { 0 } else { later.checked_since_ms(earlier).unwrap_or(later.ms_in_era()) }
}

/// The history of one shard: all entries of `floor..next` except the gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shelf {
    floor: u64,
    next: u64,
    gaps: BTreeMap<u64, Gap>,
    /// By the first entry that belongs to each.
    segments: BTreeMap<u64, Segment>,
    /// Entries from here on can be applied again, from the snapshot and the log: if they are missing, they must not be
    /// dropped.
    base: u64,
    /// How many entries were dropped for want of room since the process began.
    given_back: u64,
}

impl Shelf {
    /// The shelf that these records of its segments describe.
    pub(super) fn load(mut found: Vec<(u64, Meta)>) -> Self {
        found.sort_by_key(|(_, meta)| meta.first);
        let floor = found.iter().map(|(_, meta)| meta.floor).max().unwrap_or(0);
        let mut shelf = Self { floor, next: floor, ..Self::default() };
        for (number, meta) in found {
            shelf.cover(meta.first..meta.end);
            for (start, gap) in meta.gaps {
                shelf.set_gap(start..gap.end, gap.lost);
            }
            let Meta { first, bytes, oldest, newest, .. } = meta;
            shelf.segments.insert(first, Segment { number, bytes, oldest, newest });
        }
        shelf.clear(0..floor);
        shelf.settle_floor();
        shelf
    }

    /// Takes over what is known of the history that this one replaces.
    pub(super) fn inherit(&mut self, other: &Self) {
        self.base = other.base;
        self.given_back = other.given_back;
        self.begin_before(other.next);
    }

    /// What a segment is to record of itself.
    pub(super) fn meta(&self, number: u64) -> Option<Meta> {
        let (first, segment) = self.segments.iter().find(|(_, segment)| segment.number == number)?;
        let after = self.segments.range(first + 1..).next();
        let end = after.map_or(self.next, |(next, _)| *next).max(*first);
        let clipped = |(start, gap): (&u64, &Gap)| {
            let (start, end) = ((*start).max(*first), gap.end.min(end));
            (start < end).then_some((start, Gap { end, lost: gap.lost }))
        };
        Some(Meta {
            floor: self.floor,
            first: *first,
            end,
            gaps: self.gaps.iter().filter_map(clipped).collect(),
            bytes: segment.bytes,
            oldest: segment.oldest,
            newest: segment.newest,
        })
    }

    /// Whether what an entry did is there, or need not be.
    pub(super) fn holds(&self, index: u64) -> bool {
        index < self.floor || (index < self.next && self.gap_at(index).is_none())
    }

    /// Whether everything before an index is there, except what could not be applied again.
    pub(super) fn reaches(&self, next: u64) -> bool {
        let missing = |start: u64, end: u64| start.max(self.base) < end.min(next);
        self.next >= next && !self.gaps.iter().any(|(start, gap)| !gap.lost && missing(*start, gap.end))
    }

    /// Whether something is missing that could be applied again.
    pub(super) fn is_held_back(&self) -> bool {
        !self.reaches(self.next)
    }

    /// Sets the index from which entries are kept in the log until they are here: what is before it is in the snapshot.
    pub(super) fn set_base(&mut self, next: u64) {
        self.base = self.base.max(next);
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Notes that the state continues from an index, and nothing before it is applied again: what is missing there has
    /// to be fetched.
    pub(super) fn begin(&mut self, next: u64) {
        self.set_base(next);
        self.begin_before(next);
    }

    fn begin_before(&mut self, next: u64) {
        if next > self.next {
            self.set_gap(self.next..next, false);
            self.next = next;
        }
    }

    /// Notes that entries are there.
    pub(super) fn cover(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.begin_before(range.start);
        self.next = self.next.max(range.end);
        self.clear(range);
    }

    /// Notes that entries are missing.
    pub(super) fn miss(&mut self, range: Range<u64>) {
        let range = range.start.max(self.floor)..range.end.min(self.next);
        if !range.is_empty() {
            self.set_gap(range, false);
        }
    }

    /// Declares these entries lost, since no voter has them: they are not looked for.
    pub(super) fn lose(&mut self, range: Range<u64>) {
        let gaps: Vec<(u64, Gap)> = self.gaps_in(&range);
        for (start, gap) in gaps {
            self.set_gap(start.max(range.start)..gap.end.min(range.end), true);
        }
        self.settle_floor();
    }

    /// The latest entries that are missing and can be looked for.
    pub(super) fn latest_gap(&self) -> Option<Range<u64>> {
        self.gaps.iter().rev().find(|(_, gap)| !gap.lost).map(|(start, gap)| *start..gap.end)
    }

    /// Whether nothing is kept before an entry that is missing.
    pub(super) fn is_lowest(&self, index: u64) -> bool {
        self.segments.first_key_value().is_none_or(|(first, _)| index <= *first)
    }

    fn gap_at(&self, index: u64) -> Option<(u64, Gap)> {
        let (start, gap) = self.gaps.range(..=index).next_back()?;
        (gap.end > index).then_some((*start, *gap))
    }

    fn gaps_in(&self, range: &Range<u64>) -> Vec<(u64, Gap)> {
        let touched = self.gaps.range(..range.end).filter(|(_, gap)| gap.end > range.start);
        touched.map(|(start, gap)| (*start, *gap)).collect()
    }

    fn clear(&mut self, range: Range<u64>) {
        for (start, gap) in self.gaps_in(&range) {
            self.gaps.remove(&start);
            if start < range.start {
                self.gaps.insert(start, Gap { end: range.start, lost: gap.lost });
            }
            if gap.end > range.end {
                self.gaps.insert(range.end, gap);
            }
        }
    }

    fn set_gap(&mut self, range: Range<u64>, lost: bool) {
        self.clear(range.clone());
        // Joins the gap with its neighbours of the same kind.
        let before = self.gaps.range(..range.start).next_back().map(|(start, gap)| (*start, *gap));
        let start = match before.filter(|(_, gap)| gap.end == range.start && gap.lost == lost) {
            Some((start, _)) => start,
            None => range.start,
        };
        let after = self.gaps.get(&range.end).copied().filter(|gap| gap.lost == lost);
        let end = after.map_or(range.end, |gap| gap.end);
        self.clear(start..end);
        self.gaps.insert(start, Gap { end, lost });
        while self.gaps.len() > limits::HISTORY_GAPS_MAX {
            self.merge_lowest();
        }
    }

    fn merge_lowest(&mut self) {
        let Some((start, _)) = self.gaps.pop_first() else { return };
        if let Some((_, gap)) = self.gaps.pop_first() {
            self.gaps.insert(start, Gap { end: gap.end, lost: false });
        }
    }

    /// Moves the floor above lost entries that have nothing below them.
    fn settle_floor(&mut self) {
        while let Some((start, gap)) = self.gaps.first_key_value().map(|(start, gap)| (*start, *gap)) {
            if !gap.lost || start > self.floor {
                return;
            }
            self.floor = self.floor.max(gap.end);
            self.gaps.remove(&start);
        }
    }
}

impl Shelf {
    /// The number of the segment that an entry goes to; a new one at either end if the one there is full.
    pub(super) fn place(&mut self, index: u64, options: &HistoryOptions) -> u64 {
        let last = self.segments.last_key_value().map(|(first, _)| *first);
        let found = self.segments.range(..=index).next_back();
        let found = found.map(|(first, segment)| (*first, segment.number, segment.is_full(options)));
        if let Some((first, number, is_full)) = found {
            let grows = index >= self.next && Some(first) == last;
            return if grows && is_full { self.begin_segment(index) } else { number };
        }
        match self.segments.pop_first() {
            Some((_, segment)) if !segment.is_full(options) => {
                let number = segment.number;
                self.segments.insert(index, segment);
                number
            }
            Some((first, segment)) => {
                self.segments.insert(first, segment);
                self.begin_segment(index)
            }
            None => self.begin_segment(index),
        }
    }

    fn begin_segment(&mut self, first: u64) -> u64 {
        let number = self.segments.values().map(|segment| segment.number + 1).max().unwrap_or(0);
        self.segments.insert(first, Segment { number, bytes: 0, oldest: None, newest: None });
        number
    }

    /// Notes that this many bytes of an instant were put into a segment.
    pub(super) fn note(&mut self, number: u64, bytes: u64, at: LogInstant) {
        if let Some(segment) = self.segments.values_mut().find(|segment| segment.number == number) {
            segment.bytes += bytes;
            segment.oldest = Some(segment.oldest.map_or(at, |oldest| oldest.min(at)));
            segment.newest = Some(segment.newest.map_or(at, |newest| newest.max(at)));
        }
    }

    /// Takes over the segments of a copy of itself that was written to.
    pub(super) fn take_segments(&mut self, other: &mut Self) {
        self.segments = std::mem::take(&mut other.segments);
    }

    /// Drops the oldest segment, unless it is the only one. Returns its number.
    pub(super) fn drop_oldest(&mut self) -> Option<u64> {
        if self.segments.len() < 2 {
            return None;
        }
        let (_, gone) = self.segments.pop_first()?;
        let (first, _) = self.segments.first_key_value()?;
        self.floor = self.floor.max(*first);
        self.clear(0..self.floor);
        self.settle_floor();
        Some(gone.number)
    }

    /// Counts everything from an entry up to the new begin of the history as dropped for want of room.
    pub(super) fn count_given_back(&mut self, from: u64) {
        self.given_back += self.floor.saturating_sub(from);
    }

    pub(super) fn given_back(&self) -> u64 {
        self.given_back
    }

    /// The bytes that are left without the oldest segment; none if that is the one that is written to.
    pub(super) fn bytes_without_oldest(&self) -> Option<u64> {
        let rest = self.segments.values().skip(1).map(|segment| segment.bytes);
        self.can_shrink().then(|| rest.sum())
    }

    /// The number of the oldest segment, which records where the history begins.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.first_key_value().map(|(_, segment)| segment.number)
    }

    pub(super) fn has_segment(&self, number: u64) -> bool {
        self.segments.values().any(|segment| segment.number == number)
    }

    /// Whether the oldest segment is to be dropped: everything in it is too old, or there are too many.
    pub(super) fn is_outdated(&self, now: Option<LogInstant>, options: &HistoryOptions) -> bool {
        let too_many = self.segments.len() > limits::HISTORY_SEGMENTS_MAX;
        self.segments.len() > 1 && (too_many || self.oldest_age_ms(now) > options.retention_ms)
    }

    /// The least age of the latest entry of the oldest segment, in milliseconds: the time between two eras counts
    /// nothing.
    fn oldest_age_ms(&self, now: Option<LogInstant>) -> u64 {
        let mut at = now;
        let mut age_ms = 0_u64;
        for (nth, segment) in self.segments.values().enumerate().rev() {
            let oldest = segment.oldest.filter(|_| nth > 0);
            for stamp in [segment.newest, oldest].into_iter().flatten() {
                age_ms = age_ms.saturating_add(at.map_or(0, |at| elapsed_ms(at, stamp)));
                at = Some(at.map_or(stamp, |at| at.min(stamp)));
            }
        }
        age_ms
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Whether a segment could be dropped.
    pub(super) fn can_shrink(&self) -> bool {
        self.segments.len() > 1
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The first index that is neither there nor known to be missing.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many entries are missing, and how many of them for good.
    pub(super) fn missing(&self) -> (u64, u64) {
        let count = |lost: bool| {
            let gaps = self.gaps.iter().filter(|(_, gap)| gap.lost == lost);
            gaps.map(|(start, gap)| gap.end - start).sum::<u64>()
        };
        (count(false), count(true))
    }

    /// Whether nothing is missing before an index.
    pub(super) fn is_complete(&self, next: u64) -> bool {
        self.next >= next && self.gaps.keys().all(|start| *start >= next)
    }

    /// What the history tells a reader that wants entries from an index on.
    pub(super) fn edge(&self, from: u64) -> HistoryEdge {
        let missing = self.gap_at(from).map(|(start, gap)| Missing { from: start, end: gap.end, lost: gap.lost });
        let begins_at = self.segments.values().find_map(|segment| segment.oldest);
        HistoryEdge { begins: self.floor, begins_at, missing }
    }

    /// The entries from an index on that can be read: up to the first gap.
    pub(super) fn readable(&self, from: u64) -> Range<u64> {
        if from < self.floor || self.gap_at(from).is_some() {
            return from..from;
        }
        let end = self.gaps.range(from..).next().map_or(self.next, |(start, _)| *start);
        from..end.max(from)
    }

    /// The numbers of the segments with entries of a range, in their order.
    pub(super) fn segments_of(&self, range: &Range<u64>) -> Vec<u64> {
        let from = self.segments.range(..=range.start).next_back().map_or(range.start, |(first, _)| *first);
        if range.is_empty() {
            return Vec::new();
        }
        self.segments.range(from..range.end).map(|(_, segment)| segment.number).collect()
    }
}

#[cfg(test)]
mod tests;
