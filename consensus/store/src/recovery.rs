//! Reading the write-ahead log back.
//!
//! Segments are read in order. Every record must be valid and carry the next sequence number, and every segment must
//! begin with the number after the last one of the segment before it. Where that ends, the rest of the last segment is
//! either a _torn tail_, the remains of a batch that was never acknowledged, or a _hole_ in what was acknowledged. It
//! is a hole if anything proves that the missing record was durable: a later record that was written when it already
//! was (`synced`), a later segment that has begun, an entry that says how far the log was committed, or the progress
//! mark beside the log. Recovery cuts off a torn tail; a hole ends in an error that says what to do, never in a shorter
//! log.
//!
//! No segment is before the oldest one. The log itself says which segment that may be (`Kept`) before an older one is
//! removed, and again at the beginning of every segment; without such a record it is the first of all. Older segments
//! may exist, whole or with gaps between them, since a power cut can bring back what was removed; recovery does not
//! read them.

use std::collections::BTreeMap;

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_protocol::limits::ENTRY_BYTES_MAX;
use skep_protocol::mutant::{Mutant, is_on};

use super::StoreError;
use super::record::{self, EntryBody, Header, RecordKind, u64_at};
use super::segment::{DATA_START, FIRST_NUMBER, Segment};
use super::shard_log::{Extent, LogPoint, Recovering, ShardLog};

/// What the log holds, and where the writer continues.
pub(super) struct Recovered {
    pub(super) logs: BTreeMap<ShardId, ShardLog>,
    pub(super) next_seq: u64,
    /// The segment that is written to: the last one that has begun.
    pub(super) active: usize,
    /// Where the next record goes in it, in bytes.
    pub(super) end: u64,
    /// The number of the oldest segment that must exist, as the log says.
    pub(super) kept: u64,
}

/// Reads all segments that are needed, and cuts off a torn tail. `marked` is the last sequence number that the progress
/// mark calls durable.
pub(super) fn recover(segments: &[Segment], marked: u64) -> Result<Recovered, StoreError> {
    let oldest = oldest_in_line(segments);
    let mut reading = Reading::default();
    for (at, segment) in segments.iter().enumerate().skip(oldest) {
        if let Some(first) = segment.first {
            reading.go_on(segments, at, first)?;
        }
        reading.read(segments, at)?;
    }
    let Reading { shards, next_seq, active, end, torn, kept } = reading;
    // An empty segment proves nothing: it may have been made for later.
    if next_seq == 0 || segments.get(oldest).is_none_or(|segment| segment.number > kept) {
        return Err(segments.get(oldest).map_or(StoreError::LogMissing { marked }, |segment| {
            StoreError::corrupt(&segment.path, "the segment before it is missing")
        }));
    }
    if marked >= next_seq {
        return Err(segments.get(active).map_or(StoreError::LogMissing { marked }, |segment| hole(segment, end)));
    }
    for (at, offset) in torn {
        segments[at].clear_from(offset).map_err(|e| StoreError::io(&segments[at].path, e))?;
    }
    let finish = |(shard, recovering): (ShardId, Recovering)| match recovering.finish() {
        Ok(log) => Ok((shard, log)),
        Err(why) => Err(StoreError::CorruptLog { shard, why }),
    };
    let logs = shards.into_iter().map(finish).collect::<Result<_, _>>()?;
    Ok(Recovered { logs, next_seq, active, end, kept })
}

/// The place in the list of the first segment behind the last gap.
fn oldest_in_line(segments: &[Segment]) -> usize {
    let follows = |pair: &[Segment]| pair[0].number.checked_add(1) == Some(pair[1].number);
    segments.windows(2).rposition(|pair| !follows(pair)).map_or(0, |gap| gap + 1)
}

/// What was read so far.
struct Reading {
    shards: BTreeMap<ShardId, Recovering>,
    /// The sequence number that comes next; zero before the first segment that has begun.
    next_seq: u64,
    /// The last segment that has begun, and where its records end.
    active: usize,
    end: u64,
    /// Segments with the remains of a batch in them, and where these begin.
    torn: Vec<(usize, u64)>,
    /// The number of the oldest segment that must exist.
    kept: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self { shards: BTreeMap::new(), next_seq: 0, active: 0, end: DATA_START, torn: Vec::new(), kept: FIRST_NUMBER }
    }
}

impl Reading {
    /// Continues in a segment that has begun: everything before its first record was durable by then.
    fn go_on(&mut self, segments: &[Segment], at: usize, first: u64) -> Result<(), StoreError> {
        if let Some((torn_at, offset)) = self.torn.first() {
            return Err(hole(&segments[*torn_at], *offset));
        }
        let continues = self.next_seq == 0 || first == self.next_seq;
        if !continues && !is_on(Mutant::FirstSequenceNotChecked) {
            return Err(hole(&segments[self.active], self.end));
        }
        (self.next_seq, self.active, self.end) = (first, at, DATA_START);
        Ok(())
    }

    /// Reads the records of a segment, if it has begun, and judges what follows them.
    fn read(&mut self, segments: &[Segment], at: usize) -> Result<(), StoreError> {
        let segment = &segments[at];
        let mut window = Window::open(segment)?;
        let mut offset = DATA_START;
        while segment.first.is_some()
            && let Some((header, body)) = record::read(window.at(offset)?)
            && header.seq == self.next_seq
        {
            let padded = record::padded(header.body_bytes as usize);
            let extent = Extent { segment: segment.number, offset, bytes: padded as u32 };
            self.replay(header, body, extent)
                .map_err(|why| StoreError::corrupt(&segment.path, format!("at byte {offset}: {why}")))?;
            self.next_seq += 1;
            offset += padded as u64;
            self.end = offset;
        }
        match window.rest(offset, self.next_seq.max(1))? {
            Rest::Zeros => {}
            Rest::Torn => self.torn.push((at, offset)),
            Rest::Hole => return Err(hole(segment, offset)),
        }
        Ok(())
    }

    fn replay(&mut self, header: Header, body: &[u8], extent: Extent) -> Result<(), &'static str> {
        let number = |at: usize| match body.get(at..at + 8) {
            Some(_) => Ok(u64_at(body, at)),
            None => Err("a record is too short"),
        };
        match header.kind {
            RecordKind::Vote => self.shard(header.shard).vote = Some(Bytes::copy_from_slice(body)),
            RecordKind::Append => {
                let EntryBody { point, committed, .. } =
                    EntryBody::read(body).ok_or("an entry does not say its index")?;
                let shard = self.shard(header.shard);
                shard.entries.insert(point.index, (point.term, extent));
                if let Some(committed) = committed {
                    shard.note_committed(committed);
                }
            }
            RecordKind::Truncate => drop(self.shard(header.shard).entries.split_off(&number(0)?)),
            RecordKind::Purge => {
                let upto = LogPoint { index: number(0)?, term: number(8)? };
                let shard = self.shard(header.shard);
                shard.purged = shard.purged.max(Some(upto));
                shard.entries = shard.entries.split_off(&upto.index.saturating_add(1));
            }
            RecordKind::Committed => self.shard(header.shard).note_committed(number(0)?),
            RecordKind::Kept => self.kept = self.kept.max(number(0)?),
        }
        Ok(())
    }

    fn shard(&mut self, id: ShardId) -> &mut Recovering {
        self.shards.entry(id).or_default()
    }
}

/// How many bytes are looked at together: several times the largest record.
const WINDOW_BYTES: u64 = 4 * ENTRY_BYTES_MAX as u64;
/// The most bytes that a record can take.
const RECORD_BYTES_MAX: u64 = ENTRY_BYTES_MAX as u64 + 4_096;

/// A part of a segment in memory, which moves along as it is read.
struct Window<'a> {
    segment: &'a Segment,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// What follows the last valid record of a segment.
enum Rest {
    /// Nothing but zeros.
    Zeros,
    /// The remains of a batch that was never acknowledged.
    Torn,
    /// A record that proves that the missing one was durable.
    Hole,
}

impl<'a> Window<'a> {
    fn open(segment: &'a Segment) -> Result<Self, StoreError> {
        let length = segment.file.len().map_err(|e| StoreError::io(&segment.path, e))?;
        Ok(Self { segment, length, start: 0, bytes: Vec::new() })
    }

    /// The bytes from an offset on: a whole record at least, unless the segment ends before.
    fn at(&mut self, offset: u64) -> Result<&[u8], StoreError> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || (offset + RECORD_BYTES_MAX > end && end < self.length) {
            self.start = offset;
            self.bytes.resize(self.length.saturating_sub(offset).min(WINDOW_BYTES) as usize, 0);
            let read = self.segment.file.read_exact_at(&mut self.bytes, offset);
            read.map_err(|e| StoreError::io(&self.segment.path, e))?;
        }
        Ok(self.bytes.get((offset - self.start) as usize..).unwrap_or_default())
    }

    fn rest(&mut self, mut offset: u64, expected: u64) -> Result<Rest, StoreError> {
        let mut rest = Rest::Zeros;
        while offset < self.length {
            let bytes = self.at(offset)?;
            offset += match record::read(bytes) {
                Some((header, _)) if header.synced >= expected => return Ok(Rest::Hole),
                Some((header, _)) => {
                    rest = Rest::Torn;
                    record::padded(header.body_bytes as usize) as u64
                }
                None => {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    if zeros < bytes.len().min(record::ALIGN) {
                        rest = Rest::Torn;
                    }
                    (zeros / record::ALIGN * record::ALIGN).max(record::ALIGN) as u64
                }
            };
        }
        Ok(rest)
    }
}

fn hole(segment: &Segment, offset: u64) -> StoreError {
    StoreError::corrupt(&segment.path, format!("at byte {offset}: a record that was durable is damaged or missing"))
}
