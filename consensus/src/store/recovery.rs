//! Reading the write-ahead log back.
//!
//! Segments are read in order. Every record must be valid and carry the next sequence number. Where that stops being
//! so, the rest of the last segment is either a _torn tail_, the remains of a batch that was never acknowledged, or
//! a _hole_ in what was acknowledged. It is a hole if anything proves that the missing record was durable: a later
//! record that was written when it already was (`synced`), a later segment, or the progress mark beside the log. A
//! torn tail is cut off; a hole ends in an error that says what to do, never in a shorter log.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use skep_protocol::ids::ShardId;

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
        let bytes = read_all(segment)?;
        let mut offset = DATA_START as usize;
        while let Some((header, body)) = record::read(bytes.get(offset..).unwrap_or_default()) {
            if next_seq.is_some_and(|seq| seq != header.seq) {
                break;
            }
            let padded = record::padded(header.body_bytes as usize);
            let place = Place { segment: segment.number, offset: offset as u64, bytes: padded as u32 };
            replay(shards.entry(header.shard).or_default(), header, body, place)
                .map_err(|why| StoreError::corrupt(&segment.path, format!("at byte {offset}: {why}")))?;
            if let Some((torn_at, torn_offset)) = torn.first() {
                return Err(hole(&segments[*torn_at], *torn_offset));
            }
            next_seq = Some(header.seq + 1);
            offset += padded;
            (active, end) = (at, offset as u64);
        }
        let rest = bytes.get(offset..).unwrap_or_default();
        if proves_a_hole(rest, next_seq.unwrap_or(1)) {
            return Err(hole(segment, offset as u64));
        }
        if rest.iter().any(|byte| *byte != 0) {
            torn.push((at, offset as u64));
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

fn read_all(segment: &Segment) -> Result<Vec<u8>, StoreError> {
    let io = |e| StoreError::io(&segment.path, e);
    let length = segment.file.metadata().map_err(io)?.len();
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    segment.file.read_exact_at(&mut bytes, 0).map_err(io)?;
    Ok(bytes)
}

fn hole(segment: &Segment, offset: u64) -> StoreError {
    StoreError::corrupt(&segment.path, format!("at byte {offset}: a record that was durable is damaged or missing"))
}

/// Whether a record behind the first invalid one proves that the missing one was durable.
fn proves_a_hole(rest: &[u8], expected: u64) -> bool {
    let mut offset = 0;
    while offset + record::HEADER_BYTES <= rest.len() {
        match record::read(&rest[offset..]) {
            Some((header, _)) if header.synced >= expected => return true,
            Some((header, _)) => offset += record::padded(header.body_bytes as usize),
            None => offset += record::ALIGN,
        }
    }
    false
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
