//! The one thread that writes the log.
//!
//! What finds no room on the disk, or no descriptor, waits until there is some, and so does whatever comes behind it: nothing
//! is acknowledged meanwhile, and nothing is lost. That can be the making of a segment, and a write into one that the file
//! system moves elsewhere. Any other error of a write, and every error of an fsync, ends the process: nobody knows then what
//! is on the disk.

use std::collections::{BTreeMap, VecDeque};
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

use super::disk::{Disk, ROOM_CHECK_EVERY, is_shortage};
use super::progress::Mark;
use super::record::{self, Header, RecordKind, two};
use super::segment::{DATA_START, Segment};
use super::shard_log::{LogPoint, Place, ShardLog};
use super::{Shared, StoreOptions, lock};

mod room;

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
    /// What is written to after that, in order.
    pub(super) spares: VecDeque<Arc<Segment>>,
    /// How many of those there are to be.
    pub(super) spares_kept: usize,
    pub(super) end: u64,
    pub(super) next_seq: u64,
    pub(super) mark: Mark,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Writer {
    setup: Setup,
    /// The last sequence number that is durable.
    synced: u64,
    buffer: Vec<u8>,
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
    /// What found no segment to go into. Nothing overtakes it.
    held: Option<Write>,
    space_checked: Instant,
    /// Whether the free space could not be told at the last look.
    is_space_unknown: bool,
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
    committed: Option<LogPoint>,
}

impl Writer {
    pub(super) fn new(setup: Setup) -> Self {
        let synced = setup.next_seq - 1;
        let said = |log: &ShardLog| Written { vote: log.vote.clone(), purged: log.purged, committed: log.committed };
        let written = lock(&setup.shared.logs).iter().map(|(shard, log)| (*shard, said(log))).collect();
        Self {
            unsynced: false,
            unpinning: Vec::new(),
            drop_due: false,
            written,
            setup,
            synced,
            buffer: Vec::new(),
            batch: Batch::default(),
            held: None,
            space_checked: Instant::now(),
            is_space_unknown: false,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Receiver<Write>) {
        if let Err(error) = self.serve(queue) {
            (self.setup.options.on_fatal)(&error);
        }
    }

    fn serve(&mut self, queue: &Receiver<Write>) -> io::Result<()> {
        while !self.write_again()? {
            if !self.wait_for_room() {
                return Ok(());
            }
        }
        while !self.begin()? {
            if !self.wait_for_room() {
                return Ok(());
            }
        }
        loop {
            if self.is_held_up() {
                if !self.wait_for_room() {
                    return Ok(());
                }
                self.go_on()?;
            } else {
                match queue.recv_timeout(SPACE_CHECK_EVERY) {
                    Ok(write) => self.batch(write, || queue.try_recv().ok())?,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            if self.space_checked.elapsed() >= SPACE_CHECK_EVERY {
                self.check_space();
            }
        }
    }

    /// Waits a moment. False if the store is being closed: what is not written by then was not acknowledged.
    fn wait_for_room(&self) -> bool {
        std::thread::sleep(ROOM_CHECK_EVERY);
        !self.setup.shared.closing.load(Ordering::Relaxed)
    }

    /// Does the same as a task, for tests in virtual time.
    #[cfg(test)]
    pub(super) async fn run_as_task(
        mut self,
        queue: tokio::sync::mpsc::Receiver<Write>,
        batch_takes: impl Fn() -> Duration,
    ) {
        if let Err(error) = self.serve_as_task(queue, batch_takes).await {
            (self.setup.options.on_fatal)(&error);
        }
    }

    #[cfg(test)]
    async fn serve_as_task(
        &mut self,
        mut queue: tokio::sync::mpsc::Receiver<Write>,
        batch_takes: impl Fn() -> Duration,
    ) -> io::Result<()> {
        while !self.write_again()? {
            tokio::time::sleep(ROOM_CHECK_EVERY).await;
        }
        while !self.begin()? {
            tokio::time::sleep(ROOM_CHECK_EVERY).await;
        }
        loop {
            if self.is_held_up() {
                if self.setup.shared.closing.load(Ordering::Relaxed) {
                    return Ok(());
                }
                tokio::time::sleep(ROOM_CHECK_EVERY).await;
                self.go_on()?;
                self.check_space();
                continue;
            }
            let Some(write) = queue.recv().await else { return Ok(()) };
            tokio::time::sleep(batch_takes()).await;
            self.batch(write, || queue.try_recv().ok())?;
        }
    }

    /// Writes again what the active segment holds: see [`Segment::write_again`]. Earlier segments were synced, without an
    /// error, before this one was begun. False: there is no room for that now.
    fn write_again(&mut self) -> io::Result<bool> {
        let written = self.setup.active.write_again(self.setup.end);
        self.if_room(written)
    }

    /// A crash may have torn what the active segment said of votes and purges: it is said again, durably, before anything
    /// older can be dropped. In the next segment if this one is full, as it is after many starts. False: there is no room for
    /// that now.
    fn begin(&mut self) -> io::Result<bool> {
        let end = self.setup.end + self.restated_bytes();
        if end <= self.setup.options.segment_bytes || self.setup.end == DATA_START {
            self.restate();
        } else if !self.rotate()? {
            return Ok(false);
        }
        if self.flush()? {
            self.sync()?;
        }
        self.check_space();
        Ok(true)
    }

    /// Whether something waits for room.
    fn is_held_up(&self) -> bool {
        self.held.is_some() || !self.buffer.is_empty()
    }

    /// Tries again what found no room.
    fn go_on(&mut self) -> io::Result<()> {
        if self.flush()?
            && let Some(held) = self.held.take()
        {
            return self.batch(held, || None);
        }
        Ok(())
    }

    /// Writes one thing and what waits behind it, syncs once, and says so.
    fn batch(&mut self, first: Write, mut next: impl FnMut() -> Option<Write>) -> io::Result<()> {
        let mut taken = Some(first);
        while let Some(write) = taken {
            self.held = self.put(write)?;
            let is_full = self.buffer.len() >= limits::STORE_BATCH_BYTES_SOFT_MAX;
            taken = if is_full || self.held.is_some() { None } else { next() };
        }
        self.flush().map(drop)
    }

    /// Takes a write into the buffer. What finds no segment to go into comes back.
    fn put(&mut self, write: Write) -> io::Result<Option<Write>> {
        match write {
            Write::Vote { shard, vote, done } => {
                if !self.make_room(vote.len())? {
                    return Ok(Some(Write::Vote { shard, vote, done }));
                }
                self.record(RecordKind::Vote, shard, &vote, &[]);
                self.written.entry(shard).or_default().vote = Some(vote);
                if is_on(Mutant::VoteNotSynced) {
                    done();
                    return Ok(None);
                }
                self.batch.done.push(done);
            }
            Write::Append { shard, entries, done } => {
                let last = entries.last().map(|(point, _)| *point);
                let mut entries = entries.into_iter();
                while let Some((point, entry)) = entries.next() {
                    if !self.make_room(16 + entry.len())? {
                        let entries = std::iter::once((point, entry)).chain(entries).collect();
                        return Ok(Some(Write::Append { shard, entries, done }));
                    }
                    let place = self.record(RecordKind::Append, shard, &two(point.index, point.term), &entry);
                    self.batch.placed.push((shard, point, place));
                }
                self.batch.done.push(done);
                self.put_committed(shard, last)?;
            }
            Write::Truncate { shard, end } => {
                if !self.make_room(8)? {
                    return Ok(Some(Write::Truncate { shard, end }));
                }
                self.record(RecordKind::Truncate, shard, &end.to_le_bytes(), &[]);
                self.unpinning.push(shard);
            }
            Write::Purge { shard, upto } => {
                if !self.make_room(16)? {
                    return Ok(Some(Write::Purge { shard, upto }));
                }
                self.record(RecordKind::Purge, shard, &two(upto.index, upto.term), &[]);
                let written = self.written.entry(shard).or_default();
                written.purged = written.purged.max(Some(upto));
                self.unpinning.push(shard);
                self.drop_due = true;
            }
        }
        Ok(None)
    }

    /// Says how far the shard is committed, along with entries, since a record of its own would wake this thread for
    /// every commit. Never further than what is written.
    fn put_committed(&mut self, shard: ShardId, last: Option<LogPoint>) -> io::Result<()> {
        let known = lock(&self.setup.shared.logs).get(&shard).and_then(|log| log.committed);
        let written = self.written.entry(shard).or_default().committed;
        if let Some(point) = known.filter(|point| Some(*point) > written && Some(*point) <= last) {
            if !self.make_room(16)? {
                return Ok(());
            }
            self.record(RecordKind::Committed, shard, &two(point.index, point.term), &[]);
            self.written.entry(shard).or_default().committed = Some(point);
        }
        Ok(())
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
        record::write(&mut self.buffer, header, head, tail);
        place
    }

    /// Moves on to the next segment if a record of this size does not fit into the active one. False: there is none now.
    fn make_room(&mut self, body_bytes: usize) -> io::Result<bool> {
        let end = self.setup.end + (self.buffer.len() + record::padded(body_bytes)) as u64;
        if end <= self.setup.options.segment_bytes { Ok(true) } else { self.rotate() }
    }

    /// Moves on to the next segment. False: there is none now, or what is before it finds no room.
    fn rotate(&mut self) -> io::Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        // Whatever is said durable from here on includes all of the old segment.
        self.sync()?;
        if self.setup.spares.is_empty() {
            let made = self.create_next();
            if !self.if_room(made)? {
                return Ok(false);
            }
        }
        let Some(next) = self.setup.spares.pop_front() else { return Ok(false) };
        self.setup.active = next;
        self.setup.end = DATA_START;
        self.restate();
        self.move_out_of_oldest()?;
        self.make_spares();
        self.drop_due = true;
        Ok(true)
    }

    /// Every segment begins with what earlier ones say of votes, purges and commits, so that those can be dropped.
    fn restate(&mut self) {
        for (shard, written) in self.written.clone() {
            if let Some(vote) = &written.vote {
                self.record(RecordKind::Vote, shard, vote, &[]);
            }
            if let Some(purged) = written.purged {
                self.record(RecordKind::Purge, shard, &two(purged.index, purged.term), &[]);
            }
            if let Some(committed) = written.committed {
                self.record(RecordKind::Committed, shard, &two(committed.index, committed.term), &[]);
            }
        }
    }

    /// Bytes that [`restate`](Self::restate) takes.
    fn restated_bytes(&self) -> u64 {
        let point = |point: Option<LogPoint>| point.map_or(0, |_| record::padded(16));
        let of = |written: &Written| {
            let vote = written.vote.as_ref().map_or(0, |vote| record::padded(vote.len()));
            vote + point(written.purged) + point(written.committed)
        };
        self.written.values().map(of).sum::<usize>() as u64
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
            let place = self.record(RecordKind::Append, shard, body, &[]);
            self.batch.placed.push((shard, point, place));
        }
        Ok(())
    }

    /// Writes the buffer, syncs if anyone waits for it, and says so. False: there is no room for it now, and it is kept.
    fn flush(&mut self) -> io::Result<bool> {
        if self.buffer.is_empty() && self.batch.done.is_empty() {
            return Ok(true);
        }
        if !self.buffer.is_empty() {
            let written = self.setup.active.file.write_all_at(&self.buffer, self.setup.end);
            if !self.if_room(written)? {
                return Ok(false);
            }
            self.setup.end += self.buffer.len() as u64;
            self.setup.shared.bytes_written.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
            self.buffer.clear();
            self.unsynced = true;
        }
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
        if self.drop_due {
            self.drop_due = false;
            self.drop_unneeded();
        }
        Ok(true)
    }

    /// Makes everything that was written durable.
    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.setup.active.file.sync_data()?;
            self.unsynced = false;
            self.synced = self.setup.next_seq - 1;
            // Without it less is vouched for, until the next one.
            match self.setup.mark.set(self.synced) {
                Err(error) if !is_shortage(&error) => return Err(error),
                Err(_) | Ok(()) => {}
            }
            let mut logs = lock(&self.setup.shared.logs);
            for shard in self.unpinning.drain(..) {
                logs.entry(shard).or_default().unpin();
            }
        }
        Ok(())
    }

    /// Drops the oldest segments that hold no entry any more.
    fn drop_unneeded(&self) {
        let shared = &self.setup.shared;
        let oldest = lock(&shared.logs).values().filter_map(ShardLog::oldest_segment).min();
        let needed = oldest.unwrap_or(u64::MAX).min(self.setup.active.number);
        let mut segments = lock(&shared.segments);
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
    }
}
