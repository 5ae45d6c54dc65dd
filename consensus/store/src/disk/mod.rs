//! The file system as the log and the snapshots use it.
//!
//! Everything that must be durable goes through this trait, so that tests can put a disk underneath that loses what was
//! not synced, tears writes, flips bits, fails, or is slow. The history does not: it can be made anew.

use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::StoreError;

/// How often an operation that found no room is tried again.
pub const ROOM_CHECK_EVERY: Duration = Duration::from_millis(200);

/// The bytes that a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must exist.
    Existing,
    /// The file is made if it is missing.
    Create,
    /// The file is made, or emptied.
    Truncate,
}

/// A file system. Its errors are those of the operating system.
pub trait Disk: Send + Sync {
    /// Makes a directory and its parents.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Lists the paths in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for writing whole sectors past the page cache, from buffers in memory with the same
    /// alignment; none where the file system or the disk cannot do that.
    fn open_direct(&self, path: &Path) -> Option<Arc<dyn DiskFile>>;

    /// Gives a file another name. Durable with the next [`sync_dir`](Self::sync_dir).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable with the next [`sync_dir`](Self::sync_dir).
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How many bytes are free.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Keeps other processes from using the directory, by a file in it, for as long as the result lives.
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
}

/// An open file. Its errors are those of the operating system.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether one is empty")]
pub trait DiskFile: Debug + Send + Sync {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills a buffer from an offset in the file.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes a buffer to an offset in the file.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes sure that there is space for this many bytes, which are zero until they are written.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file's content durable.
    fn sync(&self) -> io::Result<()>;

    /// Makes the content of a file durable whose length did not change: cheaper.
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room on the disk, or no descriptor: the operation can be tried again later.
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// Runs an operation that needs room on the disk, or a descriptor, once there is some, however long that takes: for
/// operations that can wait. Only the caller waits between two attempts.
///
/// # Errors
/// Any other error of the operation.
pub async fn once_there_is_room<T, Attempt>(mut attempt: impl FnMut() -> Attempt) -> Result<T, StoreError>
where
    Attempt: Future<Output = Result<T, StoreError>>,
{
    let mut told = false;
    loop {
        match attempt().await {
            Err(StoreError::Io { path, source }) if is_shortage(&source) => {
                if !std::mem::replace(&mut told, true) {
                    let path = path.display();
                    tracing::warn!(%path, error = %source, "there is no room, or no descriptor: it is tried again");
                }
                tokio::time::sleep(ROOM_CHECK_EVERY).await;
            }
            done => return done,
        }
    }
}

/// Returns everything that a named file holds, up to a limit.
pub(super) fn read_all(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_whole(&*disk.open(path, Open::Existing)?, bytes_max)
}

/// Returns everything that an open file holds, up to a limit.
pub(super) fn read_whole(file: &dyn DiskFile, bytes_max: u64) -> io::Result<Vec<u8>> {
    let length = file.len()?.min(bytes_max);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a whole file, durably: a crash leaves the old one or the new one.
pub(super) fn replace(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    replace_with(disk, path, |file| {
        let mut at = 0;
        for part in parts {
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    })
    .map(drop)
}

/// Replaces a whole file, durably, by one that `write` produces, and that stays open.
pub(super) fn replace_with(
    disk: &dyn Disk,
    path: &Path,
    write: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<Arc<dyn DiskFile>> {
    let temporary = path.with_extension("tmp");
    let written = disk.open(&temporary, Open::Truncate).and_then(|file| {
        write(&*file)?;
        file.sync()?;
        Ok(file)
    });
    if written.is_err() {
        // A partial file is removed, so that it takes no room.
        let _ = disk.remove(&temporary);
    }
    let file = written?;
    disk.rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
    Ok(file)
}

/// The disk of the operating system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|item| item.map(|item| item.path())).collect()
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).create(how != Open::Existing).truncate(how == Open::Truncate);
        Ok(Arc::new(options.open(path)?))
    }

    fn open_direct(&self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(path).ok()?;
        // A disk with larger sectors says so at the first read of one of these.
        let mut bytes = vec![0_u8; 2 * SECTOR_BYTES];
        let from = bytes.as_ptr().align_offset(SECTOR_BYTES);
        let sector = bytes.get_mut(from..from.checked_add(SECTOR_BYTES)?)?;
        FileExt::read_exact_at(&file, sector, 0).ok()?;
        Some(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(file))
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, at)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

#[cfg(any(test, feature = "simulation"))]
pub mod tight;
