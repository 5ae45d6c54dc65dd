//! The data directory: its owner, its format, its incarnation.

use std::io;
use std::path::Path;
use std::sync::Arc;

use skep_protocol::ids::Incarnation;

use super::StoreError;
use super::disk::{Disk, DiskFile, read_all, replace};

/// The directory format that this Skep writes.
const FORMAT: u32 = 3;
/// No text here is longer.
const TEXT_BYTES_MAX: u64 = 4_096;

/// Makes the directory if it is missing, and keeps other processes from it for as long as the result lives.
pub(super) fn take(disk: &dyn Disk, dir: &Path) -> Result<Arc<dyn DiskFile>, StoreError> {
    disk.make_dir(dir).map_err(|e| StoreError::io(dir, e))?;
    let path = dir.join("LOCK");
    disk.lock(&path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => StoreError::InUse { path: dir.to_owned() },
        _ => StoreError::io(&path, e),
    })
}

/// Checks the directory's format and reads its incarnation, or makes both.
pub(super) fn stamp(disk: &dyn Disk, dir: &Path, random: [u8; 16]) -> Result<Incarnation, StoreError> {
    let (format, incarnation) = (dir.join("FORMAT"), dir.join("incarnation"));
    match read_text(disk, &format)? {
        Some(text) => {
            let found = text.trim().strip_prefix("skep ").and_then(|n| n.parse().ok());
            let found: u32 = found.ok_or_else(|| StoreError::corrupt(&format, "it is not a format stamp"))?;
            if found > FORMAT {
                return Err(StoreError::NewerFormat { path: dir.to_owned(), found, supported: FORMAT });
            }
            if found < FORMAT {
                return Err(StoreError::OlderFormat { path: dir.to_owned(), found, supported: FORMAT });
            }
            let text = read_text(disk, &incarnation)?;
            let text = text.ok_or_else(|| StoreError::corrupt(&incarnation, "it is missing"))?;
            text.trim().parse().map_err(|e| StoreError::corrupt(&incarnation, format!("{e}")))
        }
        None => {
            let names = disk.list(dir).map_err(|e| StoreError::io(dir, e))?;
            if names.contains(&dir.join("wal")) {
                return Err(StoreError::corrupt(&format, "it is missing though there is a log"));
            }
            let made = Incarnation(random);
            let write = |path: &Path, text: String| {
                replace(disk, path, &[text.as_bytes()]).map_err(|e| StoreError::io(path, e))
            };
            write(&incarnation, format!("{made}\n"))?;
            write(&format, format!("skep {FORMAT}\n"))?;
            Ok(made)
        }
    }
}

fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, StoreError> {
    match read_all(disk, path, TEXT_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| StoreError::corrupt(path, "it is not text")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io(path, e)),
    }
}
