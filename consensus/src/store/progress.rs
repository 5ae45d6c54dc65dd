//! A mark beside the log that says how far it was durable.
//!
//! The last batch of a log cannot vouch for itself: if its only copy is damaged, it looks like one that was never
//! finished. The mark is written after each fsync and not synced by itself, so it costs a system call. It is never
//! ahead of the log, and behind it only after a power cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::StoreError;
use super::record::u64_at;

const SLOT_BYTES: usize = 16;

pub(super) struct Mark {
    file: File,
    /// Slots are written in turn, so that a torn write leaves the other.
    turn: u64,
}

impl Mark {
    /// Opens or makes the mark; also the last sequence number that it holds.
    pub(super) fn open(path: &Path) -> Result<(Self, u64), StoreError> {
        let io = |e: io::Error| StoreError::io(path, e);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.by_ref().take(2 * SLOT_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
        let slot = |at: usize| {
            let seq = u64_at(&bytes, at);
            (seq > 0 && u64_at(&bytes, at + 8) == xxh3_64(&seq.to_le_bytes())).then_some(seq)
        };
        let (first, second) = (slot(0), slot(SLOT_BYTES));
        if bytes.iter().any(|b| *b != 0) && first.is_none() && second.is_none() {
            return Err(StoreError::corrupt(path, "neither of its slots is valid"));
        }
        Ok((Self { file, turn: 0 }, first.max(second).unwrap_or(0)))
    }

    pub(super) fn set(&mut self, seq: u64) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&seq.to_le_bytes());
        slot[8..].copy_from_slice(&xxh3_64(&seq.to_le_bytes()).to_le_bytes());
        self.turn += 1;
        self.file.write_all_at(&slot, (self.turn % 2) * SLOT_BYTES as u64)
    }
}
