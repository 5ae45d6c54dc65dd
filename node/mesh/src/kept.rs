//! What the mesh keeps over restarts: how often this node was started, and how far each sender has come.
//!
//! A disk that is full or does not answer keeps no node from talking: this node logs the failure, and tries again.
//! [`crate::floors`] says what is lost by it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::floors::Floors;
use crate::speakers::Speakers;

/// Interval between two writes of how far senders have come, if anything is new.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// The most bytes that are read of a file: those of twenty thousand senders. A longer file is cut off there, and counts
/// as damaged.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How far senders have come, shared between the tasks that ask and the thread that writes. No task holds the lock
/// while it waits for anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedFloors(Arc<Mutex<Floors>>);

impl From<Floors> for SharedFloors {
    fn from(floors: Floors) -> Self {
        Self(Arc::new(Mutex::new(floors)))
    }
}

impl SharedFloors {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Floors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
}

impl Kept {
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn starts(&self) -> PathBuf {
        self.dir.join("starts")
    }

    fn floors(&self) -> PathBuf {
        self.dir.join("floors")
    }

    /// The number of this start, from 1 on, once it is on disk.
    pub(crate) fn start(&self) -> u32 {
        let before = match read(&self.starts()) {
            Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u32>().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
            Err(error) => {
                tracing::error!(%error, path = %self.starts().display(), "the number of starts cannot be read");
                None
            }
        };
        if before.is_none() {
            tracing::error!(
                path = %self.starts().display(),
                "it is not known how often this node was started: its telemetry counts at once where it is connected, and elsewhere \
                 after as many starts as before"
            );
        }
        let start = before.unwrap_or(0).saturating_add(1);
        if let Err(error) = self.write(&self.starts(), start.to_string().as_bytes()) {
            tracing::error!(%error, path = %self.starts().display(), "this start cannot be written down");
        }
        start
    }

    /// How far the senders whose envelopes may count had come at the last write.
    pub(crate) fn read_floors(&self, speakers: &Speakers) -> Floors {
        let path = self.floors();
        match read(&path) {
            Ok(bytes) => Floors::decode(&bytes, speakers).unwrap_or_else(|| {
                tracing::error!(path = %path.display(), "the file is damaged: old telemetry may be taken for new once");
                Floors::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, path = %path.display(), "old telemetry may be taken for new once");
                }
                Floors::default()
            }
        }
    }

    /// Writes down how far senders have come, at intervals and when it is told to stop.
    pub(crate) fn keep(&self, floors: &SharedFloors, stop: &Receiver<()>) {
        let mut goes_on = true;
        while goes_on {
            goes_on = stop.recv_timeout(WRITTEN_EVERY) == Err(RecvTimeoutError::Timeout);
            let Some(bytes) = floors.lock().take_news() else { continue };
            if let Err(error) = self.write(&self.floors(), &bytes) {
                tracing::warn!(%error, path = %self.floors().display(), "this node cannot save which telemetry is old");
                floors.lock().not_written();
            }
        }
    }

    /// Writes a file whole: after a crash it is the old one or the new one.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let aside = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::ids::NodeId;
    use std::os::unix::fs::PermissionsExt as _;

    const ONE: NodeId = NodeId::from_public_key([1; 32]);

    #[test]
    fn each_start_has_a_higher_number_than_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::of(&dir.path().join("mesh"));
        assert_eq!([kept.start(), kept.start(), Kept::of(&dir.path().join("mesh")).start()], [1, 2, 3]);
        let mode = std::fs::metadata(kept.starts()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_disk_that_keeps_nothing_keeps_no_node_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        // A file is where the directory should be.
        let kept = Kept::of(&dir.path().join("mesh"));
        std::fs::write(dir.path().join("mesh"), "").unwrap();
        assert_eq!(kept.start(), 1);
        assert!(!kept.read_floors(&[ONE].into()).is_old(ONE, 1, 1));
        let kept = Kept::of(dir.path());
        std::fs::write(kept.starts(), [0xff; 9]).unwrap();
        std::fs::write(kept.floors(), "rubbish").unwrap();
        assert_eq!([kept.start(), kept.start()], [1, 2]);
        assert!(!kept.read_floors(&[ONE].into()).is_old(ONE, 1, 1));
    }

    #[test]
    fn how_far_a_sender_had_come_is_written_down_when_the_node_stops() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::of(&dir.path().join("mesh"));
        let floors = SharedFloors::default();
        assert!(floors.lock().take(ONE, 7, 3));
        let (stop, stopped) = std::sync::mpsc::channel();
        drop(stop);
        kept.keep(&floors, &stopped);
        let read = kept.read_floors(&[ONE].into());
        assert!(read.is_old(ONE, 7, 3) && read.is_old(ONE, 6, 9) && !read.is_old(ONE, 7, 4));
    }
}
