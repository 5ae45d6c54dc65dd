//! Operators: what each may do, by whose word, and what ends with that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::*;
use skep_protocol::entry::{EntryBody, Op};
use skep_protocol::ids::{CommandId, Genesis, ShardId};
use skep_protocol::operator::{
    Allowed, AuthorityNews, FirstReplacement, InvalidGrant, KnownFirst, OperatorGrant, OperatorOp, OperatorRefusal,
    granted,
};
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::{Place, Signed};

use support::hall::*;
use support::*;

fn admin(of: u8, serial: u64, admin_depth: u32) -> OperatorGrant {
    OperatorGrant { admin_depth, ..grant(of, serial) }
}

fn verbs(names: &[&str]) -> Allowed<skep_protocol::text::Verb> {
    Allowed::These(names.iter().map(|name| name.parse().unwrap()).collect())
}

#[test]
fn only_who_is_granted_it_may_command_and_only_whom_and_what_it_says() {
    let mut hall = Hall::with(&["r1", "r2"]);
    let by = |command: Command, n: u8| signed_by(command, n);
    let command = hall.command(1, to("r1"));
    assert_eq!(
        hall.refused(by(command.clone(), 2)),
        Refusal::Operator(OperatorRefusal::NoSuchOperator(secret(2).key()))
    );
    let mut clerk = grant(2, 1);
    clerk.targets = Allowed::These([to("r1")].into());
    clerk.verbs = verbs(&["goto"]);
    clerk.broadcast = false;
    hall.ok(state_grant(clerk.clone(), 1));
    hall.ok(by(command, 2));
    for (n, target, verb) in [(2, to("r2"), "goto"), (3, to("r1"), "lift"), (4, Target::All, "goto")] {
        let command = Command { verb: verb.parse().unwrap(), ..hall.command(n, target) };
        assert!(matches!(hall.refused(by(command, 2)), Refusal::Operator(OperatorRefusal::NotGranted { .. })));
    }
    // Only an admin grants, nothing older replaces what is newer, and the first operator stays what it is.
    assert_eq!(
        hall.refused(state_grant(grant(3, 1), 2)),
        Refusal::Operator(OperatorRefusal::NotAdmin(secret(2).key()))
    );
    assert_eq!(
        hall.refused(state_grant(clerk.clone(), 1)),
        Refusal::Operator(OperatorRefusal::GrantStale { given: 1, known: 1 })
    );
    assert_eq!(hall.refused(state_grant(grant(1, 9), 1)), Refusal::Operator(OperatorRefusal::FirstOperator));
    hall.ok(state_grant(OperatorGrant { revoked: true, serial: 2, ..clerk }, 1));
    let command = hall.command(5, to("r1"));
    assert_eq!(hall.refused(by(command, 2)), Refusal::Operator(OperatorRefusal::Revoked(secret(2).key())));
}

#[test]
fn what_was_signed_for_another_shard_or_for_one_that_was_made_anew_is_refused() {
    let mut hall = Hall::with(&["r1"]);
    let elsewhere = [
        Place { shard: ShardId(2), ..place() },
        Place { site: "yard".parse().unwrap(), ..place() },
        Place { genesis: Genesis::from_bytes([7; 16]), ..place() },
    ];
    for place in elsewhere {
        let command = Command { place: place.clone(), ..hall.command(6, to("r1")) };
        assert_eq!(hall.refused(signed(command)), Refusal::Operator(OperatorRefusal::WrongPlace));
        let stated = OperatorGrant { place, ..grant(2, 1) };
        assert_eq!(hall.refused(state_grant(stated, 1)), Refusal::Operator(OperatorRefusal::WrongPlace));
    }
}

#[test]
fn a_shard_has_the_operators_that_its_first_entry_gives_it_and_begins_once() {
    let mut shard = Shard::new();
    let command = Hall::new().command(1, to("r1"));
    shard.ok(attach("r1", 1, 1));
    assert_eq!(shard.refused(signed(command.clone())), Refusal::Operator(OperatorRefusal::WrongPlace));
    shard.apply(founding(FleetLimits::default()));
    assert_eq!(shard.state.first_operator(), Some(KnownFirst { operator: first().key(), replaced: 0 }));
    shard.ok(signed(command));
    // Another operator's, later.
    let mut other = founding(FleetLimits::default());
    if let skep_protocol::entry::EntryBody::Founding(founding) = &mut other {
        founding.charter.place.genesis = Genesis::from_bytes([7; 16]);
    }
    shard.apply(other.clone());
    assert_eq!(shard.state.place(), Some(&place()));
    // An operator who has not signed for this shard is none of it.
    let mut forged = Shard::new();
    forged.apply(other);
    assert_eq!(
        (forged.state.place().map(|place| place.genesis), forged.state.first_operator()),
        (Some(Genesis::from_bytes([7; 16])), None)
    );
}

#[test]
fn what_is_delivered_carries_all_that_proves_its_operator() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(grant(3, 1), 2));
    let command = hall.command(1, to("r1"));
    hall.ok(signed_by(command, 3));
    let delivery = hall.state.deliveries_after(&agent("r1"), CommandClass::Routine, 0).next().unwrap();
    assert!(delivery.command.is_signed());
    let found = granted(&delivery.authority, secret(3).key(), first().key(), &place());
    assert!(found.is_some(), "{:?}", delivery.authority);
    // The statement that came meanwhile proves it: nodes believe nothing older.
    hall.ok(state_grant(grant(3, 2), 2));
    let delivery = hall.state.deliveries_after(&agent("r1"), CommandClass::Routine, 0).next().unwrap();
    assert_eq!((delivery.authority[0].serial, delivery.void), (2, None));
    let other = secret(7).key();
    assert!(granted(&delivery.authority, secret(3).key(), other, &place()).is_none());
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
    let Refusal::Operator(OperatorRefusal::TooManyCommands { retry_after_ms, .. }) = refusal else {
        panic!("{refusal}")
    };
    hall.now = hall.now.plus_ms(retry_after_ms);
    let command = hall.command(100, to("r1"));
    hall.ok(signed_by(command, 2));
}

#[test]
fn an_admin_makes_nobody_who_may_do_what_it_may_not() {
    let mut hall = Hall::with(&["r1"]);
    let limited = OperatorGrant {
        verbs: verbs(&["inspect"]),
        targets: Allowed::These([Target::Group("aisle".parse().unwrap())].into()),
        broadcast: false,
        per_minute: Some(60),
        ..admin(2, 1, 1)
    };
    hall.ok(state_grant(limited, 1));
    hall.ok(state_grant(admin(3, 1, 9), 2));
    let aisle = || Target::Group("aisle".parse().unwrap());
    for (n, target, verb) in [(1, aisle(), "goto"), (2, to("r1"), "inspect"), (3, Target::All, "inspect")] {
        let command = Command { verb: verb.parse().unwrap(), ..hall.command(n, target) };
        assert!(
            matches!(hall.refused(signed_by(command, 3)), Refusal::Operator(OperatorRefusal::NotGranted { .. })),
            "{n}"
        );
    }
    assert_eq!(
        hall.refused(state_grant(grant(4, 1), 3)),
        Refusal::Operator(OperatorRefusal::NotAdmin(secret(3).key()))
    );
    // What it sends counts for the admin, too.
    for n in 0..10 {
        let command = Command { verb: "inspect".parse().unwrap(), ..hall.command(10 + n, aisle()) };
        hall.ok(signed_by(command, 3));
    }
    let command = Command { verb: "inspect".parse().unwrap(), ..hall.command(30, aisle()) };
    let refused = hall.refused(signed_by(command, 3));
    let Refusal::Operator(OperatorRefusal::TooManyCommands { operator, .. }) = refused else { panic!("{refused}") };
    assert_eq!(operator, secret(2).key());
}

#[test]
fn nobody_changes_what_it_owes_its_own_place_to_nor_what_another_one_granted_nor_uses_up_the_numbers() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(admin(2, 1, 2), 1));
    hall.ok(state_grant(admin(3, 1, 1), 2));
    hall.ok(state_grant(admin(5, 1, 2), 1));
    let (second, third, fifth) = (secret(2).key(), secret(3).key(), secret(5).key());
    let wider = admin(3, 2, 2);
    assert_eq!(hall.refused(state_grant(wider, 3)), Refusal::Operator(OperatorRefusal::NotAdmin(third)), "itself");
    let ousted = OperatorGrant { revoked: true, ..grant(2, 2) };
    assert_eq!(
        hall.refused(state_grant(ousted.clone(), 3)),
        Refusal::Operator(OperatorRefusal::NotAdmin(third)),
        "who made it an admin"
    );
    let not_above = Refusal::Operator(OperatorRefusal::NotAbove { by: fifth, operator: second });
    assert_eq!(hall.refused(state_grant(ousted, 5)), not_above, "beside it");
    let not_above = Refusal::Operator(OperatorRefusal::NotAbove { by: fifth, operator: third });
    let ousted = OperatorGrant { revoked: true, ..grant(3, 2) };
    assert_eq!(hall.refused(state_grant(ousted, 5)), not_above, "below another one");
    let last_number = grant(4, u64::MAX);
    let refused = hall.refused(state_grant(last_number, 1));
    assert_eq!(refused, OperatorRefusal::Invalid(InvalidGrant::Serial { given: u64::MAX, last: 0 }).into());
    hall.ok(state_grant(grant(4, 7), 3));
    hall.ok(state_grant(grant(4, 8), 2));
    // With an admin all goes that it granted, down to the last operator.
    hall.ok(state_grant(OperatorGrant { revoked: true, ..grant(2, 2) }, 1));
    for by in [3, 4] {
        let command = hall.command(by, to("r1"));
        assert_eq!(hall.refused(signed_by(command, by)), Refusal::Operator(OperatorRefusal::NotAdmin(second)));
    }
    hall.ok(state_grant(grant(4, 9), 1));
    let command = hall.command(4, to("r1"));
    hall.ok(signed_by(command, 4));
}

#[test]
fn what_is_granted_ends_and_nothing_is_accepted_that_would_outlive_it() {
    let mut hall = Hall::with(&["r1"]);
    let until = hall.now.plus_ms(5_000);
    hall.ok(state_grant(OperatorGrant { until: Some(until), ..admin(2, 1, 1) }, 1));
    hall.ok(state_grant(grant(3, 1), 2));
    for by in [2, 3] {
        let (operator, command) = (secret(by).key(), hall.command(by, to("r1")));
        let outlives =
            Refusal::Operator(OperatorRefusal::OutlivesGrant { operator, until, deadline: command.deadline });
        assert_eq!(hall.refused(signed_by(command.clone(), by)), outlives);
        hall.ok(signed_by(Command { deadline: until, ..command }, by));
    }
    hall.now = until;
    for by in [2, 3] {
        let (operator, command) = (secret(by).key(), hall.command(10 + by, to("r1")));
        let ended = Refusal::Operator(OperatorRefusal::GrantEnded { operator, until, now: until });
        assert_eq!(hall.refused(signed_by(command, by)), ended);
    }
    assert!(matches!(hall.refused(state_grant(grant(4, 1), 2)), Refusal::Operator(OperatorRefusal::GrantEnded { .. })));
}

/// Commands that were voided, each with its robot.
fn voided(changes: &[ChangeKind]) -> Vec<(CommandId, String)> {
    let voided = |change: &ChangeKind| match change {
        ChangeKind::Command {
            command,
            change: CommandChange::DeliveryVoided { agent, cause: VoidCause::Revoked, .. },
        } => Some((*command, agent.to_string())),
        _ => None,
    };
    changes.iter().filter_map(voided).collect()
}

#[test]
fn a_revocation_voids_what_has_not_begun_and_stops_waves_in_one_change() {
    let mut hall = Hall::with(&["r1", "r2", "r3"]);
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(grant(3, 1), 2));
    let waves = Some(Waves { agents: 2, every_ms: 100 });
    let waved = Command { waves, ..hall.command(1, Target::Group("aisle".parse().unwrap())) };
    hall.ok(signed_by(waved, 3));
    hall.now = hall.now.plus_ms(100);
    hall.settle();
    let of_another = hall.command(2, to("r1"));
    hall.ok(signed_by(of_another, 1));
    let (reply, changes) = hall.told(state_grant(OperatorGrant { revoked: true, ..grant(2, 2) }, 1));
    assert_eq!(reply, Reply::Done(Receipt::Operator { operator: secret(2).key(), serial: 2 }));
    assert_eq!(voided(&changes), [(id(1), "r1".to_owned()), (id(1), "r2".to_owned())], "their nodes may have it");
    assert_eq!(outcomes(&changes), [("r3".to_owned(), "cancelled")], "nobody can have had it");
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Revoked)), (2, id(2), None)]);
    hall.now = hall.now.plus_ms(100);
    assert_eq!(outcomes(&hall.settle()), [], "no wave is released");
}

#[test]
fn a_narrower_grant_voids_what_it_does_not_cover_and_leaves_the_rest() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(grant(2, 1), 1));
    let lift = Command { verb: "lift".parse().unwrap(), ..hall.command(1, to("r1")) };
    hall.ok(signed_by(lift, 2));
    let goto = hall.command(2, to("r1"));
    hall.ok(signed_by(goto, 2));
    hall.ok(state_grant(OperatorGrant { verbs: verbs(&["goto"]), ..grant(2, 2) }, 1));
    assert_eq!(hall.waiting("r1"), [(1, id(1), Some(VoidCause::Revoked)), (2, id(2), None)]);
}

fn replace(from: u8, to: u8, serial: u64) -> Op {
    let (old, new) = (secret(from).key(), secret(to).key());
    let replacement = FirstReplacement { place: place(), old, new, name: "next".parse().unwrap(), serial };
    Op::Operator(OperatorOp::ReplaceFirst { replacement: Box::new(replacement.sign(&secret(from)).unwrap()) })
}

#[test]
fn a_first_operator_that_gives_its_place_to_another_takes_what_it_granted_with_it() {
    let mut hall = Hall::with(&["r1"]);
    hall.ok(state_grant(grant(2, 1), 1));
    let command = hall.command(1, to("r1"));
    hall.ok(signed_by(command, 2));
    let refused = hall.refused(replace(2, 5, 1));
    assert_eq!(refused, Refusal::Operator(OperatorRefusal::NotFirst { by: secret(2).key(), given: 1, expected: 1 }));
    let replaced = hall.told(replace(1, 5, 1));
    assert_eq!(replaced.0, Reply::Done(Receipt::Operator { operator: secret(5).key(), serial: 0 }));
    assert_eq!(voided(&replaced.1), [(id(1), "r1".to_owned())]);
    for by in [1, 2] {
        let command = hall.command(10 + by, to("r1"));
        assert!(matches!(
            hall.refused(signed_by(command, by)),
            Refusal::Operator(OperatorRefusal::Revoked(_) | OperatorRefusal::NotAdmin(_))
        ));
    }
    assert!(
        matches!(hall.refused(replace(1, 6, 1)), Refusal::Operator(OperatorRefusal::NotFirst { .. })),
        "it is not the first any more"
    );
    // The new first operator grants anew, also to the one before it.
    hall.ok(state_grant(grant(2, 2), 5));
    hall.ok(state_grant(grant(1, 1), 5));
    for by in [1, 2, 5] {
        let command = hall.command(20 + by, to("r1"));
        hall.ok(signed_by(command, by));
    }
    let copy = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(copy.first_operator(), Some(KnownFirst { operator: secret(5).key(), replaced: 1 }));
    let root = copy.root(0).unwrap();
    assert_eq!((root.first, root.replaced.len()), (Some(first().key()), 1));
    assert_eq!(copy.root(1).unwrap().replaced.len(), 0, "whoever knows it is not told again");
}

#[test]
fn who_takes_the_place_of_a_command_must_be_granted_that_one_too() {
    let mut hall = Hall::with(&["r1"]);
    let stop = Command { verb: "stop".parse().unwrap(), ..hall.command(1, to("r1")) };
    hall.send(stop);
    let clerk = OperatorGrant { verbs: verbs(&["goto"]), ..grant(2, 1) };
    hall.ok(state_grant(clerk, 1));
    let instead = Command { supersedes: Some(id(1)), operator: secret(2).key(), ..hall.command(2, to("r1")) };
    assert!(matches!(hall.refused(signed_by(instead, 2)), Refusal::Operator(OperatorRefusal::NotGranted { .. })));
    assert_eq!(hall.waiting("r1"), [(1, id(1), None)]);
}

/// No replica believes a leader that proposes what no operator signed.
#[test]
fn what_its_operator_has_not_signed_is_refused_where_it_is_applied() {
    let mut hall = Hall::with(&["r1"]);
    let signature = *hall.command(9, to("r1")).sign(&secret(3)).unwrap().signature();
    let command = Signed::under(&hall.command(1, to("r1")), signature).unwrap();
    let stated = OperatorGrant { by: first().key(), ..grant(2, 1) };
    let stated = Signed::under(&stated, signature).unwrap();
    let control = CommandControl {
        place: place(),
        command: id(1),
        what: ControlKind::Cancel,
        reason: reason("because"),
        operator: first().key(),
    };
    let control = Signed::under(&control, signature).unwrap();
    let replacement = FirstReplacement {
        place: place(),
        old: first().key(),
        new: secret(3).key(),
        name: "next".parse().unwrap(),
        serial: 1,
    };
    let replacement = Signed::under(&replacement, signature).unwrap();
    let forged = [
        Op::Command(CommandOp::Send { command: Box::new(command) }),
        Op::Operator(OperatorOp::Grant { grant: Box::new(stated) }),
        Op::Command(CommandOp::Control { control: Box::new(control) }),
        Op::Operator(OperatorOp::ReplaceFirst { replacement: Box::new(replacement) }),
    ];
    for op in forged {
        assert_eq!(hall.refused(op), Refusal::Operator(OperatorRefusal::NotSigned(first().key())));
    }
}

#[test]
fn a_statement_that_means_more_than_is_known_here_is_refused() {
    let mut hall = Hall::with(&["r1"]);
    let signed = hall.command(1, to("r1")).sign(&first()).unwrap();
    // Field 20.
    let body = [signed.body().as_ref(), &[0xa0, 0x01, 1]].concat();
    let command = Box::new(Signed::sign_body(body.into(), &first()).unwrap());
    let unknown = Refusal::Command(CommandRefusal::Invalid(InvalidCommand::UnknownField { number: 20 }));
    assert_eq!(hall.refused(CommandOp::Send { command }), unknown);
    // Field 40 may be passed over, and stays.
    let body = [signed.body().as_ref(), &[0xc0, 0x02, 1]].concat();
    let command = Box::new(Signed::sign_body(body.clone().into(), &first()).unwrap());
    hall.ok(CommandOp::Send { command });
    let delivery = hall.state.deliveries_after(&agent("r1"), CommandClass::Routine, 0).next().unwrap();
    assert_eq!(delivery.command.body().as_ref(), body);
}

#[test]
fn nodes_are_told_what_was_stated_in_place_of_something_else_and_nothing_twice() {
    let mut hall = Hall::with(&["r1"]);
    let before = hall.state.restated();
    // No node can believe what was stated before it.
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(grant(3, 1), 2));
    assert_eq!(hall.state.authority_news(before, usize::MAX), AuthorityNews { chains: Vec::new(), up_to: before });
    let looked = Some(hall.index);
    hall.ok(state_grant(admin(2, 2, 1), 1));
    hall.ok(state_grant(grant(3, 2), 2));
    assert!(hall.state.authority_changed_after(looked));
    let looked = Some(hall.index);
    let of = |news: &AuthorityNews| -> Vec<_> {
        news.chains.iter().map(|chain| (chain[0].operator, chain.len(), chain[0].revoked)).collect()
    };
    let news = hall.state.authority_news(before, usize::MAX);
    assert_eq!(of(&news), [(secret(2).key(), 1, false), (secret(3).key(), 2, false)]);
    assert_eq!(of(&hall.state.authority_news(news.up_to, usize::MAX)), []);
    assert!(!hall.state.authority_changed_after(looked));
    hall.ok(state_grant(OperatorGrant { revoked: true, ..grant(2, 3) }, 1));
    assert!(hall.state.authority_changed_after(looked));
    assert_eq!(of(&hall.state.authority_news(news.up_to, usize::MAX)), [(secret(2).key(), 1, true)]);
    let copy = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(copy.authority_news(before, usize::MAX), hall.state.authority_news(before, usize::MAX));
    assert!(copy.authority_changed_after(looked));
}

#[test]
fn news_of_many_operators_come_in_parts_and_all_of_them_do() {
    let mut hall = Hall::new();
    let names: Vec<String> = (0..64).map(|n| format!("{n}-{}", "v".repeat(50))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // All in one entry: an answer need not hold the whole entry.
    let granted = |n| state_grant(OperatorGrant { verbs: verbs(&names), ..grant(n, 2) }, 1);
    let requests = (2..40).map(|n| hall.request(granted(n))).collect();
    assert!(hall.apply(EntryBody::Requests(requests)).replies.iter().all(|reply| matches!(reply, Reply::Done(_))));
    for (bytes_max, parts_min) in [(usize::MAX, 2), (16 * 1_024, 5), (0, 38)] {
        let (mut after, mut told, mut parts) = (0, Vec::new(), 0);
        while after < hall.state.restated() {
            let news = hall.state.authority_news(after, bytes_max);
            assert!(news.up_to > after);
            told.extend(news.chains.iter().map(|chain| chain[0].operator));
            (after, parts) = (news.up_to, parts + 1);
        }
        assert_eq!(told, (2..40).map(|n| secret(n).key()).collect::<Vec<_>>());
        assert!(parts >= parts_min, "{parts} of {bytes_max} bytes");
    }
}

#[test]
fn whoever_was_told_of_statements_that_there_are_not_is_told_all_that_there_are() {
    let mut hall = Hall::new();
    hall.ok(state_grant(grant(2, 1), 1));
    hall.ok(state_grant(OperatorGrant { revoked: true, ..grant(2, 2) }, 1));
    hall.ok(state_grant(grant(3, 2), 1));
    let (all, stated) = (hall.state.authority_news(0, usize::MAX), hall.state.restated());
    assert_eq!((all.chains.len(), all.up_to), (2, stated));
    assert_eq!(hall.state.authority_news(stated, usize::MAX), AuthorityNews { chains: Vec::new(), up_to: stated });
    for wild in [stated + 1, u64::MAX] {
        assert_eq!(hall.state.authority_news(wild, usize::MAX), all);
    }
}

#[test]
fn what_was_stated_below_an_operator_is_told_again_once_that_is_an_admin_again() {
    let mut hall = Hall::new();
    hall.ok(state_grant(admin(2, 1, 1), 1));
    hall.ok(state_grant(grant(3, 1), 2));
    hall.ok(state_grant(grant(4, 1), 2));
    hall.ok(state_grant(OperatorGrant { revoked: true, ..grant(3, 2) }, 2));
    let mut told = |grant: OperatorGrant| -> Vec<_> {
        let (before, looked) = (hall.state.restated(), Some(hall.index));
        hall.ok(state_grant(grant, 1));
        assert!(hall.state.authority_changed_after(looked));
        hall.state.authority_news(before, usize::MAX).chains.iter().map(|chain| chain[0].operator).collect()
    };
    let (second, third) = (secret(2).key(), secret(3).key());
    // Nodes that hear both pass over the revocation of the one below: its author may state nothing.
    for (n, none) in [(2, OperatorGrant { revoked: true, ..grant(2, 2) }), (4, admin(2, 4, 0))] {
        assert_eq!(told(none), [second], "{n}");
        assert_eq!(told(admin(2, n + 1, 1)), [second, third], "{n}");
    }
    assert_eq!(told(admin(2, 6, 1)), [second], "it was one");
}
