//! A robot's software: attached to the node of its host, given tasks, and walking from errand to errand.
//!
//! What it may do is decided by the client library's own [`Holdings`]; how it behaves is the testnet robot's behaviour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_client::v1;
use skep_client::{ClaimKey, Fenced, Granted, Holdings};
use skep_engine::{AttachWish, StreamKey, ToAgent};
use skep_protocol::agent::{LeaseTerms, Position, Role};
use skep_protocol::entry::{Claim, Op, Request};
use skep_protocol::ids::{ClaimEpoch, CommandId, SessionId, TaskId};
use skep_protocol::offer::GoToken;
use skep_protocol::outcome::{NotDone, Refusal, Settled};
use skep_protocol::text::{AgentId, Capability, Reason, RoleName};
use skep_testnet::station::{Question, Refused, Step};

use super::commands::Task;
use super::host::{Call, SHARD, Waits};
use super::watch::Seen;
use super::world::{Event, Said, Sim};

/// How long a cell takes, in milliseconds of the robot's own clock, and how many cells an errand has at most.
const CELL_MS: u64 = 250;
const CELLS_MAX: u32 = 6;
/// How long a report is valid and how often it is sent again.
const VALID_MS: u64 = 30_000;
const AGAIN_MS: u64 = 200;
/// How long after its last look at the clock a robot acts.
const ACTS_WITHIN_MS: u64 = 250;
/// One step in so many meets something that another robot might not.
const GIVES_UP_ONE_IN: u32 = 300;
/// One report in so many is a failure.
const FAILS_ONE_IN: u32 = 40;
/// Waits between attempts to attach.
const RETRY_MS: std::ops::RangeInclusive<u64> = 50..=1_500;

/// A call of a robot's that is under way.
#[derive(Clone, Debug)]
pub(super) struct Calling {
    pub(super) number: u64,
    pub(super) request: Option<Request>,
    op: Op,
    in_doubt: bool,
    what: For,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Progress,
    End,
    GiveBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Begin,
    Asks(Step),
    Walks(u32),
    Reports,
}

/// A task that a robot works on.
#[derive(Clone, Debug)]
struct Job {
    key: ClaimKey,
    task: TaskId,
    errands: u32,
    errand: u32,
    doing: Doing,
}

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
    attached: bool,
    pub(super) holdings: Holdings,
    /// The greatest fencing token that it was given.
    pub(super) token: GoToken,
    /// A credit that is given and not used.
    wants: bool,
    queue: VecDeque<(ClaimKey, Box<v1::Task>)>,
    job: Option<Job>,
    pub(super) call: Option<Calling>,
    /// Claims that are to be given back.
    give_back: VecDeque<Claim>,
    next_call: u64,
    next_stream: u64,
    pub(super) commands: BTreeMap<CommandId, Task>,
    /// When it keeps its lease alive, does the next step, sends its call again, attaches: on its own clock.
    alive_at: u64,
    step_at: u64,
    again_at: u64,
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

    fn claim(&self, job: &Job) -> Claim {
        Claim { task: job.task, agent: self.agent.clone(), epoch: ClaimEpoch(job.key.epoch) }
    }
}

fn id_of(task: &[u8]) -> TaskId {
    TaskId::from_bytes(task.try_into().unwrap_or([0; 16]))
}

fn text(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
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
            self.after(1, Event::RobotSays { host, run, stream, said: Said::Closed });
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

    fn arm_robot(&mut self, robot: usize) {
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

    fn keep_alive(&mut self, robot: usize) {
        let stamp = self.boot_ms(self.robots[robot].host);
        let at = i64::try_from(robot).unwrap_or(0);
        let place = Some(Position { x_mm: at * 1_000, y_mm: i64::try_from(self.now).unwrap_or(0) % 10_000 });
        self.say(robot, Said::KeepAlive { stamp, place });
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

    pub(super) fn on_robot_hears(&mut self, robot: usize, run: u32, stream: StreamKey, message: Box<ToAgent>) {
        let kept = message.clone();
        if !self.robot_takes(robot, run, || Event::RobotHears { robot, run, stream, message: kept }) {
            return;
        }
        let now = self.boot_ms(self.robots[robot].host);
        let again = self.rng.random_range(RETRY_MS);
        let known = &mut self.robots[robot];
        if known.stream != Some(stream) {
            return;
        }
        let mut granted = Vec::new();
        match *message {
            ToAgent::Attached { .. } => {
                known.attached = true;
                known.alive_at = now;
                known.holdings.attached();
                if known.wants {
                    self.say(robot, Said::Credits(1));
                }
                self.take_commands(robot);
            }
            ToAgent::Holds(claims) => {
                let key =
                    |(task, epoch): (TaskId, ClaimEpoch)| ClaimKey { task: task.as_bytes().to_vec(), epoch: epoch.0 };
                known.holdings.keep_only(&claims.into_iter().map(key).collect::<BTreeSet<_>>());
            }
            ToAgent::Grant(grant) => {
                let task = grant.task;
                let key = ClaimKey { task: task.id.as_bytes().to_vec(), epoch: task.epoch.0 };
                let spec = v1::TaskSpec { payload: task.spec.payload.clone(), ..v1::TaskSpec::default() };
                let checkpoint = task.checkpoint.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
                let task = v1::Task { id: key.task.clone(), spec: Some(spec), checkpoint, ..v1::Task::default() };
                granted.extend(known.holdings.granted(key, Box::new(task), grant.spends_credit));
            }
            ToAgent::Lost { task, epoch } => {
                let unheard = known.holdings.lost(&ClaimKey { task: task.as_bytes().to_vec(), epoch: epoch.0 });
                if unheard && known.wants {
                    self.say(robot, Said::Credits(1));
                }
            }
            ToAgent::Lease(lease) => granted.extend(known.holdings.renewed(lease.stamp + lease.usable_ms)),
            ToAgent::Command { command, told } => return self.on_command_told(robot, command, told),
            ToAgent::Ended(why) => {
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

    /// Does what is to be done next.
    fn work(&mut self, robot: usize, now: u64) {
        let known = &mut self.robots[robot];
        if known.job.is_none() {
            if let Some((key, task)) = known.queue.pop_front() {
                let errands = task.spec.as_ref().and_then(|spec| spec.payload.first()).copied().unwrap_or(1);
                let errand = task.checkpoint.first().copied().unwrap_or(0);
                let (task, errands, errand) = (id_of(&key.task), u32::from(errands), u32::from(errand));
                known.job = Some(Job { key, task, errands, errand, doing: Doing::Begin });
                known.step_at = now;
            } else if !known.wants && known.call.is_none() {
                known.wants = true;
                if known.attached {
                    self.say(robot, Said::Credits(1));
                }
            }
        }
        let known = &mut self.robots[robot];
        if known.call.is_none()
            && let Some(claim) = known.give_back.pop_front()
        {
            self.call(robot, Op::ReleaseTask { claim }, For::GiveBack);
        }
        if self.robots[robot].step_at <= now {
            self.robots[robot].step_at = u64::MAX;
            self.step(robot, now);
        }
    }

    fn step(&mut self, robot: usize, now: u64) {
        let Some(job) = self.robots[robot].job.clone() else { return };
        match job.doing {
            Doing::Begin if job.errand >= job.errands => self.report(robot, &job),
            Doing::Begin => self.ask(robot, &job, Step::Start, now),
            Doing::Walks(left) => {
                if !self.may_go_on(robot, &job, now) {
                    return;
                }
                if self.rng.random_ratio(1, GIVES_UP_ONE_IN) {
                    return self.let_go(robot);
                }
                if left == 0 {
                    return self.ask(robot, &job, Step::Done, now);
                }
                self.set(robot, Doing::Walks(left - 1), now + CELL_MS);
            }
            Doing::Asks(_) | Doing::Reports => {}
        }
    }

    fn set(&mut self, robot: usize, doing: Doing, step_at: u64) {
        if let Some(job) = &mut self.robots[robot].job {
            job.doing = doing;
        }
        self.robots[robot].step_at = step_at;
    }

    /// Looks whether the claim is still the robot's own. A robot whose lease has ended stands still until it knows.
    fn may_go_on(&mut self, robot: usize, job: &Job, now: u64) -> bool {
        match self.robots[robot].holdings.check(&job.key, now) {
            Ok(_) => {
                self.see(&Seen::Checked { robot, task: job.task, epoch: job.key.epoch });
                true
            }
            Err(Fenced::LeaseEnded { .. }) => {
                self.watch.coverage.stood_still += 1;
                self.set(robot, job.doing, now + CELL_MS);
                false
            }
            Err(Fenced::ClaimLost) => {
                self.watch.coverage.claims_lost += 1;
                self.let_go(robot);
                false
            }
        }
    }

    fn ask(&mut self, robot: usize, job: &Job, step: Step, now: u64) {
        if !self.may_go_on(robot, job, now) {
            return;
        }
        let until_ms = self.robots[robot].holdings.check(&job.key, now).map_or(now, |left| left.until_ms);
        self.set(robot, Doing::Asks(step), u64::MAX);
        let (name, run) = (self.robots[robot].agent.to_string(), self.robots[robot].run);
        let (task, epoch, errand) = (text(&job.key.task), job.key.epoch, job.errand);
        let question =
            Question { robot: name, run: 0, task, epoch, errand, step, checked_ms: now, until_ms, token: None };
        let delay = self.rng.random_range(0..=ACTS_WITHIN_MS);
        self.after(delay, Event::Attempt { robot, run, question: Box::new(question) });
    }

    /// The robot acts: after its last look at the clock, and perhaps long after if it was suspended between the two.
    pub(super) fn on_attempt(&mut self, robot: usize, run: u32, question: Box<Question>) {
        let kept = question.clone();
        if !self.robot_takes(robot, run, || Event::Attempt { robot, run, question: kept }) {
            return;
        }
        let refused = self.station.judge(&question);
        self.see(&Seen::Attempted { question: &question, refused });
        self.after(1, Event::Judged { robot, run, refused });
    }

    pub(super) fn on_judged(&mut self, robot: usize, run: u32, refused: Option<Refused>) {
        if !self.robot_takes(robot, run, || Event::Judged { robot, run, refused }) {
            return;
        }
        let now = self.boot_ms(self.robots[robot].host);
        let Some(job) = self.robots[robot].job.clone() else { return };
        match (job.doing, refused) {
            (Doing::Asks(Step::Start), None) => {
                let cells = self.rng.random_range(1..=CELLS_MAX);
                self.set(robot, Doing::Walks(cells), now + CELL_MS);
            }
            // Another holder did it, and its report was lost.
            (Doing::Asks(Step::Start), Some(Refused::Duplicate)) | (Doing::Asks(Step::Done), None) => {
                if let Some(job) = &mut self.robots[robot].job {
                    job.errand += 1;
                }
                let job = Job { errand: job.errand + 1, ..job };
                self.report(robot, &job);
            }
            _ => self.let_go(robot),
        }
        self.arm_robot(robot);
    }

    fn report(&mut self, robot: usize, job: &Job) {
        self.set(robot, Doing::Reports, u64::MAX);
        let claim = self.robots[robot].claim(job);
        let done = u8::try_from(job.errand).unwrap_or(u8::MAX);
        let note = Reason::truncated("");
        let (op, what) = if self.rng.random_ratio(1, FAILS_ONE_IN) {
            (Op::FailTask { claim, reason: Reason::truncated("slipped"), retryable: true }, For::End)
        } else if job.errand >= job.errands {
            (Op::CompleteTask { claim, result: vec![done] }, For::End)
        } else {
            let permille = u16::try_from(job.errand * 1_000 / job.errands).unwrap_or(0);
            (Op::ReportProgress { claim, permille, note, checkpoint: Some(vec![done]) }, For::Progress)
        };
        self.call(robot, op, what);
    }

    fn call(&mut self, robot: usize, op: Op, what: For) {
        let known = &mut self.robots[robot];
        known.next_call += 1;
        known.call = Some(Calling { number: known.next_call, request: None, op, in_doubt: false, what });
        self.call_again(robot);
    }

    fn call_again(&mut self, robot: usize) {
        let known = &mut self.robots[robot];
        known.again_at = u64::MAX;
        let Some(call) = &known.call else { return };
        let waits = Waits::Robot { robot, run: known.run, call: call.number };
        let call = match &call.request {
            Some(request) => Call::Again(request.clone()),
            None => Call::Commit { op: call.op.clone(), valid_ms: VALID_MS },
        };
        let host = known.host;
        self.after(1, Event::Calls { host, call: Box::new(call), waits });
    }

    pub(super) fn on_robot_told(&mut self, robot: usize, run: u32, call: u64, settled: Box<Settled>) {
        let kept = settled.clone();
        if !self.robot_takes(robot, run, || Event::RobotTold { robot, run, call, settled: kept }) {
            return;
        }
        let now = self.boot_ms(self.robots[robot].host);
        let Some(calling) = self.robots[robot].call.as_mut().filter(|known| known.number == call) else { return };
        let decided = match settled.as_ref() {
            Settled::Done { .. } => Some(true),
            Settled::NotDone(NotDone::Refused(refusal)) => {
                match refusal.is_silent_about_earlier() && calling.in_doubt {
                    true => None,
                    false => Some(false),
                }
            }
            Settled::Unknown => {
                calling.in_doubt = true;
                None
            }
            _ => None,
        };
        let silent = matches!(
            settled.as_ref(),
            Settled::NotDone(NotDone::Refused(refusal)) if refusal.is_silent_about_earlier()
        );
        if decided.is_none() && !silent {
            // Nothing is known: the same request again.
            self.robots[robot].again_at = now + AGAIN_MS;
            return self.arm_robot(robot);
        }
        let Some(calling) = self.robots[robot].call.take() else { return };
        if let Some(request) = &calling.request {
            self.see(&Seen::Ended { request, settled: &settled, in_doubt: calling.in_doubt });
        }
        match (calling.what, decided) {
            (For::Progress, Some(true)) => self.set(robot, Doing::Begin, now),
            (For::End, Some(true)) => {
                if let Some(job) = self.robots[robot].job.take() {
                    self.robots[robot].holdings.let_go(&job.key);
                }
            }
            (For::GiveBack, Some(_)) => {}
            (For::GiveBack, None) => {
                // Under a new id: the old one has had its time.
                if let Op::ReleaseTask { claim } = calling.op {
                    self.robots[robot].give_back.push_back(claim);
                }
            }
            (For::Progress | For::End, _) => self.let_go(robot),
        }
        self.work(robot, now);
        self.arm_robot(robot);
    }

    /// Lets go of the task, and gives it back if it was held.
    fn let_go(&mut self, robot: usize) {
        let known = &mut self.robots[robot];
        let Some(job) = known.job.take() else { return };
        known.step_at = u64::MAX;
        if known.holdings.let_go(&job.key) {
            let claim = known.claim(&job);
            known.give_back.push_back(claim);
        }
        let now = self.boot_ms(self.robots[robot].host);
        self.work(robot, now);
    }
}
