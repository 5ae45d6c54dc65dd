//! A robot's software. It is attached to the node of its host, gets tasks, and walks from errand to errand.
//!
//! The client library's own [`Holdings`] decides what the software may do; its behaviour is that of the testnet robot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_client::{ClaimKey, Granted, Holdings, v1};
use skep_engine::StreamKey;
use skep_protocol::agent::{AgentRefusal, Role};
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::ids::{ClaimEpoch, CommandId, SessionId, TaskId};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::offer::GoToken;
use skep_protocol::outcome::NotDone;
use skep_protocol::position::Position;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::Claim;
use skep_protocol::text::{AgentId, Capability, RoleName};

use super::hands::{Calling, Job, Task};
use super::names::SHARD;
use super::parcel::{Event, Said};
use super::ports::Ports;
use super::watch::Seen;

/// Waits between attempts to attach, in milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u64> = 50..=1_500;

/// One run of a robot's software on one host. A robot that moved has runs on several hosts; the last is its owner.
pub(super) struct Robot {
    /// The number of this run among all runs of robots' software.
    pub(super) index: usize,
    /// The number of the robot.
    pub(super) number: usize,
    pub(super) agent: AgentId,
    pub(super) host: usize,
    role: Role,
    pub(super) run: u32,
    pub(super) up: bool,
    /// Whether this run has ended for good.
    pub(super) over: bool,
    pub(super) suspended: u32,
    deferred: Vec<Event>,
    session: SessionId,
    stream: Option<StreamKey>,
    pub(super) attached: bool,
    pub(super) holdings: Holdings,
    /// Whether the run had a lease at the last look.
    leased: bool,
    /// The greatest fencing token that the run was given.
    pub(super) token: GoToken,
    /// Whether the run has given a credit that is not used.
    pub(super) wants: bool,
    pub(super) queue: VecDeque<(ClaimKey, Box<v1::Task>)>,
    pub(super) job: Option<Job>,
    pub(super) call: Option<Calling>,
    /// Claims that the software is to give back.
    pub(super) give_back: VecDeque<Claim>,
    pub(super) next_call: u64,
    next_stream: u64,
    pub(super) commands: BTreeMap<CommandId, Task>,
    /// When the software keeps its lease alive, on its own clock. The next fields: when it does the next step, sends
    /// its call again, attaches, and wakes.
    alive_at: u64,
    pub(super) step_at: u64,
    pub(super) again_at: u64,
    attach_at: u64,
    wakes_at: u64,
}

fn claim_key(task: TaskId, epoch: ClaimEpoch) -> ClaimKey {
    ClaimKey { task: task.as_bytes().to_vec(), epoch: epoch.0 }
}

fn capability(name: &str) -> Option<Capability> {
    Capability::new(name).ok()
}

impl Robot {
    #[allow(clippy::expect_used, reason = "constants within their limits")]
    pub(super) fn new(index: usize, number: usize, host: usize, rng: &mut SmallRng) -> Self {
        let all = ["cart", "lift"];
        let has = all.iter().take(1 + number % 2).filter_map(|name| capability(name)).collect();
        let role = Role {
            name: RoleName::new("robot").expect("a role"),
            capabilities: has,
            stateful: false,
            max_concurrent: 1 + u32::from(number.is_multiple_of(5)),
        };
        let agent = AgentId::new(format!("robot-{number}")).expect("an id");
        Self {
            index,
            number,
            agent,
            host,
            role,
            run: 0,
            up: true,
            over: false,
            suspended: 0,
            deferred: Vec::new(),
            session: SessionId::from_bytes(rng.random()),
            stream: None,
            attached: false,
            holdings: Holdings::default(),
            leased: false,
            token: GoToken::default(),
            wants: false,
            queue: VecDeque::new(),
            job: None,
            call: None,
            give_back: VecDeque::new(),
            next_call: 0,
            next_stream: 0,
            commands: BTreeMap::new(),
            alive_at: 0,
            step_at: u64::MAX,
            again_at: u64::MAX,
            attach_at: 0,
            wakes_at: u64::MAX,
        }
    }

    /// Whether the software has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        let works = self.job.is_some() || !self.queue.is_empty() || self.call.is_some() || !self.give_back.is_empty();
        self.over || (!works && self.commands.is_empty())
    }
}

impl Robot {
    /// Whether the software takes a message for one of its runs. A message that reaches it while it is suspended waits.
    pub(super) fn takes(&mut self, run: u32, event: impl FnOnce() -> Event) -> bool {
        if !self.up || self.run != run {
            return false;
        }
        if self.suspended > 0 {
            self.deferred.push(event());
        }
        self.suspended == 0
    }

    pub(super) fn crash(&mut self, ports: &mut Ports) {
        if self.over {
            return;
        }
        self.up = false;
        self.deferred.clear();
        let (host, stream) = (self.host, self.stream.take());
        let run = ports.machines[host].run;
        if let Some(stream) = stream {
            ports.after(1, Event::RobotSays { host, run, stream, said: Said::Word(AgentSaid::Closed) });
        }
        ports.watch.coverage.robot_crashes += 1;
    }

    pub(super) fn start(&mut self, ports: &mut Ports) {
        if self.up || self.over {
            return;
        }
        let (run, streams, calls, suspended) = (self.run + 1, self.next_stream, self.next_call, self.suspended);
        let mut fresh = Self::new(self.index, self.number, self.host, &mut ports.rng);
        (fresh.run, fresh.next_stream, fresh.next_call, fresh.suspended) = (run, streams, calls, suspended);
        *self = fresh;
        ports.after(0, Event::RobotWakes { robot: self.index, run });
    }

    pub(super) fn resume(&mut self, ports: &mut Ports) {
        self.suspended = self.suspended.saturating_sub(1);
        if self.suspended > 0 || !self.up {
            return;
        }
        let (robot, run) = (self.index, self.run);
        for event in std::mem::take(&mut self.deferred) {
            ports.after(0, event);
        }
        ports.after(0, Event::RobotWakes { robot, run });
    }

    /// Ends this run for good.
    pub(super) fn end(&mut self, ports: &mut Ports) {
        self.crash(ports);
        self.over = true;
    }

    /// What the software's own clock shows, in milliseconds.
    pub(super) fn boot_ms(&self, ports: &Ports) -> u64 {
        ports.boot_ms(self.host)
    }

    pub(super) fn say(&self, ports: &mut Ports, said: Said) {
        let (host, Some(stream)) = (self.host, self.stream) else { return };
        let run = ports.machines[host].run;
        ports.after(1, Event::RobotSays { host, run, stream, said });
    }

    pub(super) fn on_wakes(&mut self, ports: &mut Ports, run: u32) {
        let robot = self.index;
        if !self.takes(run, || Event::RobotWakes { robot, run }) {
            return;
        }
        let now = self.boot_ms(ports);
        self.wakes_at = u64::MAX;
        if self.stream.is_none() && self.attach_at <= now {
            self.attach(ports);
        }
        if self.attached && self.alive_at <= now {
            self.alive_at = now + (ports.plan.lease_ms / 8).min(500);
            self.keep_alive(ports);
        }
        self.work(ports, now);
        if self.again_at <= now {
            self.call_again(ports);
        }
        self.arm(ports);
    }

    pub(super) fn arm(&mut self, ports: &mut Ports) {
        let attach = if self.stream.is_none() { self.attach_at } else { u64::MAX };
        let alive = if self.attached { self.alive_at } else { u64::MAX };
        let local = attach.min(alive).min(self.step_at).min(self.again_at);
        if local == u64::MAX {
            return;
        }
        let at = ports.machines[self.host].clock.when(local).max(ports.now + 1);
        if at < self.wakes_at {
            self.wakes_at = at;
            ports.at(at, Event::RobotWakes { robot: self.index, run: self.run });
        }
    }

    /// Looks whether a robot that had a lease still has one, in runs that ask for that.
    pub(super) fn look_for_lease(&mut self, ports: &mut Ports) {
        if !ports.plan.follows {
            return;
        }
        let now = self.boot_ms(ports);
        let runs = self.holdings.lease(now).is_ok();
        if std::mem::replace(&mut self.leased, runs) && !runs {
            ports.see(&Seen::Lapsed { robot: self.number, host: self.host });
        }
    }

    fn keep_alive(&self, ports: &mut Ports) {
        let stamp = self.boot_ms(ports);
        let at = i64::try_from(self.index).unwrap_or(0);
        let place = Some(Position { x_mm: at * 1_000, y_mm: i64::try_from(ports.now).unwrap_or(0) % 10_000 });
        self.say(ports, Said::Word(AgentSaid::KeepAlive { stamp, place }));
    }

    fn attach(&mut self, ports: &mut Ports) {
        let host = self.host;
        let now = ports.boot_ms(host);
        let again = ports.rng.random_range(RETRY_MS);
        self.attach_at = now + again;
        if !ports.machines[host].up {
            return;
        }
        self.next_stream += 1;
        let stream = StreamKey((self.index as u64) << 32 | self.next_stream);
        self.stream = Some(stream);
        let lease = Some(LeaseTerms { ttl_ms: ports.plan.lease_ms });
        let (agent, role, session) = (self.agent.clone(), self.role.clone(), self.session);
        ports.machines[host].streams.insert(stream, (self.index, self.run));
        self.say(ports, Said::Open(Box::new(AttachWish { shard: SHARD, agent, role, session, lease })));
        self.keep_alive(ports);
    }

    pub(super) fn on_hears(&mut self, ports: &mut Ports, run: u32, stream: StreamKey, message: Box<AgentTold>) {
        let (robot, kept) = (self.index, message.clone());
        if !self.takes(run, || Event::RobotHears { robot, run, stream, message: kept }) {
            return;
        }
        self.look_for_lease(ports);
        let now = self.boot_ms(ports);
        let again = ports.rng.random_range(RETRY_MS);
        if self.stream != Some(stream) {
            return;
        }
        let mut granted = Vec::new();
        match *message {
            AgentTold::Attached { .. } => self.on_attached(ports, now),
            AgentTold::Holds(claims) => {
                let held = claims.into_iter().map(|(task, epoch)| claim_key(task, epoch));
                self.holdings.keep_only(&held.collect::<BTreeSet<_>>());
            }
            AgentTold::Grant(grant) => {
                let task = grant.task;
                let key = claim_key(task.id, task.epoch);
                let spec = v1::TaskSpec { payload: task.spec.payload.clone(), ..v1::TaskSpec::default() };
                let checkpoint = task.checkpoint.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
                let task = v1::Task { id: key.task.clone(), spec: Some(spec), checkpoint, ..v1::Task::default() };
                granted.extend(self.holdings.granted(key, Box::new(task), grant.spends_credit));
            }
            AgentTold::Lost { task, epoch } => {
                let unheard = self.holdings.lost(&claim_key(task, epoch));
                if unheard && self.wants {
                    self.say(ports, Said::Word(AgentSaid::Credits(1)));
                }
            }
            AgentTold::Lease(lease) => granted.extend(self.holdings.renewed(lease.stamp + lease.usable_ms)),
            AgentTold::Command(command, told) => return self.on_command_told(ports, command, told),
            AgentTold::Ended(why) => {
                if matches!(why, Some(NotDone::Refused(Refusal::Agent(AgentRefusal::NotAttached { .. })))) {
                    self.holdings.lose_all();
                }
                (self.stream, self.attached, self.attach_at) = (None, false, now + again);
            }
        }
        for granted in granted {
            if let Granted::New(key, task) = granted {
                self.wants = false;
                self.queue.push_back((key, task));
            }
        }
        self.work(ports, now);
        self.arm(ports);
    }

    fn on_attached(&mut self, ports: &mut Ports, now: u64) {
        self.attached = true;
        self.alive_at = now;
        self.holdings.attached();
        if self.wants {
            self.say(ports, Said::Word(AgentSaid::Credits(1)));
        }
        self.take_commands(ports);
    }
}
