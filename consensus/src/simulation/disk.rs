//! A disk that loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::io::Errno;
use skep_store::disk::{Disk, DiskFile, Open};

/// Bytes of a sector. A power cut leaves a sector whole or unwritten, and tears longer writes apart.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
struct Content {
    /// The content as programs see it.
    now: Vec<u8>,
    /// The content on the platter.
    durable: Vec<u8>,
    /// Writes that were not synced: their offsets and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Content {
    /// Makes the writes since the last sync durable. What a failed sync forgot does not become durable, though programs
    /// see it.
    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            let end = (at + bytes.len()).min(self.durable.len());
            self.durable[at.min(end)..end].copy_from_slice(&bytes[..end - at.min(end)]);
        }
    }

    /// Of every write that was not synced, all, a part or nothing survives.
    fn lose(&mut self, rng: &mut SmallRng) {
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            let kept = match rng.random_range(0..4) {
                0 | 1 => 0,
                2 => bytes.len(),
                _ => (rng.random_range(0..=bytes.len()) / SECTOR_BYTES * SECTOR_BYTES).min(bytes.len()),
            };
            let end = at + kept;
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[at..end].copy_from_slice(&bytes[..kept]);
        }
        self.now.clone_from(&self.durable);
    }
}

#[derive(Clone, Debug)]
struct Platter {
    rng: SmallRng,
    /// The number of the process that uses the disk. What an earlier process still does has no effect.
    generation: u64,
    files: BTreeMap<u64, Content>,
    next: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Whether the next sync fails.
    failing: bool,
    /// Whether there is no room for another snapshot.
    refuses_snapshots: bool,
    /// Bytes of snapshots that were read.
    snapshot_bytes_read: u64,
    /// A copy of the disk after each change, if the test keeps them.
    moments: Option<Vec<Platter>>,
}

impl Platter {
    /// Notes a change.
    fn note(&mut self) {
        if let Some(mut moments) = self.moments.take() {
            moments.push(self.clone());
            self.moments = Some(moments);
        }
    }
}

/// The disk of one machine.
#[derive(Clone, Debug)]
pub(super) struct Machine(Arc<Mutex<Platter>>);

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            rng: SmallRng::seed_from_u64(seed),
            generation: 0,
            files: BTreeMap::new(),
            next: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            failing: false,
            refuses_snapshots: false,
            snapshot_bytes_read: 0,
            moments: None,
        })))
    }

    /// Sets whether the disk refuses another snapshot for want of room.
    pub(super) fn refuse_snapshots(&self, refuses: bool) {
        self.platter().refuses_snapshots = refuses;
    }

    /// How many bytes of snapshots were read from the disk so far.
    pub(super) fn snapshot_bytes_read(&self) -> u64 {
        self.platter().snapshot_bytes_read
    }

    /// Keeps every moment from then on: a copy of the disk after each change.
    pub(super) fn keep_moments(&self) {
        self.platter().moments = Some(Vec::new());
    }

    /// The number of moments so far.
    pub(super) fn moments(&self) -> usize {
        self.platter().moments.as_ref().map_or(0, Vec::len)
    }

    /// A disk as this one was at a moment. The seed decides what a power cut does to it.
    pub(super) fn at_moment(&self, at: usize, seed: u64) -> Option<Self> {
        let moment = self.platter().moments.as_ref()?.get(at)?.clone();
        Some(Self(Arc::new(Mutex::new(Platter { rng: SmallRng::seed_from_u64(seed), ..moment }))))
    }

    /// Another disk with the same content.
    pub(super) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.platter().clone())))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a new process sees it. Writes of earlier processes that were not synced are still there.
    pub(super) fn mount(&self) -> Arc<dyn Disk> {
        let mut platter = self.platter();
        platter.generation += 1;
        platter.failing = false;
        Arc::new(Mounted { platter: Arc::clone(&self.0), generation: platter.generation })
    }

    /// Ends the process that uses the disk: nothing that it still does has an effect.
    pub(super) fn end_process(&self) {
        self.platter().generation += 1;
    }

    /// Cuts the power.
    pub(super) fn cut_power(&self) {
        let mut platter = self.platter();
        platter.generation += 1;
        let Platter { rng, files, names, durable_names, .. } = &mut *platter;
        files.values_mut().for_each(|content| content.lose(rng));
        // The file system had written its journal, or had not.
        if rng.random_bool(0.5) {
            durable_names.clone_from(names);
        } else {
            names.clone_from(durable_names);
        }
    }

    /// Flips a bit of some file; false if there is no file.
    pub(super) fn flip_a_bit(&self) -> bool {
        let mut platter = self.platter();
        let Platter { rng, files, names, .. } = &mut *platter;
        let named: BTreeSet<u64> = names.values().copied().collect();
        let mut written: Vec<&mut Content> =
            files.iter_mut().filter(|(id, file)| named.contains(id) && !file.now.is_empty()).map(|(_, f)| f).collect();
        if written.is_empty() {
            return false;
        }
        let at = rng.random_range(0..written.len());
        let content = &mut written[at];
        // The bit is in the written part, not in the zeros behind it.
        let used = content.now.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        let byte = rng.random_range(0..used);
        let bit = 1 << rng.random_range(0..8);
        content.now[byte] ^= bit;
        content.sync();
        if let Some(durable) = content.durable.get_mut(byte) {
            *durable = content.now[byte];
        }
        true
    }

    /// Makes the next sync of the process that uses the disk fail.
    pub(super) fn fail_next_sync(&self) {
        self.platter().failing = true;
    }

    /// Puts an older copy in the place of the content.
    pub(super) fn restore(&self, copy: &Self) {
        let copy = copy.platter().clone();
        let mut platter = self.platter();
        *platter = Platter { generation: platter.generation + 1, ..copy };
    }

    /// Deletes everything.
    pub(super) fn wipe(&self) {
        let mut platter = self.platter();
        platter.generation += 1;
        platter.files.clear();
        platter.names.clear();
        platter.durable_names.clear();
    }
}

struct Mounted {
    platter: Arc<Mutex<Platter>>,
    generation: u64,
}

impl Mounted {
    fn platter(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.platter.lock().unwrap_or_else(PoisonError::into_inner);
        if platter.generation == self.generation { Ok(platter) } else { Err(gone()) }
    }
}

fn gone() -> io::Error {
    io::Error::other("the process has ended")
}

impl Disk for Mounted {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let platter = self.platter()?;
        let below = platter.names.keys().filter_map(|path| path.strip_prefix(dir).ok()?.components().next());
        let names: BTreeSet<PathBuf> = below.map(|first| dir.join(first)).collect();
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut platter = self.platter()?;
        let is_snapshot = path.parent().is_some_and(|dir| dir.ends_with("snapshots"));
        if how == Open::Truncate && is_snapshot && platter.refuses_snapshots {
            return Err(Errno::NOSPC.into());
        }
        let known = platter.names.get(path).copied();
        let id = match (known, how) {
            (Some(id), Open::Existing | Open::Create) => id,
            (None, Open::Existing) => return Err(io::Error::from(io::ErrorKind::NotFound)),
            // An emptied or new file is another file under the name.
            (_, Open::Create | Open::Truncate) => {
                platter.next += 1;
                let id = platter.next;
                platter.files.insert(id, Content::default());
                platter.names.insert(path.to_owned(), id);
                platter.note();
                id
            }
        };
        Ok(Arc::new(SimFile { platter: Arc::clone(&self.platter), generation: self.generation, id, is_snapshot }))
    }

    /// Every second process finds that it can write past the page cache.
    fn open_direct(&self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        if self.generation.is_multiple_of(2) { None } else { self.open(path, Open::Existing).ok() }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.platter()?;
        let id = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        platter.names.insert(to.to_owned(), id);
        platter.note();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.platter()?;
        platter.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        platter.note();
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut platter = self.platter()?;
        platter.durable_names = platter.names.clone();
        platter.note();
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path, Open::Create)
    }
}

#[derive(Debug)]
struct SimFile {
    platter: Arc<Mutex<Platter>>,
    generation: u64,
    id: u64,
    is_snapshot: bool,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content, &mut bool) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.platter.lock().unwrap_or_else(PoisonError::into_inner);
        if platter.generation != self.generation {
            return Err(gone());
        }
        let Platter { files, failing, .. } = &mut *platter;
        work(files.get_mut(&self.id).ok_or_else(gone)?, failing)
    }

    fn change<T>(&self, work: impl FnOnce(&mut Content, &mut bool) -> io::Result<T>) -> io::Result<T> {
        let changed = self.with(work)?;
        self.platter.lock().unwrap_or_else(PoisonError::into_inner).note();
        Ok(changed)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|content, _| Ok(content.now.len() as u64))
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.with(|content, _| {
            let from = content.now.get(at as usize..).unwrap_or_default();
            let part = from.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        })?;
        if self.is_snapshot {
            self.platter.lock().unwrap_or_else(PoisonError::into_inner).snapshot_bytes_read += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.change(|content, _| {
            let (from, end) = (at as usize, at as usize + bytes.len());
            if content.now.len() < end {
                content.now.resize(end, 0);
            }
            content.now[from..end].copy_from_slice(bytes);
            content.unsynced.push((from, bytes.to_vec()));
            Ok(())
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.change(|content, _| {
            let length = content.now.len().max(bytes as usize);
            content.now.resize(length, 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|content, failing| {
            if std::mem::take(failing) {
                // Linux does the same: what it could not write is forgotten, and looks as if it had been written.
                content.unsynced.clear();
                return Err(io::Error::other("EIO"));
            }
            content.sync();
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }
}
