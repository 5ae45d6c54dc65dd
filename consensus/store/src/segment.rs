//! Segment files of the write-ahead log.
//!
//! The header of a segment says with which sequence number it begins. So a segment that lost records is noticed,
//! however many it lost: the next segment does not continue it. A segment is made before it is needed, when its first
//! sequence number is not known yet. The header is written again later, in one sector and one write with the first
//! records; everything before those is durable by that time. So if the header has a number, every record before that
//! number was durable; if a power cut kept the header from being written, nothing in the segment was acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_protocol::ids::Incarnation;
use xxhash_rust::xxh3::xxh3_64;

use super::StoreError;
use super::disk::{Disk, DiskFile, Open};
use super::foreign;
use super::record::u64_at;

/// Where the records of a segment begin, in bytes.
pub(super) const DATA_START: u64 = 64;
/// The number of the very first segment.
pub(super) const FIRST_NUMBER: u64 = 1;
/// The name of a segment's file before it is complete.
pub(super) const TEMPORARY: &str = "next.tmp";
/// How many bytes are written again at a time.
const REWRITE_BYTES: usize = 1024 * 1024;
const MAGIC: [u8; 8] = *b"skep-wal";
const FORMAT: u32 = 2;

/// One preallocated file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The sequence number with which it begins, as its header said when it was opened; none if it had not begun.
    pub(super) first: Option<u64>,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Segment {
    /// Writes the segment's content up to an offset again, durably.
    ///
    /// When an fsync fails, Linux marks the pages clean all the same: a process that starts afterwards reads what never
    /// reached the disk, and a second fsync succeeds. The node relies on what was read from here on, so that it is
    /// written again first.
    pub(super) fn write_again(&self, end: u64) -> io::Result<()> {
        let mut part = vec![0; REWRITE_BYTES];
        let mut at = 0;
        while at < end {
            let bytes = (end - at).min(REWRITE_BYTES as u64) as usize;
            self.file.read_exact_at(&mut part[..bytes], at)?;
            self.file.write_all_at(&part[..bytes], at)?;
            at += bytes as u64;
        }
        self.file.sync()
    }

    /// Makes everything from an offset on zero again. The space that the disk has set aside for it stays so: a full
    /// disk is no obstacle.
    pub(super) fn clear_from(&self, offset: u64) -> io::Result<()> {
        let length = self.file.len()?;
        let zeros = vec![0; REWRITE_BYTES];
        let mut at = offset;
        while at < length {
            let bytes = (length - at).min(REWRITE_BYTES as u64) as usize;
            self.file.write_all_at(&zeros[..bytes], at)?;
            at += bytes as u64;
        }
        self.file.sync()
    }
}

fn name(number: u64) -> String {
    format!("{number:016x}.wal")
}

/// Whether a file has the name of a segment.
fn is_name(file: &str) -> bool {
    let number = file.strip_suffix(".wal").and_then(|number| u64::from_str_radix(number, 16).ok());
    number.is_some_and(|number| name(number) == file)
}

/// The header of a segment that begins with a sequence number, or has not begun.
pub(super) fn header(number: u64, first: Option<u64>, store: Incarnation) -> [u8; DATA_START as usize] {
    let mut bytes = [0; DATA_START as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes[24..40].copy_from_slice(&store.0);
    // Sequence numbers count from one.
    bytes[40..48].copy_from_slice(&first.unwrap_or(0).to_le_bytes());
    let sum = xxh3_64(&bytes[..56]);
    bytes[56..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Makes a segment durable: its blocks, its header and its name. Before that no record is written to it.
pub(super) fn create(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    first: Option<u64>,
    bytes: u64,
    store: Incarnation,
) -> io::Result<Segment> {
    let path = dir.join(name(number));
    let temporary = dir.join(TEMPORARY);
    let file = disk.open(&temporary, Open::Truncate)?;
    file.allocate(bytes)?;
    file.write_all_at(&header(number, first, store), 0)?;
    file.sync()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    Ok(Segment { number, first, path, file })
}

/// Opens the segments of a directory, in order. Reading them shows whether one is missing.
pub(super) fn open_all(disk: &dyn Disk, dir: &Path, store: Incarnation) -> Result<Vec<Segment>, StoreError> {
    let mut segments = Vec::new();
    for path in disk.list(dir).map_err(|e| StoreError::io(dir, e))? {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(file) if is_name(file) => segments.push(open(disk, &path, store)?),
            // This segment was being made.
            Some(TEMPORARY) => disk.remove(&path).map_err(|e| StoreError::io(&path, e))?,
            _ => foreign::pass_over(&path)?,
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

fn open(disk: &dyn Disk, path: &Path, store: Incarnation) -> Result<Segment, StoreError> {
    let file = disk.open(path, Open::Existing).map_err(|e| StoreError::io(path, e))?;
    let mut found = [0; DATA_START as usize];
    // A disk that fails to read says nothing of the content.
    file.read_exact_at(&mut found, 0).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::corrupt(path, "cut off within its header"),
        _ => StoreError::io(path, e),
    })?;
    let format = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
    if found[..8] == MAGIC && format > FORMAT {
        return Err(StoreError::NewerFormat { path: path.to_owned(), found: format, supported: FORMAT });
    }
    if found[..8] == MAGIC && format < FORMAT {
        return Err(StoreError::OlderFormat { path: path.to_owned(), found: format, supported: FORMAT });
    }
    let number = u64_at(&found, 16);
    let first = Some(u64_at(&found, 40)).filter(|first| *first > 0);
    if found != header(number, first, store) {
        return Err(StoreError::corrupt(path, "its header is damaged or of another node"));
    }
    if path.file_name().and_then(|n| n.to_str()) != Some(&name(number)) {
        return Err(StoreError::corrupt(path, "its name is not that in its header"));
    }
    Ok(Segment { number, first, path: path.to_owned(), file })
}
