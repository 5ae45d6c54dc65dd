//! The store as openraft's log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use skep_protocol::ids::ShardId;
use skep_store::{LogPoint, Store, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::types::{Entry, LogId, TypeConfig, Vote, decode, encode};
use crate::threads::{Errand, Threads};

/// The most bytes of entries that one read for replication returns: this much crosses a thin link within the deadline
/// of a call.
const READ_BYTES_MAX: usize = 128 * 1024;

/// How long a write takes until it is durable, in milliseconds: the longest of the last writes, where older ones count
/// less and less.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlushTime(Arc<AtomicU64>);

impl FlushTime {
    fn took(&self, took: Duration) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        // There is one writer at a time.
        let known_ms = self.0.load(Ordering::Relaxed);
        self.0.store(took_ms.max(known_ms / 2), Ordering::Relaxed);
    }

    /// The time in milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The log of one shard in a node's store.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Store,
    shard: ShardId,
    threads: Threads,
    flush_time: FlushTime,
}

impl LogStore {
    pub(crate) fn new(store: Store, shard: ShardId, threads: Threads) -> Self {
        Self { store, shard, threads, flush_time: FlushTime::default() }
    }

    pub(crate) fn flush_time(&self) -> FlushTime {
        self.flush_time.clone()
    }

    /// Reads entries from memory or disk. The read does not wait for a disk on the thread that keeps elections on time.
    async fn read(&self, range: std::ops::Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let found = self.store.find(self.shard, range, bytes_max);
        let entries = match found.is_in_memory() {
            true => found.read(),
            false => self.threads.offload(Errand::Entries, move || found.read()).await?,
        };
        let entries = entries.map_err(other)?;
        entries.into_iter().map(|(point, bytes)| entry(point, &bytes)).collect()
    }
}

fn other(error: StoreError) -> io::Error {
    io::Error::other(error)
}

fn log_id(point: LogPoint) -> LogId {
    LogId { leader_id: point.term.into(), index: point.index }
}

pub(super) fn point(id: &LogId) -> LogPoint {
    LogPoint { index: id.index, term: *id.leader_id }
}

/// Decodes an entry into openraft's form.
pub(crate) fn entry(point: LogPoint, bytes: &Bytes) -> io::Result<Entry> {
    let payload: EntryPayload<_, _, _> = decode("log entry", bytes)?;
    Ok(Entry { log_id: log_id(point), payload })
}

fn start(range: &impl RangeBounds<u64>) -> u64 {
    match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    }
}

fn end(range: &impl RangeBounds<u64>) -> u64 {
    match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let range = start(&range)..end(&range);
        self.read(range, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.store.vote(self.shard).map(|bytes| decode("vote", &bytes)).transpose()
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (log, end) = (self.clone(), end(&range));
        // The start reads the log in parts and yields between them: the thread also keeps elections on time.
        let parts = stream::try_unfold(start(&range), move |at| {
            let log = log.clone();
            async move {
                let part = if at < end { log.read(at..end, READ_BYTES_MAX).await? } else { Vec::new() };
                let Some(last) = part.last() else { return Ok(None) };
                let next = last.log_id.index + 1;
                tokio::task::yield_now().await;
                Ok::<_, io::Error>(Some((stream::iter(part.into_iter().map(Ok)), next)))
            }
        });
        Box::pin(parts.try_flatten())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let (purged, last) = self.store.ends(self.shard);
        Ok(LogState { last_purged_log_id: purged.map(log_id), last_log_id: last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, durable) = oneshot::channel();
        let begun = Instant::now();
        let bytes = Bytes::from(encode(vote)?);
        let saved = self.store.save_vote(self.shard, bytes, move || {
            let _ = done.send(());
        });
        saved.map_err(other)?;
        durable.await.map_err(|_| other(StoreError::Closed))?;
        self.flush_time.took(begun.elapsed());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.store.note_committed(self.shard, point(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.store.committed(self.shard).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = |entry: Entry| Ok((point(&entry.log_id), Bytes::from(encode(&entry.payload)?)));
        let entries: Vec<(LogPoint, Bytes)> = entries.into_iter().map(encoded).collect::<io::Result<_>>()?;
        let (flush_time, begun) = (self.flush_time.clone(), Instant::now());
        let flushed = move || {
            flush_time.took(begun.elapsed());
            callback.io_completed(Ok(()));
        };
        self.store.append(self.shard, entries, flushed).map_err(other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let end = last.map_or(0, |id| id.index + 1);
        self.store.truncate(self.shard, end).map_err(other)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.store.purge(self.shard, point(&upto)).map_err(other)
    }
}
