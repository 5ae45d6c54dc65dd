//! The journals of a node's agents: what it knows of their commands, and no crash may take from it.
//!
//! They are kept as the shards' logs are: in a write-ahead log of their own, whose every record is numbered and
//! checksummed, written by one thread in groups; and now and then all of them together, so that the log can be let go of.
//! A journal that forgot what it had would do it again: damage makes the node refuse to start.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use skep_protocol::codec::Encoded as _;
use skep_protocol::command::DeliverySeq;
use skep_protocol::ids::{JournalId, ShardId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalImage, JournalRecord, JournalState, JournalWrite};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::AgentId;
use tokio::sync::mpsc;

use super::{LogPoint, OnFatal, Store, StoreError, StoreOptions, StoredSnapshot};

/// The log's place in its store.
const LOG: ShardId = ShardId(0);
/// Its segments are small: few robots' commands fill one in a day.
const SEGMENT_BYTES: u64 = 2 * 1024 * 1024;
/// Records after which all journals are written together, and the log before that is let go of.
const RECORDS_MAX: u64 = 4_096;
/// Bytes of the log on disk from which on that is done sooner, and records after which it is done again at the earliest.
const LOG_BYTES_SOFT_MAX: u64 = 6 * SEGMENT_BYTES;
const RECORDS_MIN: u64 = 64;
/// Bytes of writes in one record.
const RECORD_BYTES_SOFT_MAX: usize = limits::ENTRY_BYTES_MAX / 2;
/// About how many bytes a write takes beside its arguments and results.
const WRITE_BYTES: usize = 2_048;

/// Why the journals cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journals in {path} cannot be read: {why}. They say which commands were started here. If they are moved away, the \
     agents of this node get new ones, and what they had not reported counts as indeterminate"
)]
pub struct JournalError {
    path: PathBuf,
    why: String,
}

/// What is wanted of the journals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalJob {
    /// Tell the journal of an agent; a new one if there is none.
    Open {
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
    },
    /// Write all of this, in order. A crash may leave the first of it.
    Write {
        /// A name for the report.
        key: u64,
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
        /// What.
        writes: Vec<JournalWrite>,
    },
}

/// What the journals report. For each agent in the order of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReport {
    /// A journal.
    Opened {
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
        /// The journal.
        journal: JournalState,
    },
    /// It is written, and no crash undoes it.
    Written {
        /// Its name.
        key: u64,
    },
}

/// Handle of the journals. Cheap to clone; they close with the last one.
#[derive(Clone)]
pub struct Journals {
    jobs: mpsc::Sender<JournalJob>,
    on_fatal: OnFatal,
}

#[derive(Clone, Debug)]
struct Journal {
    head: JournalHead,
    entries: BTreeMap<DeliverySeq, JournalEntry>,
}

type All = BTreeMap<(ShardId, AgentId), Journal>;

struct Keeper {
    store: Store,
    all: All,
    /// The record that is written next, and the first one that is not in the image.
    next: u64,
    image_next: u64,
    reports: mpsc::Sender<JournalReport>,
    on_fatal: OnFatal,
}

impl Journals {
    /// Opens the journals in a directory. Also returns what they report: every journal that holds something comes first.
    /// `random` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`JournalError`] if they are damaged, in use, or of a newer Skep.
    pub fn open(
        dir: &Path,
        random: [u8; 16],
        on_fatal: OnFatal,
    ) -> Result<(Self, mpsc::Receiver<JournalReport>), JournalError> {
        let options =
            StoreOptions { segment_bytes: SEGMENT_BYTES, on_fatal: on_fatal.clone(), ..StoreOptions::default() };
        let failed = |e: StoreError| JournalError { path: dir.to_owned(), why: e.to_string() };
        let store = Store::open_bare(dir, random, options).map_err(failed)?;
        Self::start(store, dir, on_fatal)
    }

    /// The journals that a store holds.
    pub(crate) fn start(
        store: Store,
        dir: &Path,
        on_fatal: OnFatal,
    ) -> Result<(Self, mpsc::Receiver<JournalReport>), JournalError> {
        let failed = |why: String| JournalError { path: dir.to_owned(), why };
        let (all, image_next, next) = read(&store).map_err(failed)?;
        let (jobs, jobs_in) = mpsc::channel(limits::JOURNAL_JOBS_QUEUED_MAX);
        let (reports, reports_in) = mpsc::channel(limits::JOURNAL_JOBS_QUEUED_MAX);
        let keeper = Keeper { store, all, next, image_next, reports, on_fatal: on_fatal.clone() };
        let spawned = std::thread::Builder::new().name("skep-journals".to_owned()).spawn(move || keeper.run(jobs_in));
        spawned.map_err(|e| failed(e.to_string()))?;
        Ok((Self { jobs, on_fatal }, reports_in))
    }

    /// Has something done. There is room for more than a node has under way; a write that could not be kept would end the
    /// process.
    pub fn submit(&self, job: JournalJob) {
        if self.jobs.try_send(job).is_err() {
            (self.on_fatal)(&io::Error::other("the journals take no more writes"));
        }
    }
}

/// All journals: the image, and the records behind it.
fn read(store: &Store) -> Result<(All, u64, u64), String> {
    let snapshot = store.snapshots().load(LOG).map_err(|e| e.to_string())?;
    let (purged, last) = store.ends(LOG);
    let image_next = snapshot.as_ref().map_or(0, |snapshot| snapshot.index + 1);
    if purged.is_some_and(|purged| purged.index >= image_next) {
        return Err("the image of what the log let go of is missing".to_owned());
    }
    let mut all = All::new();
    if let Some(snapshot) = snapshot {
        for (shard, agent, state) in JournalImage::decode(&snapshot.data).map_err(|e| e.to_string())?.journals {
            let entries = state.entries.into_iter().map(|entry| (entry.seq, entry)).collect();
            all.insert((shard, agent), Journal { head: state.head, entries });
        }
    }
    let next = last.map_or(image_next, |last| (last.index + 1).max(image_next));
    if last.or(purged).map_or(0, |last| last.index + 1) < image_next {
        // The image became durable before the records that it holds: they are not missed.
        store.purge(LOG, LogPoint { index: image_next - 1, term: 0 }).map_err(|e| e.to_string())?;
    }
    let mut at = image_next;
    while at < next {
        let records = store.entries(LOG, at..next, limits::ENTRY_BYTES_MAX).map_err(|e| e.to_string())?;
        let Some((last, _)) = records.last() else { return Err(format!("record {at} is missing")) };
        at = last.index + 1;
        for (_, bytes) in records {
            let JournalRecord { shard, agent, writes } = JournalRecord::decode(&bytes).map_err(|e| e.to_string())?;
            apply(&mut all, (shard, agent), writes)?;
        }
    }
    Ok((all, image_next, next))
}

fn apply(all: &mut All, whose: (ShardId, AgentId), writes: Vec<JournalWrite>) -> Result<(), String> {
    for write in writes {
        let journal = all.get_mut(&whose);
        match (write, journal) {
            (JournalWrite::Head(head), Some(journal)) => journal.head = head,
            (JournalWrite::Head(head), None) => {
                all.insert(whose.clone(), Journal { head, entries: BTreeMap::new() });
            }
            (JournalWrite::Put(entry), Some(journal)) => drop(journal.entries.insert(entry.seq, entry)),
            (JournalWrite::Remove(seq), Some(journal)) => drop(journal.entries.remove(&seq)),
            (JournalWrite::Put(_) | JournalWrite::Remove(_), None) => {
                return Err(format!("the journal of agent {} has no head", whose.1));
            }
        }
    }
    Ok(())
}

fn bytes_of(write: &JournalWrite) -> usize {
    match write {
        JournalWrite::Put(entry) => {
            let result = match &entry.phase {
                skep_protocol::journal::JournalPhase::Ended {
                    outcome: skep_protocol::command::CommandOutcome::Succeeded { result },
                } => result.len(),
                _ => 0,
            };
            WRITE_BYTES + entry.command.command.args.len() + result
        }
        JournalWrite::Head(_) | JournalWrite::Remove(_) => 256,
    }
}

impl Keeper {
    /// Works until nobody has jobs any more.
    fn run(mut self, mut jobs: mpsc::Receiver<JournalJob>) {
        let whoses: Vec<_> = self.all.keys().cloned().collect();
        for (shard, agent) in whoses {
            let journal = self.state(&(shard, agent.clone()));
            if let Some(journal) = journal.filter(|journal| !journal.entries.is_empty()) {
                self.report(JournalReport::Opened { shard, agent, journal });
            }
        }
        while let Some(job) = jobs.blocking_recv() {
            let carried_out = self.carry_out(job).and_then(|()| self.let_go());
            if let Err(why) = carried_out {
                return (self.on_fatal)(&io::Error::other(why));
            }
        }
    }

    fn report(&self, report: JournalReport) {
        tell(&self.reports, &self.on_fatal, report);
    }

    fn state(&self, whose: &(ShardId, AgentId)) -> Option<JournalState> {
        let journal = self.all.get(whose)?;
        Some(JournalState { head: journal.head, entries: journal.entries.values().cloned().collect() })
    }

    fn carry_out(&mut self, job: JournalJob) -> Result<(), String> {
        match job {
            JournalJob::Write { key, shard, agent, writes } => {
                self.write((shard, agent), writes, JournalReport::Written { key })
            }
            JournalJob::Open { shard, agent } => {
                let whose = (shard, agent);
                let fresh = || JournalHead::new(JournalId::from_bytes(rand::random()));
                let known = self.state(&whose);
                let journal = known.unwrap_or_else(|| JournalState { head: fresh(), entries: Vec::new() });
                // Behind whatever of it is not durable yet, also if it is known.
                let head = journal.head;
                let (shard, agent) = whose.clone();
                self.write(whose, vec![JournalWrite::Head(head)], JournalReport::Opened { shard, agent, journal })
            }
        }
    }

    /// Writes in records that fit; the report follows when the last of them is durable.
    fn write(
        &mut self,
        whose: (ShardId, AgentId),
        writes: Vec<JournalWrite>,
        report: JournalReport,
    ) -> Result<(), String> {
        apply(&mut self.all, whose.clone(), writes.clone())?;
        let mut records: Vec<Vec<JournalWrite>> = vec![Vec::new()];
        let mut bytes = 0;
        for write in writes {
            let of_write = bytes_of(&write);
            if bytes + of_write > RECORD_BYTES_SOFT_MAX && bytes > 0 {
                records.push(Vec::new());
                bytes = 0;
            }
            bytes += of_write;
            if let Some(record) = records.last_mut() {
                record.push(write);
            }
        }
        let mut entries = Vec::with_capacity(records.len());
        for writes in records {
            let record = JournalRecord { shard: whose.0, agent: whose.1.clone(), writes };
            let bytes = record.encode().map_err(|e| e.to_string())?;
            entries.push((LogPoint { index: self.next, term: 0 }, Bytes::from(bytes)));
            self.next += 1;
        }
        let (reports, on_fatal) = (self.reports.clone(), self.on_fatal.clone());
        if is_on(Mutant::JournalNotSynced) {
            tell(&reports, &on_fatal, report);
            return self.store.append(LOG, entries, || {}).map_err(|e| e.to_string());
        }
        let done = move || tell(&reports, &on_fatal, report);
        self.store.append(LOG, entries, done).map_err(|e| e.to_string())
    }

    /// Writes all journals together now and then, and lets go of the log before.
    fn let_go(&mut self) -> Result<(), String> {
        let records = self.next - self.image_next;
        let is_long = records >= RECORDS_MAX || (records >= RECORDS_MIN && self.store.log_bytes() > LOG_BYTES_SOFT_MAX);
        if !is_long {
            return Ok(());
        }
        let text = |e: StoreError| e.to_string();
        let all = self.all.keys().filter_map(|whose| Some((whose.0, whose.1.clone(), self.state(whose)?)));
        let data = JournalImage { journals: all.collect() }.encode().map_err(|e| e.to_string())?;
        if !self.store.has_room_for(data.len() as u64) {
            // The log goes on; it is let go of once there is room.
            return Ok(());
        }
        let last = LogPoint { index: self.next - 1, term: 0 };
        let snapshot = StoredSnapshot { index: last.index, meta: Bytes::new(), data: Bytes::from(data) };
        self.store.snapshots().save(LOG, &snapshot).map_err(text)?;
        self.store.purge(LOG, last).map_err(text)?;
        self.image_next = self.next;
        Ok(())
    }
}

fn tell(reports: &mpsc::Sender<JournalReport>, on_fatal: &OnFatal, report: JournalReport) {
    match reports.try_send(report) {
        // Nobody listens any more: the node is stopping.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        Err(mpsc::error::TrySendError::Full(_)) => on_fatal(&io::Error::other("nobody hears what the journals report")),
    }
}

#[cfg(test)]
mod tests;
