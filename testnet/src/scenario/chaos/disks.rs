//! Disks that fill up, and disks that are damaged.

use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::Step;

/// The size of the file system of the node whose disk fills up, and of that of its journals.
const SMALL_DISK: &str = "size=320m";
const SMALL_JOURNALS: &str = "size=64m";
/// The free space at which a node still writes the ends of work, and at which it writes only votes. The journals get
/// none.
const NEARLY_FULL: u64 = 20 << 20;

/// Flips a byte of the log of a stopped node, at a place that was written.
pub(super) fn damage(wal: &Path, rng: &mut SmallRng) -> Step {
    let failed = |e: std::io::Error| crate::error::io_error(wal.display().to_string())(e);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(wal).map_err(failed)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let Some(path) = files.get(rng.random_range(0..files.len().max(1))) else { return Ok(()) };
    let mut bytes = std::fs::read(path).map_err(failed)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    bytes[rng.random_range(0..used)] ^= 1 << rng.random_range(0..8);
    std::fs::write(path, bytes).map_err(failed)
}

/// Small file systems under a node's data and its journals.
pub(super) struct SmallDisk {
    parts: Vec<Part>,
}

/// One of these file systems, and how much of it is left when it is full.
struct Part {
    dir: PathBuf,
    left: u64,
}

impl SmallDisk {
    pub(super) fn mount(data: &Path) -> Result<Self, crate::error::LaunchError> {
        let data = Part::mount(data, SMALL_DISK, NEARLY_FULL)?;
        let journals = Part::mount(&data.dir.with_file_name("journals"), SMALL_JOURNALS, 0)?;
        Ok(Self { parts: vec![data, journals] })
    }

    /// Fills them up to the part that a node keeps for votes.
    pub(super) fn fill(&self) -> Step {
        self.parts.iter().try_for_each(Part::fill)
    }

    pub(super) fn free(&self) -> Step {
        self.parts.iter().try_for_each(Part::free)
    }
}

impl Part {
    fn mount(dir: &Path, size: &str, left: u64) -> Result<Self, crate::error::LaunchError> {
        let beside = dir.with_extension("before");
        let failed = |e: std::io::Error| crate::error::io_error(dir.display().to_string())(e);
        std::fs::rename(dir, &beside).map_err(failed)?;
        std::fs::create_dir(dir).map_err(failed)?;
        let (text, from) = (dir.display().to_string(), beside.join("."));
        crate::site::hosts::run("mount", &["-t", "tmpfs", "-o", size, "skep-chaos", &text])?;
        let part = Self { dir: dir.to_owned(), left };
        crate::site::hosts::run("cp", &["-a", &from.display().to_string(), &text])?;
        Ok(part)
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }

    fn fill(&self) -> Step {
        let failed = |e: std::io::Error| crate::error::io_error(self.dir.display().to_string())(e);
        let space = rustix::fs::statvfs(&self.dir).map_err(|e| failed(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let bytes = usize::try_from(free.saturating_sub(self.left)).unwrap_or(0);
        match std::fs::write(self.filler(), vec![1; bytes]) {
            // The node was faster: the file system is full all the same.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            written => written.map_err(failed),
        }
    }

    fn free(&self) -> Step {
        let failed = |e: std::io::Error| crate::error::io_error(self.dir.display().to_string())(e);
        std::fs::remove_file(self.filler()).map_err(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Lazily: the node that uses it may end after this.
        let _ = crate::site::hosts::run("umount", &["-l", &self.dir.display().to_string()]);
    }
}
