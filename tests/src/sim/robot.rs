//! A robot's software: attached to the node of its host, given tasks, and walking from errand to errand.
//!
//! What it may do is decided by the client library's own [`Holdings`]; how it behaves is the testnet robot's behaviour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_client::v1;
use skep_client::{ClaimKey, Granted, Holdings};
use skep_engine::StreamKey;
use skep_protocol::agent::{LeaseTerms, Position, Role};
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::entry::Claim;
use skep_protocol::ids::{ClaimEpoch, CommandId, SessionId, TaskId};
use skep_protocol::offer::GoToken;
use skep_protocol::outcome::{NotDone, Refusal};
use skep_protocol::text::{AgentId, Capability, RoleName};

use super::commands::Task;
use super::errands::{Calling, Job};
use super::host::SHARD;
use super::watch::Seen;
use super::world::{Event, Said, Sim};

/// Waits between attempts to attach.
const RETRY_MS: std::ops::RangeInclusive<u64> = 50..=1_500;

/// One robot's software on one host. A robot that moved has it on several, of which the last is its owner.
pub(super) struct Robot {
    /// Which robot's.
    pub(super) number: usize,
    pub(super) agent: AgentId,
    pub(super) host: usize,
    role: Role,
    pub(super) run: u32,
    pub(super) up: bool,
    /// Whether it has ended for good.
    pub(super) over: bool,
    pub(super) suspended: u32,
    deferred: Vec<Event>,
    session: SessionId,
    stream: Option<StreamKey>,
    pub(super) attached: bool,
    pub(super) holdings: Holdings,
    /// Whether it had a lease when that was looked at last.
    leased: bool,
    /// The greatest fencing token that it was given.
    pub(super) token: GoToken,
    /// A credit that is given and not used.
    pub(super) wants: bool,
    pub(super) queue: VecDeque<(ClaimKey, Box<v1::Task>)>,
    pub(super) job: Option<Job>,
    pub(super) call: Option<Calling>,
    /// Claims that are to be given back.
    pub(super) give_back: VecDeque<Claim>,
    pub(super) next_call: u64,
    next_stream: u64,
    pub(super) commands: BTreeMap<CommandId, Task>,
    /// When it keeps its lease alive, does the next step, sends its call again, attaches: on its own clock.
    alive_at: u64,
    pub(super) step_at: u64,
    pub(super) again_at: u64,
    attach_at: u64,
    wakes_at: u64,
}

fn capability(name: &str) -> Option<Capability> {
    Capability::new(name).ok()
}

impl Robot {
    #[allow(clippy::expect_used, reason = "constants within their limits")]
    pub(super) fn new(number: usize, host: usize, rng: &mut SmallRng) -> Self {
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

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        let works = self.job.is_some() || !self.queue.is_empty() || self.call.is_some() || !self.give_back.is_empty();
        self.over || (!works && self.commands.is_empty())
    }
}

impl Sim {
    pub(super) fn robot_takes(&mut self, robot: usize, run: u32, event: impl FnOnce() -> Event) -> bool {
        let robot = &mut self.robots[robot];
        if !robot.up || robot.run != run {
            return false;
        }
        if robot.suspended > 0 {
            robot.deferred.push(event());
        }
        robot.suspended == 0
    }

    pub(super) fn crash_robot(&mut self, robot: usize) {
        let known = &mut self.robots[robot];
        if known.over {
            return;
        }
        known.up = false;
        known.deferred.clear();
        let (host, stream) = (known.host, known.stream.take());
        let run = self.hosts[host].run;
        if let Some(stream) = stream {
            self.after(1, Event::RobotSays { host, run, stream, said: Said::Word(AgentSaid::Closed) });
        }
        self.watch.coverage.robot_crashes += 1;
    }

    pub(super) fn start_robot(&mut self, robot: usize) {
        let known = &self.robots[robot];
        if known.up || known.over {
            return;
        }
        let (run, streams, calls, suspended) = (known.run + 1, known.next_stream, known.next_call, known.suspended);
        let mut fresh = Robot::new(known.number, known.host, &mut self.rng);
        (fresh.run, fresh.next_stream, fresh.next_call, fresh.suspended) = (run, streams, calls, suspended);
        self.robots[robot] = fresh;
        self.after(0, Event::RobotWakes { robot, run });
    }

    pub(super) fn resume_robot(&mut self, robot: usize) {
        let known = &mut self.robots[robot];
        known.suspended = known.suspended.saturating_sub(1);
        if known.suspended > 0 || !known.up {
            return;
        }
        let run = known.run;
        for event in std::mem::take(&mut known.deferred) {
            self.after(0, event);
        }
        self.after(0, Event::RobotWakes { robot, run });
    }

    pub(super) fn say(&mut self, robot: usize, said: Said) {
        let (host, Some(stream)) = (self.robots[robot].host, self.robots[robot].stream) else { return };
        let run = self.hosts[host].run;
        self.after(1, Event::RobotSays { host, run, stream, said });
    }

    pub(super) fn on_robot_wakes(&mut self, robot: usize, run: u32) {
        if !self.robot_takes(robot, run, || Event::RobotWakes { robot, run }) {
            return;
        }
        let now = self.boot_ms(self.robots[robot].host);
        self.robots[robot].wakes_at = u64::MAX;
        let known = &mut self.robots[robot];
        if known.stream.is_none() && known.attach_at <= now {
            self.attach(robot);
        }
        let known = &mut self.robots[robot];
        if known.attached && known.alive_at <= now {
            known.alive_at = now + (self.plan.lease_ms / 8).min(500);
            self.keep_alive(robot);
        }
        self.work(robot, now);
        if self.robots[robot].again_at <= now {
            self.call_again(robot);
        }
        self.arm_robot(robot);
    }

    pub(super) fn arm_robot(&mut self, robot: usize) {
        let known = &mut self.robots[robot];
        let attach = if known.stream.is_none() { known.attach_at } else { u64::MAX };
        let alive = if known.attached { known.alive_at } else { u64::MAX };
        let local = attach.min(alive).min(known.step_at).min(known.again_at);
        if local == u64::MAX {
            return;
        }
        let at = self.hosts[known.host].clock.when(local).max(self.now + 1);
        let known = &mut self.robots[robot];
        if at < known.wakes_at {
            known.wakes_at = at;
            let run = known.run;
            self.at(at, Event::RobotWakes { robot, run });
        }
    }

    /// Looks whether a robot that had a lease still has one, if that is asked of the run.
    fn look_for_lease(&mut self, robot: usize) {
        if !self.plan.follows {
            return;
        }
        let now = self.boot_ms(self.robots[robot].host);
        let known = &mut self.robots[robot];
        let runs = known.holdings.lease(now).is_ok();
        if std::mem::replace(&mut known.leased, runs) && !runs {
            let (number, host) = (known.number, known.host);
            self.see(&Seen::Lapsed { robot: number, host });
        }
    }

    pub(super) fn look_for_leases(&mut self) {
        (0..self.robots.len()).for_each(|robot| self.look_for_lease(robot));
    }

    fn keep_alive(&mut self, robot: usize) {
        let stamp = self.boot_ms(self.robots[robot].host);
        let at = i64::try_from(robot).unwrap_or(0);
        let place = Some(Position { x_mm: at * 1_000, y_mm: i64::try_from(self.now).unwrap_or(0) % 10_000 });
        self.say(robot, Said::Word(AgentSaid::KeepAlive { stamp, place }));
    }

    fn attach(&mut self, robot: usize) {
        let host = self.robots[robot].host;
        let now = self.boot_ms(host);
        let again = self.rng.random_range(RETRY_MS);
        let known = &mut self.robots[robot];
        known.attach_at = now + again;
        if !self.hosts[host].up {
            return;
        }
        known.next_stream += 1;
        let stream = StreamKey((robot as u64) << 32 | known.next_stream);
        known.stream = Some(stream);
        let lease = Some(LeaseTerms { ttl_ms: self.plan.lease_ms });
        let (agent, role, session) = (known.agent.clone(), known.role.clone(), known.session);
        let run = known.run;
        self.hosts[host].streams.insert(stream, (robot, run));
        self.say(robot, Said::Open(Box::new(AttachWish { shard: SHARD, agent, role, session, lease })));
        self.keep_alive(robot);
    }

    pub(super) fn on_robot_hears(&mut self, robot: usize, run: u32, stream: StreamKey, message: Box<AgentTold>) {
        let kept = message.clone();
        if !self.robot_takes(robot, run, || Event::RobotHears { robot, run, stream, message: kept }) {
            return;
        }
        self.look_for_lease(robot);
        let now = self.boot_ms(self.robots[robot].host);
        let again = self.rng.random_range(RETRY_MS);
        let known = &mut self.robots[robot];
        if known.stream != Some(stream) {
            return;
        }
        let mut granted = Vec::new();
        match *message {
            AgentTold::Attached { .. } => {
                known.attached = true;
                known.alive_at = now;
                known.holdings.attached();
                if known.wants {
                    self.say(robot, Said::Word(AgentSaid::Credits(1)));
                }
                self.take_commands(robot);
            }
            AgentTold::Holds(claims) => {
                let key =
                    |(task, epoch): (TaskId, ClaimEpoch)| ClaimKey { task: task.as_bytes().to_vec(), epoch: epoch.0 };
                known.holdings.keep_only(&claims.into_iter().map(key).collect::<BTreeSet<_>>());
            }
            AgentTold::Grant(grant) => {
                let task = grant.task;
                let key = ClaimKey { task: task.id.as_bytes().to_vec(), epoch: task.epoch.0 };
                let spec = v1::TaskSpec { payload: task.spec.payload.clone(), ..v1::TaskSpec::default() };
                let checkpoint = task.checkpoint.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
                let task = v1::Task { id: key.task.clone(), spec: Some(spec), checkpoint, ..v1::Task::default() };
                granted.extend(known.holdings.granted(key, Box::new(task), grant.spends_credit));
            }
            AgentTold::Lost { task, epoch } => {
                let unheard = known.holdings.lost(&ClaimKey { task: task.as_bytes().to_vec(), epoch: epoch.0 });
                if unheard && known.wants {
                    self.say(robot, Said::Word(AgentSaid::Credits(1)));
                }
            }
            AgentTold::Lease(lease) => granted.extend(known.holdings.renewed(lease.stamp + lease.usable_ms)),
            AgentTold::Command(command, told) => return self.on_command_told(robot, command, told),
            AgentTold::Ended(why) => {
                if matches!(why, Some(NotDone::Refused(Refusal::NotAttached { .. }))) {
                    known.holdings.lose_all();
                }
                (known.stream, known.attached, known.attach_at) = (None, false, now + again);
            }
        }
        let known = &mut self.robots[robot];
        for granted in granted {
            if let Granted::New(key, task) = granted {
                known.wants = false;
                known.queue.push_back((key, task));
            }
        }
        self.work(robot, now);
        self.arm_robot(robot);
    }
}
