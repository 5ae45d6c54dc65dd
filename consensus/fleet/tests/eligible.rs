//! Tasks that no agent may have yet hide no task that an agent may have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::entry::Decision;
use skep_protocol::ids::TaskId;
use skep_protocol::outcome::Receipt;
use skep_protocol::task::{DisconnectPolicy, Priority, Reconcile, RetryPolicy, TaskSpec, TaskStatus};
use support::*;

/// Several times as many as the shard looks at.
const HIDDEN: u8 = 20;
const READY: u8 = 100;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A shard that looks at few tasks for a claim.
fn shard() -> Shard {
    Shard::with_limits(FleetLimits { claim_scan_max: 4, ..FleetLimits::default() })
}

fn taken(receipt: &Receipt) -> Option<TaskId> {
    match receipt {
        Receipt::Task { task, .. } => Some(*task),
        _ => None,
    }
}

/// Goes on from a snapshot.
fn restore(shard: &mut Shard) {
    shard.state = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
}

/// celery/celery#2731
#[test]
fn tasks_in_backoff_for_a_day_keep_nobody_from_one_that_is_ready() {
    let mut shard = shard();
    let retry = RetryPolicy { attempts_max: 3, backoff_initial_ms: DAY_MS, backoff_max_ms: DAY_MS };
    for n in 1..=HIDDEN {
        shard.ok(create(n, TaskSpec { retry, priority: Priority::Urgent, ..spec() }));
        shard.ok(take(n, "x"));
        shard.ok(fail(n, "x", 1));
    }
    shard.ok(create(READY, spec()));
    restore(&mut shard);
    let attachment = shard.attached(attach_as("r1", 1, 1, role(&[], 2)));
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 2)]);
    lead.carry_out(&mut shard);
    assert_eq!(shard.status(READY), TaskStatus::Claimed, "by the orchestrator");
    shard.ok(create(READY + 1, spec()));
    assert_eq!(taken(&shard.ok(take_any("r2"))), Some(task_id(READY + 1)), "by a claim that names none");
    shard.ok(complete(READY, "r1", 1));
    shard.ok(complete(READY + 1, "r2", 1));
    assert_eq!(shard.ok(take_any("r2")), Receipt::NothingToClaim);

    // A day later, and no entry since: they are ready, the most urgent and oldest first.
    shard.pass(DAY_MS);
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 2)]);
    let proposed = proposals(lead.effects());
    let expected = Decision::AssignTask { task: task_id(1), agent: agent("r1"), attachment, nth: 1 };
    assert_eq!(proposed, [expected]);
    assert_eq!(taken(&shard.ok(take_any("r2"))), Some(task_id(1)));
}

#[test]
fn tasks_that_are_kept_for_somebody_keep_nobody_else_from_one_that_is_ready() {
    let mut shard = shard();
    let disconnect = DisconnectPolicy { lost_after_ms: 60_000, replace: false, reconcile: Reconcile::FirstCome };
    let gone = shard.attached(attach_as("gone", 1, 1, role(&[], HIDDEN.into())));
    for n in 1..=HIDDEN {
        shard.ok(create(n, TaskSpec { disconnect, priority: Priority::Urgent, ..spec() }));
        shard.ok(take(n, "gone"));
    }
    shard.decide(Decision::ExpireLease { agent: agent("gone"), attachment: gone });
    shard.ok(create(READY, spec()));
    restore(&mut shard);
    assert_eq!(taken(&shard.ok(take_any("r2"))), Some(task_id(READY)));
    assert_eq!(shard.ok(take_any("r3")), Receipt::NothingToClaim);

    // The agent finds the tasks that are kept for it, however many there are; others find them once it stays away.
    let kept = shard.state.clone();
    let back = shard.attached(attach_as("gone", 1, 2, role(&[], HIDDEN.into())));
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("gone", back, HIDDEN.into())]);
    lead.carry_out(&mut shard);
    assert!((1..=HIDDEN).all(|n| shard.status(n) == TaskStatus::Claimed));
    shard.state = kept;
    shard.pass(60_000);
    assert_eq!(taken(&shard.ok(take_any("r3"))), Some(task_id(1)));
}

#[test]
fn tasks_that_are_worthless_and_not_ended_yet_keep_nobody_from_one_that_is_not() {
    let mut shard = shard();
    for n in 1..=HIDDEN {
        shard.ok(create(n, TaskSpec { valid_for_ms: Some(1_000), priority: Priority::Urgent, ..spec() }));
    }
    shard.pass(1_000);
    shard.ok(create(READY, spec()));
    restore(&mut shard);
    assert_eq!(taken(&shard.ok(take_any("r2"))), Some(task_id(READY)));
    assert_eq!(shard.ok(take_any("r3")), Receipt::NothingToClaim);
}
