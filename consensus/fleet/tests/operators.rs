//! Operators: what each may do, and who says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_protocol::authority::{Allowed, OperatorGrant, SignedGrant, granted};
use skep_protocol::command::*;
use skep_protocol::entry::Op;
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::{Refusal, Reply};
use support::hall::*;
use support::*;

#[test]
fn only_who_is_granted_it_may_command_and_only_whom_and_what_it_says() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let by = |command: Command, n: u8| signed_by(command, n);
    let command = hall.command(1, to("r1"));
    assert_eq!(hall.refused(by(command.clone(), 2)), Refusal::NoSuchOperator(secret(2).key()));
    let mut clerk = grant(2, 1);
    clerk.targets = Allowed::These([to("r1")].into());
    clerk.verbs = Allowed::These(["goto".parse().unwrap()].into());
    clerk.broadcast = false;
    hall.ok(state_grant(clerk.clone(), 1));
    hall.ok(by(command, 2));
    for (n, target, verb) in [(2, to("r2"), "goto"), (3, to("r1"), "lift"), (4, Target::All, "goto")] {
        let command = Command { verb: verb.parse().unwrap(), ..hall.command(n, target) };
        assert!(matches!(hall.refused(by(command, 2)), Refusal::NotGranted { .. }));
    }
    // Nobody grants who is no admin, nothing older replaces what is newer, and the first operator stays what it is.
    assert_eq!(hall.refused(state_grant(grant(3, 1), 2)), Refusal::NotAdmin(secret(2).key()));
    assert_eq!(hall.refused(state_grant(clerk.clone(), 1)), Refusal::GrantStale { given: 1, known: 1 });
    assert_eq!(hall.refused(state_grant(grant(1, 9), 1)), Refusal::FirstOperator);
    hall.ok(state_grant(OperatorGrant { revoked: true, serial: 2, ..clerk }, 1));
    let command = hall.command(5, to("r1"));
    assert_eq!(hall.refused(by(command, 2)), Refusal::OperatorRevoked(secret(2).key()));
    let elsewhere = Command { shard: ShardId(2), ..hall.command(6, to("r1")) };
    assert_eq!(hall.refused(signed(elsewhere)), Refusal::WrongPlace);
    let again = OperatorGrant::of_first(site(), ShardId(1), secret(9).key(), "x".parse().unwrap());
    assert_eq!(hall.refused(Op::InstallOperator { grant: Box::new(again) }), Refusal::OperatorsExist);
}

#[test]
fn what_is_delivered_carries_all_that_proves_its_operator() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(OperatorGrant { admin: true, ..grant(2, 1) }, 1));
    hall.ok(state_grant(grant(3, 1), 2));
    let command = hall.command(1, to("r1"));
    hall.ok(signed_by(command, 3));
    let delivery = hall.state.deliveries_after(&agent("r1"), CommandClass::Routine, 0).next().unwrap();
    assert!(delivery.command.is_signed());
    let found = granted(&delivery.authority, secret(3).key(), first().key(), (&site(), ShardId(1)));
    assert!(found.is_some(), "{:?}", delivery.authority);
    let other = secret(7).key();
    assert!(granted(&delivery.authority, secret(3).key(), other, (&site(), ShardId(1))).is_none());
}

#[test]
fn an_operator_sends_no_more_in_a_minute_than_it_is_granted() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(OperatorGrant { per_minute: Some(60), ..grant(2, 1) }, 1));
    let mut sent = 0_u8;
    let refusal = loop {
        let command = hall.command(sent + 1, to("r1"));
        let (reply, _) = hall.told(signed_by(command, 2));
        match reply {
            Reply::Done(_) => sent += 1,
            Reply::Refused(refusal) => break refusal,
        }
    };
    assert_eq!(sent, 10, "a sixth of a minute at once");
    let Refusal::TooManyCommands { retry_after_ms, .. } = refusal else { panic!("{refusal}") };
    hall.now = hall.now.plus_ms(retry_after_ms);
    let command = hall.command(100, to("r1"));
    hall.ok(signed_by(command, 2));
}

#[test]
fn nobody_changes_what_it_owes_its_own_place_to_nor_uses_up_the_numbers() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(OperatorGrant { admin: true, ..grant(2, 1) }, 1));
    hall.ok(state_grant(OperatorGrant { admin: true, ..grant(3, 1) }, 2));
    let (second, third) = (secret(2).key(), secret(3).key());
    let wider = OperatorGrant { admin: true, ..grant(3, 2) };
    assert_eq!(hall.refused(state_grant(wider, 3)), Refusal::NotAdmin(third), "itself");
    let ousted = OperatorGrant { revoked: true, ..grant(2, 2) };
    assert_eq!(hall.refused(state_grant(ousted, 3)), Refusal::NotAdmin(third), "who made it an admin");
    let last_number = grant(4, u64::MAX);
    let refused = hall.refused(state_grant(last_number, 1));
    assert_eq!(refused, InvalidCommand::Serial { given: u64::MAX, last: 0 }.into());
    hall.ok(state_grant(grant(4, 7), 3));
    // With an admin goes whatever it granted, down to the last.
    hall.ok(state_grant(OperatorGrant { revoked: true, ..grant(2, 2) }, 1));
    for by in [3, 4] {
        let command = hall.command(by, to("r1"));
        assert_eq!(hall.refused(signed_by(command, by)), Refusal::NotAdmin(second));
    }
}

#[test]
fn who_takes_the_place_of_a_command_must_be_granted_that_one_too() {
    let mut hall = Hall::with(&["r1"]);
    let stop = Command { verb: "stop".parse().unwrap(), ..hall.command(1, to("r1")) };
    hall.send(stop);
    let clerk = OperatorGrant { verbs: Allowed::These(["goto".parse().unwrap()].into()), ..grant(2, 1) };
    hall.ok(state_grant(clerk, 1));
    let instead = Command { supersedes: Some(id(1)), operator: secret(2).key(), ..hall.command(2, to("r1")) };
    assert!(matches!(hall.refused(signed_by(instead, 2)), Refusal::NotGranted { .. }));
    assert_eq!(hall.waiting("r1"), [(1, id(1), None)]);
}

#[test]
fn a_statement_that_was_signed_by_another_than_it_names_shows() {
    let signed = grant(2, 1).sign(&secret(3)).unwrap();
    let forged = SignedGrant { by: first().key(), ..signed };
    assert!(!forged.is_signed());
}
