//! Writing the rows in memory into tables, many entries at a time.
//!
//! What entries did has no journal beside the log. It is written once, in the order of a table: when there is much of
//! it, when a snapshot waits for it, and after a while. The index up to which it is durable is the mark that snapshots
//! wait for ([`History::reaches`](super::History::reaches)); it moves when a table is durable. After a crash the next
//! process applies the lost entries again.
//!
//! When the disk has no room for the next table, the history leaves it alone and checks it again later. Readers go on,
//! and rows stay in memory within the bounds of the queue. Rows beyond those are dropped, and made again from the log.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use skep_protocol::ids::ShardId;
use skep_protocol::limits;

use super::pending::{Backlog, Pending, Row, RowKey, Stand};
use super::shelf::Shelf;
use super::tables::{HistoryError, Rows, Tables, encode_meta, index_key, meta_key, task_key};
use super::{HistoryOptions, Inner};
use crate::disk::{Disk, SystemDisk};
use crate::lock;

/// How long the history waits before it tries a failed database, or a disk without room, again.
const RETRY_AFTER: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };
/// How many bytes must be free beside twice what is written.
const ROOM_BESIDE: u64 = 1024 * 1024;

/// Rows of one shard on their way into tables, and the shelf as it will be after that.
struct Batch<'a> {
    options: &'a HistoryOptions,
    kept: Shelf,
    /// By the numbers of their segments.
    segments: BTreeMap<u64, Rows>,
}

impl<'a> Batch<'a> {
    /// Everything that is not in tables yet.
    fn of(kept: &Shelf, pending: &Pending, options: &'a HistoryOptions) -> Self {
        let mut batch = Self { options, kept: kept.clone(), segments: BTreeMap::new() };
        for range in pending.covers() {
            let range = range.start.max(kept.floor())..range.end;
            if range.is_empty() {
                continue;
            }
            batch.segment_of(range.start);
            for (place, row) in pending.rows((range.start, 0)..(range.end, 0)) {
                if !kept.holds(place.0) {
                    batch.put(*place, row);
                }
                batch.kept.cover(place.0..place.0 + 1);
            }
            batch.kept.cover(range);
        }
        // The first row of an entry; the others of that entry follow.
        for (place, row) in pending.rows((0, 0)..(u64::MAX, u32::MAX)) {
            if !pending.holds(place.0) && !kept.holds(place.0) {
                batch.put(*place, row);
            }
        }
        batch
    }

    fn put(&mut self, (index, ordinal): RowKey, row: &Row) {
        let number = self.segment_of(index);
        let rows = self.segments.entry(number).or_default();
        let mut bytes = row.bytes.len();
        let nothing: Arc<[u8]> = Arc::default();
        for key in row.tasks.iter().map(|task| task_key(*task, index, ordinal)) {
            bytes += key.len();
            rows.insert(key, Arc::clone(&nothing));
        }
        let key = index_key(index, ordinal);
        bytes += key.len();
        rows.insert(key, Arc::clone(&row.bytes));
        self.kept.note(number, bytes as u64, row.at);
    }

    /// The number of the segment that an entry goes to; that segment will then record how far it reaches.
    fn segment_of(&mut self, index: u64) -> u64 {
        let number = self.kept.place(index, self.options);
        self.segments.entry(number).or_default();
        number
    }

    /// Writes the rows together with the record that each segment keeps of itself; the earlier segments first, each of
    /// them whole or not at all. Returns the shelf after that.
    fn write(mut self, tables: &Tables, shard: ShardId) -> Result<Shelf, HistoryError> {
        for number in self.kept.segments_of(&(0..u64::MAX)) {
            let Some(mut rows) = self.segments.remove(&number) else { continue };
            if let Some(meta) = self.kept.meta(number) {
                rows.insert(meta_key(), encode_meta(&meta)?.into());
            }
            tables.write(shard, number, &rows)?;
        }
        Ok(self.kept)
    }
}

impl Inner {
    /// Writes what is in memory whenever that is due, and once more at the end, without a second attempt: the log has
    /// it.
    pub(super) fn run_flushes(&self) {
        loop {
            let is_last = self.wait_until_due();
            // The error is noted elsewhere.
            let _ = self.flush();
            if is_last {
                return;
            }
        }
    }

    /// Waits until something is to be written, or tried again. Returns whether that is for the last time.
    fn wait_until_due(&self) -> bool {
        let retry_at = Instant::now() + RETRY_AFTER;
        let mut queue = lock(&self.queue);
        loop {
            if queue.drained {
                return true;
            }
            let now = Instant::now();
            let failing = self.is_failing();
            let pause = if failing { retry_at.saturating_duration_since(now) } else { self.until_due(now) };
            if pause.is_zero() {
                return false;
            }
            queue = self.due.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How much longer the rows in memory may stay there.
    pub(super) fn until_due(&self, now: Instant) -> Duration {
        let mut backlog = Backlog::default();
        lock(&self.stands).values().for_each(|stand| backlog.add(stand.backlog()));
        let much = backlog.bytes >= limits::HISTORY_PENDING_BYTES_SOFT_MAX
            || backlog.entries >= limits::HISTORY_PENDING_ENTRIES_SOFT_MAX;
        if much {
            return Duration::ZERO;
        }
        let age = backlog.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Duration::from_millis(limits::HISTORY_FLUSH_AFTER_MS).saturating_sub(age)
    }

    /// Writes everything that is in memory, durably. Waits for a disk.
    pub(super) fn flush(&self) -> Result<(), HistoryError> {
        let _one_at_a_time = lock(&self.writing);
        let flushed = self.write_all();
        match &flushed {
            Ok(()) => {
                if lock(&self.failure).take().is_some() {
                    tracing::info!("the history is written again");
                }
            }
            Err(error) => self.note_failure(error.clone()),
        }
        flushed
    }

    fn write_all(&self) -> Result<(), HistoryError> {
        let known = self.tables();
        let tables = match known {
            Ok(tables) => tables,
            Err(_) => self.open_again()?,
        };
        tables.check()?;
        let taken: Vec<(ShardId, Arc<Pending>, Shelf)> = {
            let mut stands = lock(&self.stands);
            let take =
                |(shard, stand): (&ShardId, &mut Stand)| Some((*shard, stand.begin_writing()?, stand.kept.clone()));
            stands.iter_mut().filter_map(take).collect()
        };
        self.check_room(taken.iter().map(|(_, pending, _)| pending.backlog().bytes).sum())?;
        for (shard, pending, kept) in taken {
            let mut kept = Batch::of(&kept, &pending, &self.options).write(&tables, shard)?;
            let bytes = lock(&self.stands).entry(shard).or_default().written(&mut kept);
            let mut queue = lock(&self.queue);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            drop(queue);
            self.change(shard, |_| {});
        }
        Ok(())
    }

    /// Checks the room first: a table that does not fit would leave a part of itself.
    fn check_room(&self, bytes: usize) -> Result<(), HistoryError> {
        // If the free space is unknown, this tries.
        let free = SystemDisk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        let needed = 2 * bytes as u64 + ROOM_BESIDE;
        if free < needed { Err(HistoryError::no_room(needed, free)) } else { Ok(()) }
    }

    /// Opens the database again; the caller holds the lock of the writers. What an empty database lacks is a gap.
    fn open_again(&self) -> Result<Tables, HistoryError> {
        let mut opened = Tables::open_or_set_aside(&self.dir)?;
        let shards: Vec<ShardId> = {
            let mut stands = lock(&self.stands);
            opened.shelves.keys().for_each(|shard| {
                stands.entry(*shard).or_default();
            });
            for (shard, stand) in stands.iter_mut() {
                let mut kept = opened.shelves.remove(shard).unwrap_or_default();
                kept.inherit(&stand.kept);
                stand.kept = kept;
            }
            stands.keys().copied().collect()
        };
        *lock(&self.tables) = Ok(opened.tables.clone());
        tracing::info!("the history is open");
        shards.into_iter().for_each(|shard| self.change(shard, |_| {}));
        Ok(opened.tables)
    }

    /// Drops a database that failed, so that it can be opened again; a database without room for more can be read, and
    /// stays.
    pub(super) fn note_failure(&self, error: HistoryError) {
        if lock(&self.failure).replace(error.clone()).is_none() {
            tracing::warn!(%error, "cannot write the history; it is tried again, and the log is kept until then");
        }
        if !error.is_want_of_room() {
            // Closing it takes a while, and readers must not wait for that.
            let failed = std::mem::replace(&mut *lock(&self.tables), Err(error));
            drop(failed);
        }
        // The flushing thread may wait for something to be due: it checks before this, or hears of this.
        drop(lock(&self.queue));
        self.due.notify_all();
    }
}
