//! Snapshots: one file per shard, replaced as a whole.
//!
//! The file of each snapshot stays open from when it was written or first read. So a follower that needs one gets it
//! even if no descriptor is left, and what a start has found can be read for as long as the process lives. The received
//! part of another node's snapshot has a file beside it: see [`part`].

mod part;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_protocol::mutant::{Mutant, is_on};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, DiskFile, Open, read_whole, replace_with};
use super::{StoreError, foreign, lock};
use crate::record::u64_at;
pub use part::{PartFile, PartHead};

const MAGIC: [u8; 8] = *b"skepsnap";
/// The format that this Skep writes. In format 1 the checksum begins with the header, which is not known yet when a
/// snapshot is written as it is made.
const FORMAT: u32 = 2;
const HEADER_BYTES: usize = 48;
/// How many bytes of a header come before its checksum.
const SUM_AT: usize = 32;

/// A snapshot: what the Raft adapter says of it, and the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The index of the last entry in it.
    pub index: u64,
    /// The description of the snapshot, as the Raft adapter encodes it.
    pub meta: Bytes,
    /// The state, encoded.
    pub data: Bytes,
}

/// The directory of snapshots.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: Arc<PathBuf>,
    /// Each shard has a lock of its own, so that no shard waits for another.
    shards: Arc<Mutex<BTreeMap<ShardId, Arc<OfShard>>>>,
}

/// What is held of the snapshot of one shard.
#[derive(Debug, Default)]
struct OfShard {
    /// Held while a snapshot is written: one that is being built can meet one that is being installed.
    saving: Mutex<()>,
    /// The snapshot's file, once it was written or read. Locked only for a look.
    held: Mutex<Option<Held>>,
    /// How many part files were opened or dropped: only the last one may become the snapshot.
    parts: Mutex<u64>,
}

/// The file of a snapshot.
#[derive(Debug)]
struct Held {
    file: Arc<dyn DiskFile>,
    /// The description in the snapshot, once the snapshot was written, or read whole and found sound.
    meta: Option<Bytes>,
}

impl Snapshots {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        disk.make_dir(dir).map_err(|e| StoreError::io(dir, e))?;
        // A half written file of a crash is of no use.
        let left = disk.list(dir).map_err(|e| StoreError::io(dir, e))?;
        for path in &left {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") if is_of_shard(path) => disk.remove(path).map_err(|e| StoreError::io(path, e))?,
                // The received part of a snapshot may be continued.
                Some("snap" | "part") if is_of_shard(path) => {}
                _ => foreign::leave_alone(path),
            }
        }
        Ok(Self { disk, dir: Arc::new(dir.to_owned()), shards: Arc::default() })
    }

    fn path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("{shard}.snap"))
    }

    fn of(&self, shard: ShardId) -> Arc<OfShard> {
        Arc::clone(lock(&self.shards).entry(shard).or_default())
    }

    /// The file of the shard's snapshot; none if there is none.
    fn file(&self, shard: ShardId) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let of = self.of(shard);
        let mut held = lock(&of.held);
        if held.is_none() {
            *held = match self.disk.open(&self.path(shard), Open::Existing) {
                Ok(file) => Some(Held { file, meta: None }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
        }
        Ok(held.as_ref().map(|held| Arc::clone(&held.file)))
    }

    /// The description of the shard's snapshot, as the Raft adapter encoded it: from memory. None if there is no
    /// snapshot, and until this process has written one or read one whole.
    pub fn meta(&self, shard: ShardId) -> Option<Bytes> {
        lock(&self.of(shard).held).as_ref()?.meta.clone()
    }

    /// Opens the shard's snapshot, if it has one: from then on it can be read without another descriptor.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn hold(&self, shard: ShardId) -> Result<(), StoreError> {
        self.file(shard).map(drop).map_err(|e| StoreError::io(&self.path(shard), e))
    }

    /// How many bytes are free where snapshots are; [`u64::MAX`] if that is unknown.
    pub fn free_bytes(&self) -> u64 {
        self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX)
    }

    /// Replaces the shard's snapshot durably, unless that is newer. A crash leaves the old one or the new one. A
    /// snapshot that equals the present one is written again: the present one may be damaged.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then the old one is in place.
    pub fn save(&self, shard: ShardId, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
        self.replace(shard, snapshot.index, &snapshot.meta, |path| {
            self.put(path, |file| {
                file.write_all_at(&header(FORMAT, snapshot), 0)?;
                file.write_all_at(&snapshot.meta, HEADER_BYTES as u64)?;
                file.write_all_at(&snapshot.data, (HEADER_BYTES + snapshot.meta.len()) as u64)
            })
        })
    }

    /// Replaces the shard's snapshot by one that ends with an entry, unless the present one ends later. `put` gives the
    /// new one its name, durably.
    fn replace(
        &self,
        shard: ShardId,
        index: u64,
        meta: &[u8],
        put: impl FnOnce(&Path) -> io::Result<Arc<dyn DiskFile>>,
    ) -> Result<(), StoreError> {
        let (of, path) = (self.of(shard), self.path(shard));
        let _one_at_a_time = lock(&of.saving);
        let replaced = self.saved_header(shard).and_then(|saved| {
            if saved.is_none_or(|saved| u64_at(&saved, 16) <= index) {
                let file = put(&path)?;
                *lock(&of.held) = Some(Held { file, meta: Some(Bytes::copy_from_slice(meta)) });
            }
            Ok(())
        });
        replaced.map_err(|e| StoreError::io(&path, e))
    }

    /// Replaces a file durably; a mutant makes nothing durable.
    fn put(&self, path: &Path, write: impl FnOnce(&dyn DiskFile) -> io::Result<()>) -> io::Result<Arc<dyn DiskFile>> {
        if !is_on(Mutant::SnapshotBeforeDurable) {
            return replace_with(&*self.disk, path, write);
        }
        let temporary = path.with_extension("tmp");
        let file = self.disk.open(&temporary, Open::Truncate)?;
        write(&*file)?;
        self.disk.rename(&temporary, path)?;
        Ok(file)
    }

    /// The description of the shard's snapshot, as the Raft adapter encoded it: read at the cost of a page, and not
    /// checked. None if it cannot be read.
    pub fn peek(&self, shard: ShardId) -> Option<Bytes> {
        let file = self.file(shard).ok()??;
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).ok()?;
        let bytes = u64::from(u32::from_le_bytes([head[12], head[13], head[14], head[15]]));
        let rest = file.len().ok()?.checked_sub(HEADER_BYTES as u64)?;
        if head[..8] != MAGIC || bytes > rest {
            return None;
        }
        let mut meta = vec![0; usize::try_from(bytes).ok()?];
        file.read_exact_at(&mut meta, HEADER_BYTES as u64).ok()?;
        Some(Bytes::from(meta))
    }

    /// Replaces the shard's snapshot durably by one whose state is written as it is made, a part at a time, unless the
    /// present one is newer. A crash leaves the old one or the new one.
    ///
    /// # Errors
    /// [`StoreError::Io`], also for an error of `state`; then the old one is in place.
    pub fn write(
        &self,
        shard: ShardId,
        index: u64,
        meta: &[u8],
        state: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.replace(shard, index, meta, |path| {
            self.put(path, |file| {
                let (mut sum, mut at) = (Xxh3::new(), HEADER_BYTES as u64);
                let mut put = |part: &[u8]| -> io::Result<()> {
                    file.write_all_at(part, at)?;
                    sum.update(part);
                    at += part.len() as u64;
                    Ok(())
                };
                put(meta)?;
                state(&mut put)?;
                let data_bytes = at - (HEADER_BYTES + meta.len()) as u64;
                let mut header = unsealed(FORMAT, index, meta.len(), data_bytes);
                sum.update(&header[..SUM_AT]);
                seal(&mut header, &sum);
                file.write_all_at(&header, 0)
            })
        })
    }

    /// The header of a saved snapshot; none if there is no such file, or if it is not a snapshot. A file that cannot be
    /// read may be newer than its replacement.
    fn saved_header(&self, shard: ShardId) -> io::Result<Option<[u8; HEADER_BYTES]>> {
        let Some(file) = self.file(shard)? else { return Ok(None) };
        let mut header = [0; HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => Ok((header[..8] == MAGIC).then_some(header)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The shard's snapshot, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is damaged, [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub fn load(&self, shard: ShardId) -> Result<Option<StoredSnapshot>, StoreError> {
        let path = self.path(shard);
        let Some(file) = self.file(shard).map_err(|e| StoreError::io(&path, e))? else { return Ok(None) };
        let bytes = Bytes::from(read_whole(&*file, u64::MAX).map_err(|e| StoreError::io(&path, e))?);
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(StoreError::corrupt(&path, "it is not a snapshot"));
        }
        let format = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if format > FORMAT {
            return Err(StoreError::NewerFormat { path, found: format, supported: FORMAT });
        }
        let meta_bytes = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let split = HEADER_BYTES.checked_add(meta_bytes).filter(|end| *end <= bytes.len());
        let split = split.ok_or_else(|| StoreError::corrupt(&path, "it is cut off"))?;
        let snapshot = StoredSnapshot {
            index: u64_at(&bytes, 16),
            meta: bytes.slice(HEADER_BYTES..split),
            data: bytes.slice(split..),
        };
        if bytes[..HEADER_BYTES] != header(format, &snapshot) {
            return Err(StoreError::corrupt(&path, "its checksum does not match"));
        }
        // Another one may have taken its place meanwhile.
        if let Some(held) = lock(&self.of(shard).held).as_mut().filter(|held| Arc::ptr_eq(&held.file, &file)) {
            // A slice of the bytes that were read would keep the rest in memory.
            held.meta = Some(Bytes::copy_from_slice(&snapshot.meta));
        }
        Ok(Some(snapshot))
    }
}

/// Whether the name of a file is the number of a shard.
fn is_of_shard(path: &Path) -> bool {
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<u32>().is_ok())
}

/// A header without its checksum.
fn unsealed(format: u32, index: u64, meta_bytes: usize, data_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    bytes[12..16].copy_from_slice(&(meta_bytes as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&index.to_le_bytes());
    bytes[24..SUM_AT].copy_from_slice(&data_bytes.to_le_bytes());
    bytes
}

fn seal(header: &mut [u8; HEADER_BYTES], sum: &Xxh3) {
    header[SUM_AT..].copy_from_slice(&sum.digest128().to_le_bytes());
}

fn header(format: u32, snapshot: &StoredSnapshot) -> [u8; HEADER_BYTES] {
    let StoredSnapshot { index, meta, data } = snapshot;
    let mut header = unsealed(format, *index, meta.len(), data.len() as u64);
    let mut sum = Xxh3::new();
    let begins = format == 1;
    if begins {
        sum.update(&header[..SUM_AT]);
    }
    sum.update(meta);
    sum.update(data);
    if !begins {
        sum.update(&header[..SUM_AT]);
    }
    seal(&mut header, &sum);
    header
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::disk::tight::TightDisk;
    use super::super::disk::{SystemDisk, is_shortage};
    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn snapshots(dir: &Path) -> Snapshots {
        Snapshots::open(Arc::new(SystemDisk), dir).unwrap()
    }

    fn stored(index: u64) -> StoredSnapshot {
        StoredSnapshot { index, meta: Bytes::from_static(b"meta"), data: Bytes::from_static(b"the whole state") }
    }

    #[test]
    fn a_snapshot_that_is_written_in_parts_is_the_same_as_one_that_is_saved_whole() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = snapshots(dir.path());
        let path = snapshots.path(SHARD);
        snapshots.save(SHARD, &stored(5)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let write = |index, parts: &[&'static [u8]]| {
            snapshots.write(SHARD, index, b"meta", |put| parts.iter().try_for_each(|part| put(part)))
        };
        write(5, &[b"the ", b"whole", b" state"]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(5)));
        write(4, &[b"an older state"]).unwrap();
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(5)), "a newer one is not replaced by an older one");
    }

    #[test]
    fn a_state_that_cannot_be_written_leaves_the_snapshot_before() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = snapshots(dir.path());
        snapshots.save(SHARD, &stored(5)).unwrap();
        let failed = snapshots.write(SHARD, 6, b"meta", |put| {
            put(b"a part")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(5)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of it");
    }

    #[test]
    fn a_snapshot_that_cannot_be_looked_at_is_not_replaced_by_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, tightness) = TightDisk::with(Errno::MFILE);
        let snapshots = Snapshots::open(disk, dir.path()).unwrap();
        let is_refused = |written: Result<(), StoreError>| match written {
            Err(StoreError::Io { source, .. }) => is_shortage(&source),
            _ => false,
        };
        snapshots.save(SHARD, &stored(5)).unwrap();
        // The next process finds this.
        let snapshots = Snapshots::open(Arc::clone(&snapshots.disk), dir.path()).unwrap();
        tightness.refuse_an_open();
        assert!(is_refused(snapshots.save(SHARD, &stored(4))), "there was no descriptor for a moment");
        tightness.refuse_an_open();
        assert!(is_refused(snapshots.write(SHARD, 4, b"meta", |put| put(b"an older state"))));
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(5)));
        // A part without even a header is of no use.
        std::fs::write(snapshots.path(SHARD), b"skepsnap").unwrap();
        snapshots.save(SHARD, &stored(4)).unwrap();
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(4)));
    }

    #[test]
    fn a_snapshot_that_was_written_or_opened_once_is_read_without_another_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, tightness) = TightDisk::with(Errno::MFILE);
        let snapshots = Snapshots::open(Arc::clone(&disk), dir.path()).unwrap();
        snapshots.save(SHARD, &stored(5)).unwrap();
        tightness.refuse_an_open();
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(5)));
        // No caller asked for that yet.
        assert!(disk.open(&snapshots.path(SHARD), Open::Existing).is_err());
        let after = Snapshots::open(Arc::clone(&disk), dir.path()).unwrap();
        tightness.refuse_an_open();
        assert!(after.hold(SHARD).is_err(), "a start tries again");
        after.hold(SHARD).unwrap();
        tightness.refuse_an_open();
        assert_eq!(after.load(SHARD).unwrap(), Some(stored(5)));
        tightness.allow_opens();
        // From then on its replacement is read.
        after.save(SHARD, &stored(6)).unwrap();
        assert_eq!(after.load(SHARD).unwrap(), Some(stored(6)));
    }

    #[test]
    fn what_a_snapshot_says_of_itself_is_in_memory_once_it_was_written_or_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let before = snapshots(dir.path());
        assert_eq!(before.meta(SHARD), None);
        before.save(SHARD, &stored(5)).unwrap();
        assert_eq!(before.meta(SHARD), Some(stored(5).meta));
        before.write(SHARD, 4, b"of an older one", |put| put(b"an older state")).unwrap();
        assert_eq!(before.meta(SHARD), Some(stored(5).meta), "that one is not there");
        before.write(SHARD, 6, b"of a newer one", |put| put(b"a newer state")).unwrap();
        let newer = Some(Bytes::from_static(b"of a newer one"));
        assert_eq!(before.meta(SHARD), newer);
        let after = snapshots(dir.path());
        assert_eq!(
            (after.peek(SHARD), after.meta(SHARD)),
            (newer.clone(), None),
            "nobody has seen whether it is sound"
        );
        after.load(SHARD).unwrap();
        assert_eq!(after.meta(SHARD), newer);
    }

    #[test]
    fn a_snapshot_whose_state_is_damaged_is_replaced_by_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = snapshots(dir.path());
        snapshots.save(SHARD, &stored(5)).unwrap();
        let path = snapshots.path(SHARD);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(snapshots.load(SHARD).is_err());
        snapshots.save(SHARD, &stored(5)).unwrap();
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored(5)));
    }

    #[test]
    fn a_snapshot_of_format_1_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = snapshots(dir.path());
        let (stored, path) = (stored(5), snapshots.path(SHARD));
        std::fs::write(&path, [&header(1, &stored)[..], &stored.meta[..], &stored.data[..]].concat()).unwrap();
        assert_eq!(snapshots.load(SHARD).unwrap(), Some(stored));
    }
}
