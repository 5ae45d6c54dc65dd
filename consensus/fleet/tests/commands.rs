//! Commands: who may send them, to whom they go, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use skep_fleet::FleetState;
use skep_protocol::authority::{Allowed, OperatorGrant, OperatorSecret, SignedGrant, granted};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::*;
use skep_protocol::entry::{Decision, EndedDelivery, EntryBody, Op};
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch, JournalId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Refusal, Reply};
use skep_protocol::text::{GroupName, SiteName, TraceParent};
use support::*;

fn site() -> SiteName {
    SiteName::new("hall").unwrap()
}

fn secret(n: u8) -> OperatorSecret {
    OperatorSecret::from_seed(&[n; 32])
}

fn first() -> OperatorSecret {
    secret(1)
}

fn grant(of: u8, serial: u64) -> OperatorGrant {
    let name = "somebody".parse().unwrap();
    OperatorGrant { serial, admin: false, ..OperatorGrant::of_first(site(), ShardId(1), secret(of).key(), name) }
}

fn state_grant(grant: OperatorGrant, by: u8) -> Op {
    Op::GrantOperator { grant: Box::new(grant.sign(&secret(by)).unwrap()) }
}

fn id(n: u8) -> CommandId {
    CommandId::from_bytes([n; 16])
}

fn journal(n: u8) -> JournalId {
    JournalId::from_bytes([n; 16])
}

fn to(name: &str) -> Target {
    Target::Agent(agent(name))
}

/// A site with its first operator, and a command that is valid for ten seconds.
struct Hall {
    shard: Shard,
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
    fn new() -> Self {
        let mut shard = Shard::new();
        let of_first = OperatorGrant::of_first(site(), ShardId(1), first().key(), "first".parse().unwrap());
        shard.ok(Op::InstallOperator { grant: Box::new(of_first) });
        Self { shard }
    }

    fn with(robots: &[&str]) -> Self {
        let mut hall = Self::new();
        for (n, robot) in (1..).zip(robots) {
            hall.join(robot, n, journal(n), &["aisle"]);
        }
        hall
    }

    /// Attaches an agent and opens its inbox; its home.
    fn join(&mut self, robot: &str, at: u8, to: JournalId, groups: &[&str]) -> HomeEpoch {
        let attached = self.shard.ok(attach(robot, at, at));
        let Receipt::Attached { attachment, .. } = attached else { panic!("{attached:?}") };
        self.open(robot, attachment, to, groups)
    }

    fn open(&mut self, robot: &str, attachment: AttachmentId, to: JournalId, groups: &[&str]) -> HomeEpoch {
        let groups = groups.iter().map(|name| GroupName::new(name).unwrap()).collect();
        match self.shard.ok(Op::OpenInbox { agent: agent(robot), attachment, journal: to, groups }) {
            Receipt::Inbox { home, .. } => home,
            other => panic!("{other:?}"),
        }
    }

    fn command(&self, n: u8, target: Target) -> Command {
        Command {
            site: site(),
            shard: ShardId(1),
            id: id(n),
            target,
            verb: "goto".parse().unwrap(),
            content_type: "text/plain".parse().unwrap(),
            args: vec![n],
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

    fn send(&mut self, command: Command) -> Receipt {
        self.shard.ok(signed(command))
    }

    fn order(&mut self, n: u8, what: OrderKind) -> Receipt {
        self.shard.ok(order(n, what))
    }

    fn waiting(&self, robot: &str) -> Vec<(u64, CommandId, Option<VoidCause>)> {
        self.shard.state.deliveries_after(&agent(robot), 0).map(|d| (d.seq, d.command.command.id, d.void)).collect()
    }

    fn ended(&mut self, robot: &str, n: u8, seq: (u64, u64), outcome: CommandOutcome) -> Op {
        let seq = DeliverySeq { home: HomeEpoch(seq.0), n: seq.1 };
        let ended = EndedDelivery { agent: agent(robot), command: id(n), seq, outcome, steps: Steps::default() };
        Op::EndDelivery { ended: Box::new(ended) }
    }

    /// Everything that the orchestrator decides now, until there is nothing left.
    fn settle(&mut self) -> Vec<ChangeKind> {
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
    fn told(&mut self, op: Op) -> (Reply, Vec<ChangeKind>) {
        let request = self.shard.request(op);
        let mut applied = self.shard.apply(EntryBody::Requests(vec![request]));
        (applied.replies.remove(0), applied.changes.into_iter().map(|change| change.what).collect())
    }
}

fn signed(command: Command) -> Op {
    signed_by(command, 1)
}

fn signed_by(command: Command, by: u8) -> Op {
    Op::SendCommand { command: Box::new(command.sign(&secret(by)).unwrap()) }
}

fn order(n: u8, what: OrderKind) -> Op {
    let (operator, reason) = (first().key(), reason("because"));
    let order = CommandOrder { site: site(), shard: ShardId(1), command: id(n), what, reason, operator };
    Op::OrderCommand { order: Box::new(order.sign(&first()).unwrap()) }
}

fn succeeded() -> CommandOutcome {
    CommandOutcome::Succeeded { result: b"there".to_vec() }
}

fn outcomes(changes: &[ChangeKind]) -> Vec<(String, &'static str)> {
    let outcome = |change: &ChangeKind| match change {
        ChangeKind::DeliveryEnded { agent, outcome, .. } => Some((agent.to_string(), outcome.name())),
        _ => None,
    };
    changes.iter().filter_map(outcome).collect()
}

#[test]
fn a_command_stands_in_the_order_of_its_robot_until_its_outcome_is_known() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    assert_eq!(hall.send(command), Receipt::Command { command: id(1), agents: 1, open: 1 });
    let command = hall.command(2, to("r1"));
    hall.send(command);
    assert_eq!(hall.waiting("r1"), [(1, id(1), None), (2, id(2), None)]);
    let ended = hall.ended("r1", 1, (1, 1), succeeded());
    assert_eq!(hall.ok(ended.clone()), Receipt::DeliveryEnded { command: id(1) });
    assert_eq!(hall.waiting("r1"), [(2, id(2), None)]);
    // Said again, it is taken for what it is; said otherwise, the first word holds.
    assert_eq!(hall.ok(ended), Receipt::DeliveryEnded { command: id(1) });
    let otherwise = hall.ended("r1", 1, (1, 1), CommandOutcome::Failed { reason: reason("no") });
    let (_, changes) = hall.told(otherwise);
    assert_eq!(changes, []);
    // A place in the order that it never had is somebody's mistake.
    let elsewhere = hall.ended("r1", 2, (1, 9), succeeded());
    assert_eq!(hall.refused(elsewhere), Refusal::NoSuchCommand(id(2)));
    let never = hall.ended("r1", 9, (1, 1), succeeded());
    assert_eq!(hall.refused(never), Refusal::NoSuchCommand(id(9)));
}

#[test]
fn the_same_command_under_another_request_is_done_once_and_another_body_is_refused() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    let receipt = hall.send(command.clone());
    assert_eq!(hall.send(command.clone()), receipt);
    assert_eq!(hall.waiting("r1").len(), 1);
    let other = Command { args: b"else".to_vec(), ..command };
    assert_eq!(hall.refused(signed(other)), Refusal::CommandExists(id(1)));
}

#[test]
fn an_old_signed_command_is_refused_however_long_ago_its_id_was_forgotten() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    // Never seen here: only its signed deadline tells.
    hall.now = hall.now.plus_ms(10_000);
    let (deadline, now) = (command.deadline, hall.now);
    assert_eq!(hall.refused(signed(command.clone())), Refusal::CommandExpired { command: id(1), deadline, now });
    // And in every era after the one that gave it.
    hall.apply(EntryBody::ClockLost);
    hall.now = hall.state.clock();
    let command = Command { deadline: command.deadline.plus_ms(100_000), ..command };
    assert!(matches!(hall.refused(signed(command)), Refusal::CommandExpired { .. }));
    let far = Command { deadline: hall.state.clock().plus_ms(u64::MAX), ..hall.command(2, to("r1")) };
    assert!(matches!(hall.refused(signed(far)), Refusal::CommandTooLong { .. }));
}

#[test]
fn only_who_is_granted_it_may_command_and_only_whom_and_what_it_says() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let by = |command: Command, n: u8| signed_by(command, n);
    let command = hall.command(1, to("r1"));
    assert_eq!(hall.refused(by(command.clone(), 2)), Refusal::NoSuchOperator(secret(2).key()));
    let mut clerk = grant(2, 1);
    clerk.targets = Allowed::These([to("r1")].into());
    clerk.verbs = Allowed::These(["goto".parse().unwrap()].into());
    clerk.broadcast = false;
    hall.ok(state_grant(clerk.clone(), 1));
    hall.ok(by(command, 2));
    for (n, target, verb) in [(2, to("r2"), "goto"), (3, to("r1"), "lift"), (4, Target::All, "goto")] {
        let command = Command { verb: verb.parse().unwrap(), ..hall.command(n, target) };
        assert!(matches!(hall.refused(by(command, 2)), Refusal::NotGranted { .. }));
    }
    // Nobody grants who is no admin, nothing older replaces what is newer, and the first operator stays what it is.
    assert_eq!(hall.refused(state_grant(grant(3, 1), 2)), Refusal::NotAdmin(secret(2).key()));
    assert_eq!(hall.refused(state_grant(clerk.clone(), 1)), Refusal::GrantStale { given: 1, known: 1 });
    assert_eq!(hall.refused(state_grant(grant(1, 9), 1)), Refusal::FirstOperator);
    hall.ok(state_grant(OperatorGrant { revoked: true, serial: 2, ..clerk }, 1));
    let command = hall.command(5, to("r1"));
    assert_eq!(hall.refused(by(command, 2)), Refusal::OperatorRevoked(secret(2).key()));
    let elsewhere = Command { shard: ShardId(2), ..hall.command(6, to("r1")) };
    assert_eq!(hall.refused(signed(elsewhere)), Refusal::WrongPlace);
    let again = OperatorGrant::of_first(site(), ShardId(1), secret(9).key(), "x".parse().unwrap());
    assert_eq!(hall.refused(Op::InstallOperator { grant: Box::new(again) }), Refusal::OperatorsExist);
}

#[test]
fn what_is_delivered_carries_all_that_proves_its_operator() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(OperatorGrant { admin: true, ..grant(2, 1) }, 1));
    hall.ok(state_grant(grant(3, 1), 2));
    let command = hall.command(1, to("r1"));
    hall.ok(signed_by(command, 3));
    let delivery = hall.state.deliveries_after(&agent("r1"), 0).next().unwrap();
    assert!(delivery.command.is_signed());
    let found = granted(&delivery.authority, secret(3).key(), first().key(), (&site(), ShardId(1)));
    assert!(found.is_some(), "{:?}", delivery.authority);
    let other = secret(7).key();
    assert!(granted(&delivery.authority, secret(3).key(), other, (&site(), ShardId(1))).is_none());
}

#[test]
fn an_operator_sends_no_more_in_a_minute_than_it_is_granted() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(OperatorGrant { per_minute: Some(60), ..grant(2, 1) }, 1));
    let mut sent = 0_u8;
    let refusal = loop {
        let command = hall.command(sent + 1, to("r1"));
        let (reply, _) = hall.told(signed_by(command, 2));
        match reply {
            Reply::Done(_) => sent += 1,
            Reply::Refused(refusal) => break refusal,
        }
    };
    assert_eq!(sent, 10, "a sixth of a minute at once");
    let Refusal::TooManyCommands { retry_after_ms, .. } = refusal else { panic!("{refusal}") };
    hall.now = hall.now.plus_ms(retry_after_ms);
    let command = hall.command(100, to("r1"));
    hall.ok(signed_by(command, 2));
}

#[test]
fn a_group_is_whoever_said_so_by_then_and_nobody_else() {
    let mut hall = Hall::with(&["r1", "r2"]);
    hall.join("r3", 3, journal(3), &["dock"]);
    let command = hall.command(1, Target::Group("aisle".parse().unwrap()));
    assert_eq!(hall.send(command), Receipt::Command { command: id(1), agents: 2, open: 2 });
    hall.join("r4", 4, journal(4), &["aisle"]);
    assert_eq!((hall.waiting("r3"), hall.waiting("r4")), (vec![], vec![]));
    let nobody = hall.command(2, Target::Group("roof".parse().unwrap()));
    assert_eq!(hall.refused(signed(nobody)), Refusal::NobodyThere("of group roof".to_owned()));
    let unknown = hall.command(3, to("r9"));
    assert_eq!(hall.refused(signed(unknown)), Refusal::NoSuchAgent(agent("r9")));
    let all = hall.command(4, Target::All);
    assert_eq!(hall.send(all), Receipt::Command { command: id(4), agents: 4, open: 4 });
}

#[test]
fn what_nobody_can_have_had_ends_at_once_and_what_somebody_may_have_waits_for_its_word() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(Op::RegisterAgent { agent: agent("r2"), role: role(&[], 1) });
    for (n, robot) in [(1, "r1"), (2, "r2")] {
        let command = hall.command(n, to(robot));
        hall.send(command);
        hall.order(n, OrderKind::Cancel);
    }
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Cancelled))]);
    assert_eq!(hall.state.voids_up_to(&agent("r1"), 1).collect::<Vec<_>>(), [(1, VoidCause::Cancelled)]);
    assert_eq!(hall.waiting("r2"), []);
    // Its node may have told it to go before it heard of that.
    let ended = hall.ended("r1", 1, (1, 1), succeeded());
    hall.ok(ended);
    assert_eq!(hall.waiting("r1"), []);
}

#[test]
fn a_deadline_expires_what_was_not_delivered_and_puts_in_doubt_what_nobody_hears_of() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(Op::RegisterAgent { agent: agent("r2"), role: role(&[], 1) });
    for (n, robot) in [(1, "r1"), (2, "r2")] {
        let command = hall.command(n, to(robot));
        hall.send(command);
    }
    assert_eq!(hall.settle(), []);
    hall.now = hall.now.plus_ms(10_000);
    assert_eq!(outcomes(&hall.settle()), [("r2".to_owned(), "expired")]);
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Expired))]);
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS);
    assert_eq!(outcomes(&hall.settle()), [("r1".to_owned(), "indeterminate")]);
    // Its journal knows better, once.
    let late = hall.ended("r1", 1, (1, 1), CommandOutcome::Expired);
    let (_, changes) = hall.told(late.clone());
    assert_eq!(outcomes(&changes), [("r1".to_owned(), "expired")]);
    let (_, changes) = hall.told(late);
    assert_eq!(changes, []);
}

#[test]
fn an_operator_resolves_what_nobody_knows_and_nothing_else() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    hall.send(command);
    let resolve = || OrderKind::Resolve { agent: agent("r1"), done: true };
    assert_eq!(hall.refused(order(1, resolve())), Refusal::NotIndeterminate { command: id(1), agent: agent("r1") });
    let doubt = hall.ended("r1", 1, (1, 1), CommandOutcome::Indeterminate { reason: reason("crashed") });
    hall.ok(doubt);
    let (_, changes) = hall.told(order(1, resolve()));
    assert!(matches!(&changes[0], ChangeKind::CommandOrdered { .. }));
    assert_eq!(outcomes(&changes), [("r1".to_owned(), "succeeded")]);
    // The operator's word is the last.
    let late = hall.ended("r1", 1, (1, 1), CommandOutcome::Failed { reason: reason("no") });
    assert_eq!(hall.told(late).1, []);
}

#[test]
fn waves_are_let_out_by_entries_so_that_an_abort_is_exact_about_who_had_it() {
    let robots = ["r1", "r2", "r3", "r4", "r5"];
    let mut hall = Hall::with(&robots);
    let waves = Some(Waves { agents: 2, every_ms: 1_000 });
    let command = Command { waves, ..hall.command(1, Target::Group("aisle".parse().unwrap())) };
    assert_eq!(hall.send(command), Receipt::Command { command: id(1), agents: 5, open: 5 });
    let had = |hall: &Hall| robots.iter().filter(|robot| !hall.waiting(robot).is_empty()).count();
    assert_eq!((had(&hall), hall.settle().len()), (0, 0), "announced, and let out to nobody yet");
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    assert_eq!(had(&hall), 2);
    // A wave that was let out already is not let out again, nor is one out of turn.
    for wave in [0, 2] {
        let applied = hall.apply(EntryBody::Decisions(vec![Decision::ReleaseWave { command: id(1), wave }]));
        assert_eq!(applied.changes, []);
    }
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    assert_eq!(had(&hall), 4);
    let (_, changes) = hall.told(order(1, OrderKind::Abort));
    assert_eq!(outcomes(&changes), [("r5".to_owned(), "cancelled")]);
    hall.now = hall.now.plus_ms(1_000);
    assert_eq!((hall.settle().len(), had(&hall)), (0, 4));
    assert!(hall.waiting("r1").iter().all(|(_, _, void)| void.is_none()), "who had it goes on");
}

#[test]
fn a_command_takes_the_place_of_another_where_both_are() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let first = hall.command(1, Target::Group("aisle".parse().unwrap()));
    hall.send(first);
    let second = Command { supersedes: Some(id(1)), ..hall.command(2, to("r1")) };
    hall.send(second);
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Superseded)), (2, id(2), None)]);
    assert_eq!(hall.waiting("r2"), [(1, id(1), None)]);
}

#[test]
fn another_journal_gets_nothing_that_the_one_before_it_may_have_done() {
    let mut hall = Hall::new();
    hall.join("r1", 1, journal(1), &[]);
    let command = hall.command(1, to("r1"));
    hall.send(command);
    let attachment = hall.state.agent(&agent("r1")).unwrap().attachment.unwrap().id;
    // The same journal again changes nothing.
    assert_eq!(hall.open("r1", attachment, journal(1), &[]), HomeEpoch(1));
    assert_eq!(hall.waiting("r1"), [(1, id(1), None)]);
    hall.ok(Op::DetachAgent { agent: agent("r1"), attachment });
    // Sent while nobody serves it: nobody has it.
    let command = hall.command(2, to("r1"));
    hall.send(command);
    assert_eq!(hall.join("r1", 2, journal(2), &[]), HomeEpoch(2));
    assert_eq!(hall.waiting("r1"), [(1, id(2), None)]);
    // What the first journal had is in doubt until it says what it knows.
    let known = hall.ended("r1", 1, (1, 1), succeeded());
    let (_, changes) = hall.told(known);
    assert_eq!(outcomes(&changes), [("r1".to_owned(), "succeeded")]);
    // The places of the two are not mixed up.
    let old = hall.ended("r1", 2, (1, 1), succeeded());
    assert_eq!(hall.refused(old), Refusal::NoSuchCommand(id(2)));
}

#[test]
fn an_inbox_is_that_of_the_node_that_serves_its_agent() {
    let mut hall = Hall::new();
    let home = hall.join("r1", 1, journal(1), &[]);
    let attachment = hall.state.agent(&agent("r1")).unwrap().attachment.unwrap().id;
    let is = |hall: &Hall, at: u8, attachment, journal, home| {
        hall.state.is_inbox(&agent("r1"), node(at), attachment, (journal, home))
    };
    assert!(is(&hall, 1, attachment, journal(1), home));
    assert!(!is(&hall, 2, attachment, journal(1), home));
    assert!(!is(&hall, 1, attachment, journal(2), home));
    assert!(!is(&hall, 1, attachment, journal(1), home.next()));
    let stale = Op::OpenInbox {
        agent: agent("r1"),
        attachment: AttachmentId(attachment.0 + 1),
        journal: journal(3),
        groups: BTreeSet::new(),
    };
    assert!(matches!(hall.refused(stale), Refusal::NotAttached { .. }));
}

#[test]
fn a_lost_clock_expires_commands_and_gives_their_nodes_time_to_say_what_they_did() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    hall.send(command);
    hall.apply(EntryBody::ClockLost);
    hall.now = hall.state.clock();
    let changes = hall.settle();
    assert_eq!(outcomes(&changes), []);
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Expired))]);
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS);
    assert_eq!(outcomes(&hall.settle()), [("r1".to_owned(), "indeterminate")]);
}

#[test]
fn a_snapshot_goes_on_where_the_state_stood() {
    let mut hall = Hall::with(&["r1", "r2", "r3"]);
    hall.ok(state_grant(OperatorGrant { per_minute: Some(6_000), ..grant(2, 1) }, 1));
    let waves = Some(Waves { agents: 2, every_ms: 1_000 });
    let command = Command { waves, ..hall.command(1, Target::Group("aisle".parse().unwrap())) };
    hall.send(command);
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    let command = hall.command(2, to("r1"));
    hall.send(command);
    hall.order(2, OrderKind::Cancel);
    let ended = hall.ended("r2", 1, (1, 1), succeeded());
    hall.ok(ended);
    let bytes = hall.state.to_snapshot().unwrap();
    let copy = FleetState::from_snapshot(&bytes).unwrap();
    assert_eq!(copy.to_snapshot().unwrap(), bytes);
    // Both go the same way from here.
    let mut other = Hall { shard: Shard::new() };
    (other.shard.state, other.shard.now) = (copy, hall.now);
    (other.shard.term, other.shard.index) = (hall.term, hall.index);
    for hall in [&mut hall, &mut other] {
        hall.now = hall.now.plus_ms(20_000);
        hall.settle();
        hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS);
        hall.settle();
    }
    assert_eq!(hall.state.digest(), other.state.digest());
    assert_eq!(hall.waiting("r1"), other.waiting("r1"));
}

#[test]
fn a_full_outbox_refuses_and_an_ended_command_makes_room() {
    let mut hall = Hall::with(&["r1"]);
    for n in 0..limits::OUTBOX_MAX {
        let command = Command { id: CommandId::from_bytes((n as u128 + 1).to_be_bytes()), ..hall.command(1, to("r1")) };
        hall.send(command);
    }
    let one_more = hall.command(200, to("r1"));
    let count = limits::OUTBOX_MAX as u64;
    assert_eq!(hall.refused(signed(one_more.clone())), Refusal::OutboxFull { agent: agent("r1"), count });
    let seq = DeliverySeq { home: HomeEpoch(1), n: 1 };
    let command = CommandId::from_bytes(1_u128.to_be_bytes());
    let ended = EndedDelivery { agent: agent("r1"), command, seq, outcome: succeeded(), steps: Steps::default() };
    hall.ok(Op::EndDelivery { ended: Box::new(ended) });
    hall.send(Command { args: b"again".to_vec(), ..one_more });
}

#[test]
fn a_statement_that_was_signed_by_another_than_it_names_shows() {
    let signed = grant(2, 1).sign(&secret(3)).unwrap();
    let forged = SignedGrant { by: first().key(), ..signed };
    assert!(!forged.is_signed());
}
