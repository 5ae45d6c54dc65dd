//! Files that are there whole, or not at all.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The users that may read a file that is written whole. Only its owner may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadableBy {
    /// Only the owner may read it.
    Owner,
    /// Every user may read it: it is no secret, and another user than the writer may need it.
    Everybody,
}

impl ReadableBy {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everybody => 0o644,
        }
    }
}

/// Makes a new file: whatever happens meanwhile, the file is there whole or not at all. This writes the bytes beside
/// the place, under a random name that no other writer uses, syncs them, and moves the file there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the file exists, which is then left as it is; otherwise the error of the disk.
pub fn write_whole(path: &Path, bytes: &[u8], by: ReadableBy) -> io::Result<()> {
    let aside = aside(path);
    // A link, unlike a move, never replaces a file.
    let linked = write(&aside, bytes, by).and_then(|()| std::fs::hard_link(&aside, path));
    let removed = std::fs::remove_file(&aside);
    linked.and(removed)?;
    sync_dir_of(path)
}

/// Makes a file, or replaces its content, in one step: whatever happens meanwhile, it holds the old content or the new.
///
/// # Errors
/// The error of the disk.
pub fn replace_whole(path: &Path, bytes: &[u8], by: ReadableBy) -> io::Result<()> {
    let aside = aside(path);
    let moved = write(&aside, bytes, by).and_then(|()| std::fs::rename(&aside, path));
    if moved.is_err() {
        // The file may not be there.
        drop(std::fs::remove_file(&aside));
    }
    moved?;
    sync_dir_of(path)
}

fn write(aside: &Path, bytes: &[u8], by: ReadableBy) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    // The user's mask does not take these rights away.
    file.set_permissions(Permissions::from_mode(by.mode()))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The path at which a file is written before it is moved to its place.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.new", rand::random::<u64>()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_there_whole_and_never_written_over() {
        // etcd-io/etcd#3082
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_whole(&path, b"whole", ReadableBy::Owner).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), mode(&path)), (b"whole".to_vec(), 0o600));
        let again = write_whole(&path, b"another", ReadableBy::Owner);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_replaced_holds_the_one_or_the_other_and_may_be_read_by_whom_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        for (text, by, expected) in [("one", ReadableBy::Everybody, 0o644), ("other", ReadableBy::Owner, 0o600)] {
            replace_whole(&path, text.as_bytes(), by).unwrap();
            assert_eq!((std::fs::read_to_string(&path).unwrap(), mode(&path)), (text.to_owned(), expected));
        }
        // A file that cannot be moved to its place leaves nothing beside it.
        let full = dir.path().join("full");
        std::fs::create_dir_all(full.join("of")).unwrap();
        assert!(replace_whole(&full, b"text", ReadableBy::Owner).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    /// Commands of one user behave like this when they start at the same moment.
    #[test]
    fn of_many_that_make_one_file_at_once_one_does_and_nobody_sees_half_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = &dir.path().join("pin");
        let make = |n: usize| {
            let made = write_whole(path, format!("{n:08}").as_bytes(), ReadableBy::Everybody);
            assert_eq!(std::fs::read(path).unwrap().len(), 8);
            made.is_ok()
        };
        let made = std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|n| scope.spawn(move || make(n))).collect();
            all.into_iter().map(|one| usize::from(one.join().unwrap())).sum::<usize>()
        });
        assert_eq!((made, std::fs::read_dir(dir.path()).unwrap().count()), (1, 1));
    }
}
