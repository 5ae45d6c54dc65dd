//! Commands: which operators may send them, to which agents they go, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use skep_fleet::FleetState;
use skep_protocol::agent::{AgentOp, AgentRefusal};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::*;
use skep_protocol::entry::{Decision, EntryBody, Op};
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch};
use skep_protocol::limits;
use skep_protocol::operator::{OperatorChange, OperatorGrant};
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::Refusal;

use support::hall::*;
use support::*;

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
    // Said again, it counts as what it is; said otherwise, the first word holds.
    assert_eq!(hall.ok(ended), Receipt::DeliveryEnded { command: id(1) });
    let otherwise = hall.ended("r1", 1, (1, 1), CommandOutcome::Failed { reason: reason("no") });
    let (_, changes) = hall.told(otherwise);
    assert_eq!(changes, []);
    // A place in the order that it never had is a mistake of its node.
    let elsewhere = hall.ended("r1", 2, (1, 9), succeeded());
    assert_eq!(hall.refused(elsewhere), Refusal::Command(CommandRefusal::NoSuchCommand(id(2))));
    let never = hall.ended("r1", 9, (1, 1), succeeded());
    assert_eq!(hall.refused(never), Refusal::Command(CommandRefusal::NoSuchCommand(id(9))));
}

#[test]
fn the_same_command_under_another_request_is_done_once_and_another_body_is_refused() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    let receipt = hall.send(command.clone());
    assert_eq!(hall.send(command.clone()), receipt);
    assert_eq!(hall.waiting("r1").len(), 1);
    let other = Command { args: b"else".to_vec().into(), ..command };
    assert_eq!(hall.refused(signed(other)), Refusal::Command(CommandRefusal::Exists(id(1))));
}

#[test]
fn an_old_signed_command_is_refused_however_long_ago_its_id_was_forgotten() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    // The shard never saw it: only its signed deadline tells.
    hall.now = hall.now.plus_ms(10_000);
    let (deadline, now) = (command.deadline, hall.now);
    assert_eq!(
        hall.refused(signed(command.clone())),
        Refusal::Command(CommandRefusal::Expired { command: id(1), deadline, now })
    );
    // And in every era after the one that gave it.
    hall.apply(EntryBody::ClockLost);
    hall.now = hall.state.clock();
    let command = Command { deadline: command.deadline.plus_ms(100_000), ..command };
    assert!(matches!(hall.refused(signed(command)), Refusal::Command(CommandRefusal::Expired { .. })));
    let far = Command { deadline: hall.state.clock().plus_ms(u64::MAX), ..hall.command(2, to("r1")) };
    assert!(matches!(hall.refused(signed(far)), Refusal::Command(CommandRefusal::TooLong { .. })));
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
    assert_eq!(hall.refused(signed(nobody)), Refusal::Command(CommandRefusal::NoAgents("of group roof".to_owned())));
    let unknown = hall.command(3, to("r9"));
    assert_eq!(hall.refused(signed(unknown)), Refusal::Agent(AgentRefusal::NoSuchAgent(agent("r9"))));
    let all = hall.command(4, Target::All);
    assert_eq!(hall.send(all), Receipt::Command { command: id(4), agents: 4, open: 4 });
}

#[test]
fn what_nobody_can_have_had_ends_at_once_and_what_somebody_may_have_waits_for_its_word() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(AgentOp::Register { agent: agent("r2"), role: role(&[], 1) });
    for (n, robot) in [(1, "r1"), (2, "r2")] {
        let command = hall.command(n, to(robot));
        hall.send(command);
        hall.control(n, ControlKind::Cancel);
    }
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Cancelled))]);
    let up_to = PerClass { routine: 1, urgent: 0 };
    let voids: Vec<_> = hall.state.voids_up_to(&agent("r1"), up_to).collect();
    assert_eq!(voids, [(CommandClass::Routine, 1, VoidCause::Cancelled)]);
    assert_eq!(hall.waiting("r2"), []);
    // Its node may have told the software to go before it heard of that.
    let ended = hall.ended("r1", 1, (1, 1), succeeded());
    hall.ok(ended);
    assert_eq!(hall.waiting("r1"), []);
}

#[test]
fn a_deadline_expires_what_was_not_delivered_and_puts_in_doubt_what_nobody_hears_of() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(AgentOp::Register { agent: agent("r2"), role: role(&[], 1) });
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
    let resolve = || ControlKind::Resolve { agent: agent("r1"), done: true };
    assert_eq!(
        hall.refused(control(1, resolve())),
        Refusal::Command(CommandRefusal::NotIndeterminate { command: id(1), agent: agent("r1") })
    );
    let doubt = hall.ended("r1", 1, (1, 1), CommandOutcome::Indeterminate { reason: reason("crashed") });
    hall.ok(doubt);
    let (_, changes) = hall.told(control(1, resolve()));
    assert!(matches!(&changes[0], ChangeKind::Command { change: CommandChange::Controlled { .. }, .. }));
    assert_eq!(outcomes(&changes), [("r1".to_owned(), "succeeded")]);
    // The operator has the last word.
    let late = hall.ended("r1", 1, (1, 1), CommandOutcome::Failed { reason: reason("no") });
    assert_eq!(hall.told(late).1, []);
}

#[test]
fn what_failed_is_counted_until_it_is_resolved_and_can_be_discarded_once_nothing_is_open() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let command = hall.command(1, Target::Group("aisle".parse().unwrap()));
    hall.send(command);
    let doubt = hall.ended("r1", 1, (1, 1), CommandOutcome::Indeterminate { reason: reason("crashed") });
    hall.ok(doubt);
    let view = |hall: &Hall| hall.state.command(&id(1)).map(|view| (view.open, view.failed, view.discarded)).unwrap();
    assert_eq!(view(&hall), (1, 1, false));
    assert_eq!(hall.refused(control(1, ControlKind::Discard)), Refusal::Command(CommandRefusal::Open(id(1))));
    let failed = hall.ended("r2", 1, (1, 1), CommandOutcome::Failed { reason: reason("no") });
    hall.ok(failed);
    assert_eq!(view(&hall), (0, 2, false));
    hall.control(1, ControlKind::Resolve { agent: agent("r1"), done: true });
    assert_eq!(view(&hall), (0, 1, false), "it is known to be done now");
    hall.control(1, ControlKind::Discard);
    assert_eq!(view(&hall), (0, 1, true));
    let command = hall.command(2, to("r1"));
    hall.send(command);
    let done = hall.ended("r1", 2, (1, 2), succeeded());
    hall.ok(done);
    assert_eq!(
        hall.refused(control(2, ControlKind::Discard)),
        Refusal::Command(CommandRefusal::NotDead(id(2))),
        "it was done"
    );
    let again = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(again.command(&id(1)), hall.state.command(&id(1)));
}

#[test]
fn what_an_operator_was_refused_is_on_record_once() {
    let mut hall = Hall::with(&["r1"]);
    let unknown = hall.command(1, to("nobody"));
    let request = hall.shard.request(signed(unknown));
    let mut records = Vec::new();
    for _ in 0..2 {
        let applied = hall.shard.apply(EntryBody::Requests(vec![request.clone()]));
        records.extend(applied.changes.into_iter().map(|change| (change.request, change.what)));
    }
    let [(Some(of), ChangeKind::Operator(OperatorChange::Refused { by, command, why }))] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert_eq!((*of, *by, *command), (request.id, first().key(), Some(id(1))));
    assert_eq!(**why, Refusal::Agent(AgentRefusal::NoSuchAgent(agent("nobody"))));
}

#[test]
fn an_outcome_of_what_was_never_let_out_to_an_agent_is_refused_on_record_and_one_told_twice_is_known() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let command = hall.command(1, to("r1"));
    hall.send(command);
    // Another robot's, one that comes later in its order, and one that no operator sent.
    let ends = [("r2", 1, (1, 1)), ("r1", 1, (1, 2)), ("r1", 9, (1, 1))];
    for (at, n, seq) in ends {
        let end = hall.ended(at, n, seq, succeeded());
        let (_, changes) = hall.told(end);
        let [ChangeKind::Command { command, change: CommandChange::OutcomeRefused { agent: of, outcome, why, .. } }] =
            changes.as_slice()
        else {
            panic!("{changes:?}")
        };
        assert_eq!((*command, of, outcome.name()), (id(n), &agent(at), "succeeded"));
        assert_eq!(**why, Refusal::Command(CommandRefusal::NoSuchCommand(id(n))));
    }
    let end = hall.ended("r1", 1, (1, 1), succeeded());
    assert_eq!(outcomes(&hall.told(end.clone()).1), [("r1".to_owned(), "succeeded")]);
    let (reply, changes) = hall.told(end);
    assert!(matches!(reply, Reply::Done(Receipt::DeliveryEnded { .. })), "{reply:?}");
    assert_eq!(changes, []);
}

#[test]
fn waves_are_let_out_by_entries_so_that_an_abort_is_exact_about_who_had_it() {
    let robots = ["r1", "r2", "r3", "r4", "r5"];
    let mut hall = Hall::with(&robots);
    let waves = Some(Waves { agents: 2, every_ms: 1_000 });
    let command = Command { waves, ..hall.command(1, Target::Group("aisle".parse().unwrap())) };
    assert_eq!(hall.send(command), Receipt::Command { command: id(1), agents: 5, open: 5 });
    let had = |hall: &Hall| robots.iter().filter(|robot| !hall.waiting(robot).is_empty()).count();
    assert_eq!((had(&hall), hall.settle().len()), (0, 0), "announced, and released to nobody yet");
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    assert_eq!(had(&hall), 2);
    // A wave that was released already is not released again, nor is one out of turn.
    for wave in [0, 2] {
        let applied = hall.apply(EntryBody::Decisions(vec![Decision::ReleaseWave { command: id(1), wave }]));
        assert_eq!(applied.changes, []);
    }
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    assert_eq!(had(&hall), 4);
    let (_, changes) = hall.told(control(1, ControlKind::Abort));
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
    hall.ok(AgentOp::Detach { agent: agent("r1"), attachment });
    // Sent while no node serves the robot: no node has it.
    let command = hall.command(2, to("r1"));
    hall.send(command);
    assert_eq!(hall.join("r1", 2, journal(2), &[]), HomeEpoch(2));
    assert_eq!(hall.waiting("r1"), [(1, id(2), None)]);
    // What the first journal had is in doubt until its node says what it knows.
    let known = hall.ended("r1", 1, (1, 1), succeeded());
    let (_, changes) = hall.told(known);
    assert_eq!(outcomes(&changes), [("r1".to_owned(), "succeeded")]);
    // The shard does not mix up the places of the two.
    let old = hall.ended("r1", 2, (1, 1), succeeded());
    assert_eq!(hall.refused(old), Refusal::Command(CommandRefusal::NoSuchCommand(id(2))));
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
    let stale = Op::Command(CommandOp::OpenInbox {
        agent: agent("r1"),
        attachment: AttachmentId(attachment.0 + 1),
        journal: journal(3),
        groups: BTreeSet::new(),
    });
    assert!(matches!(hall.refused(stale), Refusal::Agent(AgentRefusal::NotAttached { .. })));
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
    hall.control(2, ControlKind::Cancel);
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
    assert_eq!(
        hall.refused(signed(one_more.clone())),
        Refusal::Command(CommandRefusal::OutboxFull { agent: agent("r1"), count })
    );
    let seq = DeliverySeq { home: HomeEpoch(1), class: CommandClass::Routine, n: 1 };
    let command = CommandId::from_bytes(1_u128.to_be_bytes());
    let ended = EndedDelivery { agent: agent("r1"), command, seq, outcome: succeeded(), steps: Steps::default() };
    hall.ok(CommandOp::End { ended: Box::new(ended) });
    hall.send(Command { args: b"again".to_vec().into(), ..one_more });
}

#[test]
fn a_wave_takes_the_place_of_a_command_when_it_is_let_out_and_not_before() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let first = hall.command(1, Target::Group("aisle".parse().unwrap()));
    hall.send(first);
    let waves = Some(Waves { agents: 1, every_ms: 1_000 });
    let group = Target::Group("aisle".parse().unwrap());
    let second = Command { supersedes: Some(id(1)), waves, ..hall.command(2, group) };
    hall.send(second);
    assert_eq!((hall.waiting("r1"), hall.waiting("r2")), (vec![(1, id(1), None)], vec![(1, id(1), None)]));
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Superseded)), (2, id(2), None)]);
    assert_eq!(hall.waiting("r2"), [(1, id(1), None)]);
}

#[test]
fn only_the_node_that_may_have_had_a_command_says_how_it_ended() {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    hall.send(command);
    let Op::Command(CommandOp::End { ended }) = hall.ended("r1", 1, (1, 1), succeeded()) else { unreachable!() };
    assert!(hall.state.may_report(ended.command, &ended.agent, node(1)));
    assert!(!hall.state.may_report(ended.command, &ended.agent, node(2)));
    // The agent is elsewhere: the first node is still the one that tells what it had.
    let attachment = hall.state.agent(&agent("r1")).unwrap().attachment.unwrap().id;
    hall.ok(AgentOp::Detach { agent: agent("r1"), attachment });
    hall.join("r1", 2, journal(2), &[]);
    assert!(hall.state.may_report(ended.command, &ended.agent, node(1)));
    assert!(!hall.state.may_report(ended.command, &ended.agent, node(2)));
}

#[test]
fn ended_commands_make_room_for_new_ones_by_what_they_take() {
    let mut hall = Hall::with(&["r1"]);
    let result = vec![7; limits::ARGS_BYTES_MAX];
    let fit = limits::COMMAND_BYTES_MAX / 2 / limits::ARGS_BYTES_MAX;
    let nth = |n: usize| CommandId::from_bytes((n as u128 + 1).to_be_bytes());
    for n in 0..fit {
        let command = Command { id: nth(n), ..hall.command(1, to("r1")) };
        hall.send(command);
        let seq = DeliverySeq { home: HomeEpoch(1), class: CommandClass::Routine, n: n as u64 + 1 };
        let outcome = CommandOutcome::Succeeded { result: result.clone() };
        let ended = EndedDelivery { agent: agent("r1"), command: nth(n), seq, outcome, steps: Steps::default() };
        hall.ok(CommandOp::End { ended: Box::new(ended) });
        hall.pass(11_000);
    }
    assert!(hall.state.command(&nth(0)).is_none(), "the oldest is forgotten");
    assert!(hall.state.command(&nth(fit - 1)).is_some());
}

#[test]
fn an_agent_that_comes_back_after_it_was_removed_has_a_home_that_no_journal_remembers() {
    let mut hall = Hall::with(&["r1"]);
    let remove = |hall: &mut Hall| {
        let attachment = hall.state.agent(&agent("r1")).unwrap().attachment.unwrap().id;
        hall.ok(AgentOp::Detach { agent: agent("r1"), attachment });
        hall.ok(AgentOp::Remove { agent: agent("r1") });
    };
    let command = hall.command(1, to("r1"));
    hall.send(command);
    // Its node still has to tell what it may have had; only then is nothing left of it.
    remove(&mut hall);
    assert_eq!(hall.waiting("r1"), [(1, id(1), None)]);
    let ended = hall.ended("r1", 1, (1, 1), succeeded());
    assert_eq!(outcomes(&hall.told(ended).1), [("r1".to_owned(), "succeeded")]);
    let first = hall.join("r1", 1, journal(1), &[]);
    assert!(first > HomeEpoch(1), "{first:?}");
    remove(&mut hall);
    let snapshot = hall.state.to_snapshot().unwrap();
    hall.state = FleetState::from_snapshot(&snapshot).unwrap();
    assert!(hall.join("r1", 1, journal(1), &[]) > first);
    assert_eq!(hall.waiting("r1"), []);
}
