//! A shard that goes on as another group, from what one replica of it held.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState, LogPosition};
use skep_protocol::change::{ChangeKind, ShardChange};
use skep_protocol::command::*;
use skep_protocol::entry::{EntryBody, Op, Recovered};
use skep_protocol::ids::{Genesis, RaftId};
use skep_protocol::operator::{FirstReplacement, KnownFirst, OperatorGrant, OperatorOp, OperatorRefusal};
use skep_protocol::recovery::ShardRecovery;
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::Place;
use skep_protocol::task::TaskStatus;

use support::hall::*;
use support::*;

fn genesis(n: u8) -> Genesis {
    Genesis::from_bytes([n; 16])
}

/// The recovery of a shard that holds this many entries, signed by an operator of these tests.
fn recovered(last_index: u64, to: u8, by: u8) -> EntryBody {
    let stated = ShardRecovery { place: place(), by: secret(by).key(), genesis: genesis(to), last_index };
    let statement = stated.sign(&secret(by)).unwrap();
    EntryBody::Recovered(Box::new(Recovered { statement, former: vec![RaftId(3), RaftId(4)] }))
}

/// Appends the entry that names the members of the new group; returns the index of the last one before it.
fn change_members(hall: &mut Hall) -> u64 {
    hall.shard.index += 1;
    let (index, term) = (hall.shard.index, hall.shard.term);
    hall.shard.state.skip(LogPosition { index, term });
    index - 1
}

#[test]
fn a_recovered_shard_keeps_its_work_and_begins_anew_for_operators_and_clocks() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(create(1, spec()));
    hall.ok(take(1, "r1"));
    hall.ok(create(2, spec()));
    hall.ok(state_grant(grant(2, 5), 1));
    let command = hall.command(1, to("r1"));
    hall.ok(signed_by(command, 2));
    let last = change_members(&mut hall);
    let era = hall.state.clock().era();
    let applied = hall.apply(recovered(last, 7, 1));
    assert_eq!(hall.state.clock().era(), era + 1, "nobody knows how long it was beyond help");
    let now = Place { genesis: genesis(7), ..place() };
    let by = first().key();
    let told =
        ChangeKind::Shard(ShardChange::Recovered { place: now.clone(), from: place().genesis, last_index: last, by });
    assert!(applied.changes.iter().any(|change| change.what == told), "{applied:?}");
    assert_eq!(hall.state.recovery().map(|signed| (signed.last_index, signed.by)), Some((last, by)));
    assert!(hall.state.is_former(RaftId(3)) && !hall.state.is_former(RaftId(5)));
    let status = |n| hall.state.task(&task_id(n)).map(|task| task.state.status());
    assert_eq!((status(1), status(2)), (Some(TaskStatus::Claimed), Some(TaskStatus::Pending)));
    hall.now = hall.state.clock();
    // What was signed before is over, and so are all grants but that of the first operator.
    let old = hall.command(2, to("r1"));
    assert_eq!(hall.refused(signed(old.clone())), Refusal::Operator(OperatorRefusal::WrongPlace));
    assert_eq!(hall.waiting("r1").iter().filter(|(_, _, void)| void.is_none()).count(), 0);
    let new = Command { place: now.clone(), ..old };
    assert_eq!(hall.refused(signed_by(new.clone(), 2)), Refusal::Operator(OperatorRefusal::Revoked(secret(2).key())));
    hall.ok(signed_by(new, 1));
    let granted = |serial| OperatorGrant { place: now.clone(), ..grant(2, serial) };
    assert_eq!(
        hall.refused(state_grant(granted(5), 1)),
        Refusal::Operator(OperatorRefusal::GrantStale { given: 5, known: 5 })
    );
    hall.ok(state_grant(granted(6), 1));
    let again = Command { place: now.clone(), ..hall.command(3, to("r1")) };
    hall.ok(signed_by(again, 2));
    // A journal that hears of the shard follows it, and a snapshot says the same.
    let root = hall.state.root(0).unwrap();
    let known = Some((place().genesis, Some(KnownFirst { operator: by, replaced: 0 })));
    let follows = Some(KnownFirst { operator: by, replaced: 0 });
    assert_eq!(root.known_after(known, (&place().site, place().shard)), (genesis(7), follows));
    let copy = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!((copy.root(0), copy.place()), (Some(root), Some(&now)));
    assert!(copy.is_former(RaftId(4)));
    let lineage = copy.lineage().unwrap();
    assert_eq!((lineage.genesis, lineage.past.as_slice()), (genesis(7), [place().genesis].as_slice()));
    let before = Hall::new().state.lineage().unwrap();
    assert!(lineage.belongs_with(&before) && lineage != before, "one that was not there knows the shard as it was");
    assert_eq!(FleetState::empty().lineage(), None);
}

#[test]
fn what_was_granted_before_a_recovery_has_ended_and_keeps_nobody_new_out() {
    let limits = FleetLimits { operators_max: 2, revoked_operators_max: 1, ..FleetLimits::default() };
    let mut hall = Hall::within(limits);
    hall.ok(state_grant(grant(2, 5), 1));
    hall.ok(state_grant(OperatorGrant { revoked: true, ..grant(2, 6) }, 1));
    hall.ok(state_grant(grant(3, 1), 1));
    let last = change_members(&mut hall);
    hall.apply(recovered(last, 7, 1));
    hall.now = hall.state.clock();
    let now = Place { genesis: genesis(7), ..place() };
    let granted = |of, serial| state_grant(OperatorGrant { place: now.clone(), ..grant(of, serial) }, 1);
    hall.ok(granted(4, 1));
    let known = hall.state.operators().filter(|of| [2, 3].map(|n| secret(n).key()).contains(&of.operator)).count();
    assert_eq!(known, 1, "one of them was forgotten");
    assert!(hall.state.serial_floor() == 6 || hall.state.serial_floor() == 1);
}

#[test]
fn only_the_first_operator_has_a_shard_go_on_as_another_group_and_once_from_where_it_says() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(OperatorGrant { admin_depth: 2, ..grant(2, 1) }, 1));
    let clock = hall.state.clock();
    // Another operator's, with more entries, with fewer, and to the genesis that it has.
    let bad: [fn(u64) -> EntryBody; 4] = [
        |last| recovered(last, 7, 2),
        |last| recovered(last + 1, 7, 1),
        |last| recovered(last - 1, 7, 1),
        |last| recovered(last, 6, 1),
    ];
    for (n, bad) in bad.iter().enumerate() {
        let last = change_members(&mut hall);
        let applied = hall.apply(bad(last));
        assert_eq!(applied.changes, vec![], "{n}");
        assert_eq!((hall.state.place(), hall.state.clock()), (Some(&place()), clock), "{n}");
    }
    let last = change_members(&mut hall);
    let good = recovered(last, 7, 1);
    hall.apply(good.clone());
    assert_eq!(hall.state.place().map(|place| place.genesis), Some(genesis(7)));
    let clock = hall.state.clock();
    hall.apply(good);
    assert_eq!(hall.state.clock(), clock, "the same word again changes nothing");
}

#[test]
fn whoever_knows_the_shard_as_it_was_is_told_all_replacements_since_its_recovery() {
    let mut hall = Hall::with(&["r1"]);
    let replace = |place: Place, old: u8, new: u8| {
        let (old_key, new_key, name) = (secret(old).key(), secret(new).key(), "next".parse().unwrap());
        let stated = FirstReplacement { place, old: old_key, new: new_key, name, serial: 1 };
        Op::Operator(OperatorOp::ReplaceFirst { replacement: Box::new(stated.sign(&secret(old)).unwrap()) })
    };
    hall.ok(replace(place(), 1, 2));
    // As the node of a robot knows it that is away from here on.
    let known = Some((place().genesis, Some(KnownFirst { operator: secret(2).key(), replaced: 1 })));
    let last = change_members(&mut hall);
    hall.apply(recovered(last, 7, 2));
    hall.now = hall.state.clock();
    hall.ok(replace(Place { genesis: genesis(7), ..place() }, 2, 3));
    let root = hall.state.root(1).unwrap();
    let follows = Some(KnownFirst { operator: secret(3).key(), replaced: 1 });
    assert_eq!(root.known_after(known, (&place().site, place().shard)), (genesis(7), follows));
}
