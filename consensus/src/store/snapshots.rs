//! Snapshots: one file per shard, replaced whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_protocol::mutant::{Mutant, is_on};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, Open, read_all, replace};
use super::{StoreError, lock};
use crate::store::record::u64_at;

const MAGIC: [u8; 8] = *b"skepsnap";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 48;

/// A snapshot: what the Raft adapter says of it, and the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last entry in it.
    pub index: u64,
    /// As the Raft adapter encodes it.
    pub meta: Bytes,
    /// The state.
    pub data: Bytes,
}

/// The directory of snapshots.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: Arc<PathBuf>,
    /// One at a time: one that is being built can meet one that is being installed.
    saving: Arc<Mutex<()>>,
}

impl Snapshots {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        disk.make_dir(dir).map_err(|e| StoreError::io(dir, e))?;
        // What a crash left half written is of no use.
        let left = disk.list(dir).map_err(|e| StoreError::io(dir, e))?;
        for path in left.iter().filter(|path| path.extension().is_some_and(|extension| extension == "tmp")) {
            disk.remove(path).map_err(|e| StoreError::io(path, e))?;
        }
        Ok(Self { disk, dir: Arc::new(dir.to_owned()), saving: Arc::default() })
    }

    fn path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("{shard}.snap"))
    }

    /// Replaces the shard's snapshot durably, unless it is newer. A crash leaves the old one or the new one.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the old one is in place then.
    pub fn save(&self, shard: ShardId, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.saving);
        let path = self.path(shard);
        if self.saved_index(&path).is_some_and(|known| known > snapshot.index) {
            return Ok(());
        }
        let header = header(snapshot);
        let parts: [&[u8]; 3] = [&header, &snapshot.meta, &snapshot.data];
        let saved = match is_on(Mutant::SnapshotBeforeDurable) {
            true => self.put_in_place(&path, &parts),
            false => replace(&*self.disk, &path, &parts),
        };
        saved.map_err(|e| StoreError::io(&path, e))
    }

    /// Replaces it, and makes nothing durable: a mutant.
    fn put_in_place(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        self.disk.open(&temporary, Open::Truncate)?.write_all_at(&parts.concat(), 0)?;
        self.disk.rename(&temporary, path)
    }

    /// What the shard's snapshot says of itself, as the Raft adapter encoded it: read at the cost of a page, and not checked.
    /// None if that cannot be read.
    pub(crate) fn peek(&self, shard: ShardId) -> Option<Bytes> {
        let file = self.disk.open(&self.path(shard), Open::Existing).ok()?;
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

    /// The last entry in a saved snapshot, as its header says; none if there is no such file.
    fn saved_index(&self, path: &Path) -> Option<u64> {
        let mut head = [0; HEADER_BYTES];
        self.disk.open(path, Open::Existing).ok()?.read_exact_at(&mut head, 0).ok()?;
        (head[..8] == MAGIC).then(|| u64_at(&head, 16))
    }

    /// The shard's snapshot, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is damaged, [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub fn load(&self, shard: ShardId) -> Result<Option<StoredSnapshot>, StoreError> {
        let path = self.path(shard);
        let bytes = match read_all(&*self.disk, &path, u64::MAX) {
            Ok(bytes) => Bytes::from(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io(&path, e)),
        };
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
        if bytes[..HEADER_BYTES] != header(&snapshot) {
            return Err(StoreError::corrupt(&path, "its checksum does not match"));
        }
        Ok(Some(snapshot))
    }
}

fn header(snapshot: &StoredSnapshot) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&(snapshot.meta.len() as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&snapshot.index.to_le_bytes());
    bytes[24..32].copy_from_slice(&(snapshot.data.len() as u64).to_le_bytes());
    let mut sum = Xxh3::new();
    sum.update(&bytes[..32]);
    sum.update(&snapshot.meta);
    sum.update(&snapshot.data);
    bytes[32..].copy_from_slice(&sum.digest128().to_le_bytes());
    bytes
}
