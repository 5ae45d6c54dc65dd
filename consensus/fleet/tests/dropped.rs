//! A shard counts by kind what it lets go of because it keeps no more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::agent::AgentOp;
use skep_protocol::command::*;
use skep_protocol::query::Dropped;
use skep_protocol::task::TaskOp;
use support::hall::*;
use support::*;

/// The counts of a shard, which a replica that is made of a snapshot knows, too.
fn dropped(shard: &Shard) -> Dropped {
    let restored = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(restored.dropped(), shard.state.dropped());
    shard.state.dropped()
}

#[test]
fn ended_tasks_beyond_those_that_are_kept_are_counted_and_the_dead_letters_among_them() {
    let mut shard = Shard::with_limits(FleetLimits { terminal_tasks_kept: 1, ..FleetLimits::default() });
    (1..=4).for_each(|n| drop(shard.ok(create(n, spec()))));
    let fail = |shard: &mut Shard, n: u8| {
        shard.ok(take(n, "r1"));
        shard.ok(TaskOp::Fail { claim: claim(n, "r1", 1), reason: reason("broken"), retryable: false });
    };
    shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("") });
    fail(&mut shard, 2);
    assert_eq!(dropped(&shard), Dropped::default(), "each kind has room of its own");
    shard.ok(TaskOp::Cancel { task: task_id(3), reason: reason("") });
    assert_eq!(dropped(&shard), Dropped { tasks: 1, ..Dropped::default() });
    fail(&mut shard, 4);
    assert_eq!(dropped(&shard), Dropped { tasks: 2, dead_letters: 1, ..Dropped::default() });
}

#[test]
fn request_ids_are_counted_that_are_forgotten_before_their_deadline_and_no_others() {
    let mut shard = Shard::with_limits(FleetLimits { dedup_ids_max: 3, ..FleetLimits::default() });
    for n in 1..=5 {
        shard.ok(create(n, spec()));
        shard.pass(10);
    }
    assert_eq!(dropped(&shard), Dropped { request_ids: 2, ..Dropped::default() });
    shard.pass(60_000);
    shard.ok(create(6, spec()));
    assert_eq!((shard.state.dedup_ids(), dropped(&shard).request_ids), (1, 2));
}

#[test]
fn ended_commands_and_dead_letters_beyond_those_that_are_kept_are_counted() {
    let limits = FleetLimits { ended_commands_kept: 2, ..FleetLimits::default() };
    let mut hall = Hall::within(limits).joined(&["r1", "r2", "r3"]);
    let fails_everywhere = |hall: &mut Hall, n: u8, places: [u64; 3]| {
        let command = hall.command(n, Target::Group("aisle".parse().unwrap()));
        hall.send(command);
        for (robot, place) in ["r1", "r2", "r3"].into_iter().zip(places) {
            let ended = hall.ended(robot, n, (1, place), CommandOutcome::Failed { reason: reason("broken") });
            hall.ok(ended);
        }
        hall.pass(11_000);
    };
    fails_everywhere(&mut hall, 1, [1, 1, 1]);
    assert_eq!(dropped(&hall), Dropped::default(), "it could still be sent again when it ended");
    let command = hall.command(2, to("r1"));
    hall.send(command);
    let ended = hall.ended("r1", 2, (1, 2), succeeded());
    hall.ok(ended);
    hall.pass(11_000);
    assert_eq!(dropped(&hall), Dropped { dead_letters: 1, ..Dropped::default() });
    // The second one goes, which is no dead letter, and then what is left of the first.
    fails_everywhere(&mut hall, 3, [3, 2, 2]);
    assert_eq!((hall.state.command(&id(1)), hall.state.command(&id(2))), (None, None));
    assert_eq!(dropped(&hall), Dropped { commands: 2, dead_letters: 3, ..Dropped::default() });
}

#[test]
fn agents_are_counted_that_are_forgotten_and_not_those_that_somebody_removes() {
    let mut hall = Hall::within(FleetLimits { agent_ttl_ms: 30_000, ..FleetLimits::default() }).joined(&["r1", "r2"]);
    for robot in ["r1", "r2"] {
        let attachment = hall.state.agent(&agent(robot)).unwrap().attachment.unwrap().id;
        hall.ok(AgentOp::Detach { agent: agent(robot), attachment });
    }
    hall.ok(AgentOp::Remove { agent: agent("r2") });
    hall.pass(30_000);
    hall.settle();
    assert_eq!(hall.state.counts().agents, 0);
    assert_eq!(dropped(&hall), Dropped { agents: 1, ..Dropped::default() });
}
