//! A data directory that is made beside another one and takes its place, while no node runs in either.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::disk::{Disk, SystemDisk};
use super::history::{History, HistoryOptions};
use super::{SPARES, Store, StoreError, StoreOptions};

/// The directory of changes in a data directory.
const HISTORY: &str = "history";

impl Store {
    /// Opens the store in a directory without its history, and keeps others from the directory.
    pub(crate) fn open_alone(dir: &Path, random: [u8; 16], options: StoreOptions) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        Self::open_bare(&disk, dir, random, options, SPARES)
    }
}

impl History {
    /// The history in a data directory; none if it has none.
    pub(crate) fn within(data: &Path, options: HistoryOptions) -> Option<Self> {
        let dir = data.join(HISTORY);
        dir.is_dir().then(|| Self::open(&dir, options))
    }
}

/// Whether there is a store in a directory.
pub(crate) fn has_store(dir: &Path) -> bool {
    dir.join("wal").is_dir()
}

/// Bytes that are free where a directory is.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64, StoreError> {
    SystemDisk.free_bytes(dir).map_err(|e| StoreError::io(dir, e))
}

/// A name beside that of a directory.
pub(crate) fn named(dir: &Path, word: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{word}"));
    dir.with_file_name(name)
}

/// Has two directories beside each other take each other's place: whenever that is cut off, there is one of them whole under either
/// name. Durable with the next [`sync_name`].
///
/// # Errors
/// [`StoreError::Io`]; both are where they were then.
pub(crate) fn exchange(one: &Path, other: &Path) -> Result<(), StoreError> {
    let exchanged = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(io::Error::from);
    exchanged.map_err(|e| StoreError::io(other, e))
}

/// Gives a directory another name, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    SystemDisk.rename(from, to).map_err(|e| StoreError::io(to, e))?;
    sync_name(to)
}

/// Moves the history of a data directory into another one.
pub(crate) fn move_history(from: &Path, to: &Path) -> Result<(), StoreError> {
    match rename(&from.join(HISTORY), &to.join(HISTORY)) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

/// Makes the name of a directory durable.
pub(crate) fn sync_name(dir: &Path) -> Result<(), StoreError> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    SystemDisk.sync_dir(above).map_err(|e| StoreError::io(above, e))
}
