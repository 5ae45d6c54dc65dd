//! Customers: they order work, change their minds, and look how it goes.

use rand::RngExt as _;
use skep_fleet::{FleetLimits, FleetState, LogPosition};
use skep_protocol::command::{Command, CommandClass, CommandOp, CommandOrder, OrderKind, Target, Waves};
use skep_protocol::entry::{Charter, Entry, EntryBody, Founding, Op, Request};
use skep_protocol::fleet::{FLEET_VERSIONS, Rules};
use skep_protocol::ids::{CommandId, Genesis, TaskId};
use skep_protocol::operator::FirstOperator;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::Query;
use skep_protocol::settled::Settled;
use skep_protocol::signing::{OperatorSecret, Place, Signature, Signed};
use skep_protocol::task::{DisconnectPolicy, Priority, Reconcile, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{
    Capability, ContentType, GroupName, OperatorName, Reason, TaskKind, Title, TraceParent, Verb,
};
use skep_protocol::time::LogInstant;

use super::calls::{Call, Waits};
use super::clerk::secret_of;
use super::host::{SHARD, site};
use super::plan::Plan;
use super::watch::Seen;
use super::world::{Event, Sim};

/// Waits between calls, and before one is sent again, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 20..=600;
const AGAIN_MS: u64 = 300;
/// How long commands are valid, in milliseconds, and most of those of a run with hours.
const VALID_MS: std::ops::RangeInclusive<u64> = 300..=20_000;
const HOURS_MS: std::ops::RangeInclusive<u64> = 2 * 3_600_000..=6 * 3_600_000;
/// Errands of a task.
const ERRANDS_MAX: u8 = 3;

/// A call of a customer's that is under way.
#[derive(Clone, Debug)]
pub(super) struct Calling {
    pub(super) number: u64,
    pub(super) request: Option<Request>,
    op: Option<Op>,
    valid_ms: u64,
    in_doubt: bool,
    reads: Option<TaskId>,
    began_ms: u64,
    host: usize,
}

/// One customer.
pub(super) struct Customer {
    /// Tasks that it has not ordered yet.
    pub(super) left: usize,
    tasks: Vec<TaskId>,
    commands: Vec<CommandId>,
    pub(super) call: Option<Calling>,
    next_call: u64,
}

impl Customer {
    pub(super) fn new(n: usize, plan: &Plan) -> Self {
        let left = plan.tasks / plan.customers + usize::from(n < plan.tasks % plan.customers);
        Self { left, tasks: Vec::new(), commands: Vec::new(), call: None, next_call: 0 }
    }

    /// Whether it has ordered everything and waits for nothing.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.call.is_none()
    }
}

/// The shard's first operator.
pub(super) fn operator() -> OperatorSecret {
    OperatorSecret::from_seed(&[7; 32])
}

/// Where its statements hold.
pub(super) fn place() -> Place {
    Place { site: site(), shard: SHARD, genesis: Genesis::from_bytes([6; 16]) }
}

/// A shard as it is after its first entry.
#[allow(clippy::expect_used, reason = "constants within their limits")]
pub(super) fn founded(term: u64) -> FleetState {
    let name = OperatorName::new("first").expect("a name");
    let first = FirstOperator { place: place(), operator: operator().key(), name }.sign(&operator());
    let charter = Charter { place: place(), first: first.ok() };
    let rules = Rules { version: FLEET_VERSIONS.max, limits: FleetLimits::default() };
    let body = EntryBody::Founding(Box::new(Founding { rules, charter }));
    let mut state = FleetState::empty();
    state.apply(LogPosition { index: 0, term }, &Entry { stamp: LogInstant::ZERO, term, body });
    state
}

/// A command gets its deadline and its signature when its sender knows what time it is.
pub(super) fn sealed(op: Op, clock: LogInstant) -> Op {
    match op {
        Op::Command(CommandOp::Send { command }) => {
            let valid_ms = command.deadline.raw();
            let sealed = Command { deadline: clock.plus_ms(valid_ms), ..command.statement().clone() };
            let by = secret_of(&sealed);
            Op::Command(CommandOp::Send { command: sealed.sign(&by).map_or(command, Box::new) })
        }
        op => op,
    }
}

impl Sim {
    #[allow(clippy::expect_used, reason = "constants within their limits")]
    fn spec(&mut self) -> TaskSpec {
        let rng = &mut self.rng;
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
            retry: RetryPolicy {
                attempts_max: rng.random_range(2..=6),
                backoff_initial_ms: 200,
                backoff_max_ms: 3_000,
            },
            stale_after_ms: if rng.random_ratio(1, 5) { rng.random_range(1_500..=6_000) } else { 120_000 },
            valid_for_ms: rng.random_ratio(1, 10).then(|| rng.random_range(5_000..=60_000)),
            disconnect,
            place: None,
        }
    }

    /// A command for some robots: its deadline counts from when it is sent.
    #[allow(clippy::expect_used, reason = "constants within their limits")]
    fn command(&mut self, customer: usize) -> Op {
        let (robots, hours) = (self.robots.len(), self.plan.hours);
        let id = CommandId::from_bytes(self.rng.random());
        let signer = self.signer();
        let rng = &mut self.rng;
        let robot = rng.random_range(0..robots);
        let (target, many) = match rng.random_range(0..16) {
            0 => (Target::All, true),
            1..3 => (Target::Group(GroupName::new("odd").expect("a name")), true),
            _ => (Target::Agent(self.robots[robot].agent.clone()), false),
        };
        // Small waves may take longer than a run, if no deadline ends them.
        let agents = if hours { 10..=20 } else { 1..=10 };
        let waves = (many && rng.random_bool(0.5))
            .then(|| Waves { agents: rng.random_range(agents), every_ms: rng.random_range(100..=1_500) });
        let known = &mut self.customers[customer].commands;
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
    fn order(&mut self, customer: usize) -> Option<Op> {
        let known = &self.customers[customer].commands;
        let command = *known.get(self.rng.random_range(0..known.len().max(1)))?;
        let what = if self.rng.random_bool(0.5) { OrderKind::Cancel } else { OrderKind::Abort };
        let (reason, operator) = (Reason::truncated("changed my mind"), operator());
        let order = CommandOrder { place: place(), command, what, reason, operator: operator.key() };
        Some(Op::Command(CommandOp::Control { order: Box::new(order.sign(&operator).ok()?) }))
    }

    pub(super) fn on_customer_wakes(&mut self, customer: usize) {
        match self.customers[customer].call {
            Some(_) => self.send_call(customer),
            None => self.begin_call(customer),
        }
    }

    fn begin_call(&mut self, customer: usize) {
        if self.customers[customer].left == 0 {
            return;
        }
        let pick = self.rng.random_range(0..14);
        let stated = self.statement(customer);
        let known = &self.customers[customer];
        let earlier = (!known.tasks.is_empty()).then(|| known.tasks[self.rng.random_range(0..known.tasks.len())]);
        let (mut op, mut reads) = (None, None);
        match (pick, earlier) {
            _ if stated.is_some() => op = stated,
            (10..13, _) => op = Some(self.command(customer)),
            (13, _) => op = self.order(customer),
            (0..2, Some(task)) => reads = Some(task),
            (2, Some(task)) if self.rng.random_ratio(1, 3) => {
                op = Some(Op::Task(TaskOp::Cancel { task, reason: Reason::truncated("changed my mind") }));
            }
            (3, Some(task)) => op = Some(Op::Task(TaskOp::Requeue { task, reason: Reason::truncated("once more") })),
            _ => {
                let task = TaskId::from_bytes(self.rng.random());
                let spec = Box::new(self.spec());
                self.customers[customer].tasks.push(task);
                self.customers[customer].left -= 1;
                op = Some(Op::Task(TaskOp::Create { task, spec }));
            }
        }
        if op.is_none() && reads.is_none() {
            return self.after(1, Event::CustomerWakes { customer });
        }
        let valid_ms = if self.rng.random_ratio(1, 3) { self.rng.random_range(1_000..=10_000) } else { 60_000 };
        let (host, began_ms) = (self.plan.used(self.rng.random_range(0..self.hosts.len())), self.now);
        let known = &mut self.customers[customer];
        known.next_call += 1;
        let (number, request, in_doubt) = (known.next_call, None, false);
        known.call = Some(Calling { number, request, op, valid_ms, in_doubt, reads, began_ms, host });
        if reads.is_some() {
            self.see(&Seen::ReadBegun { customer });
        }
        self.send_call(customer);
    }

    fn send_call(&mut self, customer: usize) {
        let Some(calling) = &self.customers[customer].call else { return };
        let waits = Waits::Customer { customer, call: calling.number };
        let call = match (&calling.request, &calling.op, calling.reads) {
            (Some(request), _, _) => Call::Again(request.clone()),
            (None, Some(op), _) => Call::Commit { op: op.clone(), valid_ms: calling.valid_ms },
            (None, None, Some(task)) => Call::Read(Query::Task(task)),
            (None, None, None) => return,
        };
        let host = calling.host;
        self.after(1, Event::Calls { host, call: Box::new(call), waits });
    }

    pub(super) fn on_customer_told(&mut self, customer: usize, call: u64, settled: Settled) {
        let Some(calling) = self.customers[customer].call.as_mut().filter(|known| known.number == call) else { return };
        let over = match &settled {
            Settled::Done { .. } | Settled::Read(_) => true,
            Settled::NotDone(NotDone::Refused(_)) => true,
            Settled::Unknown => {
                calling.in_doubt |= calling.request.is_some();
                false
            }
            _ => false,
        };
        if !over {
            // The same request, to another node.
            calling.host = self.plan.used(calling.host + 1);
            // What nobody answers for a minute is given up: the deadline has passed, and what became of it is unknown.
            if self.now.saturating_sub(calling.began_ms) < 90_000 || !self.is_calm() {
                return self.after(AGAIN_MS, Event::CustomerWakes { customer });
            }
        }
        let Some(calling) = self.customers[customer].call.take() else { return };
        if let Some(request) = &calling.request {
            self.see(&Seen::Ended { request, settled: &settled, in_doubt: calling.in_doubt });
        }
        if let (Some(task), Settled::Read(reply)) = (calling.reads, &settled) {
            self.see(&Seen::ReadEnded { customer, task, reply });
        }
        let pause = self.rng.random_range(PAUSE_MS);
        self.after(pause, Event::CustomerWakes { customer });
    }
}
