//! A thread that waits for segment files to appear or go, and kills the node that has them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::JoinSet;

/// How often the thread looks at the segments.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// The segments of a node, and its process.
pub(super) struct Place {
    node: usize,
    pid: u32,
    /// The process itself, so that another process that gets its number later is not meant.
    process: OwnedFd,
    dir: PathBuf,
    names: BTreeSet<OsString>,
}

/// The node that an ambush has killed.
#[derive(Clone, Debug)]
pub(super) struct Struck {
    pub(super) node: usize,
    pub(super) pid: u32,
    /// What the thread saw.
    pub(super) what: String,
}

/// A thread that waits for a rotation.
pub(super) struct Ambush {
    called_off: Arc<AtomicBool>,
    struck: Arc<Mutex<Option<Struck>>>,
    watcher: std::thread::JoinHandle<()>,
    _ballast: JoinSet<()>,
}

fn names_in(dir: &Path) -> Option<BTreeSet<OsString>> {
    let entries = std::fs::read_dir(dir).ok()?;
    Some(entries.flatten().map(|entry| entry.file_name()).collect())
}

impl Place {
    /// None if there is no such process, or no such directory.
    pub(super) fn of(node: usize, pid: u32, dir: PathBuf) -> Option<Self> {
        let process = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        let names = names_in(&dir)?;
        Some(Self { node, pid, process, dir, names })
    }

    /// The files that have appeared or gone since the last look.
    fn change(&mut self) -> Option<String> {
        let names = names_in(&self.dir)?;
        let name = names.symmetric_difference(&self.names).next()?;
        let verb = if names.contains(name) { "came" } else { "went" };
        let what = format!("as {} {verb}", self.dir.join(name).display());
        self.names = names;
        Some(what)
    }
}

/// Waits for a rotation at one of these places, and kills the node at the first one.
fn lie_in_wait(
    mut places: Vec<Place>,
    (until, later): (Instant, Duration),
    called_off: &AtomicBool,
    struck: &Mutex<Option<Struck>>,
) {
    while !called_off.load(Ordering::Relaxed) && Instant::now() < until {
        for place in &mut places {
            let Some(what) = place.change() else { continue };
            std::thread::sleep(later);
            // A caller that sees that the process has ended finds the cause here.
            let mut struck = struck.lock().unwrap_or_else(PoisonError::into_inner);
            if pidfd_send_signal(&place.process, Signal::KILL).is_ok() {
                *struck = Some(Struck { node: place.node, pid: place.pid, what });
                return;
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

impl Ambush {
    /// Starts the thread; none if the system has no thread to give.
    pub(super) fn lay(places: Vec<Place>, (within, later): (Duration, Duration), ballast: JoinSet<()>) -> Option<Self> {
        let (called_off, struck) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (stop, report) = (Arc::clone(&called_off), Arc::clone(&struck));
        let until = Instant::now() + within;
        let wait = move || lie_in_wait(places, (until, later), &stop, &report);
        let watcher = std::thread::Builder::new().name("skep-ambush".to_owned()).spawn(wait).ok()?;
        Some(Self { called_off, struck, watcher, _ballast: ballast })
    }

    /// Whether the thread has stopped waiting.
    pub(super) fn is_over(&self) -> bool {
        self.watcher.is_finished()
    }

    /// The node that it has killed so far.
    pub(super) fn struck(&self) -> Option<Struck> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the thread. Returns the node that it has killed until then.
    pub(super) fn call_off(self) -> Option<Struck> {
        self.called_off.store(true, Ordering::Relaxed);
        let Self { struck, watcher, .. } = self;
        let _ = watcher.join();
        let mut struck = struck.lock().unwrap_or_else(PoisonError::into_inner);
        struck.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    /// An idle node, and the directory that it would use.
    fn idle() -> (Child, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("1.wal"), "").unwrap();
        (Command::new("sleep").arg("600").spawn().unwrap(), dir)
    }

    #[test]
    fn whoever_makes_another_segment_is_killed_and_nobody_else() {
        let (mut others, mut victim) = (idle(), idle());
        let place = |node, of: &(Child, tempfile::TempDir)| Place::of(node, of.0.id(), of.1.path().to_owned()).unwrap();
        let places = vec![place(3, &others), place(4, &victim)];
        let within = Duration::from_secs(600);
        let ambush = Ambush::lay(places, (within, Duration::ZERO), JoinSet::new()).unwrap();
        assert!(ambush.struck().is_none());
        std::fs::write(victim.1.path().join("2.wal"), "").unwrap();
        assert_eq!(victim.0.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        let struck = ambush.call_off().unwrap();
        assert_eq!((struck.node, struck.pid), (4, victim.0.id()));
        assert!(struck.what.ends_with("2.wal came"), "{struck:?}");
        assert_eq!(others.0.try_wait().unwrap(), None, "it goes on");
        others.0.kill().unwrap();
        others.0.wait().unwrap();
    }

    #[test]
    fn an_ambush_that_is_called_off_kills_nobody() {
        let mut node = idle();
        let place = Place::of(0, node.0.id(), node.1.path().to_owned()).unwrap();
        let ambush = Ambush::lay(vec![place], (Duration::from_secs(600), Duration::ZERO), JoinSet::new()).unwrap();
        assert!(ambush.call_off().is_none());
        std::fs::remove_file(node.1.path().join("1.wal")).unwrap();
        assert_eq!(node.0.try_wait().unwrap(), None, "it goes on");
        node.0.kill().unwrap();
        node.0.wait().unwrap();
    }
}
