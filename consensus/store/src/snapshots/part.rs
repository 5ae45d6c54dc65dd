//! The received part of another node's snapshot: in a file of its own until it is whole; then it becomes the snapshot.
//!
//! The state is written behind room for a header and for the description of the snapshot, so that only the header is
//! written anew once all of it is there. Until then the header says which snapshot it is, and which node sends it: so
//! the transfer goes on after a pause, and in another process. The file is as long as what arrived without a gap.
//! Nothing is synced before the snapshot is whole: its digest shows what a power cut leaves of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use skep_protocol::frame::SnapshotId;
use skep_protocol::ids::{RaftId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};
use xxhash_rust::xxh3::xxh3_128;

use super::{FORMAT, HEADER_BYTES, Snapshots, StoredSnapshot, header};
use crate::disk::{DiskFile, Open};
use crate::{StoreError, lock};

const MAGIC: [u8; 8] = *b"skeppart";

/// A snapshot as its sender announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The member that sends it. Another member may have begun anything under the same name.
    pub from: RaftId,
    /// The length and the digest of the snapshot.
    pub id: SnapshotId,
    /// The index of the last entry in it.
    pub index: u64,
    /// The description of the snapshot, as the Raft adapter encodes it.
    pub meta: Bytes,
}

impl PartHead {
    /// The beginning of the file until the snapshot is whole.
    fn opening(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.meta.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(self.meta.len() as u32).to_le_bytes());
        // There is only room for half of the name. An attacker who finds another snapshot with that half gains only
        // that a snapshot is sent again: the digest says whether what arrived is what was announced.
        bytes.extend_from_slice(&self.from.0.to_le_bytes()[..8]);
        bytes.extend_from_slice(&self.id.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.id.digest.to_le_bytes());
        bytes.extend_from_slice(&self.meta);
        bytes
    }

    /// Where the state begins in the file, in bytes.
    fn data_at(&self) -> u64 {
        (HEADER_BYTES + self.meta.len()) as u64
    }
}

/// The file of a snapshot that arrives.
#[derive(Debug)]
pub struct PartFile {
    file: Arc<dyn DiskFile>,
    head: PartHead,
    /// The number of this file among all that its shard had.
    number: u64,
    /// Its header as a snapshot, once it was read whole and found sound.
    sealed: OnceLock<[u8; HEADER_BYTES]>,
    /// Whether the file has the name of the snapshot.
    is_placed: AtomicBool,
}

impl PartFile {
    /// The snapshot as it was announced.
    pub fn head(&self) -> &PartHead {
        &self.head
    }

    /// Writes a part of the state to its place. Writes no byte behind the end that was announced.
    ///
    /// # Errors
    /// Those of the disk; [`io::ErrorKind::InvalidInput`] if the part is not within what was announced.
    pub fn write(&self, part: &[u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(part.len() as u64);
        if end.is_none_or(|end| end > self.head.id.bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is longer than was announced"));
        }
        self.file.write_all_at(part, self.head.data_at() + at)
    }

    /// The whole state, once it has arrived; none if it is not what was announced.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn load(&self) -> io::Result<Option<Bytes>> {
        let mut data = vec![0; usize::try_from(self.head.id.bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut data, self.head.data_at())?;
        let data = Bytes::from(data);
        if xxh3_128(&data) != self.head.id.digest {
            return Ok(None);
        }
        let (index, meta) = (self.head.index, self.head.meta.clone());
        // An earlier read found the same.
        let _ = self.sealed.set(header(FORMAT, &StoredSnapshot { index, meta, data: data.clone() }));
        Ok(Some(data))
    }
}

impl Snapshots {
    fn part_path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("{shard}.part"))
    }

    /// Opens the file of a snapshot that arrives, and returns how much of it has arrived before. The part of another
    /// snapshot is dropped. None if `has_room` says that there is no room for the missing bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn begin_part(
        &self,
        shard: ShardId,
        head: PartHead,
        has_room: impl FnOnce(u64) -> bool,
    ) -> Result<Option<(PartFile, u64)>, StoreError> {
        let (of, path) = (self.of(shard), self.part_path(shard));
        let mut number = lock(&of.parts);
        let opened = self.found_part(&path, &head).and_then(|found| {
            let there = found.as_ref().map_or(0, |(_, there)| *there);
            if found.is_none() {
                // A holder of the former part has another file.
                self.remove_part(&path)?;
            }
            if !has_room(head.id.bytes - there) {
                return Ok(None);
            }
            let file = match found {
                Some((file, _)) => file,
                None => self.make_part(&path, &head)?,
            };
            Ok(Some((file, there)))
        });
        let Some((file, there)) = opened.map_err(|e| StoreError::io(&path, e))? else { return Ok(None) };
        *number += 1;
        let (sealed, is_placed) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Some((PartFile { file, head, number: *number, sealed, is_placed }, there)))
    }

    /// The part of this very snapshot, and how much has arrived.
    fn found_part(&self, path: &Path, head: &PartHead) -> io::Result<Option<(Arc<dyn DiskFile>, u64)>> {
        let file = match self.disk.open(path, Open::Existing) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let opening = head.opening();
        let Some(came) = file.len()?.checked_sub(opening.len() as u64) else { return Ok(None) };
        let mut found = vec![0; opening.len()];
        file.read_exact_at(&mut found, 0)?;
        Ok((found == opening).then(|| (file, came.min(head.id.bytes))))
    }

    fn make_part(&self, path: &Path, head: &PartHead) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, Open::Truncate)?;
        let begun = file.write_all_at(&head.opening(), 0);
        if begun.is_err() {
            // A partial file is removed, so that it takes no room.
            let _ = self.disk.remove(path);
        }
        begun.map(|()| file)
    }

    fn remove_part(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Drops the received part of a snapshot, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn drop_part(&self, shard: ShardId) -> Result<(), StoreError> {
        let (of, path) = (self.of(shard), self.part_path(shard));
        let mut number = lock(&of.parts);
        *number += 1;
        self.remove_part(&path).map_err(|e| StoreError::io(&path, e))
    }

    /// Replaces the shard's snapshot durably by one that has arrived whole and was found sound ([`PartFile::load`]),
    /// unless the present one is newer: the file gets another name. A crash leaves the old one or the new one. After a
    /// failure for want of room the caller can try again.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then the old one is in place, or the new one, which may not be durable.
    pub fn adopt(&self, shard: ShardId, index: u64, meta: &[u8], part: &PartFile) -> Result<(), StoreError> {
        self.replace(shard, index, meta, |path| {
            let of = self.of(shard);
            let number = lock(&of.parts);
            if *number != part.number || (index, meta) != (part.head.index, &part.head.meta[..]) {
                return Err(io::Error::other("another snapshot has come in its place"));
            }
            let is_durable = !is_on(Mutant::SnapshotBeforeDurable);
            if !part.is_placed.load(Ordering::Relaxed) {
                let sealed =
                    part.sealed.get().ok_or_else(|| io::Error::other("nobody has seen whether it is sound"))?;
                part.file.write_all_at(sealed, 0)?;
                if is_durable {
                    part.file.sync()?;
                }
                self.disk.rename(&self.part_path(shard), path)?;
                part.is_placed.store(true, Ordering::Relaxed);
            }
            if is_durable {
                self.disk.sync_dir(&self.dir)?;
            }
            Ok(Arc::clone(&part.file))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::io::Errno;

    use super::*;
    use crate::disk::tight::TightDisk;
    use crate::disk::{SystemDisk, is_shortage};

    const SHARD: ShardId = ShardId(1);
    const STATE: &[u8] = b"the whole state";

    fn open(dir: &Path) -> Snapshots {
        Snapshots::open(Arc::new(SystemDisk), dir).unwrap()
    }

    fn head() -> PartHead {
        let id = SnapshotId { bytes: STATE.len() as u64, digest: xxh3_128(STATE) };
        PartHead { from: RaftId(7), id, index: 5, meta: Bytes::from_static(b"meta") }
    }

    fn begin(snapshots: &Snapshots, head: PartHead) -> (PartFile, u64) {
        snapshots.begin_part(SHARD, head, |_| true).unwrap().unwrap()
    }

    fn stored() -> StoredSnapshot {
        StoredSnapshot { index: 5, meta: head().meta, data: Bytes::from_static(STATE) }
    }

    #[test]
    fn a_snapshot_that_came_in_parts_takes_the_place_of_the_one_before_as_it_lies_there() {
        let (dir, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let snapshots = open(dir.path());
        snapshots.save(SHARD, &StoredSnapshot { index: 4, ..stored() }).unwrap();
        let (part, there) = begin(&snapshots, head());
        assert_eq!(there, 0);
        for (at, bytes) in [(0, &STATE[..9]), (9, &STATE[9..])] {
            part.write(bytes, at).unwrap();
        }
        let inode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().ino();
        let came = inode("1.part");
        assert!(snapshots.adopt(SHARD, 5, b"meta", &part).is_err(), "nobody has looked at it");
        assert_eq!(part.load().unwrap(), Some(stored().data));
        snapshots.adopt(SHARD, 5, b"meta", &part).unwrap();
        // The same as after a failed sync of the directory.
        snapshots.adopt(SHARD, 5, b"meta", &part).unwrap();
        assert_eq!((inode("1.snap"), std::fs::read_dir(dir.path()).unwrap().count()), (came, 1));
        assert_eq!((snapshots.meta(SHARD), snapshots.load(SHARD).unwrap()), (Some(head().meta), Some(stored())));
        open(saved.path()).save(SHARD, &stored()).unwrap();
        let bytes = |dir: &Path| std::fs::read(dir.join("1.snap")).unwrap();
        assert_eq!(bytes(dir.path()), bytes(saved.path()));
    }

    #[test]
    fn what_came_goes_on_in_another_process_and_what_came_of_another_snapshot_does_not() {
        let dir = tempfile::tempdir().unwrap();
        begin(&open(dir.path()), head()).0.write(&STATE[..9], 0).unwrap();
        let after = open(dir.path());
        let (part, there) = begin(&after, head());
        assert_eq!(there, 9);
        part.write(&STATE[9..], 9).unwrap();
        assert_eq!(part.load().unwrap(), Some(stored().data));
        // Another member may send anything under its name.
        let others = [
            PartHead { from: RaftId(8), ..head() },
            PartHead { id: SnapshotId { digest: 0, ..head().id }, ..head() },
            PartHead { id: SnapshotId { bytes: 9, ..head().id }, ..head() },
            PartHead { meta: Bytes::from_static(b"else"), ..head() },
        ];
        for other in others {
            assert_eq!(begin(&after, other).1, 0);
        }
        assert!(after.adopt(SHARD, 5, b"meta", &part).is_err(), "others have come in its place");
        assert_eq!(part.load().unwrap(), Some(stored().data), "they have files of their own");
        after.drop_part(SHARD).unwrap();
        after.drop_part(SHARD).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_no_longer_than_was_announced_and_what_it_holds_is_what_was_announced_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = open(dir.path());
        let (part, _) = begin(&snapshots, head());
        let whole = STATE.len() as u64;
        for (bytes, at) in [(STATE, 1), (&b"x"[..], whole), (&b"x"[..], u64::MAX)] {
            assert_eq!(part.write(bytes, at).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(part.load().is_err(), "it has not come");
        part.write(b"another state!!", 0).unwrap();
        assert_eq!(part.load().unwrap(), None);
        let bytes = std::fs::metadata(dir.path().join("1.part")).unwrap().len();
        assert_eq!(bytes, HEADER_BYTES as u64 + 4 + whole);
        assert!(snapshots.adopt(SHARD, 5, b"meta", &part).is_err());
    }

    #[test]
    fn a_snapshot_for_which_there_is_no_room_is_not_begun_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, tightness) = TightDisk::with(Errno::NOSPC);
        let snapshots = Snapshots::open(disk, dir.path()).unwrap();
        let whole = head().id.bytes;
        let begun = snapshots.begin_part(SHARD, head(), |bytes| bytes < whole).unwrap();
        assert!(begun.is_none());
        tightness.set(true);
        match snapshots.begin_part(SHARD, head(), |_| true) {
            Err(StoreError::Io { source, .. }) => assert!(is_shortage(&source)),
            other => panic!("{other:?}"),
        }
        tightness.set(false);
        tightness.cut_writes(true);
        assert!(snapshots.begin_part(SHARD, head(), |_| true).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        tightness.cut_writes(false);
        begin(&snapshots, head()).0.write(&STATE[..9], 0).unwrap();
        let goes_on = snapshots.begin_part(SHARD, head(), |bytes| bytes == whole - 9).unwrap();
        assert_eq!(goes_on.map(|(_, there)| there), Some(9), "room is needed for what has not come");
    }
}
