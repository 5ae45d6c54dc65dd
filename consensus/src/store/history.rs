//! The history of changes, by index and by task.
//!
//! Everything here can be made anew: what is behind the last snapshot is written again when the log is applied
//! again, and what is before it is fetched from another replica. So nothing here is acknowledged to anyone, nothing
//! here can stop the node, and a damaged history is set aside and filled again. Rows carry their own checksums,
//! since the database underneath does not promise to notice every flipped bit.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::ids::{ShardId, TaskId};
use skep_protocol::limits;
use skep_protocol::query::HistoryRecord;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::lock;

/// Bytes of changes that may wait to be written. Beyond it they are left out, and fetched from a peer later.
const QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of changes that one answer holds.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long changes are collected before they are written together.
const BREATH: Duration = Duration::from_millis(3);
/// How long a snapshot waits for the history.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// How long a failed database is left alone before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(5);

const BY_INDEX: u8 = 0;
const BY_TASK: u8 = 1;
const COVERED: u8 = 2;

/// Why the history cannot be read now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the history is not readable: {0}")]
pub struct HistoryError(String);

impl From<fjall::Error> for HistoryError {
    fn from(error: fjall::Error) -> Self {
        Self(error.to_string())
    }
}

#[derive(Clone)]
struct Tables {
    database: Database,
    rows: Keyspace,
}

/// What is covered of a shard: all indexes of `from..next` but the gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Coverage {
    next: u64,
    gaps: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct Queue {
    sets: VecDeque<(ShardId, u64, Option<ChangeSet>)>,
    bytes: usize,
    /// Counts what was put in, and what was written or given up.
    recorded: u64,
    settled: u64,
    closed: bool,
}

struct Inner {
    dir: PathBuf,
    tables: Mutex<Result<Tables, HistoryError>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: Condvar,
    coverage: Mutex<BTreeMap<ShardId, Coverage>>,
    progress: Mutex<BTreeMap<ShardId, watch::Sender<u64>>>,
}

/// Handle of the history. Cheap to clone.
#[derive(Clone)]
pub struct History {
    inner: Arc<Inner>,
    _closer: Arc<Closer>,
}

struct Closer {
    inner: Arc<Inner>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        lock(&self.inner.queue).closed = true;
        self.inner.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl History {
    pub(super) fn open(dir: &Path) -> Self {
        let tables = open_or_set_aside(dir);
        let coverage = tables.as_ref().ok().and_then(|t| read_coverage(t).ok()).unwrap_or_default();
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            tables: Mutex::new(tables),
            queue: Mutex::default(),
            wake: Condvar::new(),
            idle: Condvar::new(),
            coverage: Mutex::new(coverage),
            progress: Mutex::default(),
        });
        let worker = Arc::clone(&inner);
        let spawned = std::thread::Builder::new().name("skep-history".to_owned()).spawn(move || worker.run());
        if let Err(error) = &spawned {
            *lock(&inner.tables) = Err(HistoryError(format!("no thread for it: {error}")));
        }
        let closer = Closer { inner: Arc::clone(&inner), thread: spawned.ok() };
        Self { _closer: Arc::new(closer), inner }
    }

    /// None: nothing is kept, and nothing can be read.
    pub(super) fn absent() -> Self {
        let inner = Arc::new(Inner {
            dir: PathBuf::new(),
            tables: Mutex::new(Err(HistoryError("there is none".to_owned()))),
            queue: Mutex::new(Queue { closed: true, ..Queue::default() }),
            wake: Condvar::new(),
            idle: Condvar::new(),
            coverage: Mutex::default(),
            progress: Mutex::default(),
        });
        Self { _closer: Arc::new(Closer { inner: Arc::clone(&inner), thread: None }), inner }
    }

    /// Takes note of what the entry at an index changed; none if it is one that changes nothing. Never waits.
    pub fn record(&self, shard: ShardId, index: u64, set: Option<ChangeSet>) {
        let mut queue = lock(&self.inner.queue);
        if queue.closed || queue.bytes > QUEUED_BYTES_MAX {
            // Left out: the next one that is written shows the gap.
            return;
        }
        queue.bytes += set.as_ref().map_or(16, bytes_of);
        queue.recorded += 1;
        queue.sets.push_back((shard, index, set));
        if queue.sets.len() == 1 {
            self.inner.wake.notify_one();
        }
    }

    /// Adds changes that a peer sent, which cover all indexes from the start of a gap up to `next`. Whether they were written.
    pub fn fill(&self, shard: ShardId, sets: Vec<ChangeSet>, from: u64, next: u64) -> bool {
        let written = lock(&self.inner.tables).as_ref().map_err(Clone::clone).and_then(|tables| {
            let mut batch = tables.database.batch();
            for set in &sets {
                insert(&mut batch, &tables.rows, shard, set);
            }
            batch.commit().map_err(HistoryError::from)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write history that a peer sent");
            return false;
        }
        let mut coverage = lock(&self.inner.coverage);
        let covered = coverage.entry(shard).or_default();
        if let Some(end) = covered.gaps.remove(&from).filter(|end| *end > next) {
            covered.gaps.insert(next, end);
        }
        let readable = covered.next;
        drop(coverage);
        // Those who wait at the gap look again.
        self.inner.progress_sender(shard).send_replace(readable);
        true
    }

    /// The first index that is missing before later ones, if there is one, and the first one after the gap.
    pub fn gap(&self, shard: ShardId) -> Option<(u64, u64)> {
        lock(&self.inner.coverage).get(&shard)?.gaps.first_key_value().map(|(from, end)| (*from, *end))
    }

    /// Waits until everything recorded so far is written, and syncs it. Not for ever: what cannot be written is fetched
    /// from a peer later.
    pub fn sync(&self) {
        let deadline = Instant::now() + SYNC_PATIENCE;
        {
            let mut queue = lock(&self.inner.queue);
            let ticket = queue.recorded;
            while queue.settled < ticket && !queue.closed && Instant::now() < deadline {
                let waited = self.inner.idle.wait_timeout(queue, Duration::from_millis(100));
                queue = waited.map_or_else(|e| e.into_inner().0, |(queue, _)| queue);
            }
        }
        if let Ok(tables) = self.tables()
            && let Err(error) = tables.database.persist(PersistMode::SyncData)
        {
            tracing::warn!(%error, "cannot sync the history");
        }
    }

    /// Follows the first index whose changes are not readable yet.
    pub fn progress(&self, shard: ShardId) -> watch::Receiver<u64> {
        self.inner.progress_sender(shard).subscribe()
    }

    fn tables(&self) -> Result<Tables, HistoryError> {
        lock(&self.inner.tables).clone()
    }

    /// Changes of entries from an index on, about as many bytes of them as one answer may hold and those of one entry at
    /// least, and the first index that is not covered.
    ///
    /// # Errors
    /// [`HistoryError`] if the database fails or a row is damaged.
    pub fn changes(&self, shard: ShardId, from: u64, bytes_max: usize) -> Result<(Vec<ChangeSet>, u64), HistoryError> {
        // Up to the first gap: what is behind it is told when the gap is filled.
        let end = lock(&self.inner.coverage).get(&shard).map_or(0, |covered| {
            let gap = covered.gaps.iter().find(|(_, gap_end)| **gap_end > from);
            gap.map_or(covered.next, |(start, _)| *start)
        });
        let tables = self.tables()?;
        let snapshot = tables.database.snapshot();
        let mut sets = Vec::new();
        let mut bytes = 0;
        let range = index_key(shard, from)..index_key(shard, end);
        if from >= end {
            return Ok((sets, from));
        }
        for row in fjall::Readable::range(&snapshot, &tables.rows, range) {
            let (key, value) = row.into_inner()?;
            bytes += value.len();
            if bytes > bytes_max.min(ANSWER_BYTES_MAX) && !sets.is_empty() {
                let next = sets.last().map_or(from, |set: &ChangeSet| set.index + 1);
                return Ok((sets, next));
            }
            sets.push(self.checked(shard, last_index(&key), &value)?);
        }
        Ok((sets, end))
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
        let tables = self.tables()?;
        let snapshot = tables.database.snapshot();
        let from = after_index.map_or(0, |index| index.saturating_add(1));
        let range = task_key(shard, task, from)..=task_key(shard, task, u64::MAX);
        let mut records = Vec::new();
        let mut bytes = 0;
        for row in fjall::Readable::range(&snapshot, &tables.rows, range) {
            if records.len() >= limit || bytes > ANSWER_BYTES_MAX {
                return Ok((records, true));
            }
            let key = row.key()?;
            let index = last_index(&key);
            let missing = || HistoryError(format!("the changes of entry {index} are missing"));
            let value = fjall::Readable::get(&snapshot, &tables.rows, index_key(shard, index))?.ok_or_else(missing)?;
            let set = self.checked(shard, index, &value)?;
            bytes += value.len();
            let of_task = set.changes.into_iter().filter(|change| change.what.task() == Some(task));
            records.extend(of_task.map(|change| HistoryRecord { index, term: set.term, change }));
        }
        Ok((records, false))
    }
}

impl History {
    /// Whether everything up to an index can be read.
    pub fn is_complete(&self, shard: ShardId, next: u64) -> bool {
        let coverage = lock(&self.inner.coverage);
        let covered = coverage.get(&shard);
        covered.is_some_and(|covered| covered.next >= next && covered.gaps.keys().all(|from| *from >= next))
    }

    /// A row that is damaged is a gap: it is fetched from a peer.
    fn checked(&self, shard: ShardId, index: u64, value: &[u8]) -> Result<ChangeSet, HistoryError> {
        let set = unsealed(value).and_then(|bytes| ChangeSet::decode(bytes).map_err(|e| HistoryError(e.to_string())));
        if let Err(error) = &set {
            tracing::warn!(%shard, index, %error, "a row of the history is damaged; it is fetched from a peer");
            lock(&self.inner.coverage).entry(shard).or_default().lose(index);
            // Whoever fills gaps waits for this.
            self.inner.progress_sender(shard).send_modify(|_| {});
        }
        set
    }
}

impl Inner {
    fn progress_sender(&self, shard: ShardId) -> watch::Sender<u64> {
        let next = lock(&self.coverage).get(&shard).map_or(0, |covered| covered.next);
        lock(&self.progress).entry(shard).or_insert_with(|| watch::channel(next).0).clone()
    }

    fn run(&self) {
        let mut failed_at: Option<Instant> = None;
        loop {
            let sets = {
                let mut queue = lock(&self.queue);
                while queue.sets.is_empty() && !queue.closed {
                    queue = self.wake.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                if queue.sets.is_empty() {
                    return;
                }
                if !queue.closed {
                    // A breath, so that a busy log wakes this thread a few hundred times a second and not for every
                    // entry.
                    drop(queue);
                    std::thread::sleep(BREATH);
                    queue = lock(&self.queue);
                }
                std::mem::take(&mut queue.sets)
            };
            let (count, bytes) = sets
                .iter()
                .fold((0, 0), |(count, bytes), (_, _, set)| (count + 1, bytes + set.as_ref().map_or(16, bytes_of)));
            let failed = lock(&self.tables).is_err();
            if failed && failed_at.is_none_or(|at| at.elapsed() >= REOPEN_AFTER) {
                failed_at = Some(Instant::now());
                self.reopen();
            }
            let tables = lock(&self.tables).clone();
            let written = tables.and_then(|tables| self.write(&tables, sets));
            if let Err(error) = written
                && lock(&self.tables).is_ok()
            {
                tracing::warn!(%error, "cannot write the history; what is missing is fetched from a peer later");
                failed_at = Some(Instant::now());
                *lock(&self.tables) = Err(error);
            }
            let mut queue = lock(&self.queue);
            queue.settled += count;
            queue.bytes = queue.bytes.saturating_sub(bytes);
            drop(queue);
            self.idle.notify_all();
        }
    }

    /// Opens the database again. What an empty one lacks shows as a gap with the next write.
    fn reopen(&self) {
        let opened = open_or_set_aside(&self.dir);
        if let Ok(tables) = &opened {
            *lock(&self.coverage) = read_coverage(tables).unwrap_or_default();
        }
        *lock(&self.tables) = opened;
    }

    fn write(&self, tables: &Tables, sets: VecDeque<(ShardId, u64, Option<ChangeSet>)>) -> Result<(), HistoryError> {
        let mut batch = tables.database.batch();
        let mut shards = std::collections::BTreeSet::new();
        let mut coverage = lock(&self.coverage).clone();
        let mut covered_indexes = Vec::with_capacity(sets.len());
        for (shard, index, set) in sets {
            coverage.entry(shard).or_default().cover(index);
            covered_indexes.push((shard, index));
            shards.insert(shard);
            if let Some(set) = set {
                insert(&mut batch, &tables.rows, shard, &set);
            }
        }
        for (shard, covered) in coverage.iter().filter(|(shard, _)| shards.contains(shard)) {
            let encoded = postcard::to_stdvec(&(covered.next, &covered.gaps)).unwrap_or_default();
            batch.insert(&tables.rows, key(*shard, COVERED, &[]), sealed(encoded));
        }
        batch.commit()?;
        {
            // One by one: a gap may have been filled meanwhile.
            let mut coverage = lock(&self.coverage);
            covered_indexes.into_iter().for_each(|(shard, index)| coverage.entry(shard).or_default().cover(index));
        }
        for shard in shards {
            let next = lock(&self.coverage).get(&shard).map_or(0, |covered| covered.next);
            self.progress_sender(shard).send_replace(next);
        }
        Ok(())
    }
}

impl Coverage {
    fn lose(&mut self, index: u64) {
        let known = self.gaps.range(..=index).next_back().is_some_and(|(_, end)| *end > index);
        if !known && index < self.next {
            self.gaps.insert(index, index + 1);
        }
    }

    fn cover(&mut self, index: u64) {
        if index > self.next {
            self.gaps.insert(self.next, index);
        }
        self.next = self.next.max(index + 1);
    }
}

/// About how many bytes a change set takes.
fn bytes_of(set: &ChangeSet) -> usize {
    use skep_protocol::change::ChangeKind;
    let payload = |kind: &ChangeKind| match kind {
        ChangeKind::Created { spec, .. } => spec.payload.len(),
        ChangeKind::Completed { result, .. } => result.len(),
        _ => 0,
    };
    set.changes.iter().map(|change| 256 + payload(&change.what)).sum::<usize>() + 64
}

fn open(dir: &Path) -> Result<Tables, fjall::Error> {
    let database = Database::builder(dir)
        .cache_size(4 * 1024 * 1024)
        .max_journaling_size(64 * 1024 * 1024)
        .journal_compression(fjall::CompressionType::None)
        .worker_threads(2)
        .manual_journal_persist(false)
        .open()?;
    let rows = database.keyspace("history", || KeyspaceCreateOptions::default().max_memtable_size(8 * 1024 * 1024))?;
    Ok(Tables { database, rows })
}

/// Opens the database; one that cannot be opened is set aside, and an empty one takes its place.
fn open_or_set_aside(dir: &Path) -> Result<Tables, HistoryError> {
    let error = match open(dir) {
        Ok(tables) => return Ok(tables),
        Err(error) => error,
    };
    if matches!(error, fjall::Error::Locked | fjall::Error::Poisoned) {
        return Err(error.into());
    }
    let aside = dir.with_extension("damaged");
    tracing::warn!(%error, aside = %aside.display(), "the history cannot be opened; it is set aside and filled again");
    let replace = || {
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(dir, &aside)
    };
    replace().map_err(|e| HistoryError(format!("{error}; and it cannot be set aside: {e}")))?;
    Ok(open(dir)?)
}

fn read_coverage(tables: &Tables) -> Result<BTreeMap<ShardId, Coverage>, HistoryError> {
    let mut coverage = BTreeMap::new();
    for row in tables.rows.iter() {
        let (key, value) = row.into_inner()?;
        let (Some(shard), Some(&table)) = (key.first_chunk::<4>(), key.get(4)) else { continue };
        if table == COVERED {
            let (next, gaps) = postcard::from_bytes(unsealed(&value)?).map_err(|e| HistoryError(e.to_string()))?;
            coverage.insert(ShardId(u32::from_be_bytes(*shard)), Coverage { next, gaps });
        }
    }
    Ok(coverage)
}

fn insert(batch: &mut fjall::OwnedWriteBatch, rows: &Keyspace, shard: ShardId, set: &ChangeSet) {
    match set.encode() {
        Ok(bytes) => batch.insert(rows, index_key(shard, set.index), sealed(bytes)),
        Err(error) => tracing::warn!(index = set.index, %error, "a change set cannot be kept"),
    }
    let tasks: std::collections::BTreeSet<TaskId> = set.changes.iter().filter_map(|c| c.what.task()).collect();
    for task in tasks {
        batch.insert(rows, task_key(shard, task, set.index), Vec::new());
    }
}

fn key(shard: ShardId, table: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + rest.len());
    key.extend_from_slice(&shard.0.to_be_bytes());
    key.push(table);
    key.extend_from_slice(rest);
    key
}

fn index_key(shard: ShardId, index: u64) -> Vec<u8> {
    key(shard, BY_INDEX, &index.to_be_bytes())
}

fn task_key(shard: ShardId, task: TaskId, index: u64) -> Vec<u8> {
    let mut rest = [0; 24];
    rest[..16].copy_from_slice(task.as_bytes());
    rest[16..].copy_from_slice(&index.to_be_bytes());
    key(shard, BY_TASK, &rest)
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn unsealed(bytes: &[u8]) -> Result<&[u8], HistoryError> {
    let damaged = || HistoryError("a row is damaged".to_owned());
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
    if xxh3_64(body) == u64::from_le_bytes(*sum) { Ok(body) } else { Err(damaged()) }
}

/// The index at the end of a key.
fn last_index(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
