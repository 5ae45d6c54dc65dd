//! What entries did that is in no table yet: rows in memory, in the form that they will have in tables.
//!
//! These rows may be lost at any time: the log keeps the entries until they are in tables.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use skep_protocol::ids::TaskId;
use skep_protocol::time::LogInstant;

use super::shelf::Shelf;
use super::tables::Piece;

/// The index of an entry, and the number of the first of its changes that a row holds.
pub(super) type RowKey = (u64, u32);

/// A row, and its key.
pub(super) type Placed = (RowKey, Arc<[u8]>);

/// A row on its way into a table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) bytes: Arc<[u8]>,
    pub(super) tasks: BTreeSet<TaskId>,
    /// When the last change of its entry was made.
    pub(super) at: LogInstant,
}

/// How much waits for tables, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    /// How many bytes, as the queue counts them.
    pub(super) bytes: usize,
    pub(super) entries: usize,
    pub(super) since: Option<Instant>,
}

impl Backlog {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.entries += other.entries;
        self.since = self.since.into_iter().chain(other.since).min();
    }
}

/// Rows of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    rows: BTreeMap<RowKey, Row>,
    by_task: BTreeSet<(TaskId, u64, u32)>,
    /// Entries of which every row is here: for each range its first entry, and the entry after its last.
    covers: BTreeMap<u64, u64>,
    backlog: Backlog,
}

impl Pending {
    /// Puts in what an entry did, from one of its changes on.
    pub(super) fn put(&mut self, index: u64, first: u32, pieces: Vec<Piece>, at: LogInstant) {
        for Piece { ordinal, row, tasks } in pieces {
            let ordinal = first.saturating_add(ordinal);
            self.by_task.extend(tasks.iter().map(|task| (*task, index, ordinal)));
            self.rows.insert((index, ordinal), Row { bytes: row.into(), tasks, at });
        }
    }

    /// Notes that every row of these entries is here.
    pub(super) fn cover(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // Joins this range with the ranges that it touches.
        loop {
            let before = self.covers.range(..=end).next_back().map(|(from, to)| (*from, *to));
            let Some((from, to)) = before.filter(|(_, to)| *to >= start) else { break };
            self.covers.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.covers.insert(start, end);
    }

    /// Counts this many more bytes and entries that wait.
    pub(super) fn count(&mut self, bytes: usize, entries: usize) {
        self.backlog.add(Backlog { bytes, entries, since: Some(Instant::now()) });
    }

    /// Adds rows that were recorded later.
    pub(super) fn absorb(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.by_task.extend(later.by_task);
        later.covers.into_iter().for_each(|(start, end)| self.cover(start..end));
        self.backlog.add(later.backlog);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.covers.is_empty()
    }

    pub(super) fn holds(&self, index: u64) -> bool {
        self.covers.range(..=index).next_back().is_some_and(|(_, end)| *end > index)
    }

    /// The first entry after all that are here.
    fn next(&self) -> u64 {
        self.covers.last_key_value().map_or(0, |(_, end)| *end)
    }

    pub(super) fn covers(&self) -> impl Iterator<Item = Range<u64>> {
        self.covers.iter().map(|(start, end)| *start..*end)
    }

    pub(super) fn rows(&self, places: Range<RowKey>) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.range(places)
    }

    pub(super) fn backlog(&self) -> Backlog {
        self.backlog
    }
}

/// What is known of a shard's history.
#[derive(Debug, Default)]
pub(super) struct Stand {
    /// What is durable in tables.
    pub(super) kept: Shelf,
    /// The rows that are being written into tables.
    under_way: Arc<Pending>,
    /// The rows that are written after those.
    pub(super) pending: Pending,
}

impl Stand {
    pub(super) fn of(kept: Shelf) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Whether what an entry did is here, or need not be.
    pub(super) fn holds(&self, index: u64) -> bool {
        self.kept.holds(index) || self.in_memory().iter().any(|pending| pending.holds(index))
    }

    /// The first index that is neither here nor known to be missing.
    pub(super) fn next(&self) -> u64 {
        let ends = self.in_memory().map(Pending::next);
        ends.into_iter().fold(self.kept.next(), u64::max)
    }

    /// Everything that can be read, in tables and in memory.
    pub(super) fn seen(&self) -> Shelf {
        let mut seen = self.kept.clone();
        self.in_memory().into_iter().flat_map(Pending::covers).for_each(|range| seen.cover(range));
        seen
    }

    pub(super) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        self.in_memory().into_iter().for_each(|pending| backlog.add(pending.backlog()));
        backlog
    }

    fn in_memory(&self) -> [&Pending; 2] {
        [&self.under_way, &self.pending]
    }

    /// Takes everything that is to be written; none if nothing is. Readers still find it here until it is
    /// [`written`](Self::written).
    pub(super) fn begin_writing(&mut self) -> Option<Arc<Pending>> {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            Arc::make_mut(&mut self.under_way).absorb(pending);
        }
        (!self.under_way.is_empty()).then(|| Arc::clone(&self.under_way))
    }

    /// Notes that the rows are in tables, whose segments the copy of the shelf has. Returns how many bytes do not wait
    /// any longer.
    pub(super) fn written(&mut self, kept: &mut Shelf) -> usize {
        // Gaps may have been found meanwhile; segments change only here.
        self.kept.take_segments(kept);
        let written = std::mem::take(&mut self.under_way);
        written.covers().for_each(|range| self.kept.cover(range));
        written.backlog().bytes
    }

    /// Rows of a range that are in memory, in their order, until they take more than this many bytes.
    pub(super) fn rows(&self, places: &Range<RowKey>, bytes_max: usize) -> Vec<Placed> {
        let mut found = BTreeMap::new();
        for pending in self.in_memory() {
            let (mut bytes, mut count) = (0, 0);
            for (place, row) in pending.rows(places.clone()) {
                // The answer is full before it reaches a row that is left out here.
                if bytes > bytes_max && count > 1 {
                    break;
                }
                (bytes, count) = (bytes + row.bytes.len(), count + 1);
                found.insert(*place, Arc::clone(&row.bytes));
            }
        }
        found.into_iter().collect()
    }

    /// Rows with changes of a task from an entry on that are in memory, in their order.
    pub(super) fn rows_of(&self, task: TaskId, from: u64) -> Vec<Placed> {
        let mut found = BTreeMap::new();
        for pending in self.in_memory() {
            for (_, index, ordinal) in pending.by_task.range((task, from, 0)..=(task, u64::MAX, u32::MAX)) {
                if let Some(row) = pending.rows.get(&(*index, *ordinal)) {
                    found.insert((*index, *ordinal), Arc::clone(&row.bytes));
                }
            }
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_touch_are_one() {
        let mut pending = Pending::default();
        for range in [5..8, 20..22, 8..9, 1..2, 30..31, 7..21] {
            pending.cover(range);
        }
        assert_eq!(pending.covers().collect::<Vec<_>>(), [1..2, 5..22, 30..31]);
        assert!(pending.holds(21) && !pending.holds(22) && !pending.holds(4));
        assert_eq!(pending.next(), 31);
    }

    #[test]
    fn what_could_not_be_written_is_written_with_what_came_later() {
        let mut stand = Stand::default();
        stand.pending.cover(0..3);
        stand.pending.count(10, 3);
        let first = stand.begin_writing().unwrap();
        drop(first);
        stand.pending.cover(3..4);
        stand.pending.count(5, 1);
        assert!(stand.holds(0) && stand.holds(3) && stand.next() == 4);
        let all = stand.begin_writing().unwrap();
        assert_eq!(all.covers().map(|range| (range.start, range.end)).collect::<Vec<_>>(), [(0, 4)]);
        stand.pending.cover(4..5);
        assert_eq!(stand.written(&mut Shelf::default()), 15);
        assert!(stand.kept.holds(3) && !stand.kept.holds(4) && stand.holds(4));
    }
}
