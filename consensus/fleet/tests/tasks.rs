//! What happens to tasks, claims and agents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::agent::{AgentOp, AgentRefusal, Role};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{Decision, Op};
use skep_protocol::ids::ClaimEpoch;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{Priority, RetryPolicy, TaskChange, TaskOp, TaskRefusal, TaskSpec, TaskState, TaskStatus};
use skep_protocol::text::RoleName;
use support::*;

fn role(max_concurrent: u32, capabilities: &[&str]) -> Role {
    Role {
        name: RoleName::new("worker").unwrap(),
        capabilities: capabilities.iter().map(|name| capability(name)).collect(),
        stateful: false,
        max_concurrent,
    }
}

fn register(shard: &mut Shard, name: &str, role: Role) {
    shard.ok(AgentOp::Register { agent: agent(name), role });
}

#[test]
fn the_first_committed_claim_wins_and_the_loser_learns_it() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    assert_eq!(shard.refused(take(1, "b")), Refusal::Task(TaskRefusal::LostRace { task: task_id(1), by: agent("a") }));
    assert_eq!(shard.task(1).epoch, ClaimEpoch(1));
}

#[test]
fn a_claim_without_a_name_takes_the_most_urgent_then_the_oldest_that_suits() {
    let mut shard = Shard::new();
    register(&mut shard, "a", role(9, &["lift"]));
    shard.ok(create(1, spec()));
    shard.ok(create(2, TaskSpec { priority: Priority::High, required: [capability("fly")].into(), ..spec() }));
    shard.ok(create(3, TaskSpec { priority: Priority::High, ..spec() }));
    shard.ok(create(4, TaskSpec { priority: Priority::High, required: [capability("lift")].into(), ..spec() }));
    let mut order = Vec::new();
    while let Receipt::Task { task, .. } = shard.ok(take_any("a")) {
        order.push(task);
    }
    assert_eq!(order, [task_id(3), task_id(4), task_id(1)], "nothing is left that suits");
    assert_eq!(shard.status(2), TaskStatus::Pending);
    assert!(matches!(shard.refused(take(2, "a")), Refusal::Task(TaskRefusal::NotCapable { .. })));
}

#[test]
fn a_stale_epoch_or_another_holder_changes_nothing() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    assert!(matches!(shard.refused(complete(1, "b", 1)), Refusal::Task(TaskRefusal::NotHolder { .. })));
    shard.ok(fail(1, "a", 1));
    shard.pass(100);
    shard.ok(take(1, "b"));
    let stale =
        Refusal::Task(TaskRefusal::StaleEpoch { task: task_id(1), given: ClaimEpoch(1), current: ClaimEpoch(2) });
    assert_eq!(shard.refused(complete(1, "a", 1)), stale);
    assert_eq!(shard.refused(fail(1, "a", 1)), stale);
    shard.ok(complete(1, "b", 2));
    assert!(matches!(shard.refused(complete(1, "b", 2)), Refusal::Task(TaskRefusal::WrongStatus { .. })));
}

#[test]
fn failed_attempts_back_off_exponentially_and_end_as_a_dead_letter_with_the_reason() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    for (attempt, wait) in [(1, 100), (2, 200)] {
        shard.ok(take(1, "a"));
        shard.ok(fail(1, "a", attempt));
        shard.pass(wait - 1);
        assert!(
            matches!(shard.refused(take(1, "a")), Refusal::Task(TaskRefusal::BackingOff { .. })),
            "attempt {attempt}"
        );
        assert_eq!(shard.ok(take_any("a")), Receipt::NothingToClaim);
        shard.pass(1);
    }
    shard.ok(take(1, "a"));
    shard.ok(fail(1, "a", 3));
    let TaskState::DeadLettered { reason: why, .. } = &shard.task(1).state else { panic!() };
    assert_eq!(why.as_str(), "all 3 attempts failed; the last: broken");
    assert_eq!(shard.task(1).failures.len(), 3);

    shard.ok(TaskOp::Requeue { task: task_id(1), reason: reason("fixed") });
    assert_eq!((shard.status(1), shard.task(1).attempts), (TaskStatus::Pending, 0));
    shard.ok(take(1, "a"));
    assert_eq!(shard.task(1).epoch, ClaimEpoch(4), "the epoch rises over a requeue");
}

#[test]
fn a_permanent_failure_is_a_dead_letter_at_once() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    shard.ok(TaskOp::Fail { claim: claim(1, "a", 1), reason: reason("no such aisle"), retryable: false });
    assert_eq!(shard.status(1), TaskStatus::DeadLettered);
}

#[test]
fn a_claim_without_progress_is_taken_back_and_progress_keeps_it() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    let mut lead = Lead::new(&shard);
    shard.pass(9_000);
    shard.ok(TaskOp::Report { claim: claim(1, "a", 1), permille: 500, note: reason("half"), checkpoint: None });
    shard.pass(9_999);
    assert_eq!(lead.proposals(&shard), []);
    assert_eq!(lead.orchestrator.poll_timeout(&shard.state, shard.now), Some(shard.now.plus_ms(1)));
    shard.pass(1);
    let decisions = lead.proposals(&shard);
    assert_eq!(decisions, [Decision::ExpireClaim { task: task_id(1), epoch: ClaimEpoch(1) }]);
    assert_eq!(lead.proposals(&shard), [], "not proposed twice while it is on its way");
    let applied = shard.decide(decisions[0].clone());
    assert!(matches!(applied.changes[0].what, ChangeKind::Task { change: TaskChange::Reclaimed { .. }, .. }));
    assert_eq!(shard.status(1), TaskStatus::Pending);
    assert!(matches!(shard.refused(complete(1, "a", 1)), Refusal::Task(TaskRefusal::WrongStatus { .. })));
}

#[test]
fn an_expiry_is_judged_again_where_it_is_applied() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    let seen = Decision::ExpireClaim { task: task_id(1), epoch: ClaimEpoch(1) };
    assert!(shard.decide(seen.clone()).changes.is_empty(), "not stale yet");
    shard.ok(fail(1, "a", 1));
    shard.pass(100);
    shard.ok(take(1, "b"));
    shard.pass(20_000);
    assert!(shard.decide(seen).changes.is_empty(), "another claim than the one that was seen");
    assert_eq!(shard.status(1), TaskStatus::Claimed);
}

#[test]
fn a_task_expires_claimed_or_not_and_is_not_claimed_after() {
    let mut shard = Shard::new();
    register(&mut shard, "a", role(9, &[]));
    for n in [1, 2] {
        shard.ok(create(n, TaskSpec { valid_for_ms: Some(5_000), ..spec() }));
    }
    shard.ok(take(1, "a"));
    shard.pass(5_000);
    assert!(matches!(
        shard.refused(take(2, "a")),
        Refusal::Task(TaskRefusal::WrongStatus { status: TaskStatus::Expired, .. })
    ));
    assert_eq!(shard.ok(take_any("a")), Receipt::NothingToClaim);
    let mut lead = Lead::new(&shard);
    lead.settle(&mut shard);
    assert_eq!((shard.status(1), shard.status(2)), (TaskStatus::Expired, TaskStatus::Expired));
    assert_eq!(lead.orchestrator.poll_timeout(&shard.state, shard.now), None);
}

#[test]
fn a_cancelled_task_is_over_for_its_holder_too() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("not needed") });
    assert!(matches!(shard.refused(complete(1, "a", 1)), Refusal::Task(TaskRefusal::WrongStatus { .. })));
    shard.ok(create(2, spec()));
    shard.ok(take(2, "a"));
}

#[test]
fn whoever_settles_a_dead_letter_too_late_takes_nothing_away_from_whoever_does_it_again() {
    let settle = |again| Op::Task(TaskOp::Settle { task: task_id(1), again, reason: reason("looked at it") });
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    for again in [true, false] {
        assert!(matches!(
            shard.refused(settle(again)),
            Refusal::Task(TaskRefusal::WrongStatus { status: TaskStatus::Pending, .. })
        ));
    }
    shard.ok(take(1, "a"));
    shard.ok(TaskOp::Fail { claim: claim(1, "a", 1), reason: reason("broken"), retryable: false });
    shard.ok(settle(true));
    shard.ok(take(1, "a"));
    for again in [true, false] {
        assert!(matches!(
            shard.refused(settle(again)),
            Refusal::Task(TaskRefusal::WrongStatus { status: TaskStatus::Claimed, .. })
        ));
    }
    shard.ok(TaskOp::Fail { claim: claim(1, "a", 2), reason: reason("broken"), retryable: false });
    shard.ok(settle(false));
    assert_eq!(shard.status(1), TaskStatus::Cancelled);
}

#[test]
fn an_agent_holds_no_more_than_its_role_allows() {
    let mut shard = Shard::new();
    for n in 1..=4 {
        shard.ok(create(n, spec()));
    }
    shard.ok(take(1, "stranger"));
    assert!(matches!(shard.refused(take(2, "stranger")), Refusal::Agent(AgentRefusal::Busy { held: 1, max: 1, .. })));
    register(&mut shard, "a", role(2, &[]));
    shard.ok(take(2, "a"));
    shard.ok(take(3, "a"));
    assert!(matches!(shard.refused(take_any("a")), Refusal::Agent(AgentRefusal::Busy { held: 2, max: 2, .. })));
    assert!(matches!(shard.refused(AgentOp::Remove { agent: agent("a") }), Refusal::Agent(AgentRefusal::Busy { .. })));
    shard.ok(complete(2, "a", 1));
    shard.ok(take_any("a"));
}

#[test]
fn overlapping_capabilities_of_different_roles_are_seen() {
    let mut shard = Shard::new();
    register(&mut shard, "a", role(1, &["lift", "scan"]));
    register(&mut shard, "b", Role { name: RoleName::new("scanner").unwrap(), ..role(1, &["scan"]) });
    register(&mut shard, "c", Role { name: RoleName::new("flyer").unwrap(), ..role(1, &["fly"]) });
    let overlaps: Vec<u32> = shard.state.agents_after(None).map(|view| view.overlaps).collect();
    assert_eq!(overlaps, [1, 1, 0]);
}

#[test]
fn the_oldest_ended_tasks_are_forgotten_and_live_ones_never() {
    let limits = FleetLimits { terminal_tasks_kept: 2, live_tasks_max: 5, ..FleetLimits::default() };
    let mut shard = Shard::with_limits(limits);
    register(&mut shard, "a", role(9, &[]));
    for n in 1..=5 {
        shard.ok(create(n, spec()));
    }
    assert!(matches!(shard.refused(create(6, spec())), Refusal::Full { count: 5, .. }));
    for n in 1..=4 {
        shard.ok(take(n, "a"));
        shard.ok(complete(n, "a", 1));
    }
    let left: Vec<_> = shard.state.tasks_after(None).map(|task| task.id).collect();
    assert_eq!(left, [task_id(3), task_id(4), task_id(5)]);
    shard.ok(TaskOp::Cancel { task: task_id(5), reason: reason("room") });
    for n in 11..=15 {
        shard.ok(create(n, spec()));
    }
    let requeue = Op::Task(TaskOp::Requeue { task: task_id(5), reason: reason("no room") });
    assert!(matches!(shard.refused(requeue), Refusal::Full { .. }), "a requeue needs room as well");
    assert_eq!(shard.refused(take(1, "a")), Refusal::Task(TaskRefusal::NoSuchTask(task_id(1))));
    let counts = shard.state.counts();
    assert_eq!((counts.pending, counts.claimed, counts.terminal), (5, 0, 2));
}

#[test]
fn the_epoch_rises_even_when_a_forgotten_task_id_is_used_again() {
    let mut shard = Shard::with_limits(FleetLimits { terminal_tasks_kept: 1, ..FleetLimits::default() });
    for n in [1, 2] {
        shard.ok(create(n, spec()));
        shard.ok(take(n, "a"));
        shard.ok(complete(n, "a", 1));
    }
    shard.ok(create(1, spec()));
    shard.ok(take(1, "b"));
    assert_eq!(shard.task(1).epoch, ClaimEpoch(2));
    assert!(matches!(shard.refused(complete(1, "a", 1)), Refusal::Task(TaskRefusal::StaleEpoch { .. })));
}

#[test]
fn a_shard_is_bounded_in_bytes() {
    let limits = FleetLimits { task_bytes_max: 10_000, terminal_task_bytes_kept: 3_000, ..FleetLimits::default() };
    let mut shard = Shard::with_limits(limits);
    register(&mut shard, "a", role(9, &[]));
    let large = || TaskSpec { payload: vec![0; 2_000], ..spec() };
    for n in 1..=4 {
        shard.ok(create(n, large()));
    }
    assert!(matches!(shard.refused(create(5, large())), Refusal::Full { .. }));
    for n in 1..=4 {
        shard.ok(take(n, "a"));
        shard.ok(complete(n, "a", 1));
    }
    assert_eq!(shard.state.counts().terminal, 1, "ended tasks are forgotten by bytes as well");
    shard.ok(create(5, large()));
}

/// Lets an agent claim a task; returns the epoch.
fn taken(shard: &mut Shard, n: u8) -> u64 {
    let Receipt::Task { epoch, .. } = shard.ok(take(n, "a")) else { panic!("it was not given") };
    epoch.0
}

/// Creates a task that is given up at once.
fn give_up(shard: &mut Shard, n: u8, payload: usize) {
    let retry = RetryPolicy { attempts_max: 1, ..spec().retry };
    shard.ok(create(n, TaskSpec { retry, payload: vec![0; payload], ..spec() }));
    let epoch = taken(shard, n);
    shard.ok(fail(n, "a", epoch));
}

fn done(shard: &mut Shard, n: u8) {
    shard.ok(create(n, spec()));
    let epoch = taken(shard, n);
    shard.ok(complete(n, "a", epoch));
}

/// As in celery/celery#2731: a bound that counts what it is not for.
#[test]
fn what_ends_well_pushes_no_dead_letter_out() {
    let mut shard = Shard::with_limits(FleetLimits { terminal_tasks_kept: 2, ..FleetLimits::default() });
    let left = |shard: &Shard| shard.state.tasks_after(None).map(|task| task.id).collect::<Vec<_>>();
    (1..=3).for_each(|n| give_up(&mut shard, n, 0));
    (11..=15).for_each(|n| done(&mut shard, n));
    assert_eq!(left(&shard), [2, 3, 14, 15].map(task_id), "as many of each are kept");
    // The same holds after a snapshot.
    shard.state = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
    give_up(&mut shard, 4, 0);
    done(&mut shard, 16);
    assert_eq!(left(&shard), [3, 4, 15, 16].map(task_id));
    // What is discarded is no dead letter any more.
    shard.ok(TaskOp::Cancel { task: task_id(3), reason: reason("seen") });
    assert_eq!(left(&shard), [3, 4, 16].map(task_id));
    assert_eq!(shard.state.counts().terminal, 3);
}

#[test]
fn dead_letters_leave_half_of_the_room_to_what_ends_well() {
    let limits = FleetLimits { terminal_task_bytes_kept: 10_000, ..FleetLimits::default() };
    let mut shard = Shard::with_limits(limits);
    (1..=20).for_each(|n| give_up(&mut shard, n, 1_000));
    let dead = shard.state.counts().terminal;
    assert!((2..=5).contains(&dead), "{dead}");
    (31..=34).for_each(|n| done(&mut shard, n));
    assert_eq!(shard.state.counts().terminal, dead + 4);
    assert!((31..=34).all(|n| shard.status(n) == TaskStatus::Completed));
}
