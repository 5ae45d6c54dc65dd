//! The journals of a node's agents: what the node knows of their commands, which no crash may take.
//!
//! They are kept as the shards' logs are: in a write-ahead log of their own, whose every record is numbered and
//! checksummed, written by one thread in groups. From time to time every journal is written anew, in as many records as
//! it takes, and the log before that is dropped: so the log always says everything, and no image of it has to fit into
//! one piece. A journal that forgot a command would do it again: so damage makes the node refuse to start.
//!
//! # When the disk is full
//!
//! Segments are kept ready for the ends of commands ([`limits::JOURNAL_SPARE_SEGMENTS`]), and an end is written without
//! its command. The inboxes learn how full the disk is ([`Journals::pressure`]): at first they take no new commands,
//! then they begin none, except urgent commands, which have one of these segments
//! ([`limits::JOURNAL_URGENT_BYTES_MAX`]). What finds no room even so waits for it, and is not reported before it is
//! durable.
//!
//! # What is forgotten
//!
//! A journal that holds nothing, and for which no agent takes commands, is kept until its agent returns. If there are
//! more of these than [`limits::JOURNALS_KEPT_MAX`], the one that was used longest ago is forgotten. That does no
//! command twice. An agent that returns after that gets a journal with another id, which the shard has not heard of:
//! everything that the shard may have handed to the former journal ends as indeterminate and is never delivered again,
//! and what no journal can have had is delivered under a home epoch that is greater than any before. The same happens
//! when an agent goes to another node. All that is lost is that a command which the forgotten journal was to get next
//! ends as indeterminate instead of being delivered.

mod book;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::codec::Encoded as _;
use skep_protocol::ids::{JournalId, ShardId};
use skep_protocol::journal::{JournalHead, JournalRecord, JournalState, JournalWrite};
pub use skep_protocol::journal::{JournalJob, JournalReport};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pressure::DiskPressure;
use tokio::sync::{mpsc, watch};

use super::disk::{Disk, SystemDisk};
use super::{LogPoint, OnFatal, Store, StoreError, StoreOptions};
use book::{Book, Told, Whose, bytes_of};

/// The shard number under which the log is in its store.
const LOG: ShardId = ShardId(0);
/// The number of records after which all journals are written anew, and the log before that is dropped. If writing them
/// took more than half of it, this is twice what that took.
const RECORDS_MAX: u64 = 4_096;
/// The number of the log's segments on disk, beside twice what the journals hold, from which on that is done sooner;
/// and the fewest records before it is done again.
const SEGMENTS_SOFT_MAX: u64 = 5 + limits::JOURNAL_SPARE_SEGMENTS as u64;
const RECORDS_MIN: u64 = 64;
/// Bytes of writes in one record.
const RECORD_BYTES_SOFT_MAX: usize = limits::ENTRY_BYTES_MAX / 2;
/// Bytes of journals that are written anew before the writer waits until they are durable.
const UNDER_WAY_BYTES_MAX: usize = limits::STORE_BATCH_BYTES_SOFT_MAX;

/// What an operator should do about journals that lost something, and only about these: wrong advice costs data.
const LOST: &str = ". Nothing was changed. They say which commands were started here; the data of shards is not among them and \
                    stays where it is. If they are moved away, the agents of this node get new journals, and commands whose end \
                    they had not reported count as indeterminate";

/// Why the journals cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("the journals in {path} cannot be read: {why}{advice}")]
pub struct JournalError {
    path: PathBuf,
    why: String,
    advice: &'static str,
}

impl JournalError {
    /// The error of journals whose content is not what was written.
    fn lost(dir: &Path, why: impl Into<String>) -> Self {
        Self { path: dir.to_owned(), why: why.into(), advice: LOST }
    }

    /// The error of the journals' store. Its text says what to do, unless something was lost.
    fn of_store(dir: &Path, error: &StoreError) -> Self {
        match error.lost() {
            Some(why) => Self::lost(dir, why),
            None => Self { path: dir.to_owned(), why: error.to_string(), advice: "" },
        }
    }
}

/// Handle of the journals. Cheap to clone; they close with the last one.
#[derive(Clone)]
pub struct Journals {
    jobs: mpsc::Sender<JournalJob>,
    pressure: watch::Receiver<DiskPressure>,
    on_fatal: OnFatal,
}

struct Keeper {
    store: Store,
    book: Book,
    /// Journals that hold nothing and that no inbox uses, by the record before which they were last used.
    released: BTreeSet<(u64, Whose)>,
    /// The next record, and the first one after all journals were written anew.
    next: u64,
    after_image: u64,
    /// How many records it took to write all of them anew.
    image_records: u64,
    reports: mpsc::Sender<JournalReport>,
    on_fatal: OnFatal,
}

impl Journals {
    /// Opens the journals in a directory. Also returns their reports: every journal that holds something is reported
    /// first. `random` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`JournalError`] if they are damaged, in use, or of another version of Skep.
    pub fn open(
        dir: &Path,
        random: [u8; 16],
        on_fatal: OnFatal,
    ) -> Result<(Self, mpsc::Receiver<JournalReport>), JournalError> {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        Self::open_on(&disk, dir, random, on_fatal)
    }

    fn open_on(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        random: [u8; 16],
        on_fatal: OnFatal,
    ) -> Result<(Self, mpsc::Receiver<JournalReport>), JournalError> {
        let (segment_bytes, low_water_bytes) = (limits::JOURNAL_SEGMENT_BYTES, limits::JOURNAL_LOW_WATER_BYTES);
        let options =
            StoreOptions { segment_bytes, low_water_bytes, on_fatal: on_fatal.clone(), ..StoreOptions::default() };
        let failed = |e: StoreError| JournalError::of_store(dir, &e);
        let store = Store::open_bare(disk, dir, random, options, limits::JOURNAL_SPARE_SEGMENTS).map_err(failed)?;
        Self::start(store, dir, on_fatal)
    }

    /// Reads the journals that a store holds, whose directory is named in errors.
    ///
    /// # Errors
    /// [`JournalError`] if they are damaged, or of another version of Skep.
    pub fn start(
        store: Store,
        dir: &Path,
        on_fatal: OnFatal,
    ) -> Result<(Self, mpsc::Receiver<JournalReport>), JournalError> {
        let (mut book, first, next) = read(&store, dir)?;
        let (jobs, jobs_in) = mpsc::channel(limits::JOURNAL_JOBS_QUEUED_MAX);
        let (reports, reports_in) = mpsc::channel(limits::JOURNAL_JOBS_QUEUED_MAX);
        let (pressure, released) = (store.pressures(), book.release_empty());
        let keeper = Keeper {
            store,
            book,
            released,
            next,
            after_image: first,
            image_records: 0,
            reports,
            on_fatal: on_fatal.clone(),
        };
        let spawned = std::thread::Builder::new().name("skep-journals".to_owned()).spawn(move || keeper.run(jobs_in));
        spawned.map_err(|e| JournalError { path: dir.to_owned(), why: e.to_string(), advice: "" })?;
        Ok((Self { jobs, pressure, on_fatal }, reports_in))
    }

    /// Submits a job. There is room for more than a node has under way; a write that cannot be kept ends the process.
    pub fn submit(&self, job: JournalJob) {
        if self.jobs.try_send(job).is_err() {
            (self.on_fatal)(&io::Error::other("the journals take no more writes"));
        }
    }

    /// Follows how full the disk of the journals is.
    pub fn pressure(&self) -> watch::Receiver<DiskPressure> {
        self.pressure.clone()
    }
}

/// Reads all journals from the records of the log; also returns the first of those records, and the next one.
fn read(store: &Store, dir: &Path) -> Result<(Book, u64, u64), JournalError> {
    let of_store = |e: StoreError| JournalError::of_store(dir, &e);
    let lost = |why: String| JournalError::lost(dir, why);
    if store.snapshots().load(LOG).map_err(of_store)?.is_some() {
        return Err(lost("they were written by an earlier Skep, which kept them in another way".to_owned()));
    }
    let (purged, last) = store.ends(LOG);
    let first = purged.map_or(0, |purged| purged.index + 1);
    let next = last.map_or(first, |last| last.index + 1);
    let (mut book, mut at) = (Book::default(), first);
    while at < next {
        let records = store.entries(LOG, at..next, limits::ENTRY_BYTES_MAX).map_err(of_store)?;
        let Some((last, _)) = records.last() else { return Err(lost(format!("record {at} is missing"))) };
        at = last.index + 1;
        for (point, bytes) in records {
            let record = JournalRecord::decode(&bytes).map_err(|e| lost(e.to_string()))?;
            let JournalRecord { shard, agent, writes } = record;
            book.apply(&(shard, agent), writes, point.index).map_err(lost)?;
        }
    }
    Ok((book, first, next))
}

impl Keeper {
    /// Works until no handle can send jobs.
    fn run(mut self, mut jobs: mpsc::Receiver<JournalJob>) {
        for (shard, agent) in self.book.whoses() {
            let journal = self.book.state(&(shard, agent.clone()));
            if let Some(journal) = journal.filter(|journal| !journal.entries.is_empty()) {
                self.report(JournalReport::Opened { shard, agent, journal: Box::new(journal) });
            }
        }
        while let Some(job) = jobs.blocking_recv() {
            let carried_out = self.carry_out(job).and_then(|()| self.forget()).and_then(|()| self.let_go());
            if let Err(why) = carried_out {
                return (self.on_fatal)(&io::Error::other(why));
            }
        }
    }

    fn report(&self, report: JournalReport) {
        tell(&self.reports, &self.on_fatal, report);
    }

    fn carry_out(&mut self, job: JournalJob) -> Result<(), String> {
        match job {
            JournalJob::Write { key, shard, agent, writes } => {
                let whose = (shard, agent);
                self.use_again(&whose);
                self.write(&whose, writes, Some(JournalReport::Written { key }))
            }
            JournalJob::Open { shard, agent } => {
                let whose = (shard, agent);
                self.use_again(&whose);
                // This goes behind everything of the journal that is not durable yet, also if there is nothing to
                // write.
                let (journal, writes) = match self.book.state(&whose) {
                    Some(journal) => (journal, Vec::new()),
                    None => {
                        let head = JournalHead::new(JournalId::from_bytes(rand::random()));
                        let stated = self.book.serials(shard);
                        (JournalState { stated, ..JournalState::new(head, Vec::new()) }, vec![JournalWrite::Head(head)])
                    }
                };
                let (shard, agent) = whose.clone();
                self.write(&whose, writes, Some(JournalReport::Opened { shard, agent, journal: Box::new(journal) }))
            }
            JournalJob::Release { shard, agent } => {
                self.release((shard, agent), self.next);
                Ok(())
            }
        }
    }

    fn use_again(&mut self, whose: &Whose) {
        if let Some(used) = self.book.use_again(whose) {
            self.released.remove(&(used, whose.clone()));
        }
    }

    fn release(&mut self, whose: Whose, record: u64) {
        if self.book.release(&whose, record) {
            self.released.insert((record, whose));
        }
    }

    /// Writes in records that fit; the report follows when the last of them is durable.
    fn write(&mut self, whose: &Whose, writes: Vec<JournalWrite>, report: Option<JournalReport>) -> Result<(), String> {
        self.book.apply(whose, writes.clone(), self.next)?;
        let entries = self.records(whose, writes)?;
        let (reports, on_fatal) = (self.reports.clone(), self.on_fatal.clone());
        let tell_all = move || {
            if let Some(report) = report {
                tell(&reports, &on_fatal, report);
            }
        };
        if is_on(Mutant::JournalNotSynced) {
            tell_all();
            return self.store.append(LOG, entries, || {}).map_err(|e| e.to_string());
        }
        self.store.append(LOG, entries, tell_all).map_err(|e| e.to_string())
    }

    /// Makes records of these writes, with the next indexes of the log.
    fn records(&mut self, whose: &Whose, writes: Vec<JournalWrite>) -> Result<Vec<(LogPoint, Bytes)>, String> {
        let mut records: Vec<Vec<JournalWrite>> = Vec::new();
        let mut bytes = 0;
        for write in writes {
            let of_write = bytes_of(&write);
            match records.last_mut() {
                Some(record) if bytes + of_write <= RECORD_BYTES_SOFT_MAX => record.push(write),
                _ => {
                    records.push(vec![write]);
                    bytes = 0;
                }
            }
            bytes += of_write;
        }
        let mut entries = Vec::with_capacity(records.len());
        for writes in records {
            let record = JournalRecord { shard: whose.0, agent: whose.1.clone(), writes };
            let bytes = record.encode().map_err(|e| e.to_string())?;
            entries.push((LogPoint { index: self.next, term: 0 }, Bytes::from(bytes)));
            self.next += 1;
        }
        Ok(entries)
    }

    /// Forgets the unused journals that were used longest ago, if there are too many of them.
    fn forget(&mut self) -> Result<(), String> {
        while self.released.len() > limits::JOURNALS_KEPT_MAX && !self.store.is_exhausted() {
            let Some((_, whose)) = self.released.pop_first() else { break };
            self.write(&whose, vec![JournalWrite::Forget], None)?;
        }
        Ok(())
    }

    /// Writes all journals anew from time to time, and drops the log before that. If there is no room for that, the log
    /// grows, and is dropped once there is.
    fn let_go(&mut self) -> Result<(), String> {
        let records = self.next - self.after_image;
        let (segments, holds) = (self.store.log_segments(), self.book.bytes().div_ceil(self.store.segment_bytes()));
        let is_large = records >= RECORDS_MIN && segments > SEGMENTS_SOFT_MAX + 2 * holds;
        let is_long = is_large || records >= RECORDS_MAX.max(2 * self.image_records);
        if !is_long || !self.store.has_room_for(self.book.bytes()) {
            return Ok(());
        }
        let first = self.next;
        let (mut under_way, mut told) = (0, Told::new());
        for whose in self.in_order_of_use() {
            let Some(writes) = self.book.writes_of(&whose, &mut told) else { continue };
            under_way += writes.iter().map(bytes_of).sum::<usize>();
            let entries = self.records(&whose, writes)?;
            self.store.append(LOG, entries, || {}).map_err(|e| e.to_string())?;
            if under_way > UNDER_WAY_BYTES_MAX {
                under_way = 0;
                self.wait_until_durable()?;
                if self.store.is_exhausted() {
                    // What was written anew does no harm, and takes no more of the room for ends.
                    self.after_image = self.next;
                    return Ok(());
                }
            }
        }
        let last = LogPoint { index: first - 1, term: 0 };
        self.store.purge(LOG, last).map_err(|e| e.to_string())?;
        (self.after_image, self.image_records) = (self.next, self.next - first);
        Ok(())
    }

    /// The unused journals come first, in the order in which they were used: a restart learns that order from it.
    fn in_order_of_use(&mut self) -> Vec<Whose> {
        let mut order: Vec<Whose> = std::mem::take(&mut self.released).into_iter().map(|(_, whose)| whose).collect();
        for (at, whose) in (self.next..).zip(&order) {
            self.book.use_again(whose);
            self.release(whose.clone(), at);
        }
        let others = self.book.whoses().into_iter().filter(|whose| !self.book.is_released(whose));
        order.extend(others);
        order
    }

    /// Waits until everything that was written is durable, so that memory does not hold all of it twice.
    fn wait_until_durable(&self) -> Result<(), String> {
        let (done, durable) = std::sync::mpsc::channel();
        let waited = self.store.append(LOG, Vec::new(), move || {
            let _ = done.send(());
        });
        waited.map_err(|e| e.to_string())?;
        durable.recv().map_err(|_| StoreError::Closed.to_string())
    }
}

fn tell(reports: &mpsc::Sender<JournalReport>, on_fatal: &OnFatal, report: JournalReport) {
    match reports.try_send(report) {
        // No receiver is left: the node is stopping.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            on_fatal(&io::Error::other("no receiver takes the reports of the journals"))
        }
    }
}

#[cfg(test)]
mod tests;
