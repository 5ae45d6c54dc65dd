//! Writing the history: the thread that does, and what is filled in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use skep_protocol::change::ChangeSet;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;

use super::shelf::Shelf;
use super::tables::{HistoryError, Piece, Tables, encode_meta, index_key, meta_key, pieces, set_bytes, task_key};
use super::{History, Inner};
use crate::store::lock;

/// How long changes are collected before they are written together.
const BREATH: Duration = Duration::from_millis(3);
/// How long a database that failed is left alone before it is opened again.
const RETRY_AFTER: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };
/// Bytes that an entry takes in the queue beside its changes.
const ITEM_BYTES: usize = 64;

/// What one entry did, on its way to the disk.
pub(super) struct Item {
    shard: ShardId,
    index: u64,
    set: Option<ChangeSet>,
    pub(super) bytes: usize,
}

impl Item {
    pub(super) fn new(shard: ShardId, index: u64, set: Option<ChangeSet>) -> Self {
        let bytes = ITEM_BYTES + set.as_ref().map_or(0, set_bytes);
        Self { shard, index, set, bytes }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    /// Of what is in the queue and of what is being written.
    pub(super) bytes: usize,
    /// Counts what was put in, and what was written or given up.
    pub(super) recorded: u64,
    pub(super) settled: u64,
    pub(super) closed: bool,
}

/// Rows of one shard on their way into a batch, and what the shard's shelf is once they are written.
struct Batch {
    tables: Tables,
    rows: fjall::OwnedWriteBatch,
    shelves: BTreeMap<ShardId, Shelf>,
    covered: Vec<(ShardId, Range<u64>)>,
    touched: BTreeSet<(ShardId, u64)>,
}

impl Batch {
    /// Puts what an entry did, from one of its changes on, where it belongs.
    fn put(
        &mut self,
        inner: &Inner,
        shard: ShardId,
        set: &ChangeSet,
        first: u32,
        pieces: Vec<Piece>,
    ) -> Result<(), HistoryError> {
        let number = self.place(inner, shard, set.index);
        let table = self.tables.get_or_make(shard, number)?;
        let mut bytes = 0;
        for piece in pieces {
            let ordinal = first.saturating_add(piece.ordinal);
            for task in piece.tasks {
                let key = task_key(task, set.index, ordinal);
                bytes += key.len();
                self.rows.insert(&table, key, Vec::new());
            }
            let key = index_key(set.index, ordinal);
            bytes += key.len() + piece.row.len();
            self.rows.insert(&table, key, piece.row);
        }
        if let (Some(shelf), Some(change)) = (self.shelves.get_mut(&shard), set.changes.last()) {
            shelf.note(number, bytes as u64, change.at);
        }
        Ok(())
    }

    /// The segment that an entry goes to.
    fn place(&mut self, inner: &Inner, shard: ShardId, index: u64) -> u64 {
        let known = || lock(&inner.shelves).get(&shard).cloned().unwrap_or_default();
        let number = self.shelves.entry(shard).or_insert_with(known).place(index, &inner.options);
        self.touched.insert((shard, number));
        number
    }

    /// Everything of these entries is in the batch.
    fn cover(&mut self, shard: ShardId, range: Range<u64>) {
        if let Some(shelf) = self.shelves.get_mut(&shard) {
            shelf.cover(range.clone());
        }
        match self.covered.last_mut().filter(|(last, covered)| *last == shard && covered.end == range.start) {
            Some((_, covered)) => covered.end = range.end,
            None => self.covered.push((shard, range)),
        }
    }

    /// Writes the rows and, with them, what their segments say of themselves.
    fn commit(mut self, inner: &Inner) -> Result<(), HistoryError> {
        for (shard, number) in &self.touched {
            if let Some(meta) = self.shelves.get(shard).and_then(|shelf| shelf.meta(*number)) {
                let table = self.tables.get_or_make(*shard, *number)?;
                self.rows.insert(&table, meta_key(), encode_meta(&meta)?);
            }
        }
        self.rows.commit()?;
        {
            let mut shelves = lock(&inner.shelves);
            for (shard, written) in &mut self.shelves {
                // Gaps may have been found meanwhile; segments change only here.
                shelves.entry(*shard).or_default().take_segments(written);
            }
            for (shard, range) in self.covered {
                shelves.entry(shard).or_default().cover(range);
            }
        }
        for shard in self.shelves.keys() {
            // Those who wait, at a gap too, look again.
            inner.change(*shard, |_| {});
        }
        Ok(())
    }
}

impl Inner {
    fn batch(&self, tables: Tables) -> Batch {
        let rows = tables.database.batch();
        Batch { tables, rows, shelves: BTreeMap::new(), covered: Vec::new(), touched: BTreeSet::new() }
    }

    /// Writes what is queued, until the queue is closed and empty.
    pub(super) fn run(&self) {
        while let Some(items) = self.next_items() {
            while let Err(error) = self.write(&items) {
                self.note_failure(error);
                if !self.wait_to_try_again() {
                    // The next process applies the log again.
                    break;
                }
            }
            let bytes: usize = items.iter().map(|item| item.bytes).sum();
            let mut queue = lock(&self.queue);
            queue.settled += items.len() as u64;
            queue.bytes = queue.bytes.saturating_sub(bytes);
            drop(queue);
            self.idle.notify_all();
        }
    }

    /// Waits for something to write. None: the queue is closed and empty.
    fn next_items(&self) -> Option<Vec<Item>> {
        let mut queue = lock(&self.queue);
        while queue.items.is_empty() {
            if queue.closed {
                return None;
            }
            if !self.failing.load(Ordering::Relaxed) {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Readers wait for it to open.
            let waited = self.wake.wait_timeout(queue, RETRY_AFTER);
            queue = waited.map_or_else(|e| e.into_inner().0, |(queue, _)| queue);
            if queue.items.is_empty() && !queue.closed {
                drop(queue);
                if let Err(error) = self.open_again() {
                    self.note_failure(error);
                }
                queue = lock(&self.queue);
            }
        }
        if !queue.closed {
            // A breath, so that a busy log wakes this thread a few hundred times a second and not for every entry.
            drop(queue);
            std::thread::sleep(BREATH);
            queue = lock(&self.queue);
        }
        let mut bytes = 0;
        let fits = |item: &&Item| {
            let is_first = bytes == 0;
            bytes += item.bytes;
            is_first || bytes <= limits::HISTORY_BATCH_BYTES_SOFT_MAX
        };
        let count = queue.items.iter().take_while(fits).count();
        Some(queue.items.drain(..count).collect())
    }

    fn write(&self, items: &[Item]) -> Result<(), HistoryError> {
        let known = self.tables();
        let tables = match known {
            Ok(tables) => tables,
            Err(_) => self.open_again()?,
        };
        let _one_at_a_time = lock(&self.writing);
        let mut batch = self.batch(tables);
        for item in items {
            match item.set.as_ref().map(|set| (set, pieces(set))) {
                Some((set, Ok(pieces))) => batch.put(self, item.shard, set, 0, pieces)?,
                Some((_, Err(error))) => {
                    // It stays a gap, like one that nobody has.
                    tracing::error!(shard = %item.shard, index = item.index, %error, "what an entry did is not encoded");
                    continue;
                }
                None => {
                    batch.place(self, item.shard, item.index);
                }
            }
            batch.cover(item.shard, item.index..item.index + 1);
        }
        batch.commit(self)?;
        self.failing.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Opens the database again. What an empty one lacks is a gap.
    fn open_again(&self) -> Result<Tables, HistoryError> {
        let _one_at_a_time = lock(&self.writing);
        let opened = Tables::open_or_set_aside(&self.dir)?;
        let mut shards: BTreeSet<ShardId> = opened.shelves.keys().copied().collect();
        {
            let mut shelves = lock(&self.shelves);
            let before = std::mem::replace(&mut *shelves, opened.shelves);
            for (shard, known) in before {
                shelves.entry(shard).or_default().inherit(&known);
                shards.insert(shard);
            }
        }
        *lock(&self.tables) = Ok(opened.tables.clone());
        self.failing.store(false, Ordering::Relaxed);
        tracing::info!("the history is open");
        shards.into_iter().for_each(|shard| self.change(shard, |_| {}));
        Ok(opened.tables)
    }

    /// Lets go of a database that failed, so that it can be opened again.
    fn note_failure(&self, error: HistoryError) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "cannot write the history; it is tried again, and the log is kept until then");
        }
        // Closing it takes a while; readers are not to wait for that.
        let failed = std::mem::replace(&mut *lock(&self.tables), Err(error));
        drop(failed);
    }

    /// Whether it is to be tried again; false if the history is closed.
    fn wait_to_try_again(&self) -> bool {
        let queue = lock(&self.queue);
        if queue.closed {
            return false;
        }
        // Whoever closes it wakes this thread. So does whoever puts the first thing in, which is no harm.
        let waited = self.wake.wait_timeout(queue, RETRY_AFTER);
        let queue = waited.map_or_else(|e| e.into_inner().0, |(queue, _)| queue);
        !queue.closed
    }
}

impl History {
    /// Adds what others had, or the log: changes of consecutive entries, which cover a range whole. The first of them may
    /// be such from one of an entry's changes on. Whether they were written; waits for a disk.
    pub(crate) fn fill(&self, shard: ShardId, skip: u32, sets: &[ChangeSet], covers: Range<u64>) -> bool {
        let written = self.inner.fill(shard, skip, sets, covers);
        if let Err(error) = &written {
            tracing::warn!(%shard, %error, "cannot write history that was missing");
        }
        written.is_ok()
    }
}

impl Inner {
    fn fill(&self, shard: ShardId, skip: u32, sets: &[ChangeSet], covers: Range<u64>) -> Result<(), HistoryError> {
        let tables = self.tables()?;
        let _one_at_a_time = lock(&self.writing);
        let mut batch = self.batch(tables);
        batch.place(self, shard, covers.start);
        let mut at = (covers.start, skip);
        for set in sets {
            let ordinal = if set.index == at.0 { at.1 } else { 0 };
            batch.put(self, shard, set, ordinal, pieces(set)?)?;
            at = (set.index, ordinal.saturating_add(u32::try_from(set.changes.len()).unwrap_or(u32::MAX)));
        }
        batch.cover(shard, covers);
        batch.commit(self)
    }
}
