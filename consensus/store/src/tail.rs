//! Writing to the end of a log, past the page cache where the disk allows that.
//!
//! The page cache writes pages: a log that is synced after each small entry writes 4 KiB for a few hundred bytes. Past
//! the cache a disk takes sectors, an eighth of that. Where the log ends within a sector, that sector is written again
//! with what follows. What it holds already is the same in both writes, so that it survives whichever of the two a
//! power cut leaves. This relies on the disk to write a sector whole or not at all; the cache relies on the same, or
//! more.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, SECTOR_BYTES};
use super::segment::Segment;

/// How many bytes are written at a time: a batch, unless the batch is large.
const PIECE_BYTES: usize = 1024 * 1024;

/// The end of the segment that is written to.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The segment past the page cache; none where that is not possible.
    direct: Option<Arc<dyn DiskFile>>,
    /// The content of the sector in which the log ends.
    sector: Vec<u8>,
    piece: Aligned,
}

impl Tail {
    /// The tail of a segment whose records end at an offset.
    pub(super) fn open(disk: &dyn Disk, segment: &Segment, end: u64) -> Self {
        let held = (end % SECTOR_BYTES as u64) as usize;
        let mut sector = vec![0; held];
        let read = segment.file.read_exact_at(&mut sector, end - held as u64);
        let direct = read.ok().and_then(|()| disk.open_direct(&segment.path));
        Self { direct, sector, piece: Aligned::default() }
    }

    /// Frees the memory of the write buffer if that is more than this many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if self.piece.0.len() > bytes {
            self.piece = Aligned::default();
        }
    }

    /// Writes what follows, in whole sectors where it can. Returns how many bytes that were. After an error the caller
    /// can write the same again to the same place, whatever part of it is there already.
    pub(super) fn write(&mut self, segment: &Segment, bytes: &[u8], at: u64) -> io::Result<u64> {
        if let Some(direct) = self.direct.clone() {
            match self.write_sectors(&*direct, bytes, at) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    tracing::info!(%error, "the log is written through the page cache");
                    self.direct = None;
                }
                written => return written,
            }
        }
        segment.file.write_all_at(bytes, at)?;
        Ok(bytes.len() as u64)
    }

    fn write_sectors(&mut self, direct: &dyn DiskFile, bytes: &[u8], at: u64) -> io::Result<u64> {
        let mut sector = self.sector.clone();
        let mut start = at - sector.len() as u64;
        let (mut rest, mut written) = (bytes, 0);
        while !rest.is_empty() {
            let held = sector.len();
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - held));
            let filled = held + now.len();
            let piece = self.piece.of(filled.next_multiple_of(SECTOR_BYTES));
            piece[..held].copy_from_slice(&sector);
            piece[held..filled].copy_from_slice(now);
            piece[filled..].fill(0);
            direct.write_all_at(piece, start)?;
            written += piece.len() as u64;
            let whole = filled / SECTOR_BYTES * SECTOR_BYTES;
            sector.clear();
            sector.extend_from_slice(&piece[whole..filled]);
            start += whole as u64;
            rest = later;
        }
        self.sector = sector;
        Ok(written)
    }
}

/// Bytes in memory that begin at an address from which a disk can take them.
#[derive(Debug, Default)]
struct Aligned(Vec<u8>);

impl Aligned {
    /// A buffer of this many bytes, with any content.
    fn of(&mut self, bytes: usize) -> &mut [u8] {
        if self.0.len() < bytes + SECTOR_BYTES {
            self.0 = vec![0; (bytes + SECTOR_BYTES).next_power_of_two()];
        }
        // An aligned address is not guaranteed. A disk refuses a buffer that is not aligned, and the cache takes it.
        let from = self.0.as_ptr().align_offset(SECTOR_BYTES).min(SECTOR_BYTES);
        &mut self.0[from..from + bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_large_batch_needed_is_let_go_of_and_what_a_small_one_needs_is_kept() {
        let mut tail = Tail::default();
        tail.piece.of(8 * SECTOR_BYTES);
        tail.shrink_to(PIECE_BYTES / 4);
        let kept = tail.piece.0.len();
        assert!(kept >= 8 * SECTOR_BYTES);
        tail.piece.of(PIECE_BYTES);
        tail.shrink_to(PIECE_BYTES / 4);
        assert_eq!(tail.piece.0.capacity(), 0);
        assert_eq!(tail.piece.of(PIECE_BYTES).len(), PIECE_BYTES, "the next large one finds its place");
    }
}
