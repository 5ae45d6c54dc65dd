//! Snapshots under rubbish: the fixed ones and those near them, then whatever bolero makes up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::FleetState;
use skep_protocol::command::{
    Command, CommandClass, CommandOp, CommandProgress, ControlKind, DeliveryReport, Steps, Target, Waves,
};
use skep_protocol::site::SiteOp;
use skep_protocol::task::TaskOp;
use skep_protocol::text::Reason;
use skep_trust::{Revoked, Role};
use support::directory::{self, Directory};
use support::hall::*;
use support::*;

/// A snapshot that was understood can be written again, and is the same state.
fn decode(bytes: &[u8]) {
    if let Ok(state) = FleetState::from_snapshot(bytes) {
        let again = state.to_snapshot().unwrap();
        assert_eq!(FleetState::from_snapshot(&again).unwrap().digest(), state.digest());
    }
}

/// A snapshot with tasks and commands in many states, agents, operators, and remembered requests.
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

/// A snapshot of a directory with members, invitations in each state, revocations, and one that waits.
fn directory_snapshot() -> Vec<u8> {
    let mut site = Directory::new();
    site.join(directory::ROBOT, "robot-7", &[Role::Robot]);
    site.join(directory::VOTER, "edge-1", &[Role::Voter]);
    site.redeemed(1, directory::OTHER, directory::grants("robot-8", &[Role::Robot]));
    let open = site.invitation(2, directory::grants("robot-9", &[Role::Robot]));
    site.done(directory::invite(&open, directory::OPERATOR));
    for key in [directory::code(2).public(), directory::key(directory::VOTER)] {
        let revocation = site.revocation(Revoked::Key(key));
        site.done(directory::revoke(&revocation, directory::OPERATOR));
    }
    site.refusal(SiteOp::Leave { member: directory::site_key(directory::STRANGER) });
    site.state.to_snapshot().unwrap()
}

/// Decodes snapshots that differ in one bit: one in this many of all of them.
fn flip(bytes: &[u8], one_in: usize) {
    for bit in (0..bytes.len() * 8).step_by(one_in) {
        let mut near = bytes.to_vec();
        near[bit / 8] ^= 1 << (bit % 8);
        decode(&near);
    }
}

/// Bytes that replace a part of a good one reach further than rubbish from its first byte on.
fn splice(bytes: &[u8], at: u16, rubbish: &[u8]) {
    let mut near = bytes.to_vec();
    let at = usize::from(at) % near.len();
    let end = near.len().min(at + rubbish.len());
    near.splice(at..end, rubbish.iter().copied());
    decode(&near);
    decode(rubbish);
}

#[test]
fn fuzz_snapshot() {
    let bytes = snapshot();
    decode(&bytes);
    flip(&bytes, 1);
    bolero::check!().with_type::<(u16, Vec<u8>)>().for_each(|(at, rubbish)| splice(&bytes, *at, rubbish));
}

#[test]
fn fuzz_directory_snapshot() {
    let bytes = directory_snapshot();
    decode(&bytes);
    // Slow: each decoding verifies signatures.
    flip(&bytes, 5);
    bolero::check!().with_type::<(u16, Vec<u8>)>().for_each(|(at, rubbish)| splice(&bytes, *at, rubbish));
}
