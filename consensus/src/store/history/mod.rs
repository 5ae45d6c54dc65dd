//! The history of changes, by index and by task.
//!
//! # Contract
//!
//! What an entry did is written beside the log, a little later, by a thread of its own. Until it is there durably the log
//! keeps the entry: no snapshot is made that covers an entry whose changes are missing ([`History::reaches`]), and
//! nothing is purged that no snapshot covers. So whatever a crash, an error or an overflow takes is written again: from
//! the queue, which keeps what could not be written; by the next process, which applies the log again from its snapshot;
//! or out of the log, or from another voter, by whoever fills gaps. Only on a disk that is nearly full, and after a while,
//! is the log let go of all the same ([`History::let_go`]); what is missing then is a gap that readers and the shard's
//! status are told of.
//!
//! Nothing here can stop the node: while the history is behind, what brings work is refused and what ends it goes on
//! ([`History::is_behind`]). A database is set aside only if it is damaged. Rows carry their own checksums, since the
//! database underneath does not promise to notice every flipped bit.
//!
//! It is kept for a time and a number of bytes ([`HistoryOptions`]), and goes by whole segments ([`shelf`]): sooner on a disk
//! that is nearly full, where the log and what ends work come first. Whoever asks for what is gone is told where the history
//! begins.

mod read;
mod retain;
mod shelf;
mod tables;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use skep_protocol::change::ChangeSet;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use tokio::sync::watch;

pub use read::{ChangesFound, TransitionsFound};
pub use shelf::HistoryOptions;
use shelf::Shelf;
pub use tables::HistoryError;
use tables::Tables;
pub(crate) use tables::set_bytes;
use writer::{Item, Queue};

use super::lock;

/// How long whoever waits for everything to be written waits.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// How often whoever waits for room looks.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is shared by the handles, and the thread that writes.
struct Inner {
    dir: PathBuf,
    options: HistoryOptions,
    tables: Mutex<Result<Tables, HistoryError>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: Condvar,
    /// The last write failed.
    failing: AtomicBool,
    /// Held by whoever writes rows, or lets go of segments: who does what is in the order of what the segments say.
    writing: Mutex<()>,
    shelves: Mutex<BTreeMap<ShardId, Shelf>>,
    progress: Mutex<BTreeMap<ShardId, watch::Sender<u64>>>,
    /// Whether there is none at all.
    absent: bool,
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

/// How the history of a shard stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStanding {
    /// The first index whose changes are kept.
    pub begins: u64,
    /// The first index whose changes are not there yet.
    pub next: u64,
    /// Entries whose changes are missing, and looked for.
    pub missing: u64,
    /// Entries whose changes are missing for good.
    pub lost: u64,
    /// Entries that were let go of before their time, since the process began, because the disk was nearly full.
    pub given_back: u64,
    /// Bytes of the shard's rows.
    pub bytes: u64,
    /// Bytes of all shards that wait to be written.
    pub queued_bytes: u64,
    /// Why nothing can be written now.
    pub error: Option<String>,
}

impl History {
    pub(super) fn open(dir: &Path, options: HistoryOptions) -> Self {
        let (tables, shelves) = match Tables::open_or_set_aside(dir) {
            Ok(opened) => (Ok(opened.tables), opened.shelves),
            Err(error) => {
                tracing::warn!(%error, "the history cannot be opened; it is tried again");
                (Err(error), BTreeMap::new())
            }
        };
        let failing = AtomicBool::new(tables.is_err());
        let inner = Inner { shelves: Mutex::new(shelves), failing, ..Inner::new(dir, options, tables) };
        let inner = Arc::new(inner);
        let worker = Arc::clone(&inner);
        let spawned = std::thread::Builder::new().name("skep-history".to_owned()).spawn(move || worker.run());
        if let Err(error) = &spawned {
            tracing::error!(%error, "there is no thread to write the history");
            *lock(&inner.tables) = Err(HistoryError::passing(format!("no thread for it: {error}")));
            inner.failing.store(true, Ordering::Relaxed);
        }
        let closer = Closer { inner: Arc::clone(&inner), thread: spawned.ok() };
        Self { _closer: Arc::new(closer), inner }
    }

    /// None: nothing is kept, nothing can be read, and nothing waits for it.
    pub(super) fn absent() -> Self {
        let none = Err(HistoryError::passing("there is none"));
        let inner = Inner { absent: true, ..Inner::new(Path::new(""), HistoryOptions::default(), none) };
        lock(&inner.queue).closed = true;
        let inner = Arc::new(inner);
        Self { _closer: Arc::new(Closer { inner: Arc::clone(&inner), thread: None }), inner }
    }

    /// Takes note of what the entry at an index changed; none if it is one that changes nothing. Never waits. What is there
    /// already, since the log is applied again after a start, is left as it is.
    pub fn record(&self, shard: ShardId, index: u64, set: Option<ChangeSet>) {
        if self.inner.absent || lock(&self.inner.shelves).get(&shard).is_some_and(|shelf| shelf.holds(index)) {
            return;
        }
        let mut queue = lock(&self.inner.queue);
        if queue.closed || queue.bytes > limits::HISTORY_QUEUED_BYTES_MAX {
            // Left out: the next one that is written shows the gap.
            return;
        }
        let item = Item::new(shard, index, set);
        queue.bytes += item.bytes;
        queue.recorded += 1;
        queue.items.push_back(item);
        if queue.items.len() == 1 {
            self.inner.wake.notify_one();
        }
    }

    /// Whether so much waits to be written that what brings work has to wait.
    pub fn is_behind(&self) -> bool {
        lock(&self.inner.queue).bytes > limits::HISTORY_QUEUED_BYTES_SOFT_MAX
    }

    /// Waits while the history is written more slowly than entries are applied, until a moment at the latest. Not for one
    /// that cannot be written at all: that takes too long.
    pub(crate) async fn room(&self, until: tokio::time::Instant) {
        while self.is_behind() && !self.is_failing() && tokio::time::Instant::now() < until {
            tokio::time::sleep(ROOM_LOOK_EVERY).await;
        }
    }

    /// The state of a shard goes on from an index: nothing before it is applied again.
    pub(crate) fn begin(&self, shard: ShardId, next: u64) {
        self.inner.change(shard, |shelf| shelf.begin(next));
    }

    /// A snapshot covers everything before an index durably: nothing before it is applied again after a start.
    pub(crate) fn covered_by_snapshot(&self, shard: ShardId, next: u64) {
        self.inner.change(shard, |shelf| shelf.set_base(next));
    }

    /// Whether the changes of everything before an index are written, but those of entries that the log did not hold any
    /// more when they were found missing: this is the mark that no snapshot passes.
    pub fn reaches(&self, shard: ShardId, next: u64) -> bool {
        self.inner.absent || lock(&self.inner.shelves).get(&shard).map_or(next == 0, |shelf| shelf.reaches(next))
    }

    /// Whether nothing can be written now.
    pub(crate) fn is_failing(&self) -> bool {
        self.inner.failing.load(Ordering::Relaxed)
    }

    /// Whether a snapshot would wait for long: nothing can be written, or something is missing that the log still holds.
    pub(crate) fn is_held_back(&self, shard: ShardId) -> bool {
        let is_missing = || lock(&self.inner.shelves).get(&shard).is_some_and(Shelf::is_held_back);
        !self.inner.absent && (self.is_failing() || is_missing())
    }

    /// The first index that the log can be applied again from.
    pub(crate) fn base(&self, shard: ShardId) -> u64 {
        lock(&self.inner.shelves).get(&shard).map_or(0, Shelf::base)
    }

    /// Makes everything durable that was written. Waits for a disk.
    ///
    /// # Errors
    /// [`HistoryError`] if the database fails.
    pub fn persist(&self) -> Result<(), HistoryError> {
        if self.inner.absent { Ok(()) } else { self.inner.tables()?.persist() }
    }

    /// The last resort: the log is let go of before an index, whatever is missing here. What is still queued is written if
    /// it can be; whatever is not is a gap.
    pub(crate) fn let_go(&self, shard: ShardId, next: u64) {
        let held = lock(&self.inner.shelves).get(&shard).map_or(0, Shelf::next);
        tracing::error!(
            %shard, from = held, end = next,
            "the log is let go of before what it did is in the history: free disk space; other voters may have it"
        );
        self.inner.change(shard, |shelf| shelf.begin(next));
    }

    /// The latest entries that are missing before later ones and can be looked for, if there are any.
    pub(crate) fn gap(&self, shard: ShardId) -> Option<Range<u64>> {
        lock(&self.inner.shelves).get(&shard)?.latest_gap()
    }

    /// Whether what is before an entry would only push out later ones: nothing is kept below it, and there is no room.
    pub(crate) fn is_full_below(&self, shard: ShardId, index: u64) -> bool {
        let shelves = lock(&self.inner.shelves);
        let bytes: u64 = shelves.values().map(Shelf::bytes).sum();
        let segment = self.inner.options.segment_bytes();
        bytes + segment > self.inner.options.bytes_max
            && shelves.get(&shard).is_some_and(|shelf| shelf.is_lowest(index))
    }

    /// Nobody has the changes of these entries: they are not looked for any more, and readers are told.
    pub(crate) fn lose(&self, shard: ShardId, range: Range<u64>) {
        tracing::warn!(%shard, from = range.start, end = range.end, "no voter has these entries in its history");
        self.inner.change(shard, |shelf| shelf.lose(range));
    }

    /// Waits until everything recorded so far is written, and syncs it; not for ever.
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
        if let Err(error) = self.persist() {
            tracing::warn!(%error, "cannot sync the history");
        }
    }

    /// Follows the first index whose changes are not readable yet.
    pub fn progress(&self, shard: ShardId) -> watch::Receiver<u64> {
        self.inner.progress_sender(shard).subscribe()
    }

    /// How the history of a shard stands.
    pub fn standing(&self, shard: ShardId) -> HistoryStanding {
        let queued_bytes = lock(&self.inner.queue).bytes as u64;
        let error =
            if self.is_failing() { lock(&self.inner.tables).as_ref().err().map(ToString::to_string) } else { None };
        let shelves = lock(&self.inner.shelves);
        let Some(shelf) = shelves.get(&shard) else {
            return HistoryStanding { queued_bytes, error, ..HistoryStanding::default() };
        };
        let (missing, lost) = shelf.missing();
        let (begins, next, bytes) = (shelf.floor(), shelf.next(), shelf.bytes());
        let given_back = shelf.given_back();
        HistoryStanding { begins, next, missing, lost, given_back, bytes, queued_bytes, error }
    }
}

impl Inner {
    fn new(dir: &Path, options: HistoryOptions, tables: Result<Tables, HistoryError>) -> Self {
        Self {
            dir: dir.to_owned(),
            options,
            tables: Mutex::new(tables),
            queue: Mutex::default(),
            wake: Condvar::new(),
            idle: Condvar::new(),
            failing: AtomicBool::new(false),
            writing: Mutex::new(()),
            shelves: Mutex::default(),
            progress: Mutex::default(),
            absent: false,
        }
    }

    fn tables(&self) -> Result<Tables, HistoryError> {
        lock(&self.tables).clone()
    }

    /// Changes what is known of a shard, and has those look again who wait for it.
    fn change(&self, shard: ShardId, change: impl FnOnce(&mut Shelf)) {
        if self.absent {
            return;
        }
        let next = {
            let mut shelves = lock(&self.shelves);
            let shelf = shelves.entry(shard).or_default();
            change(shelf);
            shelf.next()
        };
        self.progress_sender(shard).send_replace(next);
    }

    fn progress_sender(&self, shard: ShardId) -> watch::Sender<u64> {
        let next = lock(&self.shelves).get(&shard).map_or(0, Shelf::next);
        lock(&self.progress).entry(shard).or_insert_with(|| watch::channel(next).0).clone()
    }
}

#[cfg(test)]
mod tests;
