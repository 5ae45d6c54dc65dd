//! SIGKILL at a rotation: to the first node whose log, or journals, get another segment or lose one, as soon as that is
//! seen.

use std::time::Duration;

use rand::RngExt as _;
use skep_client::{Client, TaskSpec, v1};
use skep_protocol::limits;
use skep_protocol::time::LogInstant;
use tokio::task::JoinSet;

use super::ambush::{Ambush, Place, Struck};
use super::faults::Faults;
use super::wrong::{Kind, LASTS_MS, Mend, Wrong};
use crate::site::warehouse::DemoSite;

/// How long after that the signal is sent, in milliseconds: half of the time at once, and otherwise into what comes
/// next.
const LATER_MS: std::ops::Range<i64> = -5..5;
/// How long a log may take to its next rotation, with ballast, and the journals to theirs, with only commands.
const LOG_WAIT: Duration = Duration::from_secs(30);
const JOURNALS_WAIT: Duration = Duration::from_secs(90);
/// One in this many ambushes waits for journals.
const JOURNALS: u32 = 3;
/// What fills a log: this many clients at a time create a task of this many bytes this often. That is more than two
/// segments.
const BALLAST_AT_A_TIME: usize = 6;
const BALLAST_EACH: usize = 32;
const BALLAST_BYTES: usize = 48 * 1024;

/// The title of tasks that only make a log grow. No client records what became of them.
pub(super) const BALLAST: &str = "ballast";

/// Makes a log grow, and does nothing else: a task that is created again under an id that is taken, but with other
/// content, is refused once it is in the log.
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

impl Faults {
    /// Prepares a SIGKILL at the next rotation of a voter's log, or of a node's journals. Other things go wrong
    /// meanwhile.
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

    /// Notes which node an ambush has killed, if it has.
    pub(super) fn look_at_ambush(&mut self, site: &mut DemoSite) {
        let Some(ambush) = &self.ambush else { return };
        // In this order: the kill is the last thing that it does.
        let is_over = ambush.is_over();
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
        // Otherwise something else has killed it at the same moment, and starts it again.
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
