//! Disks that fill up, and disks that are damaged.

use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::Step;

/// The disk of the node whose disk fills up, in bytes: its own file system.
const SMALL_DISK: &str = "size=320m";
/// Free space at which a node still writes what ends work, and at which it writes nothing but votes.
const NEARLY_FULL: u64 = 20 << 20;

/// Flips a byte of the log of a stopped node, where something is written.
pub(super) fn damage(wal: &Path, rng: &mut SmallRng) -> Step {
    let failed = |e: std::io::Error| crate::launch::io_error(wal.display().to_string())(e);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(wal).map_err(failed)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let Some(path) = files.get(rng.random_range(0..files.len().max(1))) else { return Ok(()) };
    let mut bytes = std::fs::read(path).map_err(failed)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    bytes[rng.random_range(0..used)] ^= 1 << rng.random_range(0..8);
    std::fs::write(path, bytes).map_err(failed)
}

/// A small file system of its own under a node's data.
pub(super) struct SmallDisk {
    data: PathBuf,
}

impl SmallDisk {
    pub(super) fn mount(data: &Path) -> Result<Self, crate::LaunchError> {
        let beside = data.with_extension("before");
        let failed = |e: std::io::Error| crate::launch::io_error(data.display().to_string())(e);
        std::fs::rename(data, &beside).map_err(failed)?;
        std::fs::create_dir(data).map_err(failed)?;
        let (data_text, from) = (data.display().to_string(), beside.join("."));
        crate::hosts::run("mount", &["-t", "tmpfs", "-o", SMALL_DISK, "skep-chaos", &data_text])?;
        let disk = Self { data: data.to_owned() };
        crate::hosts::run("cp", &["-a", &from.display().to_string(), &data_text])?;
        Ok(disk)
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }

    /// Fills it up to what a node keeps for votes.
    pub(super) fn fill(&self) -> Step {
        let failed = |e: std::io::Error| crate::launch::io_error(self.data.display().to_string())(e);
        let space = rustix::fs::statvfs(&self.data).map_err(|e| failed(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let bytes = usize::try_from(free.saturating_sub(NEARLY_FULL)).unwrap_or(0);
        std::fs::write(self.filler(), vec![1; bytes]).map_err(failed)
    }

    pub(super) fn free(&self) -> Step {
        let failed = |e: std::io::Error| crate::launch::io_error(self.data.display().to_string())(e);
        std::fs::remove_file(self.filler()).map_err(failed)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node that uses it may end after this.
        let _ = crate::hosts::run("umount", &["-l", &self.data.display().to_string()]);
    }
}
