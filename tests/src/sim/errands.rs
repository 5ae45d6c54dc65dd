//! What a robot does with its tasks: it walks from errand to errand, acts, and reports.

use rand::RngExt as _;
use skep_client::{ClaimKey, Fenced};
use skep_protocol::attach::AgentSaid;
use skep_protocol::entry::{Claim, Op, Request};
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::outcome::{NotDone, Settled};
use skep_protocol::text::Reason;
use skep_testnet::site::station::{Question, Refused, Step};

use super::calls::{Call, Waits};
use super::robot::Robot;
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
pub(super) struct Job {
    key: ClaimKey,
    task: TaskId,
    errands: u32,
    errand: u32,
    doing: Doing,
}

impl Robot {
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
    /// Does what is to be done next.
    pub(super) fn work(&mut self, robot: usize, now: u64) {
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
                    self.say(robot, Said::Word(AgentSaid::Credits(1)));
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

    pub(super) fn call_again(&mut self, robot: usize) {
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
