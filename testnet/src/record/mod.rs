//! Histories: one JSON object a line, appended as things happen.

mod client;
mod story;
mod voter;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use client::{Call, ClientRecord, Op};
pub use story::{HeldClaim, Story, StoryRecord};
pub use voter::{ChangeRecord, HeadRecord, NodeRecord, TaskRecord, VoterRecord};

/// The nanoseconds of CLOCK_BOOTTIME, which all processes of a machine share.
pub fn boot_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// An id in the form of histories.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The mark between the name of a robot and the number of a run of its software. No robot's name has it.
const RUN_MARK: char = '+';

/// The name of a run of a robot's software, for its process and its history: the first run has the robot's name, and
/// each later run, at another node, its number too.
pub fn run_name(robot: &str, run: u32) -> String {
    if run == 0 { robot.to_owned() } else { format!("{robot}{RUN_MARK}{run}") }
}

/// Whether a name is that of a run of this robot's software.
pub(crate) fn is_run_of(name: &str, robot: &str) -> bool {
    name.strip_prefix(robot).is_some_and(|rest| rest.is_empty() || rest.starts_with(RUN_MARK))
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A line in the file is wrong.
    #[error("{path}, line {line}: {why}")]
    Line {
        /// The path of the file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with the line.
        why: String,
    },
}

/// Appends to a history. A line that was written survives the end of the process, though not of the machine.
#[derive(Debug)]
pub struct Recorder(Mutex<File>);

impl Recorder {
    /// Opens a history for appending, and makes it if it does not exist.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map(|file| Self(Mutex::new(file))).map_err(|source| RecordError::Io { path: path.to_owned(), source })
    }

    /// Appends a line with one write.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what).map_err(io::Error::other)?;
        line.push(b'\n');
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

/// Reads a history. Leaves out a last line that was cut off by the end of its writer.
///
/// # Errors
/// [`RecordError`] names the line.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RecordError> {
    let text = std::fs::read_to_string(path).map_err(|source| RecordError::Io { path: path.to_owned(), source })?;
    let mut lines = Vec::new();
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            break;
        }
        let parsed = serde_json::from_str(line);
        lines.push(parsed.map_err(|e| RecordError::Line {
            path: path.to_owned(),
            line: at + 1,
            why: e.to_string(),
        })?);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_after_its_robot_and_taken_for_no_other() {
        assert_eq!((run_name("robot-1", 0).as_str(), run_name("robot-1", 2).as_str()), ("robot-1", "robot-1+2"));
        assert!(is_run_of("robot-1", "robot-1") && is_run_of("robot-1+2", "robot-1"));
        assert!(!is_run_of("robot-12", "robot-1") && !is_run_of("robot-12+2", "robot-1"));
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_rubbish_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.jsonl");
        let recorder = Recorder::open(&path).unwrap();
        let record = ClientRecord::Renewed { at_ms: 1, until_ms: 2 };
        recorder.write(&record).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"kind\":\"ren").unwrap();
        assert_eq!(read::<ClientRecord>(&path).unwrap(), [record]);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(read::<ClientRecord>(&path), Err(RecordError::Line { line: 1, .. })));
    }
}
