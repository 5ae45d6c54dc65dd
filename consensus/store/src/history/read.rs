//! Reading the history.

use fjall::Keyspace;
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::history::{HistoryEdge, HistoryRecord};
use skep_protocol::ids::{ShardId, TaskId};
use skep_protocol::limits;

use super::pending::{RowKey, Stand};
use super::tables::{HistoryError, Tables, index_key, position, task_key, unsealed};
use super::{History, Inner};
use crate::lock;

/// The most bytes of changes that one answer holds.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Changes of consecutive entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesFound {
    /// The changes; those of one entry can be in several sets.
    pub sets: Vec<ChangeSet>,
    /// The first index that they do not cover.
    pub next: u64,
    /// How many changes of the entry at `next` they cover all the same.
    pub skip: u32,
    /// What the history does not have.
    pub edge: HistoryEdge,
}

/// A page of a task's transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionsFound {
    /// The transitions, oldest first.
    pub records: Vec<HistoryRecord>,
    /// Whether there are more after the last one.
    pub more: bool,
    /// Whether none is missing of those that are kept.
    pub complete: bool,
    /// The first index whose changes are kept.
    pub begins: u64,
}

/// An answer with changes, put together in their order.
struct Changes<'a> {
    inner: &'a Inner,
    shard: ShardId,
    bytes: usize,
    bytes_max: usize,
    last: Option<RowKey>,
    found: ChangesFound,
}

impl Changes<'_> {
    /// Takes in a row. False: the answer is full, and ends before it.
    fn take(&mut self, place: RowKey, row: &[u8]) -> Result<bool, HistoryError> {
        self.bytes += row.len();
        if self.bytes > self.bytes_max && !self.found.sets.is_empty() {
            (self.found.next, self.found.skip) = place;
            return Ok(false);
        }
        self.found.sets.push(self.inner.checked(self.shard, place.0, row)?);
        self.last = Some(place);
        Ok(true)
    }
}

/// A page of a task's transitions, put together in their order.
struct Page<'a> {
    inner: &'a Inner,
    shard: ShardId,
    task: TaskId,
    limit: usize,
    bytes: usize,
    last: Option<RowKey>,
    records: Vec<HistoryRecord>,
}

impl Page<'_> {
    /// Takes in a row. False: the page is full. It takes all rows of an entry or none, since the next page begins after
    /// an entry.
    fn take(&mut self, place: RowKey, row: &[u8]) -> Result<bool, HistoryError> {
        let (index, _) = place;
        let is_next = self.records.last().is_none_or(|last| last.index != index);
        if is_next && (self.records.len() >= self.limit || self.bytes > ANSWER_BYTES_MAX) {
            return Ok(false);
        }
        let set = self.inner.checked(self.shard, index, row)?;
        self.bytes += row.len();
        let task = self.task;
        let of_task = set.changes.into_iter().filter(|change| change.what.task() == Some(task));
        self.records.extend(of_task.map(|change| HistoryRecord { index, term: set.term, change }));
        self.last = Some(place);
        Ok(true)
    }
}

impl History {
    /// Changes of entries from an index on without the first `skip` changes of that entry: as many bytes as one answer
    /// may hold, about, but at least one row; and what they do not cover.
    ///
    /// # Errors
    /// [`HistoryError`] if the database fails or a row is damaged.
    pub fn changes(
        &self,
        shard: ShardId,
        from: u64,
        skip: u32,
        bytes_max: usize,
    ) -> Result<ChangesFound, HistoryError> {
        let found = self.inner.read_changes(shard, from, skip, bytes_max.min(ANSWER_BYTES_MAX))?;
        // The begin of the history may have moved during the read: the answer tells of what went, and does not count it
        // as read.
        let edge = self.inner.edge(shard, from);
        if edge.begins > from {
            return Ok(ChangesFound { sets: Vec::new(), next: from, skip, edge });
        }
        Ok(ChangesFound { edge, ..found })
    }

    /// The transitions of a task after an index, and whether those are all that are kept before another index.
    ///
    /// # Errors
    /// [`HistoryError`] if the database fails or a row is damaged.
    pub fn transitions(
        &self,
        shard: ShardId,
        task: TaskId,
        after_index: Option<u64>,
        limit: usize,
        before: u64,
    ) -> Result<TransitionsFound, HistoryError> {
        let (was_complete, _) = self.is_complete(shard, before);
        let (records, more) = self.of_task(shard, task, after_index, limit)?;
        // The history may have lost some during the read, and what was filled in meanwhile was not read.
        let (is_complete, begins) = self.is_complete(shard, before);
        Ok(TransitionsFound { records, more, complete: was_complete && is_complete, begins })
    }

    /// The transitions of a task after an index, oldest first, and whether there are more.
    ///
    /// # Errors
    /// [`HistoryError`] if the database fails or a row is damaged.
    pub fn of_task(
        &self,
        shard: ShardId,
        task: TaskId,
        after_index: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<HistoryRecord>, bool), HistoryError> {
        let from = after_index.map_or(0, |index| index.saturating_add(1));
        let (segments, waiting) = {
            let stands = lock(&self.inner.stands);
            let Some(stand) = stands.get(&shard) else { return Ok((Vec::new(), false)) };
            (stand.kept.segments_of(&(from..stand.next().max(from))), stand.rows_of(task, from))
        };
        // The rows in memory were taken before, so that no row is missed that is written meanwhile.
        let tables = self.inner.tables()?;
        let snapshot = tables.database.snapshot();
        let limit = limit.min(limits::PAGE_ITEMS_MAX);
        let mut page = Page { inner: &self.inner, shard, task, limit, bytes: 0, last: None, records: Vec::new() };
        let mut waiting = waiting.into_iter().peekable();
        for segment in segments {
            let Some(rows) = self.inner.rows(&tables, shard, segment, from)? else { continue };
            let range = task_key(task, from, 0)..=task_key(task, u64::MAX, u32::MAX);
            for row in fjall::Readable::range(&snapshot, &rows, range) {
                let place = position(&row.key()?);
                while let Some((earlier, row)) = waiting.next_if(|(waits, _)| *waits <= place) {
                    if !page.take(earlier, &row)? {
                        return Ok((page.records, true));
                    }
                }
                if page.last == Some(place) {
                    continue;
                }
                let value = fjall::Readable::get(&snapshot, &rows, index_key(place.0, place.1))?;
                let Some(value) = value else {
                    self.inner.change(shard, |shelf| shelf.miss(place.0..place.0 + 1));
                    return Err(HistoryError::passing(format!("the changes of entry {} are missing", place.0)));
                };
                if !page.take(place, &value)? {
                    return Ok((page.records, true));
                }
            }
        }
        for (place, row) in waiting {
            if !page.take(place, &row)? {
                return Ok((page.records, true));
            }
        }
        Ok((page.records, false))
    }

    /// Whether everything that is kept before an index can be read, and the first index that is kept.
    pub fn is_complete(&self, shard: ShardId, next: u64) -> (bool, u64) {
        let seen = lock(&self.inner.stands).get(&shard).map(Stand::seen);
        seen.map_or((false, 0), |seen| (seen.is_complete(next), seen.floor()))
    }
}

impl Inner {
    fn edge(&self, shard: ShardId, from: u64) -> HistoryEdge {
        lock(&self.stands).get(&shard).map(|stand| stand.seen().edge(from)).unwrap_or_default()
    }

    /// Reads changes as far as there are segments, whatever becomes of those meanwhile.
    fn read_changes(
        &self,
        shard: ShardId,
        from: u64,
        skip: u32,
        bytes_max: usize,
    ) -> Result<ChangesFound, HistoryError> {
        let (end, segments, edge, waiting) = {
            let stands = lock(&self.stands);
            let seen = stands.get(&shard).map(Stand::seen).unwrap_or_default();
            let range = seen.readable(from);
            let places = (from, skip)..(range.end, 0);
            let waiting = stands.get(&shard).filter(|_| places.start < places.end);
            let waiting = waiting.map_or_else(Vec::new, |stand| stand.rows(&places, bytes_max));
            (range.end, seen.segments_of(&range), seen.edge(from), waiting)
        };
        let found = ChangesFound { sets: Vec::new(), next: from, skip, edge };
        if end <= from {
            return Ok(found);
        }
        // The rows in memory were taken before, so that no row is missed that is written meanwhile.
        let tables = self.tables()?;
        let snapshot = tables.database.snapshot();
        let mut answer = Changes { inner: self, shard, bytes: 0, bytes_max, last: None, found };
        let mut waiting = waiting.into_iter().peekable();
        for segment in segments {
            let Some(rows) = self.rows(&tables, shard, segment, from)? else { return Ok(answer.found) };
            for row in fjall::Readable::range(&snapshot, &rows, index_key(from, skip)..index_key(end, 0)) {
                let (key, value) = row.into_inner()?;
                let place = position(&key);
                while let Some((earlier, row)) = waiting.next_if(|(waits, _)| *waits <= place) {
                    if !answer.take(earlier, &row)? {
                        return Ok(answer.found);
                    }
                }
                if answer.last != Some(place) && !answer.take(place, &value)? {
                    return Ok(answer.found);
                }
            }
        }
        for (place, row) in waiting {
            if !answer.take(place, &row)? {
                return Ok(answer.found);
            }
        }
        Ok(ChangesFound { next: end, skip: 0, ..answer.found })
    }

    /// The rows of a segment; none if it was dropped meanwhile, so that the history begins after the place that is
    /// read.
    fn rows(&self, tables: &Tables, shard: ShardId, segment: u64, from: u64) -> Result<Option<Keyspace>, HistoryError> {
        let rows = tables.get(shard, segment);
        let went = || {
            let stands = lock(&self.stands);
            stands.get(&shard).is_some_and(|stand| stand.kept.floor() > from && !stand.kept.has_segment(segment))
        };
        if rows.is_none() && !went() {
            return Err(HistoryError::passing(format!(
                "segment {segment} is not there; the history is being opened again"
            )));
        }
        Ok(rows)
    }

    /// A damaged row is a gap: the node fetches it from another voter.
    fn checked(&self, shard: ShardId, index: u64, value: &[u8]) -> Result<ChangeSet, HistoryError> {
        let set = unsealed(value).and_then(|bytes| Ok(ChangeSet::decode(bytes)?));
        if let Err(error) = &set {
            tracing::warn!(%shard, index, %error, "a row of the history is damaged; it is fetched from another voter");
            self.change(shard, |shelf| shelf.miss(index..index + 1));
        }
        set
    }
}
