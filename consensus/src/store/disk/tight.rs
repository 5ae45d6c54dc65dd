//! A disk of tests that is full, or a process that has no descriptor left, whenever it is said to be.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// The operating system's disk, without room for a new segment while it is tight.
#[derive(Debug)]
pub(crate) struct TightDisk {
    is_tight: Arc<AtomicBool>,
    /// What is said then.
    shortage: Errno,
}

/// Makes a disk tight, and lets it have room again.
#[derive(Clone, Debug)]
pub(crate) struct Tightness(Arc<AtomicBool>);

impl Tightness {
    pub(crate) fn set(&self, is_tight: bool) {
        self.0.store(is_tight, Ordering::Relaxed);
    }
}

impl TightDisk {
    pub(crate) fn new(shortage: Errno) -> (Arc<dyn Disk>, Tightness) {
        let is_tight = Arc::default();
        let tightness = Tightness(Arc::clone(&is_tight));
        (Arc::new(Self { is_tight, shortage }), tightness)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_tight.load(Ordering::Relaxed) { Err(self.shortage.into()) } else { Ok(()) }
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
        // What is there has its place; what is made, or made anew, needs one.
        if how == Open::Truncate {
            self.check()?;
        }
        SystemDisk.open(path, how)
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
        // A process without descriptors has all the room of its disk.
        let is_full = self.shortage == Errno::NOSPC && self.check().is_err();
        Ok(if is_full { 0 } else { 1 << 40 })
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        SystemDisk.lock(path)
    }
}
