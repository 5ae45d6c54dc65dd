//! Reading the history.

use fjall::Keyspace;
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::ids::{ShardId, TaskId};
use skep_protocol::limits;
use skep_protocol::query::{HistoryEdge, HistoryRecord};

use super::tables::{HistoryError, Tables, index_key, position, task_key, unsealed};
use super::{History, Inner};
use crate::store::lock;

/// Bytes of changes that one answer holds.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Changes of consecutive entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesFound {
    /// The changes; those of one entry can be in several sets.
    pub sets: Vec<ChangeSet>,
    /// The first index not covered by them.
    pub next: u64,
    /// How many changes of that entry are covered all the same.
    pub skip: u32,
    /// What there is none of.
    pub edge: HistoryEdge,
}

/// Transitions of a task.
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

impl History {
    /// Changes of entries from an index on without the first so many of that entry, about as many bytes of them as one answer
    /// may hold but one row at least, and what is not covered.
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
        // Where it begins may have moved while it was read: what went of it is told of, and nothing is taken for read.
        let edge = self.inner.edge(shard, from);
        if edge.begins > from {
            return Ok(ChangesFound { sets: Vec::new(), next: from, skip, edge });
        }
        Ok(ChangesFound { edge, ..found })
    }

    /// The transitions of a task after an index, and whether those are all that are kept before another one.
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
        // It may have lost some while it was read, and what was filled in meanwhile was not read.
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
        let limit = limit.min(limits::PAGE_ITEMS_MAX);
        let from = after_index.map_or(0, |index| index.saturating_add(1));
        let segments = {
            let shelves = lock(&self.inner.shelves);
            let Some(shelf) = shelves.get(&shard) else { return Ok((Vec::new(), false)) };
            shelf.segments_of(&(from..shelf.next().max(from)))
        };
        let tables = self.inner.tables()?;
        let snapshot = tables.database.snapshot();
        let mut records: Vec<HistoryRecord> = Vec::new();
        let mut bytes = 0;
        for segment in segments {
            let Some(rows) = self.inner.rows(&tables, shard, segment, from)? else { continue };
            let range = task_key(task, from, 0)..=task_key(task, u64::MAX, u32::MAX);
            for row in fjall::Readable::range(&snapshot, &rows, range) {
                let (index, ordinal) = position(&row.key()?);
                // All of an entry or nothing: the next page begins after one.
                let is_next = records.last().is_none_or(|last| last.index != index);
                if is_next && (records.len() >= limit || bytes > ANSWER_BYTES_MAX) {
                    return Ok((records, true));
                }
                let value = fjall::Readable::get(&snapshot, &rows, index_key(index, ordinal))?;
                let Some(value) = value else {
                    self.inner.change(shard, |shelf| shelf.miss(index..index + 1));
                    return Err(HistoryError::passing(format!("the changes of entry {index} are missing")));
                };
                let set = self.inner.checked(shard, index, &value)?;
                bytes += value.len();
                let of_task = set.changes.into_iter().filter(|change| change.what.task() == Some(task));
                records.extend(of_task.map(|change| HistoryRecord { index, term: set.term, change }));
            }
        }
        Ok((records, false))
    }

    /// Whether everything that is kept before an index can be read, and the first index that is kept.
    pub fn is_complete(&self, shard: ShardId, next: u64) -> (bool, u64) {
        let shelves = lock(&self.inner.shelves);
        shelves.get(&shard).map_or((false, 0), |shelf| (shelf.is_complete(next), shelf.floor()))
    }
}

impl Inner {
    fn edge(&self, shard: ShardId, from: u64) -> HistoryEdge {
        lock(&self.shelves).get(&shard).map(|shelf| shelf.edge(from)).unwrap_or_default()
    }

    /// Reads changes as far as there are segments, whatever becomes of those meanwhile.
    fn read_changes(
        &self,
        shard: ShardId,
        from: u64,
        skip: u32,
        bytes_max: usize,
    ) -> Result<ChangesFound, HistoryError> {
        let (range, segments, edge) = {
            let shelves = lock(&self.shelves);
            let shelf = shelves.get(&shard).cloned().unwrap_or_default();
            let range = shelf.readable(from);
            let segments = shelf.segments_of(&range);
            (range, segments, shelf.edge(from))
        };
        let mut found = ChangesFound { sets: Vec::new(), next: from, skip, edge };
        if range.is_empty() {
            return Ok(found);
        }
        let tables = self.tables()?;
        let snapshot = tables.database.snapshot();
        let mut bytes = 0;
        for segment in segments {
            let Some(rows) = self.rows(&tables, shard, segment, from)? else { break };
            let keys = index_key(found.next, found.skip)..index_key(range.end, 0);
            for row in fjall::Readable::range(&snapshot, &rows, keys) {
                let (key, value) = row.into_inner()?;
                let (index, ordinal) = position(&key);
                bytes += value.len();
                if bytes > bytes_max && !found.sets.is_empty() {
                    (found.next, found.skip) = (index, ordinal);
                    return Ok(found);
                }
                found.sets.push(self.checked(shard, index, &value)?);
            }
        }
        (found.next, found.skip) = (range.end, 0);
        Ok(found)
    }

    /// The rows of a segment; none if it was let go of meanwhile, so that the history begins behind the place read from.
    fn rows(&self, tables: &Tables, shard: ShardId, segment: u64, from: u64) -> Result<Option<Keyspace>, HistoryError> {
        let rows = tables.get(shard, segment);
        let went = || {
            let shelves = lock(&self.shelves);
            shelves.get(&shard).is_some_and(|shelf| shelf.floor() > from && !shelf.has_segment(segment))
        };
        if rows.is_none() && !went() {
            return Err(HistoryError::passing(format!(
                "segment {segment} is not there; the history is being opened again"
            )));
        }
        Ok(rows)
    }

    /// A row that is damaged is a gap: it is fetched from another voter.
    fn checked(&self, shard: ShardId, index: u64, value: &[u8]) -> Result<ChangeSet, HistoryError> {
        let set = unsealed(value).and_then(|bytes| Ok(ChangeSet::decode(bytes)?));
        if let Err(error) = &set {
            tracing::warn!(%shard, index, %error, "a row of the history is damaged; it is fetched from another voter");
            self.change(shard, |shelf| shelf.miss(index..index + 1));
        }
        set
    }
}
