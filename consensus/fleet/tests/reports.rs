//! Commands that go on: what their agents' nodes report meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_protocol::change::ChangeKind;
use skep_protocol::command::*;
use skep_protocol::entry::{EntryBody, Op};
use skep_protocol::ids::HomeEpoch;
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::Refusal;
use skep_protocol::text::Reason;
use skep_protocol::time::LogInstant;
use support::hall::*;
use support::*;

fn at(ms: u64) -> Option<LogInstant> {
    Some(LogInstant::from_raw(ms))
}

const STARTED: Steps = Steps { received: None, accepted: None, started: None, ended: None };

fn steps(started: u64) -> Steps {
    Steps { received: at(5), accepted: at(6), started: at(started), ..STARTED }
}

fn progress(permille: u16, said_at: u64) -> Option<CommandProgress> {
    Some(CommandProgress { permille, note: Reason::truncated("on the way"), at: at(said_at) })
}

fn report(seq: u64, steps: Steps, progress: Option<CommandProgress>) -> Op {
    let (agent, command, seq) =
        (agent("r1"), id(1), DeliverySeq { home: HomeEpoch(1), class: CommandClass::Routine, n: seq });
    let under_way = steps.started.is_some();
    Op::Command(CommandOp::Report {
        report: Box::new(DeliveryReport { agent, command, seq, steps, progress, under_way }),
    })
}

/// A robot with a command that is valid for ten seconds.
fn sent() -> Hall {
    let mut hall = Hall::with(&["r1"]);
    let command = hall.command(1, to("r1"));
    hall.send(command);
    hall
}

/// What the history keeps of an operation: steps, and how far the command has come.
fn kept(hall: &mut Hall, op: Op) -> Option<(Steps, Option<u16>)> {
    match hall.told(op).1.pop() {
        Some(ChangeKind::Command { change: CommandChange::DeliveryReported { steps, progress, .. }, .. }) => {
            Some((steps, progress.map(|p| p.permille)))
        }
        Some(ChangeKind::Command { change: CommandChange::DeliveryEnded { steps, .. }, .. }) => Some((steps, None)),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

fn view(hall: &Hall) -> DeliveryView {
    hall.state.command(&id(1)).unwrap().deliveries.remove(0)
}

fn permille(hall: &Hall) -> Option<u16> {
    view(hall).progress.map(|progress| progress.permille)
}

#[test]
fn how_far_a_command_has_come_is_known_until_it_ends_and_each_step_is_told_once() {
    let mut hall = sent();
    assert!(
        matches!(hall.refused(report(2, steps(7), None)), Refusal::Command(CommandRefusal::NoSuchCommand(_))),
        "a place it never had"
    );
    assert_eq!(kept(&mut hall, report(1, steps(7), progress(100, 8))), Some((steps(7), Some(100))));
    assert_eq!(kept(&mut hall, report(1, steps(7), progress(400, 9))), Some((STARTED, Some(400))));
    assert_eq!(kept(&mut hall, report(1, steps(7), progress(400, 9))), None, "nothing new, nothing on record");
    assert_eq!((permille(&hall), view(&hall).steps), (Some(400), steps(7)));

    let Op::Command(CommandOp::End { mut ended }) = hall.ended("r1", 1, (1, 1), succeeded()) else { unreachable!() };
    ended.steps = Steps { ended: at(9), ..steps(7) };
    let end = Op::Command(CommandOp::End { ended: ended.clone() });
    assert_eq!(kept(&mut hall, end), Some((Steps { ended: at(9), ..STARTED }, None)));
    assert_eq!((permille(&hall), view(&hall).steps), (None, ended.steps), "all of its steps, and its end");
    let (reply, changes) = hall.told(report(1, steps(7), progress(900, 10)));
    assert_eq!((reply, changes), (Reply::Done(Receipt::DeliveryReported { command: id(1), open: false }), vec![]));
}

#[test]
fn the_history_keeps_no_more_of_a_command_than_a_few_dozen_steps_of_its_way() {
    let mut hall = sent();
    let reports = (0..=1_000).map(|permille| report(1, steps(7), progress(permille, 8 + u64::from(permille))));
    let kept = reports.filter_map(|op| kept(&mut hall, op)).count();
    assert_eq!(kept, 1_000 / usize::from(limits::PROGRESS_KEPT_PERMILLE) + 1);
    assert_eq!(permille(&hall), Some(1_000), "all of it is known");
}

#[test]
fn a_report_that_comes_late_takes_nothing_back_and_a_lie_is_bounded() {
    let mut hall = sent();
    hall.ok(report(1, steps(7), progress(400, 9)));
    hall.ok(report(1, Steps { received: at(5), ..STARTED }, progress(100, 8)));
    assert_eq!((permille(&hall), view(&hall).steps), (Some(400), steps(7)));
    hall.ok(report(1, steps(7), progress(u16::MAX, 10)));
    assert_eq!(permille(&hall), Some(1_000));
    // Begun anew: how far it came the time before says nothing.
    hall.ok(report(1, steps(70), None));
    assert_eq!((permille(&hall), view(&hall).steps), (None, steps(70)));
    // A report from before that is late.
    hall.ok(report(1, steps(7), progress(900, 60)));
    assert_eq!((permille(&hall), view(&hall).steps), (None, steps(70)));
    // What was counted on the way is what a snapshot counts.
    hall.ok(report(1, steps(70), progress(10, 80)));
    let copy = skep_fleet::FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(copy.bytes(), hall.state.bytes());
    assert_eq!(copy.command(&id(1)), hall.state.command(&id(1)));
}

/// Checks that it is in doubt once the shard heard nothing of it for the time, and not before.
fn is_doubted_when_silent(hall: &mut Hall) {
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS - 1);
    assert_eq!(outcomes(&hall.settle()), []);
    hall.now = hall.now.plus_ms(1);
    assert_eq!(outcomes(&hall.settle()), [("r1".to_owned(), "indeterminate")]);
}

#[test]
fn a_command_that_is_under_way_is_not_in_doubt_however_long_it_takes_until_its_node_is_silent() {
    let mut hall = sent();
    hall.ok(report(1, steps(7), None));
    for _ in 0..100 {
        hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS - 1);
        assert_eq!(outcomes(&hall.settle()), []);
        hall.ok(report(1, steps(7), None));
    }
    is_doubted_when_silent(&mut hall);
}

#[test]
fn nobody_is_in_doubt_before_a_new_leader_or_a_new_clock_was_there_to_be_told() {
    for clock_lost in [false, true] {
        let mut hall = sent();
        hall.ok(report(1, steps(7), None));
        hall.now = hall.now.plus_ms(10_000);
        hall.settle();
        // No node led for an hour, and the robot went on.
        hall.now = hall.now.plus_ms(3_600_000);
        hall.term += 1;
        if clock_lost {
            hall.shard.apply(EntryBody::ClockLost);
            hall.now = hall.state.clock();
        }
        assert_eq!(outcomes(&hall.settle()), []);
        hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS - 1);
        assert_eq!(outcomes(&hall.settle()), []);
        hall.ok(report(1, steps(7), None));
        is_doubted_when_silent(&mut hall);
    }
}

#[test]
fn what_only_waits_at_its_node_is_doubted_and_so_is_what_hangs_for_a_day() {
    let mut hall = sent();
    hall.now = hall.now.plus_ms(10_000);
    hall.settle();
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS - 1);
    hall.ok(report(1, Steps { received: at(5), ..STARTED }, None));
    hall.now = hall.now.plus_ms(1);
    assert_eq!(outcomes(&hall.settle()), [("r1".to_owned(), "indeterminate")]);

    let mut hall = sent();
    let deadline = hall.now.plus_ms(10_000);
    let until = deadline.plus_ms(limits::UNDER_WAY_MS_MAX);
    while hall.now <= until {
        hall.ok(report(1, steps(7), None));
        assert_eq!(outcomes(&hall.settle()), []);
        hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS / 2);
    }
    hall.now = until.plus_ms(limits::DOUBT_AFTER_MS);
    hall.ok(report(1, steps(7), None));
    assert_eq!(outcomes(&hall.settle()), [("r1".to_owned(), "indeterminate")]);
}

#[test]
fn one_robot_that_is_under_way_does_not_keep_others_from_being_doubted() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let command = hall.command(1, Target::Group("aisle".parse().unwrap()));
    hall.send(command);
    hall.now = hall.now.plus_ms(10_000);
    hall.settle();
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS / 2);
    hall.ok(report(1, steps(7), None));
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS / 2);
    assert_eq!(outcomes(&hall.settle()), [("r2".to_owned(), "indeterminate")]);
    hall.now = hall.now.plus_ms(limits::DOUBT_AFTER_MS / 2);
    assert_eq!(outcomes(&hall.settle()), [("r1".to_owned(), "indeterminate")]);
}
