//! The durable store of one node, for all its shards.
//!
//! # Why a log of our own
//!
//! The candidates were measured on one machine (256-byte appends to 8 groups, one fsync per batch, purged behind;
//! 2 cores, ext4), as appends per second, the median and longest commit, and bytes written per payload byte:
//!
//! | batch | fjall 3.1 | redb 4.4 |
//! | --- | --- | --- |
//! | 1 | 10.8 k/s, 83 µs, 24 ms, 18.2 x | 4.8 k/s, 189 µs, 27 ms, 129 x |
//! | 8 | 49 k/s, 151 µs, 94 ms, 5.6 x | 20 k/s, 363 µs, 27 ms, 51 x |
//! | 64 | 179 k/s, 252 µs, 93 ms, 4.5 x | 114 k/s, 514 µs, 79 ms, 9.0 x |
//!
//! Neither detects what a Raft log must: fjall's journal reader ends at the first record that it cannot parse and
//! opens with a shorter log (also in the middle of history), its checksum does not cover the order of batches, and a
//! memtable flush stalls commits for up to 93 ms; redb checks page checksums only on demand, and writes most. A node
//! that forgets an acknowledged entry or a vote breaks Raft, so the log is a write-ahead log of a few hundred lines
//! whose every record is numbered, checksummed and bound to its place. fjall keeps what can be made anew: the
//! history of changes ([`History`]).
//!
//! # Layout
//!
//! `FORMAT` and `LOCK` guard the directory, and `incarnation` names it. `wal/` holds the segments, `progress` the mark
//! of what was durable, `snapshots/` one snapshot per shard and the received part of another node's, `clocks/` what the
//! process knew of the shards' clocks, `history/` the changes. `forgot`, if it exists, names the shards in which the
//! directory forgot what it had acknowledged; `voters` says who voted in shards of which the node has no replica.
//!
//! # Contract
//!
//! One writer thread does all writing, in the order of the calls. It acknowledges an append or vote after its fsync.
//! Nothing is removed before its replacement is durable: entries before the snapshot that covers them, a segment before
//! its votes and purges are written again, and any segment before the record that says that it is not needed. What is
//! missing without such a record is a hole. An error of a write or fsync ends the process, since the content of the
//! disk is unknown from then on; but a write that finds no room on the disk, or no descriptor, waits for it,
//! unacknowledged. Before that, the store notices a disk that runs low ([`Store::is_low`]), and new work is refused
//! while work may still end; on a disk that is nearly full ([`Store::is_exhausted`]) only votes are written, into the
//! spare segment.
//!
//! # Must not know
//!
//! openraft, the network, or what an entry means: it keeps bytes, and the changes that it is told of. No other crate
//! knows fjall. With the feature `simulation` a store runs on a disk of a test ([`disk::Disk`]), in virtual time.

pub mod beside;
mod clock_marks;
mod directory;
pub mod disk;
mod error;
mod foreign;
mod history;
mod journals;
mod lookup;
mod marks;
mod pressure;
mod progress;
mod record;
mod recovery;
mod segment;
mod shard_log;
#[cfg(feature = "simulation")]
mod simulated;
mod snapshots;
mod tail;
mod voter_list;
mod writer;
mod written;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use skep_protocol::ids::{Incarnation, ShardId};
use skep_protocol::limits;
use skep_protocol::pressure::DiskPressure;
use tokio::sync::watch;

pub use beside::Leftovers;
pub use clock_marks::{ClockMark, ClockMarks};
use disk::{Disk, DiskFile, SystemDisk};
pub use error::StoreError;
pub use history::{ChangesFound, History, HistoryError, HistoryOptions, TransitionsFound, set_bytes};
pub use journals::{JournalError, JournalJob, JournalReport, Journals};
pub use lookup::Found;
pub use marks::Marks;
use segment::Segment;
pub use shard_log::LogPoint;
use shard_log::ShardLog;
pub use snapshots::{PartFile, PartHead, Snapshots, StoredSnapshot};
pub use voter_list::{KnownVoters, VoterList};
use writer::{Write, Writer};
pub use written::WrittenBytes;

/// With this many segments or fewer the log is never too large.
const SEGMENTS_MIN: u64 = 4;
/// How many segments the log of shards keeps ready ahead of its need, for votes.
const SPARES: usize = 1;

/// The store calls this when a write or an fsync fails. It must not return to normal service.
pub type OnFatal = Arc<dyn Fn(&io::Error) + Send + Sync>;

/// How a store is run.
#[derive(Clone)]
pub struct StoreOptions {
    /// The size of a segment of the log, in bytes.
    pub segment_bytes: u64,
    /// The free space below which new work is refused, in bytes.
    pub low_water_bytes: u64,
    /// The store calls this when a write or an fsync fails.
    pub on_fatal: OnFatal,
    /// How long the history is kept, and how much of it.
    pub history: HistoryOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 * 1024 * 1024,
            low_water_bytes: 64 * 1024 * 1024,
            on_fatal: Arc::new(|error| {
                tracing::error!(%error, "the store cannot write; the process ends so that nothing false is said");
                std::process::abort();
            }),
            history: HistoryOptions::default(),
        }
    }
}

/// What readers and the writer share.
struct Shared {
    segment_bytes: u64,
    logs: Mutex<BTreeMap<ShardId, ShardLog>>,
    segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
    pressure: watch::Sender<DiskPressure>,
    free_bytes: AtomicU64,
    /// Why a write finds no room; none if none waits for room.
    shortage: Mutex<Option<String>>,
    /// Set when the store is being closed: then nothing waits for room.
    closing: AtomicBool,
    written: Mutex<WrittenBytes>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update under these locks is a single assignment or insertion: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Store {
    incarnation: Incarnation,
    shared: Arc<Shared>,
    writer: Arc<WriterHandle>,
    snapshots: Snapshots,
    marks: Marks,
    clock_marks: ClockMarks,
    voter_list: VoterList,
    history: History,
}

/// Where the handles put writes.
enum Queue {
    Thread {
        writes: Option<SyncSender<Write>>,
        thread: Option<JoinHandle<()>>,
    },
    #[cfg(feature = "simulation")]
    Task(tokio::sync::mpsc::Sender<Write>),
}

struct WriterHandle {
    queue: Queue,
    shared: Arc<Shared>,
    /// Keeps other processes from the directory.
    lock: Arc<dyn DiskFile>,
}

impl WriterHandle {
    fn send(&self, write: Write) -> Result<(), StoreError> {
        match &self.queue {
            Queue::Thread { writes, .. } => {
                writes.as_ref().ok_or(StoreError::Closed)?.send(write).map_err(|_| StoreError::Closed)
            }
            #[cfg(feature = "simulation")]
            Queue::Task(writes) => writes.try_send(write).map_err(|_| StoreError::Closed),
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        #[cfg_attr(not(feature = "simulation"), allow(irrefutable_let_patterns, reason = "the other one is of tests"))]
        if let Queue::Thread { writes, thread } = &mut self.queue {
            drop(writes.take());
            if let Some(thread) = thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
                let _ = thread.join();
            }
        }
    }
}

/// An opened store whose writer does not run yet.
struct Parts {
    incarnation: Incarnation,
    shared: Arc<Shared>,
    writer: Writer,
    snapshots: Snapshots,
    marks: Marks,
    clock_marks: ClockMarks,
    voter_list: VoterList,
    lock: Arc<dyn DiskFile>,
}

impl Parts {
    /// `spares`: how many segments are kept ready ahead of their need.
    fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        random: [u8; 16],
        options: StoreOptions,
        spares: usize,
    ) -> Result<Self, StoreError> {
        let lock = directory::take(&**disk, dir)?;
        let incarnation = directory::stamp(&**disk, dir, random)?;
        let wal = dir.join("wal");
        disk.make_dir(&wal).map_err(|e| StoreError::io(&wal, e))?;
        let (mark, marked) = progress::Mark::open(&**disk, &dir.join("progress"))?;
        let mut segments = segment::open_all(&**disk, &wal, incarnation)?;
        if segments.is_empty() {
            if marked > 0 {
                return Err(StoreError::LogMissing { marked });
            }
            let (number, bytes) = (segment::FIRST_NUMBER, options.segment_bytes);
            let first = segment::create(&**disk, &wal, number, Some(1), bytes, incarnation);
            segments.push(first.map_err(|e| StoreError::io(&wal, e))?);
        }
        let recovered = recovery::recover(&segments, marked)?;
        let snapshots = Snapshots::open(Arc::clone(disk), &dir.join("snapshots"))?;
        let marks = Marks::open(Arc::clone(disk), dir)?;
        let clock_marks = ClockMarks::open(Arc::clone(disk), &dir.join("clocks"), incarnation)?;
        let voter_list = VoterList::at(Arc::clone(disk), dir);
        // The names of the files that were made here are then as durable as their content.
        disk.sync_dir(dir).map_err(|e| StoreError::io(dir, e))?;
        let segments: Vec<Arc<Segment>> = segments.into_iter().map(Arc::new).collect();
        let shared = Arc::new(Shared {
            segment_bytes: options.segment_bytes,
            logs: Mutex::new(recovered.logs),
            segments: Mutex::new(segments.iter().map(|s| (s.number, Arc::clone(s))).collect()),
            pressure: watch::channel(DiskPressure::None).0,
            free_bytes: AtomicU64::new(u64::MAX),
            shortage: Mutex::default(),
            closing: AtomicBool::new(false),
            written: Mutex::default(),
        });
        let writer = Writer::new(writer::Setup {
            disk: Arc::clone(disk),
            dir: wal,
            incarnation,
            options,
            active: Arc::clone(&segments[recovered.active]),
            spares: segments.iter().skip(recovered.active + 1).cloned().collect(),
            spares_kept: spares,
            end: recovered.end,
            next_seq: recovered.next_seq,
            kept: recovered.kept,
            mark,
            shared: Arc::clone(&shared),
        });
        Ok(Self { incarnation, shared, writer, snapshots, marks, clock_marks, voter_list, lock })
    }
}

impl Store {
    /// Opens the store in a directory, and makes one if the directory is missing or empty.
    ///
    /// `random` is 128 fresh random bits; they become the incarnation of a new store.
    ///
    /// # Errors
    /// [`StoreError`]: in use, half made, of a newer format, damaged, or not readable. Nothing is changed then.
    pub fn open(dir: &Path, random: [u8; 16], options: StoreOptions) -> Result<Self, StoreError> {
        beside::refuse_half_made(dir)?;
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let kept = options.history;
        Self::start(&disk, dir, random, (options, SPARES), || History::open(&dir.join("history"), kept))
    }

    /// Opens a store like [`open`](Self::open), for a log without a shard's state machine, with this many segments
    /// ready ahead of their need.
    fn open_bare(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        random: [u8; 16],
        options: StoreOptions,
        spares: usize,
    ) -> Result<Self, StoreError> {
        Self::start(disk, dir, random, (options, spares), History::absent)
    }

    fn start(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        random: [u8; 16],
        (options, spares): (StoreOptions, usize),
        history: impl FnOnce() -> History,
    ) -> Result<Self, StoreError> {
        let parts = Parts::open(disk, dir, random, options, spares)?;
        let history = history();
        let (writes, queue) = sync_channel(limits::STORE_WRITES_QUEUED_MAX);
        let writer = parts.writer;
        let thread = std::thread::Builder::new()
            .name("skep-store".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|e| StoreError::io(dir, e))?;
        let queue = Queue::Thread { writes: Some(writes), thread: Some(thread) };
        let writer = Arc::new(WriterHandle { queue, shared: Arc::clone(&parts.shared), lock: parts.lock });
        let Parts { incarnation, shared, snapshots, marks, clock_marks, voter_list, .. } = parts;
        Ok(Self { incarnation, shared, writer, snapshots, marks, clock_marks, voter_list, history })
    }

    /// The incarnation that was made with the directory.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The marks of the shards' clocks.
    pub fn clock_marks(&self) -> &ClockMarks {
        &self.clock_marks
    }

    /// The list of voters that the node last heard of.
    pub fn voter_list(&self) -> &VoterList {
        &self.voter_list
    }

    /// How many bytes the log's segments take on disk.
    pub fn log_bytes(&self) -> u64 {
        lock(&self.shared.segments).len() as u64 * self.shared.segment_bytes
    }

    /// The size of a segment, in bytes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.shared.segment_bytes
    }

    /// How many segments the log takes, with those that are ready ahead of their need.
    pub(crate) fn log_segments(&self) -> u64 {
        lock(&self.shared.segments).len() as u64
    }

    /// Whether the log takes more of the disk than it should: then the node makes a snapshot, and drops what that
    /// covers.
    pub fn is_log_too_large(&self) -> bool {
        // The segment that is written to and the spare one are always there.
        self.log_bytes() > limits::LOG_BYTES_SOFT_MAX.max(SEGMENTS_MIN * self.shared.segment_bytes)
    }

    /// How many bytes were written to the log since the store was opened, by kind.
    pub fn written(&self) -> WrittenBytes {
        *lock(&self.shared.written)
    }

    /// The shards of which the store holds anything.
    pub fn shards(&self) -> Vec<ShardId> {
        lock(&self.shared.logs).keys().copied().collect()
    }

    /// The snapshots beside the log.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// The marks of what the directory forgot.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The history of changes beside the log.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn with_log<T>(&self, shard: ShardId, read: impl FnOnce(&mut ShardLog) -> T) -> T {
        read(lock(&self.shared.logs).entry(shard).or_default())
    }

    fn send(&self, write: Write) -> Result<(), StoreError> {
        self.writer.send(write)
    }

    /// The shard's last vote, as the caller gave it to [`save_vote`](Self::save_vote).
    pub fn vote(&self, shard: ShardId) -> Option<Bytes> {
        self.with_log(shard, |log| log.vote.clone())
    }

    /// The last point that the caller said is committed.
    pub fn committed(&self, shard: ShardId) -> Option<LogPoint> {
        self.with_log(shard, |log| log.committed)
    }

    /// The point of the entry at an index, if the log holds it.
    pub fn point_at(&self, shard: ShardId, index: u64) -> Option<LogPoint> {
        self.with_log(shard, |log| log.slot(index).map(|slot| LogPoint { index, term: slot.term }))
    }

    /// The last purged point, and the last point of all.
    pub fn ends(&self, shard: ShardId) -> (Option<LogPoint>, Option<LogPoint>) {
        self.with_log(shard, |log| (log.purged, log.last()))
    }

    /// Stores a vote; the writer calls `done` after its fsync.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub fn save_vote(
        &self,
        shard: ShardId,
        vote: Bytes,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        self.with_log(shard, |log| log.vote = Some(vote.clone()));
        self.send(Write::Vote { shard, vote, done: Box::new(done) })
    }

    /// Adds entries; they are readable at once, and the writer calls `done` after their fsync.
    ///
    /// # Errors
    /// [`StoreError::CorruptLog`] if they would leave a hole, [`StoreError::Closed`].
    pub fn append(
        &self,
        shard: ShardId,
        entries: Vec<(LogPoint, Bytes)>,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        self.with_log(shard, |log| {
            let hole = entries.iter().find(|(point, entry)| !log.push(*point, entry.clone()));
            hole.map_or(Ok(()), |(point, _)| {
                let why = format!("entry {} does not follow entry {:?}", point.index, log.last());
                Err(StoreError::CorruptLog { shard, why })
            })
        })?;
        self.send(Write::Append { shard, entries, done: Box::new(done) })
    }

    /// Drops entries from an index on.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub fn truncate(&self, shard: ShardId, end: u64) -> Result<(), StoreError> {
        self.with_log(shard, |log| log.truncate(end));
        self.send(Write::Truncate { shard, end })
    }

    /// Drops entries up to a point, which may lie beyond the last one.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub fn purge(&self, shard: ShardId, upto: LogPoint) -> Result<(), StoreError> {
        self.with_log(shard, |log| log.purge(upto));
        self.send(Write::Purge { shard, upto })
    }

    /// Notes how far entries are committed. The writer writes this with the next entries: it saves work after a
    /// restart, and shows that entries are missing.
    pub fn note_committed(&self, shard: ShardId, point: LogPoint) {
        self.with_log(shard, |log| log.committed = Some(point));
    }

    /// The entries of a range that the log holds, as far as they fit into `bytes_max`, but at least one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if an entry on disk is damaged.
    pub fn entries(
        &self,
        shard: ShardId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(LogPoint, Bytes)>, StoreError> {
        self.find(shard, range, bytes_max).read()
    }
}

#[cfg(test)]
mod tests;
