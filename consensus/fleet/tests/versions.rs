//! The meaning of entries, and their limits, are in the log, and nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState, LogPosition, SnapshotError};
use skep_protocol::agent::AgentOp;
use skep_protocol::change::{ChangeKind, ShardChange};
use skep_protocol::entry::{Entry, EntryBody, Op};
use skep_protocol::fleet::{FleetVersions, Rules};
use skep_protocol::outcome::Reply;
use skep_protocol::refusal::{Refusal, RequestRefusal, ShardFullOf};
use skep_protocol::task::{InvalidSpec, TaskOp, TaskSpec};
use support::*;

fn rules(version: u32, limits: FleetLimits) -> EntryBody {
    EntryBody::Rules(Box::new(Rules { version, limits }))
}

/// A shard of which nothing is known but its log.
fn new_shard() -> Shard {
    let mut shard = Shard::new();
    shard.state = FleetState::empty();
    shard
}

/// Limits that are small enough for a test to meet them.
fn small() -> FleetLimits {
    FleetLimits {
        live_tasks_max: 4,
        requirements_max: 2,
        payload_bytes_max: 8,
        checkpoint_bytes_max: 8,
        capabilities_max: 1,
        attempts_max: 3,
        concurrent_claims_max: 2,
        lease_ttl_ms_min: 5_000,
        lease_ttl_ms_max: 5_000,
        agents_max: 2,
        failures_kept: 1,
        clock_lead_ms_max: 10,
        request_deadline_ms_max: 60_000,
        ..FleetLimits::default()
    }
}

fn requires(n: u8, names: &[&str]) -> Op {
    create(n, TaskSpec { required: names.iter().map(|name| capability(name)).collect(), ..spec() })
}

/// Requests that meet each of the small limits, and some that do not.
fn script(shard: &mut Shard) -> Vec<Reply> {
    let payload = |n: u8, bytes: usize| create(n, TaskSpec { payload: vec![1; bytes], ..spec() });
    let mut replies = Vec::new();
    let ops = [
        requires(1, &["a", "b"]),
        payload(1, 9),
        payload(1, 8),
        requires(2, &["a"]),
        requires(3, &["b"]),
        Op::Agent(AgentOp::Register { agent: agent("r"), role: role(&["a"], 3) }),
        Op::Agent(AgentOp::Register { agent: agent("r"), role: role(&["a"], 2) }),
        attach("s", 1, 1),
        attach("t", 1, 1),
        take(1, "r"),
        Op::Task(TaskOp::Report {
            claim: claim(1, "r", 1),
            permille: 1,
            note: reason(""),
            checkpoint: Some(vec![0; 9]),
        }),
        fail(1, "r", 1),
        create(4, spec()),
        create(5, spec()),
        create(6, spec()),
    ];
    for op in ops {
        replies.push(shard.ask(op));
        shard.pass(2_000);
    }
    let mut ahead = shard.request(take_any("r"));
    ahead.first_sent = ahead.first_sent.plus_ms(11);
    replies.push(shard.send(&ahead));
    replies
}

#[test]
fn limits_in_the_log_decide_and_not_those_of_the_build() {
    // Before, one has the limits of its build and another one others: as builds differ.
    let builds = [FleetLimits::default(), FleetLimits { live_tasks_max: 1, agents_max: 9, ..small() }];
    let run = |limits: FleetLimits| {
        let mut shard = Shard::with_limits(limits);
        shard.apply(rules(2, small()));
        let replies = script(&mut shard);
        (replies, shard.state.digest(), shard.state.to_snapshot().unwrap())
    };
    let (replies, digest, snapshot) = run(builds[0]);
    assert_eq!(run(builds[1]), (replies.clone(), digest, snapshot));
    let refused = |what: &Refusal| replies.iter().any(|reply| matches!(reply, Reply::Refused(why) if why == what));
    let full = |what, count| Refusal::Full { what, count };
    for met in [
        Refusal::Request(RequestRefusal::Invalid(InvalidSpec::Capabilities { given: 2, max: 1 })),
        Refusal::Request(RequestRefusal::Invalid(InvalidSpec::Payload { bytes: 9, max: 8 })),
        Refusal::Request(RequestRefusal::Invalid(InvalidSpec::MaxConcurrent { given: 3, max: 2 })),
        Refusal::Request(RequestRefusal::Invalid(InvalidSpec::Checkpoint { bytes: 9, max: 8 })),
        full(ShardFullOf::Requirements, 2),
        full(ShardFullOf::Agents, 2),
        full(ShardFullOf::Tasks, 4),
    ] {
        assert!(refused(&met), "{met}: {replies:#?}");
    }
    assert!(matches!(replies.last(), Some(Reply::Refused(Refusal::Request(RequestRefusal::ClockImpossible { .. })))));
}

#[test]
fn nothing_is_heard_before_an_entry_says_by_which_rules() {
    let mut shard = new_shard();
    assert_eq!(shard.state.fleet_version(), 0);
    assert_eq!(shard.refused(create(1, spec())), Refusal::Request(RequestRefusal::Deposed), "it may be sent again");
    let applied = shard.apply(rules(1, small()));
    let told = &applied.changes[0].what;
    assert!(matches!(told, ChangeKind::Shard(ShardChange::RulesAgreed { rules }) if rules.version == 1));
    assert_eq!((shard.state.fleet_version(), *shard.state.limits()), (1, small()));
    shard.ok(create(1, spec()));
}

#[test]
fn a_version_only_rises_and_brings_its_limits_with_it() {
    let mut shard = new_shard();
    shard.apply(rules(2, small()));
    for version in [0, 1, 2] {
        let applied = shard.apply(rules(version, FleetLimits::default()));
        assert!(applied.changes.is_empty(), "{version} is not above 2");
    }
    assert_eq!((shard.state.fleet_version(), *shard.state.limits()), (2, small()));
    let limits = FleetLimits { live_tasks_max: 1, ..small() };
    shard.apply(rules(3, limits));
    assert_eq!((shard.state.fleet_version(), *shard.state.limits()), (3, limits));
    shard.ok(create(1, spec()));
    assert_eq!(shard.refused(create(2, spec())), Refusal::Full { what: ShardFullOf::Tasks, count: 1 });
}

#[test]
fn a_deposed_leader_changes_no_rules() {
    let mut shard = new_shard();
    let entry = Entry { stamp: shard.now, term: 1, body: rules(1, small()) };
    shard.term = 2;
    assert!(shard.apply_entry(&entry).changes.is_empty());
    assert_eq!(shard.state.fleet_version(), 0);
}

#[test]
fn limits_that_fall_take_nothing_away_and_let_nothing_more_in() {
    let mut shard = new_shard();
    shard.apply(rules(1, FleetLimits { failures_kept: 4, ..small() }));
    for n in 1..=4 {
        shard.ok(create(n, spec()));
    }
    for epoch in 1..=2 {
        shard.ok(take(1, "r"));
        shard.ok(fail(1, "r", epoch));
        shard.pass(5_000);
    }
    shard.apply(rules(2, FleetLimits { live_tasks_max: 2, failures_kept: 1, ..small() }));
    assert_eq!((shard.state.counts().pending, shard.task(1).failures.len()), (4, 2));
    assert_eq!(shard.refused(create(5, spec())), Refusal::Full { what: ShardFullOf::Tasks, count: 4 });
    shard.ok(take(1, "r"));
    shard.ok(fail(1, "r", 3));
    assert_eq!(shard.task(1).failures.len(), 1, "the latest");
}

#[test]
fn a_snapshot_carries_the_rules_and_is_refused_by_who_does_not_speak_them() {
    let mut shard = new_shard();
    shard.apply(rules(2, small()));
    shard.ok(create(1, spec()));
    let bytes = shard.state.to_snapshot().unwrap();
    let speaks = |min, max| FleetVersions { min, max };
    let copy = FleetState::read_snapshot(&bytes, speaks(1, 2)).unwrap();
    assert_eq!((copy.fleet_version(), *copy.limits(), copy.digest()), (2, small(), shard.state.digest()));
    for speaks in [speaks(1, 1), speaks(3, 4)] {
        let refused = FleetState::read_snapshot(&bytes, speaks).unwrap_err();
        assert_eq!(refused, SnapshotError::FleetVersion { found: 2, speaks });
        assert!(refused.is_of_another_build());
    }
    // The same holds whatever follows: a later build may write the rest otherwise.
    let refused = FleetState::read_snapshot(&bytes[..6], speaks(1, 1)).unwrap_err();
    assert!(refused.is_of_another_build());
    let empty = FleetState::empty().to_snapshot().unwrap();
    assert_eq!(FleetState::read_snapshot(&empty, speaks(7, 9)).unwrap().fleet_version(), 0);
}

#[test]
fn what_comes_after_a_snapshot_goes_by_the_rules_in_it() {
    let mut shard = new_shard();
    shard.apply(rules(1, FleetLimits { live_tasks_max: 1, ..small() }));
    shard.ok(create(1, spec()));
    let mut copy = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
    let request = shard.request(create(2, spec()));
    let entry = Entry { stamp: shard.now, term: 1, body: EntryBody::Requests(vec![request.clone()]) };
    let position = LogPosition { index: shard.index + 1, term: 1 };
    let applied = copy.apply(position, &entry);
    assert_eq!(applied.replies, [shard.send(&request)]);
    assert!(matches!(applied.replies[0], Reply::Refused(Refusal::Full { .. })));
    assert_eq!(copy.digest(), shard.state.digest());
}
