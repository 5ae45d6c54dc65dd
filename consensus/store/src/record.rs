//! Records of the write-ahead log.
//!
//! A record is a header of 32 bytes and a body, padded to 8 bytes:
//!
//! ```text
//! magic u16 | kind u8 | 0 | body length u32 | sequence u64 | synced u64 | shard u32 | checksum u32 | body
//! ```
//!
//! The sequence counts records over all segments without a gap, so that a missing, doubled or displaced record is
//! always seen. `synced` is the sequence number up to which everything was durable when the record was written: it
//! tells a torn tail from a hole (see [`super::recovery`]). The checksum covers header and body.

use skep_protocol::ids::ShardId;
use xxhash_rust::xxh3::Xxh3;

use super::shard_log::LogPoint;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const ALIGN: usize = 8;
const MAGIC: [u8; 2] = [0x5b, 0xe9];

/// The kinds of records. The numbers are on disk: they are never reused. An earlier format had 2 and 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    /// The shard's vote, as the Raft adapter encodes it.
    Vote = 1,
    /// Entries after an index are gone; the value is the index plus one, so that zero means all of them.
    Truncate = 3,
    /// Entries up to an index and term are gone.
    Purge = 4,
    /// A log entry: an [`EntryBody`]. A second one with the same index and term is the first one, moved.
    Append = 6,
    /// Entries up to an index are committed. Written at the beginning of a segment; otherwise entries say it.
    Committed = 7,
    /// No shard needs segments before this number; the value is the number. A missing segment before it is no hole.
    Kept = 8,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            6 => Self::Append,
            7 => Self::Committed,
            8 => Self::Kept,
            _ => return None,
        })
    }
}

/// The body of an entry's record: three numbers, each in as few bytes as it needs, and the entry.
///
/// The third number says how far the log was known to be committed when the entry was written: that changes with nearly
/// every entry, and a record of its own would be larger than many entries are. Zero is no change; otherwise the value
/// is one more than the number of entries, up to this one, that are not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryBody<'a> {
    pub(super) point: LogPoint,
    /// Entries up to this index are committed; it is not beyond the entry itself. None if the record does not say.
    pub(super) committed: Option<u64>,
    /// The entry, as the Raft adapter encodes it.
    pub(super) entry: &'a [u8],
}

impl<'a> EntryBody<'a> {
    /// The bytes before the entry.
    pub(super) fn head(point: LogPoint, committed: Option<u64>) -> Vec<u8> {
        let behind = committed.and_then(|committed| point.index.checked_sub(committed));
        let mut head = Vec::with_capacity(3 * VARINT_BYTES_MAX);
        put_varint(&mut head, point.index);
        put_varint(&mut head, point.term);
        put_varint(&mut head, behind.map_or(0, |behind| behind.saturating_add(1)));
        head
    }

    /// Reads the body of an entry's record; none if it is not valid.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (index, rest) = varint(body)?;
        let (term, rest) = varint(rest)?;
        let (behind, entry) = varint(rest)?;
        let committed = match behind.checked_sub(1) {
            Some(behind) => Some(index.checked_sub(behind)?),
            None => None,
        };
        Some(Self { point: LogPoint { index, term }, committed, entry })
    }
}

/// The most bytes that a number takes: seven bits in each.
const VARINT_BYTES_MAX: usize = 10;

fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// The number at the start of these bytes, and the bytes after it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// The header of a record, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RecordKind,
    pub(super) body_bytes: u32,
    pub(super) seq: u64,
    pub(super) synced: u64,
    pub(super) shard: ShardId,
}

/// How many bytes a record with a body of this size takes.
pub(super) const fn padded(body_bytes: usize) -> usize {
    (HEADER_BYTES + body_bytes).next_multiple_of(ALIGN)
}

/// Appends a record to a buffer. The body is given in two parts, so that entries need no copy of their own.
pub(super) fn write(buffer: &mut Vec<u8>, header: Header, head: &[u8], tail: &[u8]) {
    let start = buffer.len();
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&[header.kind as u8, 0]);
    buffer.extend_from_slice(&header.body_bytes.to_le_bytes());
    buffer.extend_from_slice(&header.seq.to_le_bytes());
    buffer.extend_from_slice(&header.synced.to_le_bytes());
    buffer.extend_from_slice(&header.shard.0.to_le_bytes());
    let mut sum = Xxh3::new();
    sum.update(&buffer[start..]);
    sum.update(head);
    sum.update(tail);
    buffer.extend_from_slice(&checksum(&sum).to_le_bytes());
    buffer.extend_from_slice(head);
    buffer.extend_from_slice(tail);
    buffer.resize(start + padded(head.len() + tail.len()), 0);
}

fn checksum(sum: &Xxh3) -> u32 {
    // Truncation is the point: 32 of the 64 bits.
    sum.digest() as u32
}

/// Reads the record at the start of these bytes: its header and body. None if there is no valid record.
pub(super) fn read(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (raw, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    if raw[..2] != MAGIC || raw[3] != 0 {
        return None;
    }
    let kind = RecordKind::from_byte(raw[2])?;
    let body_bytes = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
    let body = rest.get(..body_bytes as usize)?;
    let mut sum = Xxh3::new();
    sum.update(&raw[..28]);
    sum.update(body);
    if checksum(&sum).to_le_bytes() != raw[28..] {
        return None;
    }
    let header = Header {
        kind,
        body_bytes,
        seq: u64_at(raw, 8),
        synced: u64_at(raw, 16),
        shard: ShardId(u32::from_le_bytes([raw[24], raw[25], raw[26], raw[27]])),
    };
    Some((header, body))
}

/// The little-endian number at an offset, or zero past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Two numbers, as a record's body or its head.
pub(super) fn two(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&second.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_record() {
        let mut bytes = Vec::new();
        let head = EntryBody::head(LogPoint { index: 7, term: 3 }, Some(6));
        let header = Header { kind: RecordKind::Append, body_bytes: 5, seq: 5, synced: 4, shard: ShardId(1) };
        write(&mut bytes, header, &head, b"ab");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5be90600050000000500000000000000040000000000000001000000472685ef0703026162000000");
    }

    #[test]
    fn an_entry_says_where_it_stands_and_how_far_the_log_is_committed() {
        for (index, term, committed) in [
            (0, 0, None),
            (0, 1, Some(0)),
            (127, 1, Some(0)),
            (128, 300, Some(128)),
            (1 << 40, 1 << 20, Some((1 << 40) - 1)),
            (u64::MAX - 1, u64::MAX, None),
        ] {
            let point = LogPoint { index, term };
            let body = [&EntryBody::head(point, committed)[..], b"entry".as_slice()].concat();
            assert_eq!(EntryBody::read(&body), Some(EntryBody { point, committed, entry: b"entry" }));
        }
        assert_eq!(EntryBody::read(&[]), None);
        assert_eq!(EntryBody::read(&[5, 1]), None, "cut off");
        assert_eq!(EntryBody::read(&[5, 1, 7]), None, "committed before the first entry");
        assert_eq!(EntryBody::read(&[0xff; 40]), None, "a number without an end");
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let header = Header { kind: RecordKind::Append, body_bytes: 19, seq: 7, synced: 5, shard: ShardId(1) };
        let mut bytes = Vec::new();
        write(&mut bytes, header, &two(3, 1), b"abc");
        assert_eq!(bytes.len(), padded(19));
        let (read_header, body) = read(&bytes).unwrap();
        assert_eq!((read_header, &body[16..]), (header, b"abc".as_slice()));
        for bit in 0..(HEADER_BYTES + 19) * 8 {
            let mut spoiled = bytes.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&spoiled).is_none(), "bit {bit}");
        }
        for length in 0..HEADER_BYTES + 19 {
            assert!(read(&bytes[..length]).is_none(), "cut to {length}");
        }
    }
}
