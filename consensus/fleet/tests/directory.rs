//! The directory of a site: how nodes become members, and how they do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::agent::AgentOp;
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{EntryBody, Op};
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::site::{
    InvitationState, InvitationsEnd, SiteAddresses, SiteAnswer, SiteChange, SiteOp, SiteQuery, SiteReceipt,
    SiteRefusal, SiteStatement,
};
use skep_trust::{
    Certificate, Chain, Invitation, JoinRequest, Role, RootDocument, Scope, Sealed, Serial, SiteId, Validity,
};
use support::directory::*;
use support::{Shard, agent, create, spec};

fn restored(directory: &Directory) -> FleetState {
    FleetState::from_snapshot(&directory.state.to_snapshot().unwrap()).unwrap()
}

#[test]
fn a_node_that_redeems_an_invitation_becomes_the_member_that_it_says() {
    let mut directory = Directory::new();
    let robot = grants("robot-7", &[Role::Robot]);
    let invitation = directory.invitation(1, robot.clone());
    assert_eq!(directory.done(invite(&invitation, OPERATOR)), SiteReceipt::Invited { invitation: code_key(1) });
    assert_eq!(directory.summary().invitations, 1);
    let request = directory.request_of(1, ROBOT);
    let redeemed = SiteReceipt::Redeemed { invitation: code_key(1), node: site_key(ROBOT) };
    assert_eq!(directory.done(redeem(&request, 1, ROBOT)), redeemed);
    assert_eq!((directory.summary().invitations, directory.member(ROBOT)), (0, None));
    let certificate = directory.certificate(1, ROBOT, robot);
    let serial = *certificate.serial.as_bytes();
    let (reply, changes) = directory.told(issue(&certificate, ISSUER));
    assert_eq!(reply, Reply::Done(Receipt::Site(SiteReceipt::Issued { member: site_key(ROBOT), serial })));
    assert!(matches!(changes.as_slice(), [SiteChange::Issued { name, .. }] if name.as_str() == "robot-7"));
    let since = directory.time();
    directory.pass(5_000);
    let member = directory.member(ROBOT).unwrap();
    assert_eq!((member.since_ms, member.until_ms), (since.0, certificate.validity.until.0));
    let chain = Chain::from_bytes(&member.chain.clone().into()).unwrap();
    assert_eq!(chain.verify(&directory.root).unwrap().key, key(ROBOT));
    let SiteAnswer::Join(Some(join)) = directory.answer(&SiteQuery::Join { invitation: code_key(1) }) else { panic!() };
    let InvitationState::Redeemed { member: joined, .. } = &join.state else { panic!("{join:?}") };
    assert_eq!((joined.as_deref(), join.epoch), (Some(&member), EPOCH));
    assert_eq!(restored(&directory).site_view().unwrap().news(), directory.state.site_view().unwrap().news());
}

#[test]
fn an_invitation_is_used_by_one_node_and_by_the_same_node_again() {
    let mut directory = Directory::new();
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let thief = directory.request_of(1, OTHER);
    let used = SiteRefusal::InvitationUsed { node: site_key(ROBOT) };
    assert_eq!(directory.refusal(redeem(&thief, 1, OTHER)), used);
    let invitation = directory.invitation(1, grants("robot-7", &[Role::Robot]));
    let exists = SiteRefusal::InvitationExists { invitation: code_key(1) };
    assert_eq!(
        directory.refusal(invite(&Invitation { until: directory.time().plus_ms(9), ..invitation }, OPERATOR)),
        exists
    );
    directory.pass(2 * OPEN_MS);
    let again = directory.request_of(1, ROBOT);
    let redeemed = SiteReceipt::Redeemed { invitation: code_key(1), node: site_key(ROBOT) };
    assert_eq!(directory.done(redeem(&again, 1, ROBOT)), redeemed, "its reply was lost");
    assert_eq!(directory.refusal(redeem(&thief, 1, OTHER)), used);
}

#[test]
fn an_invitation_that_is_stated_again_is_open_once() {
    let mut directory = Directory::new();
    let invitation = directory.invitation(1, grants("robot-7", &[Role::Robot]));
    directory.done(invite(&invitation, OPERATOR));
    assert!(directory.told(invite(&invitation, OPERATOR)).1.is_empty());
    let request = directory.request_of(1, ROBOT);
    directory.done(redeem(&request, 1, ROBOT));
    let used = SiteRefusal::InvitationUsed { node: site_key(ROBOT) };
    assert_eq!(directory.refusal(invite(&invitation, OPERATOR)), used);
}

#[test]
fn an_invitation_ends_at_its_end_and_with_the_clock() {
    let mut directory = Directory::new();
    for n in [1, 2] {
        let invitation = directory.invitation(n, grants(&format!("robot-{n}"), &[Role::Robot]));
        directory.done(invite(&invitation, OPERATOR));
    }
    let early = directory.request_of(1, ROBOT);
    directory.pass(OPEN_MS);
    directory.done(redeem(&early, 1, ROBOT));
    let before = directory.time();
    directory.shard.apply(EntryBody::ClockLost);
    directory.shard.now = directory.state.clock();
    assert_eq!(directory.time(), before, "a lost clock moves no site time");
    assert_eq!(directory.summary().invitations, 0);
    let late = directory.request_of(2, OTHER);
    assert!(matches!(directory.refusal(redeem(&late, 2, OTHER)), SiteRefusal::InvitationEnded { .. }));
    let SiteAnswer::Join(Some(join)) = directory.answer(&SiteQuery::Join { invitation: code_key(2) }) else { panic!() };
    assert_eq!(join.state, InvitationState::Ended);
    // Nor does it open if it is stated again.
    let same = Invitation { until: before, ..directory.invitation(2, grants("robot-2", &[Role::Robot])) };
    assert!(matches!(directory.refusal(invite(&same, OPERATOR)), SiteRefusal::InvitationEnded { .. }));
    directory.done(redeem(&early, 1, ROBOT));
    let third = directory.invitation(3, grants("robot-3", &[Role::Robot]));
    directory.done(invite(&third, OPERATOR));
    directory.pass(OPEN_MS + 1);
    let late = directory.request_of(3, OTHER);
    assert!(matches!(directory.refusal(redeem(&late, 3, OTHER)), SiteRefusal::InvitationEnded { .. }));
    assert!(matches!(directory.refusal(invite(&third, OPERATOR)), SiteRefusal::InvitationEnded { .. }));
}

#[test]
fn a_lost_clock_is_told_with_how_many_invitations_it_ended() {
    let mut directory = Directory::new();
    let invitation = directory.invitation(1, grants("robot-7", &[Role::Robot]));
    directory.done(invite(&invitation, OPERATOR));
    let applied = directory.shard.apply(EntryBody::ClockLost);
    let ended = SiteChange::InvitationsEnded { count: 1, why: InvitationsEnd::ClockLost };
    assert!(applied.changes.iter().any(|change| change.what == ChangeKind::from(ended.clone())));
}

#[test]
fn a_request_that_is_altered_or_for_something_else_redeems_nothing() {
    let mut directory = Directory::new();
    let only = Invitation { node: Some(key(ROBOT)), ..directory.invitation(1, grants("robot-7", &[Role::Robot])) };
    directory.done(invite(&only, OPERATOR));
    let good = directory.request_of(1, ROBOT);
    let refused = |directory: &mut Directory, request: &JoinRequest| directory.refusal(redeem(request, 1, ROBOT));
    let elsewhere = JoinRequest { site: SiteId::from_bytes([7; 32]), ..good.clone() };
    assert_eq!(refused(&mut directory, &elsewhere), SiteRefusal::OtherSite { what: SiteStatement::JoinRequest });
    let liar = JoinRequest { name: Some("edge-1".parse().unwrap()), ..good.clone() };
    assert!(matches!(refused(&mut directory, &liar), SiteRefusal::OtherName { .. }));
    let other = JoinRequest { node: key(OTHER), ..good.clone() };
    assert!(matches!(refused(&mut directory, &other), SiteRefusal::Malformed { .. }), "not what is said beside it");
    assert_eq!(directory.refusal(redeem(&other, 1, OTHER)), SiteRefusal::OtherNode { node: site_key(ROBOT) });
    // Without the secret, and without the key of the node.
    for by in [[&code(2), &sealer(ROBOT)], [&code(1), &sealer(OTHER)]] {
        let request = Sealed::seal(&good, &by).unwrap().to_bytes();
        let op = SiteOp::Redeem { invitation: code_key(1), node: site_key(ROBOT), request };
        assert_eq!(directory.refusal(op), SiteRefusal::NotSealed { what: SiteStatement::JoinRequest });
    }
    let unknown = directory.request_of(9, ROBOT);
    assert_eq!(
        directory.refusal(redeem(&unknown, 9, ROBOT)),
        SiteRefusal::NoSuchInvitation { invitation: code_key(9) }
    );
    let rubbish = SiteOp::Redeem { invitation: code_key(1), node: site_key(ROBOT), request: vec![7; 40] };
    assert!(matches!(directory.refusal(rubbish), SiteRefusal::Malformed { .. }));
    assert_eq!(directory.summary().invitations, 1, "it is still open");
    directory.done(redeem(&good, 1, ROBOT));
}

#[test]
fn only_operators_invite_and_only_those_of_the_root_document_invite_more_than_robots() {
    let mut directory = Directory::new();
    directory.join(50, "clerk", &[Role::Operator]);
    let robot = directory.invitation(1, grants("robot-7", &[Role::Robot]));
    let by = |n: u8, invitation: &Invitation| Invitation { operator: key(n), ..invitation.clone() };
    assert!(matches!(directory.refusal(invite(&by(STRANGER, &robot), STRANGER)), SiteRefusal::NotOperator { .. }));
    let not_sealed = SiteRefusal::NotSealed { what: SiteStatement::Invitation };
    assert_eq!(directory.refusal(invite(&robot, STRANGER)), not_sealed);
    let elsewhere = Invitation { site: SiteId::from_bytes([7; 32]), ..robot.clone() };
    assert!(matches!(directory.refusal(invite(&elsewhere, OPERATOR)), SiteRefusal::OtherSite { .. }));
    directory.done(invite(&by(50, &robot), 50));
    for role in Role::ALL.into_iter().filter(|role| role.needs_sponsor()) {
        let more = by(50, &directory.invitation(2, grants("edge-1", &[role])));
        assert!(matches!(directory.refusal(invite(&more, 50)), SiteRefusal::NotOperator { .. }), "{role}");
    }
    directory.done(SiteOp::Leave { member: site_key(50) });
    let request = directory.request_of(1, ROBOT);
    assert!(matches!(directory.refusal(redeem(&request, 1, ROBOT)), SiteRefusal::NotOperator { .. }), "it is none now");
}

#[test]
fn an_invitation_is_open_for_a_bounded_time() {
    let mut directory = Directory::within(FleetLimits { invitation_life_ms_max: OPEN_MS, ..FleetLimits::default() });
    let fits = directory.invitation(1, grants("robot-7", &[Role::Robot]));
    let long = Invitation { until: fits.until.plus_ms(1), ..fits.clone() };
    let too_long = SiteRefusal::InvitationTooLong { given_ms: OPEN_MS + 1, max_ms: OPEN_MS };
    assert_eq!(directory.refusal(invite(&long, OPERATOR)), too_long);
    directory.done(invite(&fits, OPERATOR));
}

#[test]
fn a_name_belongs_to_one_member_at_a_time() {
    let mut directory = Directory::new();
    directory.join(ROBOT, "robot-7", &[Role::Robot]);
    let same = directory.invitation(2, grants("robot-7", &[Role::Robot]));
    let taken = SiteRefusal::NameTaken { name: "robot-7".parse().unwrap(), member: site_key(ROBOT) };
    assert_eq!(directory.refusal(invite(&same, OPERATOR)), taken);
    // Two invitations for one name: the first node gets it.
    for n in [3, 4] {
        let twice = directory.invitation(n, grants("robot-8", &[Role::Robot]));
        directory.done(invite(&twice, OPERATOR));
    }
    let (first, second) = (directory.request_of(3, OTHER), directory.request_of(4, VOTER));
    directory.done(redeem(&first, 3, OTHER));
    assert!(matches!(directory.refusal(redeem(&second, 4, VOTER)), SiteRefusal::NameTaken { .. }));
    directory.done(SiteOp::Leave { member: site_key(ROBOT) });
    directory.done(invite(&same, OPERATOR));
    directory.pass(LIFE_MS);
    let same = directory.invitation(5, grants("robot-8", &[Role::Robot]));
    directory.done(invite(&same, OPERATOR));
}

#[test]
fn a_certificate_says_what_its_node_redeemed_and_nothing_else() {
    let mut directory = Directory::new();
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let good = directory.certificate(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let wrong: [Certificate; 5] = [
        Certificate { grants: grants("robot-8", &[Role::Robot]), ..good.clone() },
        Certificate { grants: grants("robot-7", &[Role::Robot, Role::Observer]), ..good.clone() },
        Certificate { invitation: None, ..good.clone() },
        Certificate { invitation: Some(code(2).public()), ..good.clone() },
        Certificate { key: key(OTHER), ..good.clone() },
    ];
    for wrong in wrong {
        let refusal = directory.refusal(issue(&wrong, ISSUER));
        assert!(matches!(refusal, SiteRefusal::NotRedeemed { .. }), "{refusal}");
    }
    let open = directory.invitation(2, grants("robot-9", &[Role::Robot]));
    directory.done(invite(&open, OPERATOR));
    let early = directory.certificate(2, OTHER, grants("robot-9", &[Role::Robot]));
    assert!(matches!(directory.refusal(issue(&early, ISSUER)), SiteRefusal::NotRedeemed { .. }));
    let elsewhere = Certificate { site: SiteId::from_bytes([7; 32]), ..good.clone() };
    assert!(matches!(directory.refusal(issue(&elsewhere, ISSUER)), SiteRefusal::OtherSite { .. }));
    assert!(matches!(directory.refusal(issue(&good, STRANGER)), SiteRefusal::NotSealed { .. }));
    assert_eq!(directory.summary().members, 0);
    directory.done(issue(&good, ISSUER));
    assert!(directory.told(issue(&good, ISSUER)).1.is_empty(), "the same one again");
    directory.redeemed(3, VOTER, grants("edge-1", &[Role::Voter]));
    let other = directory.certificate(3, VOTER, grants("edge-1", &[Role::Voter]));
    let reused = Certificate { serial: good.serial, ..other };
    assert_eq!(directory.refusal(issue(&reused, ISSUER)), SiteRefusal::SerialUsed);
}

#[test]
fn root_keys_make_a_member_without_an_invitation() {
    let mut directory = Directory::new();
    let made = directory.certificate(1, VOTER, grants("edge-1", &[Role::Voter]));
    let made = Certificate { issuer: None, invitation: None, ..made };
    let one = SiteOp::Issue { certificate: sealed(&made, &ROOTS[..1]).to_bytes() };
    assert!(matches!(directory.refusal(one), SiteRefusal::NotSealed { .. }));
    directory.done(SiteOp::Issue { certificate: sealed(&made, &ROOTS[1..]).to_bytes() });
    assert!(directory.member(VOTER).is_some());
}

#[test]
fn an_issuer_issues_within_its_scope() {
    let mut directory = Directory::new();
    let narrow = Scope { name_prefix: Some("robot".parse().unwrap()), ..scope(&[Role::Robot]) };
    let next = directory.next_document();
    directory.follow(&RootDocument { issuers: [(key(ISSUER), narrow)].into(), ..next });
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.redeemed(2, OTHER, grants("amr-7", &[Role::Robot]));
    directory.redeemed(3, VOTER, grants("robot-8", &[Role::Voter]));
    let robot = directory.certificate(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let until = robot.validity.until.plus_ms(1);
    let long = Certificate { validity: Validity { until, ..robot.validity }, ..robot.clone() };
    let named = directory.certificate(2, OTHER, grants("amr-7", &[Role::Robot]));
    let voter = directory.certificate(3, VOTER, grants("robot-8", &[Role::Voter]));
    for beyond in [long, named, voter] {
        let refusal = directory.refusal(issue(&beyond, ISSUER));
        assert!(matches!(refusal, SiteRefusal::OutOfScope { .. }), "{refusal}");
    }
    let unknown = Certificate { issuer: Some(key(STRANGER)), ..robot.clone() };
    assert!(matches!(directory.refusal(issue(&unknown, STRANGER)), SiteRefusal::NotIssuer { .. }));
    let self_made = Certificate { issuer: Some(key(ROBOT)), ..robot.clone() };
    assert!(matches!(directory.refusal(issue(&self_made, ROBOT)), SiteRefusal::NotIssuer { .. }));
    directory.done(issue(&robot, ISSUER));
    // A member that is no issuer.
    let by_robot = directory.certificate(2, OTHER, grants("amr-7", &[Role::Robot]));
    let by_robot = Certificate { issuer: Some(key(ROBOT)), ..by_robot };
    assert!(matches!(directory.refusal(issue(&by_robot, ROBOT)), SiteRefusal::NotIssuer { .. }));
}

#[test]
fn a_member_that_is_an_issuer_issues_what_it_may_and_is_counted_with_its_own_issuer() {
    let mut directory = Directory::new();
    let most = Scope { per_day: Some(3), ..scope(&Role::ALL) };
    let next = directory.next_document();
    directory.follow(&RootDocument { issuers: [(key(ISSUER), most)].into(), ..next });
    let of_issuer = skep_trust::Grants {
        scope: Some(Scope { per_day: Some(3), ..scope(&[Role::Robot]) }),
        ..grants("gate", &[Role::Issuer])
    };
    directory.redeemed(50, 50, of_issuer.clone());
    let certificate = directory.certificate(50, 50, of_issuer);
    directory.done(issue(&certificate, ISSUER));
    for n in [1, 2, 3] {
        directory.redeemed(n, 30 + n, grants(&format!("robot-{n}"), &[Role::Robot]));
    }
    let by_member = |directory: &mut Directory, n: u8| {
        let certificate = directory.certificate(n, 30 + n, grants(&format!("robot-{n}"), &[Role::Robot]));
        issue(&Certificate { issuer: Some(key(50)), ..certificate }, 50)
    };
    let first = by_member(&mut directory, 1);
    directory.done(first);
    let chain = Chain::from_bytes(&directory.member(31).unwrap().chain.into()).unwrap();
    assert_eq!((chain.links().len(), chain.verify(&directory.root).is_ok()), (2, true));
    let second = by_member(&mut directory, 2);
    directory.done(second);
    let third = by_member(&mut directory, 3);
    let SiteRefusal::IssuerDayFull { issuer, per_day: 3, retry_after_ms } = directory.refusal(third) else { panic!() };
    assert_eq!(issuer, site_key(ISSUER), "it counts what its issuers issue");
    directory.pass(retry_after_ms);
    // The certificate of the issuer has ended by then.
    let late = by_member(&mut directory, 3);
    assert!(matches!(directory.refusal(late), SiteRefusal::OutOfTime { .. }));
    let own = directory.certificate(3, 33, grants("robot-3", &[Role::Robot]));
    directory.done(issue(&own, ISSUER));
}

#[test]
fn an_issuer_that_is_over_its_day_issues_again_on_the_next() {
    let mut directory = Directory::new();
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let renewed = |directory: &mut Directory| {
        let next = directory.certificate(1, ROBOT, grants("robot-7", &[Role::Robot]));
        issue(&next, ISSUER)
    };
    for _ in 0..PER_DAY {
        let next = renewed(&mut directory);
        directory.done(next);
    }
    let over = renewed(&mut directory);
    let day_ms = 24 * 60 * 60 * 1_000;
    let retry_after_ms = day_ms - directory.time().0;
    let full = SiteRefusal::IssuerDayFull { issuer: site_key(ISSUER), per_day: PER_DAY, retry_after_ms };
    assert_eq!(directory.refusal(over), full);
    assert_eq!(Refusal::from(full).retry_after_ms(), Some(retry_after_ms));
    directory.shard.state = restored(&directory);
    directory.pass(retry_after_ms - 1);
    let over = renewed(&mut directory);
    assert!(matches!(directory.refusal(over), SiteRefusal::IssuerDayFull { retry_after_ms: 1, .. }));
    directory.pass(1);
    let next = renewed(&mut directory);
    directory.done(next);
}

#[test]
fn a_certificate_that_is_early_or_late_is_not_taken() {
    let mut directory = Directory::new();
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.pass(200_000);
    let good = directory.certificate(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let now = good.validity.from;
    let until = skep_trust::SiteTime(now.0 - 1);
    let over = Certificate { validity: Validity { from: skep_trust::SiteTime(0), until }, ..good.clone() };
    assert!(matches!(directory.refusal(issue(&over, ISSUER)), SiteRefusal::OutOfTime { .. }));
    let lead_ms = FleetLimits::default().clock_lead_ms_max;
    let from = |ms: u64| Validity { from: now.plus_ms(ms), ..good.validity };
    let early = Certificate { validity: from(lead_ms + 1), ..good.clone() };
    assert!(matches!(directory.refusal(issue(&early, ISSUER)), SiteRefusal::OutOfTime { .. }));
    directory.done(issue(&Certificate { validity: from(lead_ms), ..good }, ISSUER));
}

#[test]
fn a_certificate_of_an_epoch_that_is_over_or_far_ahead_is_not_taken() {
    let mut directory = Directory::new();
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let good = directory.certificate(1, ROBOT, grants("robot-7", &[Role::Robot]));
    for (epoch, is_taken) in [(EPOCH - 1, false), (EPOCH + 2, false), (EPOCH + 1, true)] {
        let serial = Serial::from_bytes([epoch as u8; 16]);
        let certificate = Certificate { epoch, serial, ..good.clone() };
        if is_taken {
            directory.done(issue(&certificate, ISSUER));
            continue;
        }
        let what = SiteStatement::Certificate;
        let wrong = SiteRefusal::WrongEpoch { what, given: epoch, min: EPOCH, max: EPOCH + 1 };
        assert_eq!(directory.refusal(issue(&certificate, ISSUER)), wrong);
    }
}

#[test]
fn the_directory_has_no_work_and_other_shards_have_no_members() {
    let mut directory = Directory::new();
    let only = Refusal::Site(SiteRefusal::DirectoryOnly);
    assert_eq!(directory.shard.refused(create(1, spec())), only);
    assert_eq!(directory.shard.refused(Op::Agent(AgentOp::Remove { agent: agent("r1") })), only);
    let leave = SiteOp::Leave { member: site_key(ROBOT) };
    let first = sealed(&document(), &ROOTS).to_bytes();
    let (limits, other) = (FleetLimits::default(), RootDocument { name: "yard".parse().unwrap(), ..document() });
    let not_sealed = sealed(&document(), &ROOTS[..1]).to_bytes();
    for (shard, root) in [
        (ShardId::FIRST, Some(first)),
        (ShardId::DIRECTORY, None),
        (ShardId::DIRECTORY, Some(not_sealed)),
        (ShardId::DIRECTORY, Some(sealed(&other, &ROOTS).to_bytes())),
        (ShardId::DIRECTORY, Some(vec![7; 40])),
    ] {
        let mut of = Shard::new();
        of.apply(founding(shard, root, limits));
        assert_eq!(of.refused(leave.clone()), Refusal::Site(SiteRefusal::NotDirectory));
        assert_eq!(of.state.site_answer(&SiteQuery::Summary, of.now, u64::MAX), SiteAnswer::NoSite);
    }
    let mut work = Shard::new();
    work.apply(founding(ShardId::FIRST, None, limits));
    work.ok(create(1, spec()));
}

#[test]
fn a_member_says_where_it_is_and_leaves_and_needs_another_invitation_to_come_back() {
    let mut directory = Directory::new();
    directory.join(ROBOT, "robot-7", &[Role::Robot]);
    let addresses = SiteAddresses { control: Some("10.0.0.7:7341".parse().unwrap()), mesh: None };
    let located = SiteOp::Locate { member: site_key(ROBOT), addresses };
    assert_eq!(directory.told(located.clone()).1, [SiteChange::Located { member: site_key(ROBOT), addresses }]);
    assert!(directory.told(located).1.is_empty(), "that is known");
    assert_eq!(directory.member(ROBOT).unwrap().addresses, addresses);
    let renewed = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.done(issue(&renewed, ISSUER));
    assert_eq!(directory.member(ROBOT).unwrap().addresses, addresses);
    directory.done(SiteOp::Leave { member: site_key(ROBOT) });
    assert_eq!(directory.member(ROBOT), None);
    let gone = SiteRefusal::NoSuchMember { member: site_key(ROBOT) };
    assert_eq!(directory.refusal(SiteOp::Leave { member: site_key(ROBOT) }), gone);
    let again = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
    assert!(matches!(directory.refusal(issue(&again, ISSUER)), SiteRefusal::Revoked { .. }));
    directory.redeemed(2, ROBOT, grants("robot-7", &[Role::Robot]));
    let back = directory.certificate(2, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.done(issue(&back, ISSUER));
}

#[test]
fn the_directory_says_what_it_is_full_of_and_forgets_what_is_over() {
    let limits =
        FleetLimits { site_members_max: 1, site_invitations_max: 2, site_serials_max: 3, ..FleetLimits::default() };
    let mut directory = Directory::within(limits);
    directory.join(ROBOT, "robot-7", &[Role::Robot]);
    directory.redeemed(2, OTHER, grants("robot-8", &[Role::Robot]));
    let third = directory.invitation(3, grants("robot-9", &[Role::Robot]));
    let full = |what, count| Refusal::Full { what, count };
    assert_eq!(directory.shard.refused(invite(&third, OPERATOR)), full(ShardFullOf::SiteInvitations, 2));
    let other = directory.certificate(2, OTHER, grants("robot-8", &[Role::Robot]));
    assert_eq!(directory.shard.refused(issue(&other, ISSUER)), full(ShardFullOf::SiteMembers, 1));
    for _ in 0..2 {
        let next = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
        directory.done(issue(&next, ISSUER));
    }
    let next = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
    assert_eq!(directory.shard.refused(issue(&next, ISSUER)), full(ShardFullOf::SiteCertificates, 3));
    directory.pass(LIFE_MS + 1);
    let other = directory.certificate(2, OTHER, grants("robot-8", &[Role::Robot]));
    let (_, changes) = directory.told(issue(&other, ISSUER));
    assert!(matches!(changes.as_slice(), [SiteChange::Forgotten { .. }, SiteChange::Issued { .. }]), "{changes:?}");
    let third = directory.invitation(3, grants("robot-9", &[Role::Robot]));
    directory.done(invite(&third, OPERATOR));
}
