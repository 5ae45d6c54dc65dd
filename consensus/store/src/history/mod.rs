//! The history of changes, by index and by task.
//!
//! # Contract
//!
//! What an entry did is kept beside the log: in memory at once, where it can be read, and in tables later, many entries at a
//! time ([`flush`]). Until it is there durably the log keeps the entry: no snapshot is made that covers an entry whose changes
//! are in no table ([`History::reaches`]), and nothing is purged that no snapshot covers. So the history needs no journal of
//! its own, and whatever a crash, an error or an overflow takes is written again: from memory, which keeps what could not be
//! written; by the next process, which applies the log again from its snapshot; or out of the log, or from another voter, by
//! whoever fills gaps. Only on a disk that is nearly full, and after a while, is the log let go of all the same
//! ([`History::let_go`]); what is missing then is a gap that readers and the shard's status are told of.
//!
//! Nothing here can stop the node: while the history is behind, what brings work is refused and what ends it goes on
//! ([`History::is_behind`]). A database is set aside only if it is damaged. Rows carry their own checksums, since the
//! database underneath does not promise to notice every flipped bit.
//!
//! It is kept for a time and a number of bytes ([`HistoryOptions`]), and goes by whole segments ([`shelf`]): sooner on a disk
//! that is nearly full, where the log and what ends work come first. Whoever asks for what is gone is told where the history
//! begins.

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

/// How long whoever waits for everything to be written waits.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// How often whoever waits for room looks.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is shared by the handles, and the threads that write.
struct Inner {
    dir: PathBuf,
    options: HistoryOptions,
    tables: Mutex<Result<Tables, HistoryError>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: Condvar,
    /// Something may be due to be written.
    due: Condvar,
    /// Why the last write failed, if it did.
    failure: Mutex<Option<HistoryError>>,
    /// Held by whoever writes tables, or lets go of segments: who does what is in the order of what the segments say.
    writing: Mutex<()>,
    stands: Mutex<BTreeMap<ShardId, Stand>>,
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
    /// Takes what is recorded into memory.
    taking: Option<JoinHandle<()>>,
    /// Writes that into tables.
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

    /// None: nothing is kept, nothing can be read, and nothing waits for it.
    pub(super) fn absent() -> Self {
        let none = Err(HistoryError::passing("there is none"));
        let inner = Inner { absent: true, ..Inner::new(Path::new(""), HistoryOptions::default(), none) };
        lock(&inner.queue).closed = true;
        let inner = Arc::new(inner);
        Self { _closer: Arc::new(Closer { inner: Arc::clone(&inner), taking: None, flushing: None }), inner }
    }

    /// Takes note of what the entry at an index changed; none if it is one that changes nothing. Never waits. What is there
    /// already, since the log is applied again after a start, is left as it is.
    pub fn record(&self, shard: ShardId, index: u64, set: Option<ChangeSet>) {
        if self.inner.absent || lock(&self.inner.stands).get(&shard).is_some_and(|stand| stand.holds(index)) {
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
    pub async fn room(&self, until: tokio::time::Instant) {
        while self.is_behind() && !self.is_failing() && tokio::time::Instant::now() < until {
            tokio::time::sleep(ROOM_LOOK_EVERY).await;
        }
    }

    /// The state of a shard goes on from an index: nothing before it is applied again.
    pub fn begin(&self, shard: ShardId, next: u64) {
        self.inner.change(shard, |shelf| shelf.begin(next));
    }

    /// A snapshot covers everything before an index durably: nothing before it is applied again after a start.
    pub fn covered_by_snapshot(&self, shard: ShardId, next: u64) {
        self.inner.change(shard, |shelf| shelf.set_base(next));
    }

    /// Whether the changes of everything before an index are in tables durably, but those of entries that the log did not
    /// hold any more when they were found missing: this is the mark that no snapshot passes.
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

    /// Whether nothing can be written now.
    pub fn is_failing(&self) -> bool {
        self.inner.is_failing()
    }

    /// Whether a snapshot would wait for long: nothing can be written, or something is missing that the log still holds.
    pub fn is_held_back(&self, shard: ShardId) -> bool {
        let is_missing = || lock(&self.inner.stands).get(&shard).is_some_and(|stand| stand.seen().is_held_back());
        !self.inner.absent && (self.is_failing() || is_missing())
    }

    /// The first index that the log can be applied again from.
    pub fn base(&self, shard: ShardId) -> u64 {
        lock(&self.inner.stands).get(&shard).map_or(0, |stand| stand.kept.base())
    }

    /// Writes everything that is in memory, durably. Waits for a disk, and not for one that failed a moment ago: that is
    /// tried again by itself.
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

    /// The last resort: the log is let go of before an index, whatever is missing here. What is still queued is written if
    /// it can be; whatever is not is a gap.
    pub fn let_go(&self, shard: ShardId, next: u64) {
        let held = lock(&self.inner.stands).get(&shard).map_or(0, |stand| stand.kept.next());
        tracing::error!(
            %shard, from = held, end = next,
            "the log is let go of before what it did is in the history: free disk space; other voters may have it"
        );
        self.inner.change(shard, |shelf| shelf.begin(next));
    }

    /// The latest entries that are missing before later ones and can be looked for, if there are any.
    pub fn gap(&self, shard: ShardId) -> Option<Range<u64>> {
        lock(&self.inner.stands).get(&shard)?.seen().latest_gap()
    }

    /// Whether what is before an entry would only push out later ones: nothing is kept below it, and there is no room.
    pub fn is_full_below(&self, shard: ShardId, index: u64) -> bool {
        let stands = lock(&self.inner.stands);
        let bytes: u64 = stands.values().map(|stand| stand.kept.bytes()).sum();
        let segment = self.inner.options.segment_bytes();
        bytes + segment > self.inner.options.bytes_max
            && stands.get(&shard).is_some_and(|stand| stand.kept.is_lowest(index))
    }

    /// Nobody has the changes of these entries: they are not looked for any more, and readers are told.
    pub fn lose(&self, shard: ShardId, range: Range<u64>) {
        tracing::warn!(%shard, from = range.start, end = range.end, "no voter has these entries in its history");
        self.inner.change(shard, |shelf| shelf.lose(range));
    }

    /// Waits until everything recorded so far is in tables, durably; not for ever.
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

    /// How the history of a shard stands.
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

    /// A thread that does its part; none if there is none to be had, so that the history is out of service.
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

    /// Changes what is known of a shard's tables, and has those look again who wait for it.
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
