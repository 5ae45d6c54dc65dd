//! A data directory that is made beside another one and takes its place, while no node runs in either.
//!
//! A file in the new directory says that it is half made. The file is there before anything else, and goes when the
//! directory is whole. So the former directory, which nobody may remove, shows what a crash leaves. Only the process
//! that makes the new directory opens a store in it. What lies beside a data directory may belong to anybody: this code
//! follows no link, and leaves alone what another user owns.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;

use super::disk::{Disk, DiskFile, SystemDisk};
use super::history::{History, HistoryOptions};
use super::{SPARES, Store, StoreError, StoreOptions};

/// The directory of changes in a data directory.
const HISTORY: &str = "history";
/// The file in a directory that is half made.
const HALF_MADE: &str = "HALF-MADE";

/// Keeps other processes from a directory for as long as it lives.
pub type Lock = Arc<dyn DiskFile>;

/// What lay beside a data directory, left by a process that was making another one there and was cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Half made directories, which are removed.
    pub removed: Vec<PathBuf>,
    /// Directories that are whole, or that cannot be judged: the former directory, or one that never took its place.
    /// They are left alone.
    pub kept: Vec<PathBuf>,
}

impl Store {
    /// Opens the store in a directory without its history, and keeps other processes from the directory.
    ///
    /// # Errors
    /// As those of [`open`](Self::open).
    pub fn open_alone(dir: &Path, random: [u8; 16], options: StoreOptions) -> Result<Self, StoreError> {
        refuse_half_made(dir)?;
        Self::make_alone(dir, random, options)
    }

    /// Opens the store in a half made directory, for the process that makes it.
    ///
    /// # Errors
    /// As those of [`open`](Self::open).
    pub fn make_alone(dir: &Path, random: [u8; 16], options: StoreOptions) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        Self::open_bare(&disk, dir, random, options, SPARES)
    }

    /// Ends the store's writing, and waits for that. Other processes are kept from its directory until the result is
    /// dropped.
    pub fn close(self) -> Lock {
        let lock = Arc::clone(&self.writer.lock);
        drop(self);
        lock
    }
}

impl History {
    /// Opens the history in a data directory; an absent one if the directory has none.
    pub fn within(data: &Path, options: HistoryOptions) -> Option<Self> {
        let dir = data.join(HISTORY);
        dir.is_dir().then(|| Self::open(&dir, options))
    }
}

/// Whether there is a store in a directory.
pub fn has_store(dir: &Path) -> bool {
    dir.join("wal").is_dir()
}

/// How many bytes are free where a directory is.
///
/// # Errors
/// [`StoreError::Io`].
pub fn free_bytes(dir: &Path) -> Result<u64, StoreError> {
    SystemDisk.free_bytes(dir).map_err(|e| StoreError::io(dir, e))
}

/// Refuses a half made directory; any other one may hold a store.
pub(super) fn refuse_half_made(dir: &Path) -> Result<(), StoreError> {
    match std::fs::symlink_metadata(dir.join(HALF_MADE)) {
        Ok(_) => Err(StoreError::HalfMade { path: dir.to_owned() }),
        // Opening the store finds out what else is wrong.
        Err(_) => Ok(()),
    }
}

/// Marks a directory durably as half made. A mark that is there is left as it is.
fn mark(dir: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(HALF_MADE)) {
        Ok(file) => file.sync_all().and_then(|()| SystemDisk.sync_dir(dir)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory, durably, that counts as half made.
///
/// # Errors
/// [`StoreError::Io`], also if the directory exists.
pub fn begin(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().mode(0o700).create(dir).map_err(|e| StoreError::io(dir, e))?;
    mark(dir).map_err(|e| StoreError::io(&dir.join(HALF_MADE), e))?;
    sync_name(dir)
}

/// Declares a directory whole and durable: it does not count as half made from here on.
///
/// # Errors
/// [`StoreError::Io`].
pub fn finish(dir: &Path) -> Result<(), StoreError> {
    let mark = dir.join(HALF_MADE);
    SystemDisk.remove(&mark).and_then(|()| SystemDisk.sync_dir(dir)).map_err(|e| StoreError::io(&mark, e))
}

/// Removes a directory that was begun, whole or not. The mark of a half made directory is written first, and removed
/// last, so that what a crash leaves is recognised by it.
///
/// # Errors
/// What the operating system said; if anything of the directory is gone, it counts as half made then. Also if it is not
/// a directory that this user owns.
pub fn discard(dir: &Path) -> io::Result<()> {
    discard_of(geteuid().as_raw(), dir)
}

fn discard_of(user: u32, dir: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != user {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    mark(dir)?;
    let mark = dir.join(HALF_MADE);
    for path in SystemDisk.list(dir)?.into_iter().filter(|path| *path != mark) {
        if std::fs::symlink_metadata(&path)?.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    match std::fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_dir(dir)
}

/// Whether a directory is certainly half made: it is marked so, or was only just made.
fn is_half_made(dir: &Path) -> bool {
    let says_so = std::fs::symlink_metadata(dir.join(HALF_MADE)).is_ok_and(|found| found.is_file());
    says_so || SystemDisk.list(dir).is_ok_and(|names| names.is_empty())
}

/// Looks for directories that were made beside another one under names with this beginning, and removes the half made
/// ones. The caller has that other directory open, so that no process makes any meanwhile. Directories of another user
/// are kept.
pub fn clear(dir: &Path, word: &str) -> Leftovers {
    clear_of(geteuid().as_raw(), dir, word)
}

fn clear_of(user: u32, dir: &Path, word: &str) -> Leftovers {
    let begins = named(dir, word).file_name().unwrap_or_default().to_owned();
    let begins_so = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(begins.as_encoded_bytes())
    };
    let is_dir = |path: &PathBuf| std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let mut found: Vec<PathBuf> = SystemDisk.list(above(dir)).unwrap_or_default();
    found.retain(|path| begins_so(path) && is_dir(path));
    found.sort_unstable();
    let (removed, kept) = found.into_iter().partition(|path| is_half_made(path) && discard_of(user, path).is_ok());
    Leftovers { removed, kept }
}

/// The directory that holds a directory.
pub fn above(dir: &Path) -> &Path {
    dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside that of a directory.
pub fn named(dir: &Path, word: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{word}"));
    dir.with_file_name(name)
}

/// Exchanges the names of two directories beside each other: if a crash cuts that off, each name still has a whole
/// directory. Durable with the next [`sync_name`].
///
/// # Errors
/// [`StoreError::Io`]; then both are where they were.
pub fn exchange(one: &Path, other: &Path) -> Result<(), StoreError> {
    let exchanged = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(io::Error::from);
    exchanged.map_err(|e| StoreError::io(other, e))
}

/// Gives a directory another name, durably.
///
/// # Errors
/// [`StoreError::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    SystemDisk.rename(from, to).map_err(|e| StoreError::io(to, e))?;
    sync_name(to)
}

/// Moves the history of a data directory into another one.
///
/// # Errors
/// [`StoreError::Io`]; no error if there is no history.
pub fn move_history(from: &Path, to: &Path) -> Result<(), StoreError> {
    match rename(&from.join(HISTORY), &to.join(HISTORY)) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

/// Makes the name of a directory durable.
///
/// # Errors
/// [`StoreError::Io`].
pub fn sync_name(dir: &Path) -> Result<(), StoreError> {
    let above = above(dir);
    SystemDisk.sync_dir(above).map_err(|e| StoreError::io(above, e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use skep_protocol::ids::ShardId;

    use super::super::LogPoint;
    use super::*;

    #[test]
    fn what_is_half_made_is_removed_and_nothing_else_that_is_there() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("data");
        let beside = |word: &str| named(&dir, word);
        begin(&beside("new-1")).unwrap();
        std::fs::create_dir(beside("new-1").join("wal")).unwrap();
        std::fs::write(beside("new-1").join("FORMAT"), "skep 2").unwrap();
        std::fs::create_dir(beside("new-2")).unwrap();
        begin(&beside("new-3")).unwrap();
        std::fs::write(beside("new-3").join("FORMAT"), "skep 2").unwrap();
        finish(&beside("new-3")).unwrap();
        for other in ["before-1", "new"] {
            std::fs::create_dir(beside(other)).unwrap();
        }
        std::fs::write(beside("new-4"), "a file").unwrap();
        let found = clear(&dir, "new-");
        assert_eq!(found, Leftovers { removed: vec![beside("new-1"), beside("new-2")], kept: vec![beside("new-3")] });
        let there = |word: &str| beside(word).exists();
        assert!(!there("new-1") && !there("new-2"));
        assert!(["new-3", "new-4", "before-1", "new"].into_iter().all(there));
        assert!(begin(&beside("new-3")).is_err(), "what is there does not become half made");
    }

    #[test]
    fn neither_what_is_another_users_nor_what_a_link_leads_to_is_removed() {
        let above = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (above.path().join("data"), above.path().join("elsewhere"));
        let beside = |word: &str| named(&dir, word);
        begin(&elsewhere).unwrap();
        begin(&beside("new-1")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, beside("new-2")).unwrap();
        std::fs::create_dir(beside("new-3")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join(HALF_MADE), beside("new-3").join(HALF_MADE)).unwrap();
        let (own, kept) = (geteuid().as_raw(), [beside("new-1"), beside("new-3")]);
        assert_eq!(clear_of(own.wrapping_add(1), &dir, "new-"), Leftovers { removed: Vec::new(), kept: kept.to_vec() });
        assert!(discard(&beside("new-2")).is_err());
        let [one, three] = kept;
        assert_eq!(clear(&dir, "new-"), Leftovers { removed: vec![one], kept: vec![three] });
        assert!(is_half_made(&elsewhere) && beside("new-2").is_symlink());
    }

    #[test]
    fn what_is_removed_in_part_counts_as_half_made_though_it_was_whole() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("data");
        begin(&dir).unwrap();
        let within = dir.join("wal");
        std::fs::create_dir(&within).unwrap();
        std::fs::write(within.join("1.wal"), "a log").unwrap();
        finish(&dir).unwrap();
        assert!(!is_half_made(&dir));
        // A user who may do anything removes it all the same.
        std::fs::set_permissions(&within, std::fs::Permissions::from_mode(0o500)).unwrap();
        match discard(&dir) {
            Ok(()) => assert!(!dir.exists()),
            Err(_) => assert!(is_half_made(&dir)),
        }
        if within.exists() {
            std::fs::set_permissions(&within, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn nobody_but_who_makes_it_opens_a_store_in_a_directory_that_is_half_made() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("data");
        let refused = |opened: Result<Store, StoreError>| match opened {
            Err(error @ StoreError::HalfMade { .. }) => error.to_string().contains("HALF-MADE"),
            _ => false,
        };
        begin(&dir).unwrap();
        assert!(refused(Store::open_alone(&dir, [1; 16], StoreOptions::default())));
        drop(Store::make_alone(&dir, [1; 16], StoreOptions::default()).unwrap());
        assert!(refused(Store::open_alone(&dir, [1; 16], StoreOptions::default())));
        assert!(refused(Store::open(&dir, [1; 16], StoreOptions::default())));
        finish(&dir).unwrap();
        drop(Store::open(&dir, [1; 16], StoreOptions::default()).unwrap());
    }

    #[test]
    fn a_store_that_is_closed_is_nobodys_before_its_lock_is_dropped() {
        const COUNT: u64 = 100;
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("data");
        let open = || Store::open_alone(&dir, [1; 16], StoreOptions::default());
        let (store, told) = (open().unwrap(), Arc::<AtomicU64>::default());
        for index in 1..=COUNT {
            let (entry, told) = ((LogPoint { index, term: 1 }, Bytes::from_static(b"an entry")), Arc::clone(&told));
            // A caller that does not wait for the writer has returned long before the writer has told everything.
            let tell = move || {
                (0..1_000).for_each(|_| std::thread::yield_now());
                told.fetch_add(1, Ordering::Relaxed);
            };
            store.append(ShardId(1), vec![entry], tell).unwrap();
        }
        let lock = store.close();
        assert_eq!(told.load(Ordering::Relaxed), COUNT, "nobody writes in it any more");
        assert!(matches!(open().err(), Some(StoreError::InUse { .. })));
        drop(lock);
        assert!(open().is_ok());
    }
}
