//! The marks of the shards' clocks, which the next process of this node reads.
//!
//! A clock continues over a restart only if the machine counted the time meanwhile. A mark names the boot on which its
//! time is counted, and a mark of another boot is not used. So a mark need not survive a power cut and is not synced:
//! it costs one system call. A mark that cannot be read is not used either; the worst result is that the shard begins a
//! new era.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use skep_protocol::ids::{Incarnation, ShardId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::time::LogInstant;
use xxhash_rust::xxh3::xxh3_128;

use super::disk::{Disk, Open, read_all};
use super::record::u64_at;
use super::{StoreError, lock};

const MAGIC: [u8; 8] = *b"skepclk1";
/// The parts of a mark and their checksum.
const SLOT_BYTES: usize = 88;
const SUM_AT: usize = SLOT_BYTES - 16;

/// What a process knew of a shard's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockMark {
    /// The boot of the machine on which the time is counted: times in two marks of one boot can be compared.
    pub boot: u128,
    /// When the process knew it, in milliseconds of that boot.
    pub at_boot_ms: u64,
    /// The value of the log clock then, as the process knew it.
    pub clock: LogInstant,
    /// How far that value may be behind, in milliseconds.
    pub lag_ms: u64,
}

/// The directory of marks, one file per shard.
#[derive(Clone)]
pub struct ClockMarks {
    disk: Arc<dyn Disk>,
    dir: Arc<PathBuf>,
    incarnation: Incarnation,
    /// The writer alternates between the slots, so that a write that is cut off leaves the other slot.
    turns: Arc<Mutex<BTreeMap<ShardId, u64>>>,
}

impl ClockMarks {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, incarnation: Incarnation) -> Result<Self, StoreError> {
        disk.make_dir(dir).map_err(|e| StoreError::io(dir, e))?;
        Ok(Self { disk, dir: Arc::new(dir.to_owned()), incarnation, turns: Arc::default() })
    }

    fn path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("{shard}.clock"))
    }

    /// Saves a mark for the next process.
    ///
    /// # Errors
    /// What the operating system said; then the former mark is still there.
    pub fn save(&self, shard: ShardId, mark: &ClockMark) -> io::Result<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            let turn = turns.entry(shard).or_default();
            *turn += 1;
            *turn
        };
        let file = self.disk.open(&self.path(shard), Open::Create)?;
        file.write_all_at(&self.slot(shard, mark), (turn % 2) * SLOT_BYTES as u64)
    }

    /// Returns the latest mark that this incarnation saved in this boot; none, and a line in the node's log, if the
    /// file cannot be used.
    pub fn load(&self, shard: ShardId, boot: u128) -> Option<ClockMark> {
        let path = self.path(shard);
        let bytes = match read_all(&*self.disk, &path, 2 * SLOT_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%shard, path = %path.display(), %error, "the clock that was left cannot be read");
                return None;
            }
        };
        let marks = bytes.chunks(SLOT_BYTES).filter_map(|slot| self.mark(shard, slot));
        let Some(mark) = marks.max_by_key(|mark| (mark.boot == boot, mark.at_boot_ms)) else {
            tracing::warn!(
                %shard, path = %path.display(),
                "the saved clock is damaged, or of another directory: it is not used"
            );
            return None;
        };
        if mark.boot != boot && !is_on(Mutant::ClockOfAnotherBoot) {
            tracing::info!(%shard, "the machine was booted since this node knew the log clock last");
            return None;
        }
        Some(mark)
    }

    fn slot(&self, shard: ShardId, mark: &ClockMark) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&u64::from(shard.0).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.incarnation.0);
        bytes[32..48].copy_from_slice(&mark.boot.to_le_bytes());
        bytes[48..56].copy_from_slice(&mark.at_boot_ms.to_le_bytes());
        bytes[56..64].copy_from_slice(&mark.clock.raw().to_le_bytes());
        bytes[64..72].copy_from_slice(&mark.lag_ms.to_le_bytes());
        let sum = xxh3_128(&bytes[..SUM_AT]);
        bytes[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The mark in a slot, if the slot is whole, and of this shard and directory.
    fn mark(&self, shard: ShardId, slot: &[u8]) -> Option<ClockMark> {
        let boot = u128::from_le_bytes(slot.get(32..48)?.try_into().ok()?);
        let (clock, lag_ms) = (LogInstant::from_raw(u64_at(slot, 56)), u64_at(slot, 64));
        let mark = ClockMark { boot, at_boot_ms: u64_at(slot, 48), clock, lag_ms };
        (*slot == self.slot(shard, &mark)).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::SystemDisk;
    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn marks(dir: &Path, incarnation: u8) -> ClockMarks {
        ClockMarks::open(Arc::new(SystemDisk), dir, Incarnation([incarnation; 16])).unwrap()
    }

    fn mark(boot: u128, at_boot_ms: u64) -> ClockMark {
        ClockMark { boot, at_boot_ms, clock: LogInstant::from_raw(50_000 + at_boot_ms), lag_ms: 7 }
    }

    #[test]
    fn a_clock_that_was_left_is_taken_in_the_same_boot_by_the_same_incarnation_only() {
        let dir = tempfile::tempdir().unwrap();
        let before = marks(dir.path(), 1);
        assert_eq!(before.load(SHARD, 9), None);
        for at in [100, 1_100, 2_100] {
            before.save(SHARD, &mark(9, at)).unwrap();
        }
        assert_eq!(marks(dir.path(), 1).load(SHARD, 9), Some(mark(9, 2_100)));
        assert_eq!(marks(dir.path(), 1).load(ShardId(4), 9), None);
        assert_eq!(marks(dir.path(), 2).load(SHARD, 9), None, "another incarnation");
        assert_eq!(marks(dir.path(), 1).load(SHARD, 8), None, "another boot");
        // The mark of this boot counts, and not the later one of another boot in the other slot.
        marks(dir.path(), 1).save(SHARD, &mark(8, 30)).unwrap();
        assert_eq!(marks(dir.path(), 1).load(SHARD, 8), Some(mark(8, 30)));
        // This is a file of another shard under this shard's name.
        std::fs::copy(before.path(SHARD), before.path(ShardId(4))).unwrap();
        assert_eq!(before.load(ShardId(4), 9), None);
    }

    #[test]
    fn a_mark_that_is_cut_or_damaged_anywhere_is_no_clock_or_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let marks = marks(dir.path(), 1);
        let good = [mark(9, 100), mark(9, 1_100)];
        good.iter().for_each(|mark| marks.save(SHARD, mark).unwrap());
        let whole = std::fs::read(marks.path(SHARD)).unwrap();
        assert_eq!(whole.len(), 2 * SLOT_BYTES);
        let of = |bytes: &[u8]| {
            std::fs::write(marks.path(SHARD), bytes).unwrap();
            marks.load(SHARD, 9)
        };
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(of(&flipped).is_some_and(|mark| good.contains(&mark)), "one slot is whole, byte {at}");
            let cut = of(&whole[..at]);
            assert!(cut.is_none_or(|mark| good.contains(&mark)), "cut at {at}");
            assert!(at >= SLOT_BYTES || cut.is_none(), "no slot is whole, cut at {at}");
        }
        assert_eq!(of(&[0; 2 * SLOT_BYTES]), None);
    }
}
