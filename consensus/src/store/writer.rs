//! The one thread that writes the log.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use skep_protocol::ids::{Incarnation, ShardId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};

use super::disk::Disk;
use super::progress::Mark;
use super::record::{self, EntryBody, Header, RecordKind, two};
use super::segment::{self, Segment};
use super::shard_log::{LogPoint, Place, ShardLog};
use super::tail::Tail;
use super::{Shared, StoreOptions, WrittenBytes, lock};

/// How often the free space is looked at.
const SPACE_CHECK_EVERY: Duration = Duration::from_millis(500);
/// Segments beyond which entries of quiet shards are moved out of the oldest one.
const SEGMENTS_KEPT: usize = 8;

/// Called after the fsync.
pub(super) type Done = Box<dyn FnOnce() + Send>;

/// What the writer is asked to do.
pub(super) enum Write {
    Vote { shard: ShardId, vote: Bytes, done: Done },
    Append { shard: ShardId, entries: Vec<(LogPoint, Bytes)>, done: Done },
    Truncate { shard: ShardId, end: u64 },
    Purge { shard: ShardId, upto: LogPoint },
}

/// Everything a writer starts from.
pub(super) struct Setup {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) incarnation: Incarnation,
    pub(super) options: StoreOptions,
    pub(super) active: Arc<Segment>,
    pub(super) spare: Option<Arc<Segment>>,
    pub(super) end: u64,
    pub(super) next_seq: u64,
    /// The oldest segment that a restart needs, as the log says.
    pub(super) kept: u64,
    pub(super) mark: Mark,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Writer {
    setup: Setup,
    /// The last sequence number that is durable.
    synced: u64,
    /// The last one of which the mark says so.
    marked: u64,
    /// Where the buffer goes.
    tail: Tail,
    buffer: Vec<u8>,
    /// What the bytes of the buffer are.
    counted: WrittenBytes,
    /// What the buffer holds and is to be acknowledged.
    batch: Batch,
    /// Whether anything was written to the active segment since its last sync.
    unsynced: bool,
    /// Shards whose truncations and purges were written since, one for each.
    unpinning: Vec<ShardId>,
    /// Whether segments may have become unneeded. They are dropped after a sync, when what replaces them is durable.
    drop_due: bool,
    /// What the records written so far say of each shard.
    written: BTreeMap<ShardId, Written>,
    space_checked: Instant,
}

#[derive(Default)]
struct Batch {
    placed: Vec<(ShardId, LogPoint, Place)>,
    done: Vec<Done>,
}

/// What a new segment has to say again.
#[derive(Clone, Default)]
struct Written {
    vote: Option<Bytes>,
    purged: Option<LogPoint>,
    /// The last entry that was said to be committed.
    committed: Option<u64>,
}

impl Writer {
    pub(super) fn new(setup: Setup) -> Self {
        let synced = setup.next_seq - 1;
        let said = |log: &ShardLog| Written {
            vote: log.vote.clone(),
            purged: log.purged,
            committed: log.committed.map(|point| point.index),
        };
        let written = lock(&setup.shared.logs).iter().map(|(shard, log)| (*shard, said(log))).collect();
        Self {
            unsynced: false,
            unpinning: Vec::new(),
            drop_due: false,
            written,
            setup,
            synced,
            marked: 0,
            tail: Tail::default(),
            buffer: Vec::new(),
            counted: WrittenBytes::default(),
            batch: Batch::default(),
            space_checked: Instant::now(),
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Receiver<Write>) {
        if let Err(error) = self.serve(queue) {
            (self.setup.options.on_fatal)(&error);
        }
    }

    fn serve(&mut self, queue: &Receiver<Write>) -> io::Result<()> {
        self.begin()?;
        let mut waiting: Option<Write> = None;
        loop {
            match waiting.take().map_or_else(|| queue.recv_timeout(SPACE_CHECK_EVERY), Ok) {
                Ok(write) => self.batch(write, || queue.try_recv().ok())?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            waiting = queue.try_recv().ok();
            if waiting.is_none() {
                self.mark()?;
            }
            if self.space_checked.elapsed() >= SPACE_CHECK_EVERY {
                self.check_space();
            }
        }
    }

    /// Does the same as a task, for tests in virtual time.
    #[cfg(test)]
    pub(super) async fn run_as_task(
        mut self,
        mut queue: tokio::sync::mpsc::Receiver<Write>,
        batch_takes: impl Fn() -> Duration,
    ) {
        let mut written = self.begin();
        while written.is_ok() {
            let Some(write) = queue.recv().await else { return };
            tokio::time::sleep(batch_takes()).await;
            // Such a process can end before the batch that waits is taken.
            written = self.batch(write, || queue.try_recv().ok()).and_then(|()| self.mark());
        }
        if let Err(error) = written {
            (self.setup.options.on_fatal)(&error);
        }
    }

    /// A crash may have torn what the active segment said of votes and purges: it is said again, durably, before anything
    /// older can be dropped.
    fn begin(&mut self) -> io::Result<()> {
        // Earlier segments were synced, without an error, before this one was begun.
        self.setup.active.write_again(self.setup.end)?;
        self.tail = Tail::open(&*self.setup.disk, &self.setup.active, self.setup.end);
        self.restate();
        // A power cut can have brought back what was dropped.
        self.drop_due = true;
        self.flush()?;
        self.sync()?;
        self.mark()?;
        self.check_space();
        Ok(())
    }

    /// Writes one thing and what waits behind it, syncs once, and says so.
    fn batch(&mut self, first: Write, mut next: impl FnMut() -> Option<Write>) -> io::Result<()> {
        self.put(first)?;
        while self.buffer.len() < limits::STORE_BATCH_BYTES_SOFT_MAX {
            let Some(write) = next() else { break };
            self.put(write)?;
        }
        self.flush()
    }

    fn put(&mut self, write: Write) -> io::Result<()> {
        match write {
            Write::Vote { shard, vote, done } => {
                self.make_room(vote.len())?;
                self.record(RecordKind::Vote, shard, &vote, &[]);
                self.written.entry(shard).or_default().vote = Some(vote);
                if is_on(Mutant::VoteNotSynced) {
                    done();
                    return Ok(());
                }
                self.batch.done.push(done);
            }
            Write::Append { shard, entries, done } => {
                let last = entries.last().map(|(point, _)| *point);
                let committed = self.newly_committed(shard, last);
                for (point, entry) in entries {
                    let head = EntryBody::head(point, committed.filter(|_| Some(point) == last));
                    self.make_room(head.len() + entry.len())?;
                    let place = self.record(RecordKind::Append, shard, &head, &entry);
                    self.batch.placed.push((shard, point, place));
                }
                if committed.is_some() {
                    self.written.entry(shard).or_default().committed = committed;
                }
                self.batch.done.push(done);
            }
            Write::Truncate { shard, end } => {
                self.make_room(8)?;
                self.record(RecordKind::Truncate, shard, &end.to_le_bytes(), &[]);
                self.unpinning.push(shard);
            }
            Write::Purge { shard, upto } => {
                self.make_room(16)?;
                self.record(RecordKind::Purge, shard, &two(upto.index, upto.term), &[]);
                let written = self.written.entry(shard).or_default();
                written.purged = written.purged.max(Some(upto));
                self.unpinning.push(shard);
                self.drop_due = true;
            }
        }
        Ok(())
    }

    /// How far the shard is committed, if that was not written yet. It is said along with entries, since a record of its own
    /// would wake this thread for every commit, and never further than what is written then.
    fn newly_committed(&self, shard: ShardId, last: Option<LogPoint>) -> Option<u64> {
        let known = lock(&self.setup.shared.logs).get(&shard).and_then(ShardLog::committed_as_written);
        let known = known.filter(|point| Some(*point) <= last)?.index;
        let written = self.written.get(&shard).and_then(|written| written.committed);
        Some(known).filter(|known| Some(*known) > written)
    }

    fn record(&mut self, kind: RecordKind, shard: ShardId, head: &[u8], tail: &[u8]) -> Place {
        let body_bytes = head.len() + tail.len();
        let place = Place {
            segment: self.setup.active.number,
            offset: self.setup.end + self.buffer.len() as u64,
            bytes: record::padded(body_bytes) as u32,
        };
        let header =
            Header { kind, body_bytes: body_bytes as u32, seq: self.setup.next_seq, synced: self.synced, shard };
        self.setup.next_seq += 1;
        self.counted.count(kind, head.len(), tail.len());
        record::write(&mut self.buffer, header, head, tail);
        place
    }

    /// Moves on to the next segment if a record of this size does not fit into the active one.
    fn make_room(&mut self, body_bytes: usize) -> io::Result<()> {
        let end = self.setup.end + (self.buffer.len() + record::padded(body_bytes)) as u64;
        if end <= self.setup.options.segment_bytes {
            return Ok(());
        }
        self.write_batch()?;
        // Whatever is said durable from here on includes all of the old segment.
        self.sync()?;
        let next = match self.setup.spare.take() {
            Some(spare) => spare,
            None => self.create_next(self.setup.active.number + 1)?,
        };
        self.setup.active = next;
        self.setup.end = 0;
        self.tail = Tail::open(&*self.setup.disk, &self.setup.active, 0);
        let header = segment::header(self.setup.active.number, Some(self.setup.next_seq), self.setup.incarnation);
        self.buffer.extend_from_slice(&header);
        self.counted.segments += header.len() as u64;
        self.restate();
        self.move_out_of_oldest()?;
        self.make_spare();
        self.drop_due = true;
        Ok(())
    }

    fn create_next(&self, number: u64) -> io::Result<Arc<Segment>> {
        let Setup { disk, dir, options, incarnation, shared, .. } = &self.setup;
        let segment = segment::create(&**disk, dir, number, None, options.segment_bytes, *incarnation)?;
        let segment = Arc::new(segment);
        lock(&shared.segments).insert(number, Arc::clone(&segment));
        Ok(segment)
    }

    /// Makes the next segment ahead of its need, so that votes find room on a full disk.
    fn make_spare(&mut self) {
        if self.setup.spare.is_none() {
            match self.create_next(self.setup.active.number + 1) {
                Ok(spare) => self.setup.spare = Some(spare),
                Err(error) => tracing::warn!(%error, "no spare segment: new work is refused until there is space"),
            }
        }
    }

    /// Every segment begins with what earlier ones say of votes, purges and commits, so that those can be dropped.
    fn restate(&mut self) {
        self.say_kept();
        for (shard, written) in self.written.clone() {
            if let Some(vote) = &written.vote {
                self.record(RecordKind::Vote, shard, vote, &[]);
            }
            if let Some(purged) = written.purged {
                self.record(RecordKind::Purge, shard, &two(purged.index, purged.term), &[]);
            }
            if let Some(committed) = written.committed {
                self.record(RecordKind::Committed, shard, &committed.to_le_bytes(), &[]);
            }
        }
    }

    /// Says which segments must be there when the log is read.
    fn say_kept(&mut self) {
        let kept = self.setup.kept;
        // It is of no shard.
        self.record(RecordKind::Kept, ShardId(0), &kept.to_le_bytes(), &[]);
    }

    /// Rewrites entries of quiet shards that keep the oldest segment from being dropped.
    fn move_out_of_oldest(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.setup.shared);
        let oldest = {
            let segments = lock(&shared.segments);
            if segments.len() <= SEGMENTS_KEPT {
                return Ok(());
            }
            segments.first_key_value().map(|(_, segment)| Arc::clone(segment))
        };
        let Some(oldest) = oldest else { return Ok(()) };
        let mut moving: Vec<(ShardId, LogPoint, Place)> = Vec::new();
        for (shard, log) in lock(&shared.logs).iter() {
            for index in log.held(0..u64::MAX) {
                let Some(slot) = log.slot(index) else { continue };
                if let Some(place) = slot.place.filter(|place| place.segment == oldest.number) {
                    moving.push((*shard, LogPoint { index, term: slot.term }, place));
                }
            }
        }
        // So much at each rotation: the oldest segment is empty after a few of them at the latest.
        let mut budget = self.setup.options.segment_bytes / 4;
        moving.retain(|(_, _, place)| {
            let fits = budget >= u64::from(place.bytes);
            budget -= if fits { u64::from(place.bytes) } else { 0 };
            fits
        });
        for (shard, point, place) in moving {
            let mut bytes = vec![0; place.bytes as usize];
            oldest.file.read_exact_at(&mut bytes, place.offset)?;
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("entry {} is damaged", point.index));
            let (_, body) = record::read(&bytes).ok_or_else(damaged)?;
            let body = EntryBody::read(body).filter(|body| body.point == point).ok_or_else(damaged)?;
            let place = self.record(RecordKind::Append, shard, &EntryBody::head(point, None), body.entry);
            self.batch.placed.push((shard, point, place));
        }
        Ok(())
    }

    /// Does what [`write_batch`](Self::write_batch) does, and drops what is not needed any more.
    fn flush(&mut self) -> io::Result<()> {
        self.write_batch()?;
        // A record of what is dropped can lead to another segment, and so to more that is not needed.
        while !self.unsynced && std::mem::take(&mut self.drop_due) {
            self.drop_unneeded()?;
        }
        Ok(())
    }

    /// Writes the buffer, syncs if anyone waits for it, and says so.
    fn write_batch(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.tail.write(&self.setup.active, &self.buffer, self.setup.end)?;
        self.setup.end += self.buffer.len() as u64;
        self.counted.sectors = written - self.buffer.len() as u64;
        *lock(&self.setup.shared.written) += std::mem::take(&mut self.counted);
        self.buffer.clear();
        self.unsynced = true;
        let mut batch = std::mem::take(&mut self.batch);
        if is_on(Mutant::AckBeforeFsync) {
            std::mem::take(&mut batch.done).into_iter().for_each(|done| done());
        }
        if !batch.done.is_empty() || !batch.placed.is_empty() || self.drop_due {
            self.sync()?;
        }
        {
            let mut logs = lock(&self.setup.shared.logs);
            for (shard, point, place) in batch.placed {
                if let Some(log) = logs.get_mut(&shard) {
                    log.settle(point, place);
                }
            }
        }
        batch.done.into_iter().for_each(|done| done());
        Ok(())
    }

    /// Makes everything that was written durable.
    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.setup.active.file.sync_data()?;
            self.unsynced = false;
            self.synced = self.setup.next_seq - 1;
            let mut logs = lock(&self.setup.shared.logs);
            for shard in self.unpinning.drain(..) {
                logs.entry(shard).or_default().unpin();
            }
        }
        Ok(())
    }

    /// Says beside the log how far it is durable. A batch says it of those before it, and the mark of the last one: it is set
    /// when no other waits behind that, and after those who wait for that have been told.
    fn mark(&mut self) -> io::Result<()> {
        if self.synced > self.marked {
            self.setup.mark.set(self.synced)?;
            self.marked = self.synced;
        }
        Ok(())
    }

    /// Drops the oldest segments that hold no entry any more. Before that it is said, durably, that they are not needed: one
    /// that is missing without a word is a hole.
    fn drop_unneeded(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.setup.shared);
        let oldest = lock(&shared.logs).values().filter_map(ShardLog::oldest_segment).min();
        let needed = oldest.unwrap_or(u64::MAX).min(self.setup.active.number);
        if lock(&shared.segments).first_key_value().is_none_or(|(number, _)| *number >= needed) {
            return Ok(());
        }
        if needed > self.setup.kept {
            self.make_room(8)?;
            self.setup.kept = needed;
            self.say_kept();
            self.write_batch()?;
            self.sync()?;
        }
        self.remove_before(needed);
        Ok(())
    }

    fn remove_before(&self, needed: u64) {
        let mut segments = lock(&self.setup.shared.segments);
        while let Some((number, segment)) = segments.first_key_value().map(|(n, s)| (*n, Arc::clone(s))) {
            if number >= needed {
                break;
            }
            if let Err(error) = self.setup.disk.remove(&segment.path) {
                tracing::warn!(path = %segment.path.display(), %error, "cannot remove a segment that is not needed");
                break;
            }
            segments.remove(&number);
        }
        drop(segments);
        // Whoever reads the log can tell what comes back after a power cut; but that takes its space until then.
        if let Err(error) = self.setup.disk.sync_dir(&self.setup.dir) {
            tracing::warn!(%error, "what was removed from the log may come back after a power cut");
        }
    }

    fn check_space(&mut self) {
        self.space_checked = Instant::now();
        let free = match self.setup.disk.free_bytes(&self.setup.dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot tell the free space of the data directory");
                u64::MAX
            }
        };
        let water = self.setup.options.low_water_bytes;
        let enough = free >= water / 2;
        if enough {
            self.make_spare();
        }
        let exhausted = !enough || self.setup.spare.is_none();
        let low = free < water || exhausted;
        self.setup.shared.free_bytes.store(free, Ordering::Relaxed);
        self.setup.shared.exhausted.store(exhausted, Ordering::Relaxed);
        if self.setup.shared.low.swap(low, Ordering::Relaxed) != low {
            if low {
                tracing::warn!(free_bytes = free, "the disk is nearly full: new work is refused until there is space");
            } else {
                tracing::info!(free_bytes = free, "there is space again: new work is accepted");
            }
        }
    }
}
