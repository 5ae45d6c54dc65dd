//! Customers: they order work, change their minds, and read how it goes.

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_protocol::command::{Command, CommandClass, CommandControl, CommandOp, ControlKind, Target, Waves};
use skep_protocol::entry::Op;
use skep_protocol::ids::{CommandId, TaskId};
use skep_protocol::operator::OperatorOp;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::Query;
use skep_protocol::settled::Settled;
use skep_protocol::signing::{OperatorSecret, Signature, Signed};
use skep_protocol::task::{DisconnectPolicy, Priority, Reconcile, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{Capability, ContentType, GroupName, Reason, TaskKind, Title, TraceParent, Verb};
use skep_protocol::time::LogInstant;

use super::clerk::{REVOKED_BY, clerk, grant};
use super::names::{operator, place};
use super::parcel::{Call, Caller, Event, Waits};
use super::plan::Plan;
use super::ports::Ports;
use super::watch::Seen;

/// Wait between calls, and before a call is sent again, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 20..=600;
const AGAIN_MS: u64 = 300;
/// How long commands are valid, in milliseconds, and how long most commands are valid in a run with hours.
const VALID_MS: std::ops::RangeInclusive<u64> = 300..=20_000;
const HOURS_MS: std::ops::RangeInclusive<u64> = 2 * 3_600_000..=6 * 3_600_000;
/// The most errands of a task.
const ERRANDS_MAX: u8 = 3;
/// The clerk signs one command in this many, where there is a clerk.
const CLERKS_ONE_IN: u32 = 3;

/// A call of a customer that is under way.
#[derive(Clone, Debug)]
struct Calling {
    number: u64,
    op: Option<Op>,
    valid_ms: u64,
    in_doubt: bool,
    reads: Option<TaskId>,
    began_ms: u64,
    host: usize,
}

/// One customer.
pub(super) struct Customer {
    index: usize,
    /// How many tasks it has not ordered yet.
    left: usize,
    tasks: Vec<TaskId>,
    commands: Vec<CommandId>,
    call: Option<Calling>,
    next_call: u64,
}

impl Customer {
    pub(super) fn new(index: usize, plan: &Plan) -> Self {
        let left = plan.tasks / plan.customers + usize::from(index < plan.tasks % plan.customers);
        Self { index, left, tasks: Vec::new(), commands: Vec::new(), call: None, next_call: 0 }
    }

    /// Whether it has ordered everything and waits for nothing.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.call.is_none()
    }
}

/// What a customer has beside the ports when it begins something.
pub(super) struct Desk<'a> {
    pub(super) ports: &'a mut Ports,
    /// Draws who signs, where there is a clerk.
    pub(super) clerks: Option<&'a mut SmallRng>,
    /// The number of the last statement about the clerk that any voter has applied; zero for none.
    pub(super) stated: u64,
}

impl Desk<'_> {
    /// The operator who signs the next command.
    fn signer(&mut self) -> OperatorSecret {
        let clerks = self.clerks.as_mut().is_some_and(|rng| rng.random_ratio(1, CLERKS_ONE_IN));
        if clerks { clerk() } else { operator() }
    }
}

#[allow(clippy::expect_used, reason = "constants within their limits")]
fn spec(rng: &mut SmallRng) -> TaskSpec {
    let lift = rng.random_ratio(1, 4).then(|| Capability::new("lift").ok()).flatten();
    let disconnect = DisconnectPolicy {
        lost_after_ms: if rng.random_ratio(1, 4) { rng.random_range(1_000..=8_000) } else { 0 },
        replace: rng.random_bool(0.8),
        reconcile: if rng.random_bool(0.5) { Reconcile::FirstCome } else { Reconcile::KeepOriginal },
    };
    TaskSpec {
        title: Title::new("order").expect("a title"),
        kind: TaskKind::new("transport").expect("a kind"),
        priority: [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent][rng.random_range(0..4)],
        required: lift.into_iter().collect(),
        payload: vec![rng.random_range(1..=ERRANDS_MAX)],
        retry: RetryPolicy { attempts_max: rng.random_range(2..=6), backoff_initial_ms: 200, backoff_max_ms: 3_000 },
        stale_after_ms: if rng.random_ratio(1, 5) { rng.random_range(1_500..=6_000) } else { 120_000 },
        valid_for_ms: rng.random_ratio(1, 10).then(|| rng.random_range(5_000..=60_000)),
        disconnect,
        place: None,
    }
}

impl Customer {
    /// A command for some robots: its deadline counts from when it is sent.
    #[allow(clippy::expect_used, reason = "constants within their limits")]
    fn command(&mut self, desk: &mut Desk<'_>) -> Op {
        let (robots, hours) = (desk.ports.agents.len(), desk.ports.plan.hours);
        let id = CommandId::from_bytes(desk.ports.rng.random());
        let signer = desk.signer();
        let rng = &mut desk.ports.rng;
        let robot = rng.random_range(0..robots);
        let (target, many) = match rng.random_range(0..16) {
            0 => (Target::All, true),
            1..3 => (Target::Group(GroupName::new("odd").expect("a name")), true),
            _ => (Target::Agent(desk.ports.agents[robot].clone()), false),
        };
        // Small waves may take longer than a run, if no deadline ends them.
        let agents = if hours { 10..=20 } else { 1..=10 };
        let waves = (many && rng.random_bool(0.5))
            .then(|| Waves { agents: rng.random_range(agents), every_ms: rng.random_range(100..=1_500) });
        let known = &mut self.commands;
        let supersedes = (!known.is_empty() && rng.random_ratio(1, 6)).then(|| known[rng.random_range(0..known.len())]);
        known.push(id);
        let is_long = hours && rng.random_bool(0.8);
        let valid_ms = rng.random_range(if is_long { HOURS_MS } else { VALID_MS });
        let command = Command {
            place: place(),
            id,
            target,
            verb: Verb::new("goto").expect("a verb"),
            content_type: ContentType::new("").expect("a type"),
            args: Default::default(),
            deadline: LogInstant::from_raw(valid_ms),
            class: if rng.random_ratio(1, 5) { CommandClass::Urgent } else { CommandClass::Routine },
            idempotent: rng.random_ratio(1, 6),
            supersedes,
            parent: None,
            trace: TraceParent::new("").expect("a trace"),
            waves,
            operator: signer.key(),
        };
        let signature = Signature::from_bytes(&[0; 64]);
        Op::Command(CommandOp::Send {
            command: Box::new(Signed::under(&command, signature).expect("within its limit")),
        })
    }

    /// A change of mind about a command.
    fn control(&self, rng: &mut SmallRng) -> Option<Op> {
        let known = &self.commands;
        let command = *known.get(rng.random_range(0..known.len().max(1)))?;
        let what = if rng.random_bool(0.5) { ControlKind::Cancel } else { ControlKind::Abort };
        let (reason, operator) = (Reason::truncated("changed my mind"), operator());
        let control = CommandControl { place: place(), command, what, reason, operator: operator.key() };
        Some(Op::Command(CommandOp::Control { control: Box::new(control.sign(&operator).ok()?) }))
    }

    /// What the first operator states, by the first customer: that there is a clerk, and later that there is none. The
    /// customer reads whether that is so, and states it again if it is not: a voter that lies may have called it done.
    fn statement(&self, desk: &Desk<'_>) -> Option<Op> {
        if desk.clerks.is_none() || self.index != 0 {
            return None;
        }
        let is_late = desk.ports.now > desk.ports.plan.run_ms / 2 || self.left == 1;
        let serial = match desk.stated {
            0 => 1,
            1 if is_late => REVOKED_BY,
            _ => return None,
        };
        let signed = grant(serial).sign(&operator()).ok()?;
        Some(Op::Operator(OperatorOp::Grant { grant: Box::new(signed) }))
    }

    pub(super) fn on_wakes(&mut self, mut desk: Desk<'_>) {
        match self.call {
            Some(_) => self.send_call(desk.ports),
            None => self.begin_call(&mut desk),
        }
    }

    fn begin_call(&mut self, desk: &mut Desk<'_>) {
        if self.left == 0 {
            return;
        }
        let pick = desk.ports.rng.random_range(0..14);
        let stated = self.statement(desk);
        let known = &self.tasks;
        let earlier = (!known.is_empty()).then(|| known[desk.ports.rng.random_range(0..known.len())]);
        let (mut op, mut reads) = (None, None);
        match (pick, earlier) {
            _ if stated.is_some() => op = stated,
            (10..13, _) => op = Some(self.command(desk)),
            (13, _) => op = self.control(&mut desk.ports.rng),
            (0..2, Some(task)) => reads = Some(task),
            (2, Some(task)) if desk.ports.rng.random_ratio(1, 3) => {
                op = Some(Op::Task(TaskOp::Cancel { task, reason: Reason::truncated("changed my mind") }));
            }
            (3, Some(task)) => op = Some(Op::Task(TaskOp::Requeue { task, reason: Reason::truncated("once more") })),
            _ => {
                let task = TaskId::from_bytes(desk.ports.rng.random());
                let spec = Box::new(spec(&mut desk.ports.rng));
                self.tasks.push(task);
                self.left -= 1;
                op = Some(Op::Task(TaskOp::Create { task, spec }));
            }
        }
        let ports = &mut *desk.ports;
        let customer = self.index;
        if op.is_none() && reads.is_none() {
            return ports.after(1, Event::CustomerWakes { customer });
        }
        let valid_ms = if ports.rng.random_ratio(1, 3) { ports.rng.random_range(1_000..=10_000) } else { 60_000 };
        let (host, began_ms) = (ports.plan.used(ports.rng.random_range(0..ports.machines.len())), ports.now);
        self.next_call += 1;
        let (number, in_doubt) = (self.next_call, false);
        self.call = Some(Calling { number, op, valid_ms, in_doubt, reads, began_ms, host });
        if reads.is_some() {
            ports.see(&Seen::ReadBegun { customer });
        }
        self.send_call(ports);
    }

    fn send_call(&self, ports: &mut Ports) {
        let Some(calling) = &self.call else { return };
        let waits = Waits::Customer { customer: self.index, call: calling.number };
        let kept = ports.kept(Caller::Customer(self.index), calling.number);
        let call = match (kept, &calling.op, calling.reads) {
            (Some(request), _, _) => Call::Again(request.clone()),
            (None, Some(op), _) => Call::Commit { op: op.clone(), valid_ms: calling.valid_ms },
            (None, None, Some(task)) => Call::Read(Query::Task(task)),
            (None, None, None) => return,
        };
        ports.after(1, Event::Calls { host: calling.host, call: Box::new(call), waits });
    }

    pub(super) fn on_told(&mut self, ports: &mut Ports, call: u64, settled: &Settled) {
        let customer = self.index;
        let Some(calling) = self.call.as_mut().filter(|known| known.number == call) else { return };
        let over = match settled {
            Settled::Done { .. } | Settled::Read(_) => true,
            Settled::NotDone(NotDone::Refused(_)) => true,
            Settled::Unknown => {
                calling.in_doubt |= ports.kept(Caller::Customer(customer), call).is_some();
                false
            }
            _ => false,
        };
        if !over {
            // The same request goes to another node.
            calling.host = ports.plan.used(calling.host + 1);
            // The customer gives up a call without an answer for a minute: the deadline has passed, and the outcome is
            // unknown.
            if ports.now.saturating_sub(calling.began_ms) < 90_000 || !ports.is_calm() {
                return ports.after(AGAIN_MS, Event::CustomerWakes { customer });
            }
        }
        let Some(calling) = self.call.take() else { return };
        if let Some(request) = ports.kept(Caller::Customer(customer), call).cloned() {
            ports.see(&Seen::Ended { request: &request, settled, in_doubt: calling.in_doubt });
        }
        if let (Some(task), Settled::Read(reply)) = (calling.reads, settled) {
            ports.see(&Seen::ReadEnded { customer, task, reply });
        }
        let pause = ports.rng.random_range(PAUSE_MS);
        ports.after(pause, Event::CustomerWakes { customer });
    }
}
