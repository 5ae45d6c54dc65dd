//! Files of others in the directories of the store.
//!
//! The rule: what systems put into directories by themselves is left alone, with a line in the log. That is: names that
//! begin with a dot, which NFS, desktops and file systems with snapshots make, and `lost+found`, which is at the root
//! of a file system. Any other name that is not the store's belongs to somebody, and the file may be one of the store's
//! under another name. Where each file counts, it is an error, which says to take the file away; where the store looks
//! for files by their names, it is left alone. The store never changes or removes such a file.

use std::path::Path;

use super::StoreError;

/// The rule for a directory in which each file counts.
///
/// # Errors
/// [`StoreError::Foreign`] unless a system put the file there.
pub(super) fn pass_over(path: &Path) -> Result<(), StoreError> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if !name.starts_with('.') && name != "lost+found" {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    leave_alone(path);
    Ok(())
}

/// The rule for a directory in which the store looks for files by their names.
pub(super) fn leave_alone(path: &Path) {
    tracing::warn!(path = %path.display(), "this is not a file of Skep's; it is left alone");
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use skep_protocol::ids::ShardId;

    use super::super::{LogPoint, Store, StoreOptions};
    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn open(dir: &Path) -> Result<Store, StoreError> {
        Store::open(dir, [7; 16], StoreOptions { segment_bytes: 1024 * 1024, ..StoreOptions::default() })
    }

    /// A store with something in it.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let (done, durable) = std::sync::mpsc::channel();
        let entry = (LogPoint { index: 0, term: 1 }, bytes::Bytes::from_static(b"entry"));
        store.append(SHARD, vec![entry], move || done.send(()).unwrap()).unwrap();
        durable.recv().unwrap();
        let wal = dir.path().join("wal");
        (dir, wal)
    }

    /// ches/docker-kafka#28
    #[test]
    fn what_systems_leave_in_directories_is_left_alone() {
        let (dir, wal) = written();
        let mut left = Vec::new();
        for of in ["", "wal", "snapshots", "clocks"] {
            let of = dir.path().join(of);
            std::fs::create_dir(of.join("lost+found")).unwrap();
            std::fs::write(of.join(".nfs0000000001"), "removed and open").unwrap();
            left.extend(["lost+found", ".nfs0000000001"].map(|name| of.join(name)));
        }
        // The store looks for none of these, and they are not its own remains.
        for name in ["1.snap.bak", "backup.tmp"] {
            std::fs::write(dir.path().join("snapshots").join(name), "somebody's").unwrap();
            left.push(dir.path().join("snapshots").join(name));
        }
        let store = open(dir.path()).unwrap();
        assert_eq!(store.ends(SHARD).1, Some(LogPoint { index: 0, term: 1 }));
        assert!(left.iter().all(|path| path.exists()), "{}", wal.display());
    }

    /// ches/docker-kafka#28
    #[test]
    fn what_somebody_put_beside_the_segments_is_to_be_taken_away_and_nothing_is_called_damaged() {
        for name in ["x.bak", "backup.tmp", "copy of 0000000000000001.wal", "1.wal", "0000000000000001.wal.gz"] {
            let (dir, wal) = written();
            let foreign = wal.join(name);
            std::fs::write(&foreign, "somebody's").unwrap();
            let error = open(dir.path()).err().unwrap();
            assert!(matches!(&error, StoreError::Foreign { path } if *path == foreign), "{error}");
            assert!(error.to_string().contains("remove it") && !error.to_string().contains("damaged"), "{error}");
            assert!(foreign.exists());
            std::fs::remove_file(foreign).unwrap();
            assert!(open(dir.path()).is_ok());
        }
    }
}
