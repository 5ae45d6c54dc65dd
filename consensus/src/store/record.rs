//! Records of the write-ahead log.
//!
//! A record is a header of 32 bytes and a body, padded to 8 bytes:
//!
//! ```text
//! magic u16 | kind u8 | 0 | body length u32 | sequence u64 | synced u64 | shard u32 | checksum u32 | body
//! ```
//!
//! The sequence counts records over all segments without a gap, so nothing can be missing, doubled or in another
//! order without being seen. `synced` is the sequence up to which everything was durable when the record was
//! written: it tells a torn tail from a hole (see [`super::recovery`]). The checksum covers header and body.

use skep_protocol::ids::ShardId;
use xxhash_rust::xxh3::Xxh3;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const ALIGN: usize = 8;
const MAGIC: [u8; 2] = [0x5b, 0xe9];

/// What a record says. The numbers are on disk: they are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    /// The shard's vote, as the Raft adapter encodes it.
    Vote = 1,
    /// A log entry: index, term, and the entry as the Raft adapter encodes it. A second one with the same index and
    /// term is the first one, moved.
    Append = 2,
    /// Entries after an index are gone; the index plus one, so that zero means all of them.
    Truncate = 3,
    /// Entries up to an index and term are gone.
    Purge = 4,
    /// Entries up to an index and term are known to be committed. Not synced by itself.
    Committed = 5,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Vote,
            2 => Self::Append,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            _ => return None,
        })
    }
}

/// A record's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RecordKind,
    pub(super) body_bytes: u32,
    pub(super) seq: u64,
    pub(super) synced: u64,
    pub(super) shard: ShardId,
}

/// Bytes that a record with such a body takes.
pub(super) fn padded(body_bytes: usize) -> usize {
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

/// Reads the record at the start of these bytes: its header and body. None if there is no valid one.
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

/// The little-endian number at a place, or zero past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Two numbers as a record's body or its head.
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
        let header = Header { kind: RecordKind::Append, body_bytes: 18, seq: 5, synced: 4, shard: ShardId(1) };
        write(&mut bytes, header, &two(7, 3), b"ab");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5be9020012000000050000000000000004000000000000000100000097639f7b070000000000000003000000000000006162000000000000"
        );
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
