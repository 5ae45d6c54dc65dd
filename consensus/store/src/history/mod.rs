//! The history of changes, by index and by task.
//!
//! # Contract
//!
//! What an entry did is kept beside the log: at once in memory, where it can be read, and later in tables, many entries
//! at a time ([`flush`]). Until it is durable in tables the log keeps the entry: no snapshot is made that covers an
//! entry whose changes are in no table ([`History::reaches`]), and nothing is purged that no snapshot covers. So the
//! history needs no journal of its own. What a crash, an error or an overflow takes is written again: from memory,
//! which keeps what could not be written; by the next process, which applies the log again from its snapshot; or by the
//! part of the node that fills gaps, out of the log or from another voter. Only on a disk that is nearly full, and
//! after a while, is the log purged all the same ([`History::let_go`]); what is missing then is a gap, which readers
//! and the shard's status show.
//!
//! Nothing here can stop the node: while the history is behind, requests that bring work are refused and requests that
//! end work go on ([`History::is_behind`]). A database is set aside only if it is damaged. Rows carry their own
//! checksums, since the database underneath does not promise to notice every flipped bit.
//!
//! The history is kept for a time and up to a number of bytes ([`HistoryOptions`]), and is dropped by whole segments
//! ([`shelf`]): sooner on a disk that is nearly full, where the log and the end of work come first. A reader that asks
//! for a part that is gone is told where the history begins.

mod flush;
mod pending;
mod read;
mod retain;
mod shelf;
mod tables;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use skep_protocol::change::ChangeSet;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::shard_status::HistoryStanding;
use tokio::sync::watch;

use pending::Stand;
pub use read::{ChangesFound, TransitionsFound};
pub use shelf::HistoryOptions;
use shelf::Shelf;
pub use tables::HistoryError;
use tables::Tables;
pub use tables::set_bytes;
use writer::{Item, Queue};

use super::lock;

/// How long a caller waits at most until everything is written.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// How often a caller that waits for room checks.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the handles share with the threads that write.
struct Inner {
    dir: PathBuf,
    options: HistoryOptions,
    tables: Mutex<Result<Tables, HistoryError>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: Condvar,
    /// Signals that something may be due to be written.
    due: Condvar,
    /// Why the last write failed; none if it did not.
    failure: Mutex<Option<HistoryError>>,
    /// Held by a thread that writes tables, or drops segments: so these steps happen in the order that the segments
    /// record.
    writing: Mutex<()>,
    stands: Mutex<BTreeMap<ShardId, Stand>>,
    progress: Mutex<BTreeMap<ShardId, watch::Sender<u64>>>,
    /// Whether this node keeps no history at all.
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
    /// Takes what is recorded into memory.
    taking: Option<JoinHandle<()>>,
    /// Writes the rows in memory into tables.
    flushing: Option<JoinHandle<()>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        lock(&self.inner.queue).closed = true;
        self.inner.wake.notify_all();
        if let Some(thread) = self.taking.take() {
            let _ = thread.join();
        }
        lock(&self.inner.queue).drained = true;
        self.inner.due.notify_all();
        if let Some(thread) = self.flushing.take() {
            let _ = thread.join();
        }
    }
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
        let failure = Mutex::new(tables.as_ref().err().cloned());
        let stands = shelves.into_iter().map(|(shard, kept)| (shard, Stand::of(kept))).collect();
        let inner = Arc::new(Inner { stands: Mutex::new(stands), failure, ..Inner::new(dir, options, tables) });
        let taking = inner.spawn("skep-history", Inner::run);
        let flushing = inner.spawn("skep-tables", Inner::run_flushes);
        let closer = Closer { inner: Arc::clone(&inner), taking, flushing };
        Self { _closer: Arc::new(closer), inner }
    }

    /// An absent history: it keeps nothing, nothing can be read, and nothing waits for it.
    pub(super) fn absent() -> Self {
        let none = Err(HistoryError::passing("there is none"));
        let inner = Inner { absent: true, ..Inner::new(Path::new(""), HistoryOptions::default(), none) };
        lock(&inner.queue).closed = true;
        let inner = Arc::new(inner);
        Self { _closer: Arc::new(Closer { inner: Arc::clone(&inner), taking: None, flushing: None }), inner }
    }

    /// Records what the entry at an index changed; none if the entry changes nothing. Never waits. What is there
    /// already, since the log is applied again after a start, is left as it is.
    pub fn record(&self, shard: ShardId, index: u64, set: Option<ChangeSet>) {
        if self.inner.absent || lock(&self.inner.stands).get(&shard).is_some_and(|stand| stand.holds(index)) {
            return;
        }
        let mut queue = lock(&self.inner.queue);
        if queue.closed || queue.bytes > limits::HISTORY_QUEUED_BYTES_MAX {
            // This one is dropped: the next one that is written shows the gap.
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

    /// Whether so much waits to be written that requests that bring work have to wait.
    pub fn is_behind(&self) -> bool {
        lock(&self.inner.queue).bytes > limits::HISTORY_QUEUED_BYTES_SOFT_MAX
    }

    /// Waits while the history is written more slowly than entries are applied, until an instant at the latest. Does
    /// not wait for a history that cannot be written at all: that takes too long.
    pub async fn room(&self, until: tokio::time::Instant) {
        while self.is_behind() && !self.is_failing() && tokio::time::Instant::now() < until {
            tokio::time::sleep(ROOM_LOOK_EVERY).await;
        }
    }

    /// Notes that the state of a shard continues from an index: nothing before it is applied again.
    pub fn begin(&self, shard: ShardId, next: u64) {
        self.inner.change(shard, |shelf| shelf.begin(next));
    }

    /// Notes that a snapshot covers everything before an index durably: nothing before it is applied again after a
    /// start.
    pub fn covered_by_snapshot(&self, shard: ShardId, next: u64) {
        self.inner.change(shard, |shelf| shelf.set_base(next));
    }

    /// Whether the changes of everything before an index are durable in tables, except for those of entries that the
    /// log had already dropped when the gap was found. No snapshot passes this mark.
    pub fn reaches(&self, shard: ShardId, next: u64) -> bool {
        let reaches = |stand: &Stand| {
            let is_kept = stand.kept.reaches(next);
            is_kept || (is_on(Mutant::HistoryInMemoryOnly) && stand.seen().reaches(next))
        };
        self.inner.absent || lock(&self.inner.stands).get(&shard).map_or(next == 0, reaches)
    }

    /// Whether [`persist`](Self::persist) would make it [reach](Self::reaches) an index: what it lacks is in memory.
    pub fn can_reach(&self, shard: ShardId, next: u64) -> bool {
        let seen = lock(&self.inner.stands).get(&shard).map(Stand::seen);
        !self.is_failing() && seen.is_some_and(|seen| seen.reaches(next))
    }

    /// Whether nothing can be written at present.
    pub fn is_failing(&self) -> bool {
        self.inner.is_failing()
    }

    /// Whether a snapshot would wait for long: nothing can be written, or something is missing that the log still
    /// holds.
    pub fn is_held_back(&self, shard: ShardId) -> bool {
        let is_missing = || lock(&self.inner.stands).get(&shard).is_some_and(|stand| stand.seen().is_held_back());
        !self.inner.absent && (self.is_failing() || is_missing())
    }

    /// The first index from which the log can be applied again.
    pub fn base(&self, shard: ShardId) -> u64 {
        lock(&self.inner.stands).get(&shard).map_or(0, |stand| stand.kept.base())
    }

    /// Writes everything that is in memory, durably. Waits for a disk, but not for one that failed a moment ago: the
    /// history tries that again by itself.
    ///
    /// # Errors
    /// [`HistoryError`] if the database fails.
    pub fn persist(&self) -> Result<(), HistoryError> {
        if self.inner.absent {
            return Ok(());
        }
        let failed = lock(&self.inner.failure).clone();
        failed.map_or_else(|| self.inner.flush(), Err)
    }

    /// The last resort: the log is purged before an index, whatever is missing here. What is still queued is written if
    /// it can be; the rest is a gap.
    pub fn let_go(&self, shard: ShardId, next: u64) {
        let held = lock(&self.inner.stands).get(&shard).map_or(0, |stand| stand.kept.next());
        tracing::error!(
            %shard, from = held, end = next,
            "the log is dropped before its changes are in the history: free disk space; other voters may have the changes"
        );
        self.inner.change(shard, |shelf| shelf.begin(next));
    }

    /// The latest entries that are missing before later ones and can be looked for; none if there are none.
    pub fn gap(&self, shard: ShardId) -> Option<Range<u64>> {
        lock(&self.inner.stands).get(&shard)?.seen().latest_gap()
    }

    /// Whether an entry below this index would only push out later ones: the history keeps nothing below it, and has no
    /// room.
    pub fn is_full_below(&self, shard: ShardId, index: u64) -> bool {
        let stands = lock(&self.inner.stands);
        let bytes: u64 = stands.values().map(|stand| stand.kept.bytes()).sum();
        let segment = self.inner.options.segment_bytes();
        bytes + segment > self.inner.options.bytes_max
            && stands.get(&shard).is_some_and(|stand| stand.kept.is_lowest(index))
    }

    /// Declares the changes of these entries lost, since no voter has them: they are not looked for, and readers are
    /// told.
    pub fn lose(&self, shard: ShardId, range: Range<u64>) {
        tracing::warn!(%shard, from = range.start, end = range.end, "no voter has these entries in its history");
        self.inner.change(shard, |shelf| shelf.lose(range));
    }

    /// Waits until everything recorded so far is durable in tables; not for ever.
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
        while let Err(error) = self.persist() {
            if Instant::now() >= deadline {
                tracing::warn!(%error, "cannot sync the history");
                return;
            }
            std::thread::sleep(ROOM_LOOK_EVERY);
        }
    }

    /// Follows the first index whose changes are not readable yet.
    pub fn progress(&self, shard: ShardId) -> watch::Receiver<u64> {
        self.inner.progress_sender(shard).subscribe()
    }

    /// The standing of a shard's history.
    pub fn standing(&self, shard: ShardId) -> HistoryStanding {
        let queued_bytes = lock(&self.inner.queue).bytes as u64;
        let error = lock(&self.inner.failure).as_ref().map(ToString::to_string);
        let Some(shelf) = lock(&self.inner.stands).get(&shard).map(Stand::seen) else {
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
            due: Condvar::new(),
            failure: Mutex::default(),
            writing: Mutex::new(()),
            stands: Mutex::default(),
            progress: Mutex::default(),
            absent: false,
        }
    }

    /// Starts a thread of the history; none if the system has none to give, so that the history is out of service.
    fn spawn(self: &Arc<Self>, name: &str, run: impl FnOnce(&Self) + Send + 'static) -> Option<JoinHandle<()>> {
        let worker = Arc::clone(self);
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(Arc::as_ref(&worker)));
        if let Err(error) = &spawned {
            tracing::error!(%error, "there is no thread to write the history");
            let error = HistoryError::passing(format!("no thread for it: {error}"));
            *lock(&self.tables) = Err(error.clone());
            *lock(&self.failure) = Some(error);
        }
        spawned.ok()
    }

    fn tables(&self) -> Result<Tables, HistoryError> {
        lock(&self.tables).clone()
    }

    fn is_failing(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Changes what is known of a shard's tables, and wakes the threads and readers that wait for it.
    fn change(&self, shard: ShardId, change: impl FnOnce(&mut Shelf)) {
        if self.absent {
            return;
        }
        let next = {
            let mut stands = lock(&self.stands);
            let stand = stands.entry(shard).or_default();
            change(&mut stand.kept);
            stand.next()
        };
        self.progress_sender(shard).send_replace(next);
    }

    fn progress_sender(&self, shard: ShardId) -> watch::Sender<u64> {
        let next = lock(&self.stands).get(&shard).map_or(0, Stand::next);
        lock(&self.progress).entry(shard).or_insert_with(|| watch::channel(next).0).clone()
    }
}

#[cfg(test)]
mod tests;
