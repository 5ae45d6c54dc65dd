//! Reading the write-ahead log back.
//!
//! Segments are read in order. Every record must be valid and carry the next sequence number. Where that stops being
//! so, the rest of the last segment is either a _torn tail_, the remains of a batch that was never acknowledged, or
//! a _hole_ in what was acknowledged. It is a hole if anything proves that the missing record was durable: a later
//! record that was written when it already was (`synced`), a later segment, or the progress mark beside the log. A
//! torn tail is cut off; a hole ends in an error that says what to do, never in a shorter log.

use std::collections::BTreeMap;

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_protocol::limits::ENTRY_BYTES_MAX;

use super::StoreError;
use super::record::{self, Header, RecordKind, u64_at};
use super::segment::{DATA_START, Segment};
use super::shard_log::{LogPoint, Place, Recovering, ShardLog};

/// What the log holds and where to go on writing.
pub(super) struct Recovered {
    pub(super) logs: BTreeMap<ShardId, ShardLog>,
    pub(super) next_seq: u64,
    /// Which segment is written to: the last one that holds a record.
    pub(super) active: usize,
    /// Where the next record goes in it.
    pub(super) end: u64,
}

/// Reads all segments, and cuts off a torn tail. `marked` is the last sequence number that the progress mark says
/// was durable.
pub(super) fn recover(segments: &[Segment], marked: u64) -> Result<Recovered, StoreError> {
    let mut shards: BTreeMap<ShardId, Recovering> = BTreeMap::new();
    let mut next_seq = None;
    let (mut active, mut end) = (0, DATA_START);
    let mut torn: Vec<(usize, u64)> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let mut window = Window::open(segment)?;
        let mut offset = DATA_START;
        while let Some((header, body)) = record::read(window.at(offset)?) {
            if next_seq.is_some_and(|seq| seq != header.seq) {
                break;
            }
            let padded = record::padded(header.body_bytes as usize);
            let place = Place { segment: segment.number, offset, bytes: padded as u32 };
            replay(shards.entry(header.shard).or_default(), header, body, place)
                .map_err(|why| StoreError::corrupt(&segment.path, format!("at byte {offset}: {why}")))?;
            if let Some((torn_at, torn_offset)) = torn.first() {
                return Err(hole(&segments[*torn_at], *torn_offset));
            }
            next_seq = Some(header.seq + 1);
            offset += padded as u64;
            (active, end) = (at, offset);
        }
        match window.rest(offset, next_seq.unwrap_or(1))? {
            Rest::Zeros => {}
            Rest::Torn => torn.push((at, offset)),
            Rest::Hole => return Err(hole(segment, offset)),
        }
    }
    let next_seq = next_seq.unwrap_or(1);
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
    Ok(Recovered { logs, next_seq, active, end })
}

/// Bytes that are looked at together: several times the largest record.
const WINDOW_BYTES: u64 = 4 * ENTRY_BYTES_MAX as u64;
/// Bytes that a record can take at most.
const RECORD_BYTES_MAX: u64 = ENTRY_BYTES_MAX as u64 + 4_096;

/// A part of a segment in memory, moved along as it is read.
struct Window<'a> {
    segment: &'a Segment,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// What follows the last valid record of a segment.
enum Rest {
    /// Nothing.
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

fn replay(shard: &mut Recovering, header: Header, body: &[u8], place: Place) -> Result<(), &'static str> {
    let short = "a record is too short";
    let point = |body: &[u8]| LogPoint { index: u64_at(body, 0), term: u64_at(body, 8) };
    match header.kind {
        RecordKind::Vote => shard.vote = Some(Bytes::copy_from_slice(body)),
        RecordKind::Append => {
            if body.len() < 16 {
                return Err(short);
            }
            let LogPoint { index, term } = point(body);
            shard.entries.insert(index, (term, place));
        }
        RecordKind::Truncate => {
            if body.len() < 8 {
                return Err(short);
            }
            shard.entries.split_off(&u64_at(body, 0));
        }
        RecordKind::Purge => {
            if body.len() < 16 {
                return Err(short);
            }
            let upto = point(body);
            shard.purged = shard.purged.max(Some(upto));
            shard.entries = shard.entries.split_off(&(upto.index + 1));
        }
        RecordKind::Committed => {
            if body.len() < 16 {
                return Err(short);
            }
            shard.committed = Some(point(body));
        }
    }
    Ok(())
}
