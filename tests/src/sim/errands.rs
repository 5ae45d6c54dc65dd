//! What a robot does with its tasks: it walks from errand to errand, acts, and reports.

use rand::RngExt as _;
use skep_client::Fenced;
use skep_protocol::attach::AgentSaid;
use skep_protocol::entry::Op;
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::outcome::NotDone;
use skep_protocol::settled::Settled;
use skep_protocol::task::{Claim, TaskOp};
use skep_protocol::text::Reason;
use skep_testnet::site::station::{Question, Refused, Step};

use super::hands::{Calling, Doing, For, Job};
use super::parcel::{Call, Caller, Event, Said, Waits};
use super::ports::Ports;
use super::robot::Robot;
use super::watch::Seen;

/// How long a cell takes, in milliseconds of the robot's own clock, and the most cells of an errand.
const CELL_MS: u64 = 250;
const CELLS_MAX: u32 = 6;
/// How long a report is valid and how often it is sent again, in milliseconds.
const VALID_MS: u64 = 30_000;
const AGAIN_MS: u64 = 200;
/// How long after its last look at the clock a robot acts, in milliseconds.
const ACTS_WITHIN_MS: u64 = 250;
/// One step in this many meets an obstacle that another robot might not meet.
const GIVES_UP_ONE_IN: u32 = 300;
/// One report in this many is a failure.
const FAILS_ONE_IN: u32 = 40;

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

impl Robot {
    /// Does the next step.
    pub(super) fn work(&mut self, ports: &mut Ports, now: u64) {
        if self.job.is_none() {
            if let Some((key, task)) = self.queue.pop_front() {
                let errands = task.spec.as_ref().and_then(|spec| spec.payload.first()).copied().unwrap_or(1);
                let errand = task.checkpoint.first().copied().unwrap_or(0);
                let (task, errands, errand) = (id_of(&key.task), u32::from(errands), u32::from(errand));
                self.job = Some(Job { key, task, errands, errand, doing: Doing::Begin });
                self.step_at = now;
            } else if !self.wants && self.call.is_none() {
                self.wants = true;
                if self.attached {
                    self.say(ports, Said::Word(AgentSaid::Credits(1)));
                }
            }
        }
        if self.call.is_none()
            && let Some(claim) = self.give_back.pop_front()
        {
            self.call(ports, Op::Task(TaskOp::Release { claim }), For::GiveBack);
        }
        if self.step_at <= now {
            self.step_at = u64::MAX;
            self.step(ports, now);
        }
    }

    fn step(&mut self, ports: &mut Ports, now: u64) {
        let Some(job) = self.job.clone() else { return };
        match job.doing {
            Doing::Begin if job.errand >= job.errands => self.report(ports, &job),
            Doing::Begin => self.ask(ports, &job, Step::Start, now),
            Doing::Walks(left) => {
                if !self.may_go_on(ports, &job, now) {
                    return;
                }
                if ports.rng.random_ratio(1, GIVES_UP_ONE_IN) {
                    return self.let_go(ports);
                }
                if left == 0 {
                    return self.ask(ports, &job, Step::Done, now);
                }
                self.set(Doing::Walks(left - 1), now + CELL_MS);
            }
            Doing::Asks(_) | Doing::Reports => {}
        }
    }

    fn set(&mut self, doing: Doing, step_at: u64) {
        if let Some(job) = &mut self.job {
            job.doing = doing;
        }
        self.step_at = step_at;
    }

    /// Checks that the robot still holds the claim. A robot whose lease has ended stands still until it knows.
    fn may_go_on(&mut self, ports: &mut Ports, job: &Job, now: u64) -> bool {
        match self.holdings.check(&job.key, now) {
            Ok(_) => {
                ports.see(&Seen::Checked { robot: self.index, task: job.task, epoch: job.key.epoch });
                true
            }
            Err(Fenced::LeaseEnded { .. }) => {
                ports.watch.coverage.stood_still += 1;
                self.set(job.doing, now + CELL_MS);
                false
            }
            Err(Fenced::ClaimLost) => {
                ports.watch.coverage.claims_lost += 1;
                self.let_go(ports);
                false
            }
        }
    }

    fn ask(&mut self, ports: &mut Ports, job: &Job, step: Step, now: u64) {
        if !self.may_go_on(ports, job, now) {
            return;
        }
        let until_ms = self.holdings.check(&job.key, now).map_or(now, |left| left.until_ms);
        self.set(Doing::Asks(step), u64::MAX);
        let (name, robot, run) = (self.agent.to_string(), self.index, self.run);
        let (task, epoch, errand) = (text(&job.key.task), job.key.epoch, job.errand);
        let question =
            Question { robot: name, run: 0, task, epoch, errand, step, checked_ms: now, until_ms, token: None };
        let delay = ports.rng.random_range(0..=ACTS_WITHIN_MS);
        ports.after(delay, Event::Attempt { robot, run, question: Box::new(question) });
    }

    /// The robot acts: after its last look at the clock, and perhaps long after if it was suspended between the two.
    pub(super) fn on_attempt(&mut self, ports: &mut Ports, run: u32, question: Box<Question>) {
        let (robot, kept) = (self.index, question.clone());
        if !self.takes(run, || Event::Attempt { robot, run, question: kept }) {
            return;
        }
        let refused = ports.station.judge(&question);
        ports.see(&Seen::Attempted { question: &question, refused });
        ports.after(1, Event::Judged { robot, run, refused });
    }

    pub(super) fn on_judged(&mut self, ports: &mut Ports, run: u32, refused: Option<Refused>) {
        let robot = self.index;
        if !self.takes(run, || Event::Judged { robot, run, refused }) {
            return;
        }
        let now = self.boot_ms(ports);
        let Some(job) = self.job.clone() else { return };
        match (job.doing, refused) {
            (Doing::Asks(Step::Start), None) => {
                let cells = ports.rng.random_range(1..=CELLS_MAX);
                self.set(Doing::Walks(cells), now + CELL_MS);
            }
            // Another holder did it, and its report was lost.
            (Doing::Asks(Step::Start), Some(Refused::Duplicate)) | (Doing::Asks(Step::Done), None) => {
                if let Some(job) = &mut self.job {
                    job.errand += 1;
                }
                let job = Job { errand: job.errand + 1, ..job };
                self.report(ports, &job);
            }
            _ => self.let_go(ports),
        }
        self.arm(ports);
    }

    fn report(&mut self, ports: &mut Ports, job: &Job) {
        self.set(Doing::Reports, u64::MAX);
        let claim = self.claim(job);
        let done = u8::try_from(job.errand).unwrap_or(u8::MAX);
        let note = Reason::truncated("");
        let (op, what) = if ports.rng.random_ratio(1, FAILS_ONE_IN) {
            (Op::Task(TaskOp::Fail { claim, reason: Reason::truncated("slipped"), retryable: true }), For::End)
        } else if job.errand >= job.errands {
            (Op::Task(TaskOp::Complete { claim, result: vec![done] }), For::End)
        } else {
            let permille = u16::try_from(job.errand * 1_000 / job.errands).unwrap_or(0);
            (Op::Task(TaskOp::Report { claim, permille, note, checkpoint: Some(vec![done]) }), For::Progress)
        };
        self.call(ports, op, what);
    }

    fn call(&mut self, ports: &mut Ports, op: Op, what: For) {
        self.next_call += 1;
        self.call = Some(Calling { number: self.next_call, op, in_doubt: false, what });
        self.call_again(ports);
    }

    pub(super) fn call_again(&mut self, ports: &mut Ports) {
        self.again_at = u64::MAX;
        let Some(call) = &self.call else { return };
        let waits = Waits::Robot { robot: self.index, run: self.run, call: call.number };
        let call = match ports.kept(Caller::Robot(self.index), call.number) {
            Some(request) => Call::Again(request.clone()),
            None => Call::Commit { op: call.op.clone(), valid_ms: VALID_MS },
        };
        let host = self.host;
        ports.after(1, Event::Calls { host, call: Box::new(call), waits });
    }

    pub(super) fn on_told(&mut self, ports: &mut Ports, run: u32, call: u64, settled: Box<Settled>) {
        let (robot, kept) = (self.index, settled.clone());
        if !self.takes(run, || Event::RobotTold { robot, run, call, settled: kept }) {
            return;
        }
        let now = self.boot_ms(ports);
        let Some(calling) = self.call.as_mut().filter(|known| known.number == call) else { return };
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
            // The outcome is unknown: the same request again.
            self.again_at = now + AGAIN_MS;
            return self.arm(ports);
        }
        let Some(calling) = self.call.take() else { return };
        if let Some(request) = ports.kept(Caller::Robot(robot), call).cloned() {
            ports.see(&Seen::Ended { request: &request, settled: &settled, in_doubt: calling.in_doubt });
        }
        match (calling.what, decided) {
            (For::Progress, Some(true)) => self.set(Doing::Begin, now),
            (For::End, Some(true)) => {
                if let Some(job) = self.job.take() {
                    self.holdings.let_go(&job.key);
                }
            }
            (For::GiveBack, Some(_)) => {}
            (For::GiveBack, None) => {
                // Under a new id: the old one has had its time.
                if let Op::Task(TaskOp::Release { claim }) = calling.op {
                    self.give_back.push_back(claim);
                }
            }
            (For::Progress | For::End, _) => self.let_go(ports),
        }
        self.work(ports, now);
        self.arm(ports);
    }

    /// Gives up the task, and gives it back if it was held.
    fn let_go(&mut self, ports: &mut Ports) {
        let Some(job) = self.job.take() else { return };
        self.step_at = u64::MAX;
        if self.holdings.let_go(&job.key) {
            let claim = self.claim(&job);
            self.give_back.push_back(claim);
        }
        let now = self.boot_ms(ports);
        self.work(ports, now);
    }
}
