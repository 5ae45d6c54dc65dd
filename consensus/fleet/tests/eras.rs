//! What becomes of a shard's objects when a whole quorum restarts and no node knows how long it was away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::FleetState;
use skep_protocol::command::{Command, Target, VoidCause, Waves};
use skep_protocol::entry::{Decision, EntryBody, Op};
use skep_protocol::ids::ClaimEpoch;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{DisconnectPolicy, Reconcile, TaskOp, TaskRefusal, TaskSpec, TaskStatus};
use support::hall::*;
use support::*;

/// Long enough that most of what counts milliseconds is nearly over, and in the log.
const NEARLY_MS: u64 = 9_000;

fn lose_clock(shard: &mut Shard) {
    shard.apply(EntryBody::ClockLost);
    shard.now = shard.state.clock();
}

/// Does what the orchestrator of a new leader does at once.
fn settle(shard: &mut Shard) {
    Lead::new(shard).settle(shard);
}

#[test]
fn a_claim_outlives_a_lost_clock_and_its_holder_goes_on() {
    let mut shard = Shard::new();
    shard.attached(attach("r1", 1, 1));
    shard.ok(create(1, spec()));
    shard.ok(take(1, "r1"));
    shard.pass(NEARLY_MS);
    shard.ok(create(2, spec()));
    lose_clock(&mut shard);
    let mut lead = Lead::new(&shard);
    assert_eq!(lead.proposals(&shard), [], "nothing is taken from anybody");
    shard.pass(LEASE.orchestrator_ms() - 1);
    assert_eq!(lead.proposals(&shard), [], "its lease may run");
    assert_eq!((shard.status(1), shard.task(1).attempts), (TaskStatus::Claimed, 1));
    shard.ok(complete(1, "r1", 1));
}

#[test]
fn a_holder_that_is_gone_loses_its_claims_with_its_lease_after_a_lost_clock() {
    let mut shard = Shard::new();
    shard.attached(attach("r1", 1, 1));
    shard.ok(create(1, spec()));
    shard.ok(take(1, "r1"));
    lose_clock(&mut shard);
    let mut lead = Lead::new(&shard);
    shard.pass(LEASE.orchestrator_ms());
    lead.settle(&mut shard);
    assert_eq!(shard.status(1), TaskStatus::Pending);
}

#[test]
fn a_claim_is_stale_a_full_time_after_a_lost_clock_and_at_once_if_it_was_stale_before() {
    let mut shard = Shard::new();
    for n in [1, 2] {
        shard.ok(create(n, spec()));
        shard.ok(take(n, &format!("by-hand-{n}")));
        shard.pass(NEARLY_MS);
    }
    shard.ok(create(3, spec()));
    lose_clock(&mut shard);
    settle(&mut shard);
    assert_eq!((shard.status(1), shard.status(2)), (TaskStatus::Pending, TaskStatus::Claimed));
    shard.pass(spec().stale_after_ms - 1);
    settle(&mut shard);
    assert_eq!(shard.status(2), TaskStatus::Claimed);
    shard.pass(1);
    settle(&mut shard);
    assert_eq!(shard.status(2), TaskStatus::Pending);
}

#[test]
fn after_a_lost_clock_nobody_begins_what_may_be_worthless_and_who_is_at_it_goes_on() {
    let mut shard = Shard::new();
    let week = TaskSpec { valid_for_ms: Some(7 * 24 * 3_600_000), ..spec() };
    for n in [1, 2, 3] {
        shard.ok(create(n, week.clone()));
    }
    shard.ok(take(2, "a"));
    shard.ok(take(3, "b"));
    lose_clock(&mut shard);
    shard.state = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
    assert!(matches!(
        shard.refused(take(1, "c")),
        Refusal::Task(TaskRefusal::WrongStatus { status: TaskStatus::Expired, .. })
    ));
    settle(&mut shard);
    let statuses = |shard: &Shard| [1, 2, 3].map(|n| shard.status(n));
    assert_eq!(statuses(&shard), [TaskStatus::Expired, TaskStatus::Claimed, TaskStatus::Claimed]);
    // An attempt that failed was the last one, and so was one of which the shard hears nothing more.
    shard.ok(fail(2, "a", 1));
    settle(&mut shard);
    shard.pass(NEARLY_MS);
    let report =
        Op::Task(TaskOp::Report { claim: claim(3, "b", 1), permille: 500, note: reason(""), checkpoint: None });
    shard.ok(report);
    shard.pass(NEARLY_MS);
    settle(&mut shard);
    assert_eq!(statuses(&shard), [TaskStatus::Expired, TaskStatus::Expired, TaskStatus::Claimed]);
    shard.pass(spec().stale_after_ms);
    settle(&mut shard);
    settle(&mut shard);
    assert_eq!(shard.status(3), TaskStatus::Expired);
}

#[test]
fn a_task_that_was_worthless_before_the_clock_was_lost_is_left_to_nobody() {
    let mut shard = Shard::new();
    shard.ok(create(1, TaskSpec { valid_for_ms: Some(1_000), ..spec() }));
    shard.ok(take(1, "a"));
    shard.pass(1_000);
    shard.ok(create(2, spec()));
    lose_clock(&mut shard);
    shard.decide(Decision::ExpireTask { task: task_id(1) });
    assert_eq!(shard.status(1), TaskStatus::Expired);
}

#[test]
fn a_task_in_backoff_waits_what_was_left_of_it_after_a_lost_clock() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    shard.ok(fail(1, "a", 1));
    shard.pass(40);
    shard.ok(create(2, spec()));
    lose_clock(&mut shard);
    shard.pass(59);
    assert!(matches!(shard.refused(take(1, "b")), Refusal::Task(TaskRefusal::BackingOff { .. })));
    shard.pass(1);
    shard.ok(take(1, "b"));
    assert_eq!(shard.task(1).attempts, 2);
}

#[test]
fn a_task_is_kept_for_its_former_holder_over_a_lost_clock() {
    let mut shard = Shard::new();
    let disconnect = DisconnectPolicy { lost_after_ms: 30_000, replace: false, reconcile: Reconcile::KeepOriginal };
    shard.ok(create(1, TaskSpec { disconnect, ..spec() }));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.decide(Decision::ExpireLease { agent: agent("r1"), attachment });
    shard.pass(10_000);
    shard.ok(create(2, spec()));
    for _ in 0..2 {
        lose_clock(&mut shard);
    }
    shard.pass(19_999);
    assert!(matches!(shard.refused(take(1, "r2")), Refusal::Task(TaskRefusal::KeptFor { .. })));
    shard.pass(1);
    shard.ok(take(1, "r2"));
}

#[test]
fn an_expiry_that_was_proposed_before_the_clock_was_lost_takes_no_claim_after() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    lose_clock(&mut shard);
    shard.decide(Decision::ExpireClaim { task: task_id(1), epoch: ClaimEpoch(1) });
    assert_eq!(shard.status(1), TaskStatus::Claimed);
}

#[test]
fn no_wave_is_let_out_after_a_lost_clock() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let waves = Some(Waves { agents: 1, every_ms: 1_000 });
    let command = Command { waves, ..hall.command(1, Target::Group("aisle".parse().unwrap())) };
    hall.send(command);
    hall.now = hall.now.plus_ms(1_000);
    hall.settle();
    let had = |hall: &Hall| ["r1", "r2"].map(|robot| hall.waiting(robot).iter().map(|(_, _, void)| *void).next());
    assert_eq!(had(&hall), [Some(None), None]);
    lose_clock(&mut hall.shard);
    let changes = hall.settle();
    assert_eq!(had(&hall), [Some(Some(VoidCause::Expired)), None]);
    assert_eq!(outcomes(&changes), [("r2".to_owned(), "expired")], "who did not have it never gets it");
}
