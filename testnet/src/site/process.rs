//! What the operating system says of a process and of the machine.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// Clock ticks a second in `/proc`: fixed by the Linux ABI.
const TICKS_PER_S: u64 = 100;

/// Bytes in a block, as file systems count what a file has: fixed by the Linux ABI.
const BLOCK_BYTES: u64 = 512;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Processor time.
    pub cpu: Duration,
    /// How many bytes it caused to be written to disk.
    pub written_bytes: u64,
    /// How many files and sockets it has open.
    pub descriptors: u64,
}

impl Usage {
    /// Reads what the process with this id uses; none if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss_kb = number_after(&status, "VmRSS:").unwrap_or(0);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the fields count from behind it.
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        Some(Self {
            rss_bytes: rss_kb * 1_024,
            cpu: Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / TICKS_PER_S),
            written_bytes: number_after(&io, "write_bytes:").unwrap_or(0),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |open| open.count() as u64),
        })
    }
}

/// The bytes on disk of everything below a directory: the blocks of files, and not their lengths. Leaves out what goes
/// away meanwhile, and what symbolic links lead to.
pub fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * BLOCK_BYTES,
                Err(_) => {}
            }
        }
    }
    bytes
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The machine and build that a figure belongs to.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The model of the processor.
    pub cpu: String,
    /// How many processor cores there are.
    pub cores: usize,
    /// The version of the kernel.
    pub kernel: String,
    /// How Skep was built.
    pub build: &'static str,
    /// The version of Skep.
    pub version: &'static str,
}

impl Machine {
    /// Describes this machine and build.
    pub fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        Self {
            cpu: cpu.trim_start_matches(['\t', ' ', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_memory_and_a_missing_one_has_none() {
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.rss_bytes > 100_000);
        assert_eq!(Usage::of(u32::MAX - 1), None);
    }

    #[test]
    fn what_a_process_has_open_is_counted() {
        let open: Vec<fs::File> = (0..64).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let own = Usage::of(std::process::id()).unwrap();
        // Other tests beside this one have files open too.
        assert!(own.descriptors >= open.len() as u64, "{own:?}");
    }

    #[test]
    fn the_bytes_below_a_directory_are_those_of_all_its_files_and_of_nothing_that_they_lead_to() {
        let write = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7; 100_000]).unwrap();
            // Before that, a file system may not have given the file any blocks.
            fs::File::open(path).unwrap().sync_all().unwrap();
        };
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&dir.path().join("wal").join("1"));
        write(&dir.path().join("history").join("tables").join("1"));
        write(&dir.path().join("history").join("2"));
        write(&elsewhere.path().join("big"));
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("link")).unwrap();
        let below = |part: &str| bytes_below(&dir.path().join(part));
        assert!(below("wal") > 0);
        assert_eq!(below("history"), 2 * below("wal"));
        assert!(bytes_below(dir.path()) < below("wal") + below("history") + 100_000);
        assert!(bytes_below(dir.path()) >= below("wal") + below("history"));
        assert_eq!(below("absent"), 0);
    }
}
