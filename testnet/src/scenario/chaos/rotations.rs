//! SIGKILL at a rotation: to whichever node's log, or journals, get another segment first, or lose one, as soon as that is seen.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use skep_client::{Client, TaskSpec, v1};
use skep_protocol::limits;
use skep_protocol::time::LogInstant;
use tokio::task::JoinSet;

use super::faults::{Faults, Kind, LASTS_MS, Mend, Wrong};
use crate::site::warehouse::DemoSite;

/// How often the segments are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// How long after it was seen the signal is sent, in milliseconds: half of them at once, and others into what comes next.
const LATER_MS: std::ops::Range<i64> = -5..5;
/// How long a log may take to its next rotation, with ballast, and the journals to theirs, with nothing but commands.
const LOG_WAIT: Duration = Duration::from_secs(30);
const JOURNALS_WAIT: Duration = Duration::from_secs(90);
/// One in so many waits for journals.
const JOURNALS: u32 = 3;
/// What fills a log: so many at a time create so often a task of so many bytes. It is more than two segments.
const BALLAST_AT_A_TIME: usize = 6;
const BALLAST_EACH: usize = 32;
const BALLAST_BYTES: usize = 48 * 1024;

/// The segments of a node, and its process.
struct Place {
    node: usize,
    pid: u32,
    /// The process itself: another one that gets its number later is not meant.
    process: OwnedFd,
    dir: PathBuf,
    names: BTreeSet<OsString>,
}

/// Whom an ambush has killed.
#[derive(Clone, Debug)]
pub(super) struct Struck {
    node: usize,
    pid: u32,
    /// What was seen.
    what: String,
}

/// Somebody who waits for a rotation.
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
    fn of(node: usize, pid: u32, dir: PathBuf) -> Option<Self> {
        let process = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        let names = names_in(&dir)?;
        Some(Self { node, pid, process, dir, names })
    }

    /// What has come or gone since the last look.
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
            // Whoever sees that the process has ended finds here why.
            let mut struck = struck.lock().unwrap_or_else(PoisonError::into_inner);
            if pidfd_send_signal(&place.process, Signal::KILL).is_ok() {
                *struck = Some(Struck { node: place.node, pid: place.pid, what });
                return;
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Title of what only has a log grow. Nobody writes down what became of it.
pub(super) const BALLAST: &str = "ballast";

/// Has a log grow, and nothing else: a task that is created again under an id that is taken, but with other content, is refused
/// once it is in the log.
async fn weigh_down(client: Client) {
    // No robot can do it.
    let required_capabilities = vec![BALLAST.to_owned()];
    let spec = TaskSpec { title: BALLAST.to_owned(), required_capabilities, ..TaskSpec::default() };
    let Ok(made) = client.create_task(spec.clone()).await else { return };
    let _ = client.cancel_task(&made.task_id, "it is ballast").await;
    let first_sent = LogInstant::from_raw(made.clock);
    let heavy = TaskSpec { payload: vec![7; BALLAST_BYTES], ..spec };
    for _ in 0..BALLAST_EACH {
        let meta = v1::RequestMeta {
            request_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
            shard: client.shard().0,
            first_sent: first_sent.raw(),
            deadline: first_sent.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT).raw(),
        };
        let request =
            v1::CreateTaskRequest { meta: Some(meta), task_id: made.task_id.clone(), spec: Some(heavy.clone()) };
        let _ = client.send_create(request).await;
    }
}

impl Ambush {
    /// None if there is no thread for it.
    fn lay(places: Vec<Place>, (within, later): (Duration, Duration), ballast: JoinSet<()>) -> Option<Self> {
        let (called_off, struck) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (stop, report) = (Arc::clone(&called_off), Arc::clone(&struck));
        let until = Instant::now() + within;
        let wait = move || lie_in_wait(places, (until, later), &stop, &report);
        let watcher = std::thread::Builder::new().name("skep-ambush".to_owned()).spawn(wait).ok()?;
        Some(Self { called_off, struck, watcher, _ballast: ballast })
    }

    fn struck(&self) -> Option<Struck> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it. Whom it has killed until then.
    fn call_off(self) -> Option<Struck> {
        self.called_off.store(true, Ordering::Relaxed);
        let Self { struck, watcher, .. } = self;
        let _ = watcher.join();
        let mut struck = struck.lock().unwrap_or_else(PoisonError::into_inner);
        struck.take()
    }
}

impl Faults {
    /// Has the next rotation of a voter's log, or of a node's journals, end in a SIGKILL. Other things go wrong meanwhile.
    pub(super) fn lay_ambush(&mut self, site: &DemoSite) {
        if self.ambush.is_some() {
            return;
        }
        let of_journals = self.rng.random_ratio(1, JOURNALS);
        let later = Duration::from_millis(u64::try_from(self.rng.random_range(LATER_MS)).unwrap_or(0));
        let (count, dir, within) = match of_journals {
            true => (site.net.nodes.len(), "journals/wal", JOURNALS_WAIT),
            false => (self.voters, "data/wal", LOG_WAIT),
        };
        let sound = (0..count).filter(|at| self.is_sound(site, *at));
        let place = |at: usize| Place::of(at, site.net.nodes[at].pid()?, site.net.nodes[at].dir.join(dir));
        let places: Vec<Place> = sound.filter_map(place).collect();
        let mut ballast = JoinSet::new();
        if !of_journals {
            for client in site.clients().into_iter().cycle().take(BALLAST_AT_A_TIME) {
                ballast.spawn(weigh_down(client));
            }
        }
        self.ambush = Ambush::lay(places, (within, later), ballast);
    }

    /// Takes note of whom an ambush has killed, if it has.
    pub(super) fn look_at_ambush(&mut self, site: &mut DemoSite) {
        let Some(ambush) = &self.ambush else { return };
        // In this order: the last thing that it does is to strike.
        let is_over = ambush.watcher.is_finished();
        let struck = ambush.struck();
        if is_over || struck.is_some() {
            self.ambush = None;
        }
        if let Some(struck) = struck {
            self.struck(site, struck);
        }
    }

    /// Ends an ambush, if there is one.
    pub(super) fn call_ambush_off(&mut self, site: &mut DemoSite) {
        if let Some(struck) = self.ambush.take().and_then(Ambush::call_off) {
            self.struck(site, struck);
        }
    }

    fn struck(&mut self, site: &mut DemoSite, Struck { node: at, pid, what }: Struck) {
        // Otherwise something else has killed it in the same moment, and starts it again.
        if site.net.nodes[at].pid() != Some(pid) {
            return;
        }
        let name = site.net.nodes[at].name.clone();
        if !site.net.kill_again(at) {
            self.story.say(&format!("{name} ended by itself"));
            self.fallen.push(name.clone());
        }
        self.tell(Kind::KillAtRotation, &format!("{name}, {what}"));
        self.killed(name);
        *self.counts.entry(Kind::KillAtRotation).or_default() += 1;
        let lasts = Duration::from_millis(self.rng.random_range(LASTS_MS));
        let until = tokio::time::Instant::now() + lasts;
        self.wrong.push(Wrong { until, mend: Mend::Start(at), node: Some(at) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    /// A node that does nothing, and where it would.
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
