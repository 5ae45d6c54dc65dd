//! Snapshots under rubbish: the fixed ones and what is near them, then whatever bolero thinks of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::FleetState;
use skep_protocol::command::{
    Command, CommandClass, CommandOp, CommandProgress, ControlKind, DeliveryReport, Steps, Target, Waves,
};
use skep_protocol::task::TaskOp;
use skep_protocol::text::Reason;
use support::hall::*;
use support::*;

/// What was understood can be said again, and is the same state.
fn decode(bytes: &[u8]) {
    if let Ok(state) = FleetState::from_snapshot(bytes) {
        let again = state.to_snapshot().unwrap();
        assert_eq!(FleetState::from_snapshot(&again).unwrap().digest(), state.digest());
    }
}

/// A snapshot with tasks and commands in many states, agents, operators, and requests that are remembered.
fn snapshot() -> Vec<u8> {
    let mut shard = Hall::with(&["r1", "r2"]);
    shard.ok(state_grant(grant(2, 1), 1));
    for n in 1..=3 {
        let command = shard.command(n, to("r2"));
        shard.send(command);
    }
    let waves = Some(Waves { agents: 1, every_ms: 1_000 });
    let urgent = Command { class: CommandClass::Urgent, ..shard.command(5, to("r2")) };
    shard.send(urgent);
    shard.control(5, ControlKind::Cancel);
    let waved = Command { waves, ..shard.command(4, Target::Group("aisle".parse().unwrap())) };
    shard.send(waved);
    shard.control(2, ControlKind::Cancel);
    let (at, note) = (Some(shard.now), Reason::truncated("on the way"));
    let report = DeliveryReport {
        agent: agent("r2"),
        command: id(3),
        seq: shard.place(id(3), (1, 3)),
        steps: Steps { started: at, ..Steps::default() },
        progress: Some(CommandProgress { permille: 100, note, at }),
        under_way: true,
    };
    shard.ok(CommandOp::Report { report: Box::new(report) });
    let ended = shard.ended("r2", 1, (1, 1), succeeded());
    shard.ok(ended);
    for n in 1..=4 {
        shard.ok(create(n, spec()));
    }
    shard.ok(take(1, "r1"));
    shard.ok(complete(1, "r1", 1));
    shard.ok(take(2, "r1"));
    shard.ok(fail(2, "r1", 1));
    shard.ok(take(3, "r1"));
    shard.ok(TaskOp::Cancel { task: task_id(4), reason: reason("no more") });
    shard.state.to_snapshot().unwrap()
}

#[test]
fn fuzz_snapshot() {
    let bytes = snapshot();
    decode(&bytes);
    for bit in 0..bytes.len() * 8 {
        let mut near = bytes.clone();
        near[bit / 8] ^= 1 << (bit % 8);
        decode(&near);
    }
    // Bytes that replace a part of a good one reach further than rubbish from its first byte on.
    bolero::check!().with_type::<(u16, Vec<u8>)>().for_each(|(at, rubbish)| {
        let mut near = bytes.clone();
        let at = usize::from(*at) % near.len();
        let end = near.len().min(at + rubbish.len());
        near.splice(at..end, rubbish.iter().copied());
        decode(&near);
        decode(rubbish);
    });
}
