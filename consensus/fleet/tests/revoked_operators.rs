//! Operators who may do nothing any more: how many a shard remembers, and which one it forgets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::Op;
use skep_protocol::operator::{FirstReplacement, OperatorChange, OperatorGrant, OperatorOp, OperatorRefusal};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::time::LogInstant;

use support::hall::*;

/// A shard with room for this many operators, and for this many more who may do nothing any more.
fn hall(operators_max: u64, revoked_operators_max: u64) -> Hall {
    let limits = FleetLimits { operators_max, revoked_operators_max, ..FleetLimits::default() };
    Hall::within(limits).joined(&["r1"])
}

/// Limits by which the first operator has no places of its own, unless they are given.
fn limits(operators_max: u64, revoked_operators_max: u64) -> FleetLimits {
    FleetLimits { operators_max, revoked_operators_max, operator_places_of_first: 0, ..FleetLimits::default() }
}

fn admin(of: u8, serial: u64, admin_depth: u32) -> OperatorGrant {
    OperatorGrant { admin_depth, ..grant(of, serial) }
}

fn replace_first(to: u8) -> Op {
    let (old, new, name) = (first().key(), secret(to).key(), "next".parse().unwrap());
    let stated = FirstReplacement { place: place(), old, new, name, serial: 1 };
    Op::Operator(OperatorOp::ReplaceFirst { replacement: Box::new(stated.sign(&first()).unwrap()) })
}

fn revoked(of: u8, serial: u64) -> OperatorGrant {
    OperatorGrant { revoked: true, ..grant(of, serial) }
}

fn ending(of: u8, serial: u64, until: LogInstant) -> OperatorGrant {
    OperatorGrant { until: Some(until), ..grant(of, serial) }
}

fn full(what: ShardFullOf, count: u64) -> Refusal {
    Refusal::Full { what, count }
}

/// Whether a shard remembers an operator, also a replica that is made of a snapshot.
fn is_known(hall: &Hall, of: u8) -> bool {
    let is_known = |state: &FleetState| state.operators().any(|grant| grant.operator == secret(of).key());
    let copy = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!((copy.serial_floor(), copy.dropped()), (hall.state.serial_floor(), hall.state.dropped()));
    assert_eq!(is_known(&copy), is_known(&hall.state));
    is_known(&copy)
}

#[test]
fn who_is_revoked_takes_no_place_of_who_may_do_something() {
    // One of them is the first operator.
    let mut hall = hall(3, 2);
    hall.ok(state_grant(grant(2, 1), 1));
    hall.ok(state_grant(grant(3, 1), 1));
    assert_eq!(hall.refused(state_grant(grant(4, 1), 1)), full(ShardFullOf::Operators, 3));
    hall.ok(state_grant(grant(3, 2), 1));
    hall.ok(state_grant(revoked(2, 2), 1));
    hall.ok(state_grant(grant(4, 1), 1));
    assert_eq!(
        hall.refused(state_grant(grant(2, 3), 1)),
        full(ShardFullOf::Operators, 3),
        "it would take a place again"
    );
    hall.ok(state_grant(revoked(3, 3), 1));
    hall.ok(state_grant(grant(5, 1), 1));
    // A revocation has room, however many there are.
    hall.ok(state_grant(revoked(4, 2), 1));
    hall.ok(state_grant(revoked(5, 2), 1));
    let new = state_grant(grant(6, 1), 1);
    assert_eq!(hall.refused(new), full(ShardFullOf::RevokedOperators, 5), "nothing that was granted to them has ended");
    hall.ok(state_grant(grant(2, 3), 1));
}

#[test]
fn what_was_granted_and_has_ended_takes_no_place() {
    let mut hall = hall(2, 1);
    let until = hall.now.plus_ms(5_000);
    hall.ok(state_grant(ending(2, 1, until), 1));
    assert_eq!(hall.refused(state_grant(grant(3, 1), 1)), full(ShardFullOf::Operators, 2));
    hall.now = until;
    hall.ok(state_grant(grant(3, 1), 1));
    assert!(is_known(&hall, 2), "there is room for it");
}

#[test]
fn of_whom_everything_has_ended_is_forgotten_for_somebody_new_and_nothing_that_was_signed_of_it_holds_again() {
    let mut hall = hall(2, 2);
    let (soon, later) = (hall.now.plus_ms(5_000), hall.now.plus_ms(9_000));
    // The later end counts, in whichever order they were granted.
    for (of, first, second) in [(2, later, soon), (3, soon, soon)] {
        hall.ok(state_grant(ending(of, 1, first), 1));
        hall.ok(state_grant(ending(of, 2, second), 1));
        hall.ok(state_grant(revoked(of, 3), 1));
    }
    hall.ok(state_grant(grant(4, 1), 1));
    hall.ok(state_grant(revoked(4, 2), 1));
    let new = |of, serial| state_grant(grant(of, serial), 1);
    assert_eq!(hall.refused(new(5, 1)), full(ShardFullOf::RevokedOperators, 4), "its grant could be sent again");
    hall.now = soon;
    hall.ok(new(5, 1));
    assert_eq!([2, 3, 4, 5].map(|of| is_known(&hall, of)), [true, false, true, true]);
    assert_eq!((hall.state.serial_floor(), hall.state.dropped().operators), (3, 1));
    // Whatever its serial was, none like it is taken again, nor one that was signed and never sent.
    for serial in [1, 2, 3] {
        assert_eq!(
            hall.refused(new(3, serial)),
            Refusal::Operator(OperatorRefusal::GrantStale { given: serial, known: 3 })
        );
    }
    hall.ok(state_grant(revoked(5, 2), 1));
    assert_eq!(hall.refused(new(3, 4)), full(ShardFullOf::RevokedOperators, 4));
    hall.now = later;
    hall.ok(new(3, 4));
    assert_eq!([2, 3, 4, 5].map(|of| is_known(&hall, of)), [false, true, true, true]);
    let command = hall.command(1, to("r1"));
    assert_eq!(
        hall.refused(signed_by(command, 2)),
        Refusal::Operator(OperatorRefusal::NoSuchOperator(secret(2).key()))
    );
}

#[test]
fn whoever_signed_for_an_operator_that_is_known_is_not_forgotten() {
    let mut hall = Hall::within(limits(4, 1));
    let soon = hall.now.plus_ms(5_000);
    hall.ok(state_grant(OperatorGrant { admin_depth: 1, ..ending(2, 1, soon) }, 1));
    hall.ok(state_grant(grant(3, 1), 2));
    hall.ok(state_grant(ending(4, 1, soon), 2));
    hall.now = soon;
    hall.ok(state_grant(grant(5, 1), 1));
    hall.ok(state_grant(grant(6, 1), 1));
    assert_eq!([2, 3, 4].map(|of| is_known(&hall, of)), [true, true, false], "it signed for nobody");
    let new = || state_grant(grant(7, 2), 1);
    assert_eq!(hall.refused(new()), full(ShardFullOf::RevokedOperators, 5), "without it nobody hears of the one below");
    hall.ok(state_grant(revoked(3, 2), 1));
    hall.ok(new());
    assert_eq!([2, 3].map(|of| is_known(&hall, of)), [false, true], "the first operator signed for that one");
}

#[test]
fn an_admin_that_fills_all_places_leaves_the_first_operator_its_own() {
    let mut hall = Hall::within(FleetLimits { operator_places_of_first: 1, ..limits(4, 2) });
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(grant(3, 1), 2));
    assert_eq!(hall.refused(state_grant(grant(4, 1), 2)), full(ShardFullOf::Operators, 3));
    hall.ok(state_grant(grant(4, 1), 1));
    hall.ok(state_grant(revoked(4, 2), 1));
    hall.ok(state_grant(revoked(3, 2), 2));
    hall.ok(state_grant(grant(5, 1), 2));
    hall.ok(state_grant(revoked(5, 2), 2));
    assert_eq!(hall.refused(state_grant(grant(6, 1), 2)), full(ShardFullOf::RevokedOperators, 5));
    hall.ok(state_grant(grant(6, 1), 1));
    assert_eq!(hall.refused(state_grant(grant(7, 1), 1)), full(ShardFullOf::RevokedOperators, 6));
    // Whatever is full, the first operator can give its place to another key.
    hall.ok(replace_first(8));
    hall.ok(state_grant(grant(6, 2), 8));
}

#[test]
fn an_admin_and_those_below_it_take_no_more_places_than_one_branch_has() {
    let mut hall = Hall::within(FleetLimits { operator_branch_max: 3, ..limits(20, 20) });
    let soon = hall.now.plus_ms(5_000);
    hall.ok(state_grant(admin(2, 1, 2), 1));
    hall.ok(state_grant(admin(3, 1, 1), 2));
    hall.ok(state_grant(ending(4, 1, soon), 3));
    for by in [2, 3] {
        assert_eq!(hall.refused(state_grant(grant(5, 1), by)), full(ShardFullOf::OperatorBranch, 3), "{by}");
    }
    hall.ok(state_grant(ending(4, 2, soon), 3));
    hall.ok(state_grant(admin(5, 1, 1), 1));
    hall.ok(state_grant(grant(6, 1), 5));
    hall.now = soon;
    hall.ok(state_grant(grant(7, 3), 3));
    assert_eq!([4, 6, 7].map(|of| is_known(&hall, of)), [false, true, true], "one of the same branch was forgotten");
}

#[test]
fn whoever_is_below_a_revoked_admin_takes_no_place_until_that_may_act_again() {
    let mut hall = Hall::within(limits(3, 9));
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(grant(3, 1), 2));
    assert_eq!(hall.refused(state_grant(grant(4, 1), 1)), full(ShardFullOf::Operators, 3));
    hall.ok(state_grant(revoked(2, 2), 1));
    hall.ok(state_grant(grant(4, 1), 1));
    hall.ok(state_grant(grant(5, 1), 1));
    let again = || state_grant(admin(2, 3, 1), 1);
    assert_eq!(hall.refused(again()), full(ShardFullOf::Operators, 3));
    hall.ok(state_grant(revoked(4, 2), 1));
    assert_eq!(hall.refused(again()), full(ShardFullOf::Operators, 2), "it brings one more");
    hall.ok(state_grant(revoked(5, 2), 1));
    hall.ok(again());
}

#[test]
fn a_key_that_was_forgotten_and_becomes_the_first_operator_keeps_the_numbers_that_are_over() {
    let mut hall = Hall::within(limits(2, 0));
    let soon = hall.now.plus_ms(5_000);
    hall.ok(state_grant(ending(2, 7, soon), 1));
    hall.now = soon;
    hall.ok(state_grant(grant(3, 1), 1));
    assert!(!is_known(&hall, 2));
    assert_eq!(hall.ok(replace_first(2)), Receipt::Operator { operator: secret(2).key(), serial: 7 });
}

#[test]
fn who_is_forgotten_for_somebody_new_is_on_record_before_the_grant_that_needed_the_room() {
    let mut hall = Hall::within(FleetLimits { operator_branch_max: 2, ..limits(4, 0) });
    let soon = hall.now.plus_ms(5_000);
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(OperatorGrant { name: "clerk".parse().unwrap(), ..ending(3, 7, soon) }, 2));
    hall.ok(state_grant(ending(4, 1, soon), 1));
    hall.now = soon;
    let mut told = |grant: OperatorGrant, by: u8| -> Vec<String> {
        let (_, changes) = hall.told(state_grant(grant, by));
        let said = |change: ChangeKind| match change {
            ChangeKind::Operator(OperatorChange::Forgotten { operator, name, serial }) => {
                format!("forgot {operator} {name} {serial}")
            }
            ChangeKind::Operator(OperatorChange::Granted { grant }) => format!("granted {}", grant.operator),
            other => format!("{other:?}"),
        };
        changes.into_iter().map(said).collect()
    };
    let [third, fourth, fifth, sixth] = [3, 4, 5, 6].map(|n| secret(n).key());
    let of_the_branch = told(grant(5, 8), 2);
    assert_eq!(of_the_branch, [format!("forgot {third} clerk 7"), format!("granted {fifth}")]);
    let of_all = told(grant(6, 8), 1);
    assert_eq!(of_all, [format!("forgot {fourth} somebody 1"), format!("granted {sixth}")]);
}
