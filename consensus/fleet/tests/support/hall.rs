//! A site with operators, in a test of commands.

use skep_protocol::change::ChangeKind;
use skep_protocol::command::*;
use skep_protocol::entry::{Charter, EntryBody, Founding, Op};
use skep_protocol::fleet::{FLEET_VERSIONS, Rules};
use skep_protocol::ids::{AttachmentId, CommandId, Genesis, HomeEpoch, JournalId, ShardId};
use skep_protocol::operator::{FirstOperator, OperatorGrant, OperatorOp};
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::pull::Delivery;
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::{GroupName, TraceParent};

use super::*;

pub fn place() -> Place {
    Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) }
}

pub fn secret(n: u8) -> OperatorSecret {
    OperatorSecret::from_seed(&[n; 32])
}

pub fn first() -> OperatorSecret {
    secret(1)
}

pub fn grant(of: u8, serial: u64) -> OperatorGrant {
    let name = "somebody".parse().unwrap();
    OperatorGrant { serial, admin_depth: 0, ..OperatorGrant::of_first(place(), secret(of).key(), name) }
}

/// The first entry of a shard whose first operator is that of these tests.
pub fn founding(limits: FleetLimits) -> EntryBody {
    let stated = FirstOperator { place: place(), operator: first().key(), name: "first".parse().unwrap() };
    let charter = Charter { place: place(), first: Some(stated.sign(&first()).unwrap()), root: None };
    let rules = Rules { version: FLEET_VERSIONS.max, limits };
    EntryBody::Founding(Box::new(Founding { rules, charter }))
}

pub fn state_grant(grant: OperatorGrant, by: u8) -> Op {
    Op::Operator(OperatorOp::Grant { grant: Box::new(grant.sign(&secret(by)).unwrap()) })
}

pub fn id(n: u8) -> CommandId {
    CommandId::from_bytes([n; 16])
}

pub fn journal(n: u8) -> JournalId {
    JournalId::from_bytes([n; 16])
}

pub fn to(name: &str) -> Target {
    Target::Agent(agent(name))
}

/// A site with its first operator, and a command that is valid for ten seconds.
pub struct Hall {
    pub shard: Shard,
}

impl std::ops::Deref for Hall {
    type Target = Shard;
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl std::ops::DerefMut for Hall {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Hall {
    pub fn new() -> Self {
        Self::within(FleetLimits::default())
    }

    pub fn within(limits: FleetLimits) -> Self {
        let mut shard = Shard::with_limits(limits);
        shard.apply(founding(limits));
        Self { shard }
    }

    pub fn with(robots: &[&str]) -> Self {
        Self::new().joined(robots)
    }

    /// The site with robots of one group, each at a node of its own.
    pub fn joined(mut self, robots: &[&str]) -> Self {
        for (n, robot) in (1..).zip(robots) {
            self.join(robot, n, journal(n), &["aisle"]);
        }
        self
    }

    /// Attaches an agent and opens its inbox; returns its home epoch.
    pub fn join(&mut self, robot: &str, at: u8, to: JournalId, groups: &[&str]) -> HomeEpoch {
        let attached = self.shard.ok(attach(robot, at, at));
        let Receipt::Attached { attachment, .. } = attached else { panic!("{attached:?}") };
        self.open(robot, attachment, to, groups)
    }

    pub fn open(&mut self, robot: &str, attachment: AttachmentId, to: JournalId, groups: &[&str]) -> HomeEpoch {
        let groups = groups.iter().map(|name| GroupName::new(name).unwrap()).collect();
        match self.shard.ok(CommandOp::OpenInbox { agent: agent(robot), attachment, journal: to, groups }) {
            Receipt::Inbox { home, .. } => home,
            other => panic!("{other:?}"),
        }
    }

    pub fn command(&self, n: u8, target: Target) -> Command {
        Command {
            place: place(),
            id: id(n),
            target,
            verb: "goto".parse().unwrap(),
            content_type: "text/plain".parse().unwrap(),
            args: vec![n].into(),
            deadline: self.shard.now.plus_ms(10_000),
            class: CommandClass::Routine,
            idempotent: false,
            supersedes: None,
            parent: None,
            trace: TraceParent::new("").unwrap(),
            waves: None,
            operator: first().key(),
        }
    }

    pub fn send(&mut self, command: Command) -> Receipt {
        self.shard.ok(signed(command))
    }

    pub fn control(&mut self, n: u8, what: ControlKind) -> Receipt {
        self.shard.ok(control(n, what))
    }

    /// What was released to a robot and has not ended, in the order of each class, routine ones first.
    pub fn waiting(&self, robot: &str) -> Vec<(u64, CommandId, Option<VoidCause>)> {
        let of_class = |class| self.shard.state.deliveries_after(&agent(robot), class, 0).collect::<Vec<Delivery>>();
        let waiting = [CommandClass::Routine, CommandClass::Urgent].into_iter().flat_map(of_class);
        waiting.map(|d| (d.seq, d.command.id, d.void)).collect()
    }

    /// The place of a command in a robot's order of its class.
    pub fn place(&self, command: CommandId, (home, n): (u64, u64)) -> DeliverySeq {
        let class = self.shard.state.command(&command).map(|view| view.command.class).unwrap_or_default();
        DeliverySeq { home: HomeEpoch(home), class, n }
    }

    pub fn ended(&mut self, robot: &str, n: u8, seq: (u64, u64), outcome: CommandOutcome) -> Op {
        let seq = self.place(id(n), seq);
        let ended = EndedDelivery { agent: agent(robot), command: id(n), seq, outcome, steps: Steps::default() };
        Op::Command(CommandOp::End { ended: Box::new(ended) })
    }

    /// Applies all that the orchestrator decides, until nothing is left.
    pub fn settle(&mut self) -> Vec<ChangeKind> {
        let mut changes = Vec::new();
        loop {
            let decisions = Lead::new(&self.shard).proposals(&self.shard);
            if decisions.is_empty() {
                return changes;
            }
            let applied = self.shard.apply(EntryBody::Decisions(decisions));
            changes.extend(applied.changes.into_iter().map(|change| change.what));
        }
    }

    /// The answer to a request, and what it changed.
    pub fn told(&mut self, op: impl Into<Op>) -> (Reply, Vec<ChangeKind>) {
        let request = self.shard.request(op);
        let mut applied = self.shard.apply(EntryBody::Requests(vec![request]));
        (applied.replies.remove(0), applied.changes.into_iter().map(|change| change.what).collect())
    }
}

pub fn signed(command: Command) -> Op {
    signed_by(command, 1)
}

pub fn signed_by(command: Command, by: u8) -> Op {
    Op::Command(CommandOp::Send { command: Box::new(command.sign(&secret(by)).unwrap()) })
}

pub fn control(n: u8, what: ControlKind) -> Op {
    let (operator, reason) = (first().key(), reason("because"));
    let control = CommandControl { place: place(), command: id(n), what, reason, operator };
    Op::Command(CommandOp::Control { control: Box::new(control.sign(&first()).unwrap()) })
}

pub fn succeeded() -> CommandOutcome {
    CommandOutcome::Succeeded { result: b"there".to_vec() }
}

pub fn outcomes(changes: &[ChangeKind]) -> Vec<(String, &'static str)> {
    let outcome = |change: &ChangeKind| match change {
        ChangeKind::Command { change: CommandChange::DeliveryEnded { agent, outcome, .. }, .. } => {
            Some((agent.to_string(), outcome.name()))
        }
        _ => None,
    };
    changes.iter().filter_map(outcome).collect()
}
