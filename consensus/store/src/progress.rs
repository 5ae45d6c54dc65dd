//! A mark beside the log that says how far the log was durable.
//!
//! The last batch of a log cannot vouch for itself: if its only copy is damaged, it looks like one that was never
//! finished. The later batches vouch for every other one, since their records say how far the log was durable when they
//! were written. So the writer writes the mark when no write waits any longer, and does not sync it by itself: it costs
//! one system call, and only while there is time. The mark is never ahead of the log. It is behind the log only after a
//! power cut, while the next batch is being put together, or where a disk had no room for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::StoreError;
use super::disk::{Disk, DiskFile, Open};
use super::record::u64_at;

const SLOT_BYTES: usize = 16;

pub(super) struct Mark {
    file: Arc<dyn DiskFile>,
    /// The writer alternates between the slots, so that a torn write leaves the other slot.
    turn: u64,
}

impl Mark {
    /// Opens or makes the mark; also returns the last sequence number that it holds.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<(Self, u64), StoreError> {
        let io = |e: io::Error| StoreError::io(path, e);
        let file = disk.open(path, Open::Create).map_err(io)?;
        let length = file.len().map_err(io)?.min(2 * SLOT_BYTES as u64);
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
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
        // A write that finds no room is tried again in the same slot: the other one stays whole.
        let turn = self.turn + 1;
        self.file.write_all_at(&slot, (turn % 2) * SLOT_BYTES as u64)?;
        self.turn = turn;
        Ok(())
    }
}
