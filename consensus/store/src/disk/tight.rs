//! A disk for tests that is full, or a process that has no descriptor left, whenever the test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// The operating system's disk, without room for a new segment while it is tight.
#[derive(Debug)]
pub struct TightDisk {
    tightness: Tightness,
    /// The error that it returns then.
    shortage: Errno,
}

/// Makes a disk tight, and lets it have room again.
#[derive(Clone, Debug, Default)]
pub struct Tightness {
    is_tight: Arc<AtomicBool>,
    cuts_writes: Arc<AtomicBool>,
    refuses_an_open: Arc<AtomicBool>,
    refusals: Arc<AtomicUsize>,
}

impl Tightness {
    /// Leaves no room for anything new, or lets there be room again.
    pub fn set(&self, is_tight: bool) {
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    /// How many times something new found no room.
    pub fn refusals(&self) -> usize {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Makes every write find room for only half of it.
    pub fn cut_writes(&self, cuts_writes: bool) {
        self.cuts_writes.store(cuts_writes, Ordering::Relaxed);
    }

    /// Makes the next opening of a file fail once.
    pub fn refuse_an_open(&self) {
        self.refuses_an_open.store(true, Ordering::Relaxed);
    }

    /// Takes back [`refuse_an_open`](Self::refuse_an_open).
    pub fn allow_opens(&self) {
        self.refuses_an_open.store(false, Ordering::Relaxed);
    }
}

impl TightDisk {
    /// Returns a disk with room, and the handle that makes it tight.
    pub fn with(shortage: Errno) -> (Arc<dyn Disk>, Tightness) {
        let tightness = Tightness::default();
        (Arc::new(Self { tightness: tightness.clone(), shortage }), tightness)
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TightFile { file, tightness: self.tightness.clone(), shortage: self.shortage })
    }

    fn check(&self) -> io::Result<()> {
        if self.tightness.is_tight.load(Ordering::Relaxed) { Err(self.shortage.into()) } else { Ok(()) }
    }
}

impl Disk for TightDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.make_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        SystemDisk.list(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        // A file that exists has its place; a file that is made, or made anew, needs one.
        if how == Open::Truncate
            && let Err(refused) = self.check()
        {
            self.tightness.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(refused);
        }
        if self.tightness.refuses_an_open.swap(false, Ordering::Relaxed) {
            return Err(self.shortage.into());
        }
        Ok(self.file(SystemDisk.open(path, how)?))
    }

    fn open_direct(&self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        SystemDisk.open_direct(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        // A process without descriptors still has all the room of its disk.
        let is_full = self.shortage == Errno::NOSPC && self.check().is_err();
        Ok(if is_full { 0 } else { 1 << 40 })
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        SystemDisk.lock(path)
    }
}

/// A file on such a disk.
#[derive(Debug)]
struct TightFile {
    file: Arc<dyn DiskFile>,
    tightness: Tightness,
    shortage: Errno,
}

impl DiskFile for TightFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if !self.tightness.cuts_writes.load(Ordering::Relaxed) {
            return self.file.write_all_at(bytes, at);
        }
        // In whole sectors, as writes past the page cache are.
        let half = bytes.len() / (2 * SECTOR_BYTES) * SECTOR_BYTES;
        self.file.write_all_at(&bytes[..half], at)?;
        Err(self.shortage.into())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
