//! The one thread that writes the log.
//!
//! A write that finds no room on the disk, or no descriptor, waits until there is some, and so does everything behind
//! it: nothing is acknowledged meanwhile, and nothing is lost. That can happen when a segment is made, and in a write
//! that the file system puts elsewhere. Any other error of a write, and every error of an fsync, ends the process: the
//! content of the disk is unknown then.
//!
//! A write that finds no room may have left a part of the batch on the disk: whole records, or the header of a segment
//! without any. That does no harm. The batch stays in the buffer as it is, nothing is put behind it before it is
//! written, and it is written again from its first byte to the same place: no sequence number is given twice, none is
//! left out, and the first one of a segment is what its header says in every attempt. Until then nothing is synced, so
//! that no record calls a record of the batch durable, and nothing is acknowledged, dropped or removed for it. A
//! process that ends meanwhile leaves a batch that was cut off, as a crash does: the next process reads the whole
//! records of it, which no caller was told of, and continues behind them. Whatever they say is true: what a purge drops
//! is in a snapshot that was durable before, or in records before it, and what a record calls not needed
//! ([`RecordKind::Kept`]) was dropped durably before that record was put into the buffer.

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
use super::record::{self, EntryBody, Header, RecordKind, two};
use super::segment::{self, DATA_START, Segment};
use super::shard_log::{Extent, LogPoint, ShardLog};
use super::tail::Tail;
use super::{Shared, StoreOptions, WrittenBytes, lock};

mod old;
mod room;
#[cfg(feature = "simulation")]
mod task;

/// How often the writer checks the free space.
const SPACE_CHECK_EVERY: Duration = Duration::from_millis(500);
/// How many bytes at the end of a segment are kept for the record that says that older segments are not needed. On a
/// full disk, the record that drops them finds its room behind the record that made them unneeded, and not in another
/// segment.
const KEPT_RECORD_BYTES: usize = record::padded(8);

/// How many bytes of each of its buffers the writer keeps while no write comes. A large batch takes megabytes, and a
/// machine with 1 GiB in all needs them more between two bursts; an ordinary batch is smaller.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// The writer calls this after the fsync.
pub(super) type Done = Box<dyn FnOnce() + Send>;

/// What the writer is asked to do.
pub(super) enum Write {
    Vote { shard: ShardId, vote: Bytes, done: Done },
    Append { shard: ShardId, entries: Vec<(LogPoint, Bytes)>, done: Done },
    Truncate { shard: ShardId, end: u64 },
    Purge { shard: ShardId, upto: LogPoint },
}

/// Everything that a writer starts from.
pub(super) struct Setup {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) incarnation: Incarnation,
    pub(super) options: StoreOptions,
    pub(super) active: Arc<Segment>,
    /// The segments that are written to after that, in order.
    pub(super) spares: VecDeque<Arc<Segment>>,
    /// How many of those there are to be.
    pub(super) spares_kept: usize,
    pub(super) end: u64,
    pub(super) next_seq: u64,
    /// The number of the oldest segment that a restart needs, as the log says.
    pub(super) kept: u64,
    pub(super) mark: Mark,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Writer {
    setup: Setup,
    /// The last sequence number that is durable.
    synced: u64,
    /// The last sequence number that the mark calls durable.
    marked: u64,
    /// The end of the log, to which the buffer is written.
    tail: Tail,
    buffer: Vec<u8>,
    /// The bytes of the buffer, by kind.
    counted: WrittenBytes,
    /// The writes in the buffer that are to be acknowledged.
    batch: Batch,
    /// Whether anything was written to the active segment since its last sync.
    unsynced: bool,
    /// Shards whose truncations and purges were written since the last sync, one item for each.
    unpinning: Vec<ShardId>,
    /// Whether segments may have become unneeded. They are dropped after a sync, when their replacement is durable.
    drop_due: bool,
    /// What the records written so far say of each shard.
    written: BTreeMap<ShardId, Written>,
    /// The write that found no segment to go into. Nothing overtakes it.
    held: Option<Write>,
    space_checked: Instant,
    /// Whether the last check could not tell the free space.
    is_space_unknown: bool,
}

#[derive(Default)]
struct Batch {
    placed: Vec<(ShardId, LogPoint, Extent)>,
    done: Vec<Done>,
}

/// What a new segment has to say again of a shard.
#[derive(Clone, Default)]
struct Written {
    vote: Option<Bytes>,
    purged: Option<LogPoint>,
    /// The last entry that was called committed.
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
        let mut waiting: Option<Write> = None;
        loop {
            if self.is_held_up() {
                if !self.wait_for_room() {
                    return Ok(());
                }
                self.go_on()?;
            } else {
                match waiting.take().map_or_else(|| queue.recv_timeout(SPACE_CHECK_EVERY), Ok) {
                    Ok(write) => self.batch(write, || queue.try_recv().ok())?,
                    Err(RecvTimeoutError::Timeout) => self.let_go_of_buffers(),
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            // While a write waits for room, nothing is taken: the queue then delays the callers.
            waiting = if self.is_held_up() { None } else { queue.try_recv().ok() };
            if waiting.is_none() {
                self.mark()?;
            }
            if self.space_checked.elapsed() >= SPACE_CHECK_EVERY {
                self.check_space();
            }
        }
    }

    /// Frees what large batches needed, after a while without writes. No write is held up, so that the buffer is empty.
    fn let_go_of_buffers(&mut self) {
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        self.tail.shrink_to(BUFFER_KEPT_BYTES);
    }

    /// Waits a moment. False if the store is being closed: what is not written by then was not acknowledged.
    fn wait_for_room(&self) -> bool {
        std::thread::sleep(ROOM_CHECK_EVERY);
        !self.setup.shared.closing.load(Ordering::Relaxed)
    }

    /// Writes the content of the active segment again: see [`Segment::write_again`]. Earlier segments were synced,
    /// without an error, before this one was begun. False: there is no room for that at present.
    fn write_again(&mut self) -> io::Result<bool> {
        let written = self.setup.active.write_again(self.setup.end);
        if self.if_room(written)?.is_none() {
            return Ok(false);
        }
        self.tail = Tail::open(&*self.setup.disk, &self.setup.active, self.setup.end);
        Ok(true)
    }

    /// A crash may have torn what the active segment said of votes and purges: this says it again, durably, before
    /// anything older can be dropped; in the next segment if this one is full, as it is after many starts. False: there
    /// is no room for that at present.
    fn begin(&mut self) -> io::Result<bool> {
        // A power cut can have brought back what was dropped.
        self.drop_due = true;
        let end = self.setup.end + self.restated_bytes() + KEPT_RECORD_BYTES as u64;
        if end <= self.setup.options.segment_bytes || self.setup.end == DATA_START {
            self.restate();
        } else if !self.rotate()? {
            return Ok(false);
        }
        if self.flush()? {
            self.sync()?;
            self.mark()?;
        }
        self.check_space();
        Ok(true)
    }

    /// Whether a write waits for room.
    fn is_held_up(&self) -> bool {
        self.held.is_some() || !self.buffer.is_empty()
    }

    /// Tries the write again that found no room.
    fn go_on(&mut self) -> io::Result<()> {
        if self.flush()?
            && let Some(held) = self.held.take()
        {
            return self.batch(held, || None);
        }
        Ok(())
    }

    /// Writes one thing and everything that waits behind it, syncs once, and acknowledges them.
    fn batch(&mut self, first: Write, mut next: impl FnMut() -> Option<Write>) -> io::Result<()> {
        let mut taken = Some(first);
        while let Some(write) = taken {
            self.held = self.put(write)?;
            let is_full = self.buffer.len() >= limits::STORE_BATCH_BYTES_SOFT_MAX;
            taken = if is_full || self.held.is_some() { None } else { next() };
        }
        self.flush().map(drop)
    }

    /// Takes a write into the buffer. A write that finds no segment to go into comes back.
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
                let committed = self.newly_committed(shard, last);
                let mut entries = entries.into_iter();
                while let Some((point, entry)) = entries.next() {
                    let head = EntryBody::head(point, committed.filter(|_| Some(point) == last));
                    if !self.make_room(head.len() + entry.len())? {
                        let entries = std::iter::once((point, entry)).chain(entries).collect();
                        return Ok(Some(Write::Append { shard, entries, done }));
                    }
                    let extent = self.record(RecordKind::Append, shard, &head, &entry);
                    self.batch.placed.push((shard, point, extent));
                }
                if committed.is_some() {
                    self.written.entry(shard).or_default().committed = committed;
                }
                self.batch.done.push(done);
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

    /// How far the shard is committed, if that was not written yet. It is written with entries, since a record of its
    /// own would wake this thread for every commit, and it never goes further than what is written then.
    fn newly_committed(&self, shard: ShardId, last: Option<LogPoint>) -> Option<u64> {
        let known = lock(&self.setup.shared.logs).get(&shard).and_then(ShardLog::committed_as_written);
        let known = known.filter(|point| Some(*point) <= last)?.index;
        let written = self.written.get(&shard).and_then(|written| written.committed);
        Some(known).filter(|known| Some(*known) > written)
    }

    fn record(&mut self, kind: RecordKind, shard: ShardId, head: &[u8], tail: &[u8]) -> Extent {
        let body_bytes = head.len() + tail.len();
        let extent = Extent {
            segment: self.setup.active.number,
            offset: self.setup.end + self.buffer.len() as u64,
            bytes: record::padded(body_bytes) as u32,
        };
        let header =
            Header { kind, body_bytes: body_bytes as u32, seq: self.setup.next_seq, synced: self.synced, shard };
        self.setup.next_seq += 1;
        self.counted.count(kind, head.len(), tail.len());
        record::write(&mut self.buffer, header, head, tail);
        extent
    }

    /// Moves on to the next segment if a record of this size does not fit into the active one. False: there is none at
    /// present.
    fn make_room(&mut self, body_bytes: usize) -> io::Result<bool> {
        if self.fits(record::padded(body_bytes) + KEPT_RECORD_BYTES) { Ok(true) } else { self.rotate() }
    }

    /// Whether this many more bytes fit into the active segment.
    fn fits(&self, bytes: usize) -> bool {
        self.setup.end + (self.buffer.len() + bytes) as u64 <= self.setup.options.segment_bytes
    }

    /// Moves on to the next segment. False: there is none at present, or what is before it finds no room. Nothing is
    /// begun then that cannot be tried again: either the buffer is what it was, or it is written and empty.
    fn rotate(&mut self) -> io::Result<bool> {
        if !self.write_batch()? {
            return Ok(false);
        }
        // Everything that is called durable from here on includes all of the old segment.
        self.sync()?;
        if self.setup.spares.is_empty() {
            let made = self.create_next();
            if self.if_room(made)?.is_none() {
                return Ok(false);
            }
        }
        let Some(next) = self.setup.spares.pop_front() else { return Ok(false) };
        self.setup.active = next;
        self.setup.end = 0;
        self.tail = Tail::open(&*self.setup.disk, &self.setup.active, 0);
        let header = segment::header(self.setup.active.number, Some(self.setup.next_seq), self.setup.incarnation);
        self.buffer.extend_from_slice(&header);
        self.counted.segments += header.len() as u64;
        self.restate();
        self.move_out_of_oldest()?;
        self.make_spares();
        self.drop_due = true;
        Ok(true)
    }

    /// Does what [`write_batch`](Self::write_batch) does, and drops what is not needed. False: something waits for
    /// room.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.write_batch()? {
            return Ok(false);
        }
        // The record that drops segments can lead to another segment, and so to more segments that are not needed.
        while !self.unsynced && std::mem::take(&mut self.drop_due) {
            if !self.drop_unneeded()? {
                // The drop goes with the next batch that is written.
                self.drop_due = true;
                break;
            }
        }
        Ok(self.buffer.is_empty())
    }

    /// Writes the buffer, syncs if a caller waits for it, and acknowledges. False: there is no room at present, and the
    /// buffer is kept.
    fn write_batch(&mut self) -> io::Result<bool> {
        if self.buffer.is_empty() && self.batch.done.is_empty() {
            return Ok(true);
        }
        if !self.buffer.is_empty() {
            let written = self.tail.write(&self.setup.active, &self.buffer, self.setup.end);
            let Some(written) = self.if_room(written)? else { return Ok(false) };
            self.setup.end += self.buffer.len() as u64;
            self.counted.sectors = written - self.buffer.len() as u64;
            *lock(&self.setup.shared.written) += std::mem::take(&mut self.counted);
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
            for (shard, point, extent) in batch.placed {
                if let Some(log) = logs.get_mut(&shard) {
                    log.settle(point, extent);
                }
            }
        }
        batch.done.into_iter().for_each(|done| done());
        Ok(true)
    }

    /// Makes everything that was written durable. Only while the buffer is empty: its content counts as written.
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

    /// Writes beside the log how far it is durable. A batch vouches for those before it, and the mark for the last one.
    /// The mark is set when no other batch waits behind that one, or the next one waits for room, and after the callers
    /// of that batch have been told.
    fn mark(&mut self) -> io::Result<()> {
        if self.synced > self.marked {
            match self.setup.mark.set(self.synced) {
                // Without the mark less is vouched for, until it finds room.
                Err(error) if is_shortage(&error) => {}
                set => {
                    set?;
                    self.marked = self.synced;
                }
            }
        }
        Ok(())
    }
}
