//! The directory of a site: how members get out, what root documents change, and what is audited.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState, OrchestratorEvent};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{Decision, EntryBody};
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::site::{
    InvitationsEnd, SiteAnswer, SiteChange, SiteKey, SiteOp, SiteQuery, SiteReceipt, SiteRefusal, SiteStatement,
};
use skep_trust::{Certificate, Revocation, Revoked, Role, RootDocument, SignedRevocation, SiteId};
use support::directory::*;
use support::{Lead, proposals};

fn with_robots() -> Directory {
    let mut directory = Directory::new();
    directory.join(ROBOT, "robot-7", &[Role::Robot]);
    directory.join(OTHER, "robot-8", &[Role::Robot]);
    directory
}

fn out(directory: &mut Directory, what: Revoked) -> SiteReceipt {
    let revocation = directory.revocation(what);
    directory.done(revoke(&revocation, OPERATOR))
}

fn changes(applied: &skep_fleet::Applied) -> Vec<&SiteChange> {
    let of_site = applied.changes.iter().map(|change| match &change.what {
        ChangeKind::Site(change) => change,
        other => panic!("{other:?}"),
    });
    of_site.collect()
}

#[test]
fn a_revoked_key_is_out_and_is_never_a_member_again_in_the_same_epoch() {
    let mut directory = with_robots();
    assert_eq!(out(&mut directory, Revoked::Key(key(ROBOT))), SiteReceipt::Revoked { members: 1, waits_for: 0 });
    assert!(directory.member(ROBOT).is_none() && directory.member(OTHER).is_some());
    assert_eq!(
        out(&mut directory, Revoked::Key(key(ROBOT))),
        SiteReceipt::Revoked { members: 0, waits_for: 0 },
        "again"
    );
    directory.shard.state = FleetState::from_snapshot(&directory.state.to_snapshot().unwrap()).unwrap();
    let is_out = |refusal: SiteRefusal| matches!(refusal, SiteRefusal::Revoked { key, .. } if key == site_key(ROBOT));
    let renewed = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
    assert!(is_out(directory.refusal(issue(&renewed, ISSUER))));
    let request = directory.request_of(ROBOT, ROBOT);
    assert!(is_out(directory.refusal(redeem(&request, ROBOT, ROBOT))), "its old invitation is void");
    // Another invitation lets another key in, and this one in a later epoch only.
    let invitation = directory.invitation(2, grants("robot-7", &[Role::Robot]));
    directory.done(invite(&invitation, OPERATOR));
    let request = directory.request_of(2, ROBOT);
    directory.done(redeem(&request, 2, ROBOT));
    let same = directory.certificate(2, ROBOT, grants("robot-7", &[Role::Robot]));
    assert!(is_out(directory.refusal(issue(&same, ISSUER))));
    directory.done(issue(&Certificate { epoch: EPOCH + 1, ..same }, ISSUER));
}

#[test]
fn a_certificate_alone_and_all_that_an_issuer_issued_since_are_out_as_well() {
    let mut directory = with_robots();
    directory.pass(10_000);
    let third = directory.join(50, "robot-9", &[Role::Robot]);
    let since = third.validity.from;
    assert_eq!(
        out(&mut directory, Revoked::Issued { issuer: key(ISSUER), since }),
        SiteReceipt::Revoked { members: 1, waits_for: 0 }
    );
    assert!(directory.member(50).is_none() && directory.member(ROBOT).is_some());
    let anew = directory.certificate(50, 50, grants("robot-9", &[Role::Robot]));
    assert!(matches!(directory.refusal(issue(&anew, ISSUER)), SiteRefusal::Revoked { .. }), "of the same issuer");
    let next = directory.next_document();
    let issuers = [(key(11), scope(&Role::ALL))].into();
    directory.follow(&RootDocument { issuers, ..next });
    directory.done(issue(&Certificate { issuer: Some(key(11)), ..anew }, 11));
    let renewed = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.done(issue(&Certificate { issuer: Some(key(11)), ..renewed.clone() }, 11));
    out(&mut directory, Revoked::Serial(renewed.serial));
    assert!(directory.member(ROBOT).is_none());
}

#[test]
fn what_a_revoked_issuer_issues_is_refused() {
    let mut directory = with_robots();
    directory.redeemed(1, 50, grants("robot-9", &[Role::Robot]));
    assert_eq!(out(&mut directory, Revoked::Key(key(ISSUER))), SiteReceipt::Revoked { members: 2, waits_for: 0 });
    let by_it = directory.certificate(1, 50, grants("robot-9", &[Role::Robot]));
    assert!(matches!(directory.refusal(issue(&by_it, ISSUER)), SiteRefusal::Revoked { .. }));
}

#[test]
fn a_revoked_operator_invites_no_more_and_what_it_invited_is_over() {
    let mut directory = Directory::new();
    directory.join(50, "clerk", &[Role::Operator]);
    let by_clerk =
        skep_trust::Invitation { operator: key(50), ..directory.invitation(1, grants("r-1", &[Role::Robot])) };
    directory.done(invite(&by_clerk, 50));
    let other = directory.invitation(2, grants("r-2", &[Role::Robot]));
    directory.done(invite(&other, OPERATOR));
    let revocation = directory.revocation(Revoked::Key(key(50)));
    let (_, told) = directory.told(revoke(&revocation, OPERATOR));
    assert!(told.contains(&SiteChange::InvitationsEnded { count: 1, why: InvitationsEnd::Revoked }), "{told:?}");
    assert_eq!(directory.summary().invitations, 1);
    let request = directory.request_of(1, ROBOT);
    assert!(matches!(directory.refusal(redeem(&request, 1, ROBOT)), SiteRefusal::InvitationEnded { .. }));
    // An invitation alone is revoked by its key.
    out(&mut directory, Revoked::Key(code(2).public()));
    assert_eq!(directory.summary().invitations, 0);
    out(&mut directory, Revoked::Key(key(OPERATOR)));
    let later = directory.invitation(3, grants("r-3", &[Role::Robot]));
    assert!(matches!(directory.refusal(invite(&later, OPERATOR)), SiteRefusal::NotOperator { .. }));
}

#[test]
fn a_voter_leaves_its_office_before_it_is_out() {
    let mut directory = with_robots();
    directory.join(VOTER, "edge-1", &[Role::Voter]);
    let stolen = Revoked::Key(key(VOTER));
    assert_eq!(out(&mut directory, stolen), SiteReceipt::Revoked { members: 0, waits_for: 1 });
    assert_eq!(out(&mut directory, stolen), SiteReceipt::Revoked { members: 0, waits_for: 1 }, "it says so again");
    assert!(directory.member(VOTER).is_some() && directory.state.site_view().unwrap().revocations().is_empty());
    assert_eq!(directory.state.to_leave_office().collect::<Vec<SiteKey>>(), [site_key(VOTER)]);
    assert_eq!(directory.summary().pending[0].voters, [site_key(VOTER)]);
    let renewed = directory.certificate(VOTER, VOTER, grants("edge-1", &[Role::Voter]));
    assert!(matches!(directory.refusal(issue(&renewed, ISSUER)), SiteRefusal::Revoked { .. }), "it gets nothing new");
    directory.shard.state = FleetState::from_snapshot(&directory.state.to_snapshot().unwrap()).unwrap();
    assert!(directory.left_office(ROBOT).changes.is_empty(), "another node");
    let applied = directory.left_office(VOTER);
    let told = changes(&applied);
    assert!(matches!(told.as_slice(), [SiteChange::Revoked { members: 1, .. }, SiteChange::Out { .. }]), "{told:?}");
    assert!(directory.member(VOTER).is_none() && directory.summary().pending.is_empty());
    assert!(directory.left_office(VOTER).changes.is_empty());
}

#[test]
fn the_orchestrator_says_so_once_a_voter_that_is_waited_for_votes_nowhere() {
    let mut directory = with_robots();
    directory.join(VOTER, "edge-1", &[Role::Voter]);
    let mut lead = Lead::new(&directory.shard);
    out(&mut directory, Revoked::Key(key(VOTER)));
    assert!(lead.applied(&mut directory.shard).is_empty());
    assert!(directory.member(VOTER).is_some(), "who votes is not known");
    let in_office = |voters: &[u8]| {
        let voters = voters.iter().map(|n| key(*n).node()).collect();
        OrchestratorEvent::InOffice { voters }
    };
    assert!(lead.tell(&directory.shard, in_office(&[VOTER, 41])).is_empty(), "it votes");
    let said = vec![Decision::LeftOffice { voter: site_key(VOTER) }];
    assert_eq!(proposals(lead.tell(&directory.shard, in_office(&[41, 42, 43]))), said);
    // The proposal was lost: the orchestrator makes it again after a while.
    let ended = OrchestratorEvent::ProposalEnded { applied: false };
    assert!(proposals(lead.tell(&directory.shard, ended)).is_empty());
    let again = lead.orchestrator.poll_timeout(&directory.state, directory.now).unwrap();
    directory.shard.now = again;
    lead.settle(&mut directory.shard);
    assert!(directory.member(VOTER).is_none());
    assert_eq!(lead.orchestrator.poll_timeout(&directory.state, directory.now), None);
}

#[test]
fn a_revocation_waits_for_all_voters_that_it_has_out() {
    let mut directory = with_robots();
    for (n, name) in [(VOTER, "edge-1"), (41, "edge-2")] {
        directory.join(n, name, &[Role::Voter]);
    }
    let all = directory.revocation(Revoked::BelowEpoch(EPOCH + 1));
    assert_eq!(directory.done(revoke(&all, OPERATOR)), SiteReceipt::Revoked { members: 0, waits_for: 2 });
    // One of them renews in time, and the other one leaves: then the robots are out as well.
    let renewed = directory.certificate(41, 41, grants("edge-2", &[Role::Voter]));
    assert!(matches!(directory.refusal(issue(&renewed, ISSUER)), SiteRefusal::Revoked { .. }), "it was asked to leave");
    directory.left_office(VOTER);
    assert_eq!(directory.state.to_leave_office().collect::<Vec<SiteKey>>(), [site_key(41)]);
    assert_eq!(directory.summary().epoch_min, EPOCH);
    directory.left_office(41);
    assert_eq!((directory.summary().epoch_min, directory.summary().members), (EPOCH + 1, 0));
}

#[test]
fn an_issuer_that_is_to_be_out_issues_nothing_while_voters_are_waited_for() {
    let mut directory = with_robots();
    directory.join(VOTER, "edge-1", &[Role::Voter]);
    directory.redeemed(1, 50, grants("robot-9", &[Role::Robot]));
    let since = directory.time();
    assert_eq!(
        out(&mut directory, Revoked::Issued { issuer: key(ISSUER), since }),
        SiteReceipt::Revoked { members: 0, waits_for: 1 }
    );
    let by_it = directory.certificate(1, 50, grants("robot-9", &[Role::Robot]));
    assert!(matches!(directory.refusal(issue(&by_it, ISSUER)), SiteRefusal::Revoked { .. }));
    directory.left_office(VOTER);
    assert_eq!(directory.summary().members, 0, "all of it was issued at this instant");
}

#[test]
fn so_many_revocations_wait_for_voters_and_no_more() {
    let mut directory = Directory::within(FleetLimits { pending_revocations_max: 1, ..FleetLimits::default() });
    for (n, name) in [(VOTER, "edge-1"), (41, "edge-2")] {
        directory.join(n, name, &[Role::Voter]);
    }
    out(&mut directory, Revoked::Key(key(VOTER)));
    let second = directory.revocation(Revoked::Key(key(41)));
    let full = Refusal::Full { what: ShardFullOf::PendingRevocations, count: 1 };
    assert_eq!(directory.shard.refused(revoke(&second, OPERATOR)), full);
}

#[test]
fn a_revocation_of_an_operator_that_is_none_any_more_is_dropped() {
    let mut directory = with_robots();
    directory.join(VOTER, "edge-1", &[Role::Voter]);
    out(&mut directory, Revoked::Key(key(VOTER)));
    let next = directory.next_document();
    let operators = [(key(21), "second".parse().unwrap())].into();
    directory.follow(&RootDocument { operators, ..next });
    let applied = directory.left_office(VOTER);
    assert!(matches!(changes(&applied).as_slice(), [SiteChange::RevocationDropped { .. }]));
    assert!(directory.member(VOTER).is_some() && directory.summary().pending.is_empty());
}

#[test]
fn only_operators_revoke_and_only_those_of_the_root_document_end_an_epoch() {
    let mut directory = with_robots();
    let clerk = directory.join(50, "clerk", &[Role::Operator]);
    let robot = directory.revocation(Revoked::Key(key(ROBOT)));
    let by = |n: u8, revocation: &Revocation| Revocation { operator: key(n), ..revocation.clone() };
    assert!(matches!(directory.refusal(revoke(&by(STRANGER, &robot), STRANGER)), SiteRefusal::NotOperator { .. }));
    let not_sealed = SiteRefusal::NotSealed { what: SiteStatement::Revocation };
    assert_eq!(directory.refusal(revoke(&robot, STRANGER)), not_sealed);
    let elsewhere = Revocation { site: SiteId::from_bytes([7; 32]), ..robot.clone() };
    assert_eq!(
        directory.refusal(revoke(&elsewhere, OPERATOR)),
        SiteRefusal::OtherSite { what: SiteStatement::Revocation }
    );
    let ahead = Revocation { epoch: EPOCH + 5_000, ..robot.clone() };
    assert!(matches!(directory.refusal(revoke(&ahead, OPERATOR)), SiteRefusal::WrongEpoch { .. }));
    let behind = Revocation { epoch: EPOCH - 1, ..robot.clone() };
    let what = SiteStatement::Revocation;
    let needless = SiteRefusal::WrongEpoch { what, given: EPOCH - 1, min: EPOCH, max: EPOCH + 1 };
    assert_eq!(directory.refusal(revoke(&behind, OPERATOR)), needless);
    assert!(matches!(directory.refusal(SiteOp::Revoke { revocation: vec![7; 40] }), SiteRefusal::Malformed { .. }));
    assert_eq!(directory.summary().revocations, 0);
    let chain = skep_trust::Chain::from_bytes(&directory.member(50).unwrap().chain.into()).unwrap();
    assert_eq!(chain.certificate().unwrap().serial, clerk.serial);
    let of_clerk = |revocation: &Revocation| SiteOp::Revoke {
        revocation: SignedRevocation { revocation: sealed(revocation, &[50]), chain: Some(chain.clone()) }.to_bytes(),
    };
    let epoch = by(50, &directory.revocation(Revoked::BelowEpoch(EPOCH + 1)));
    assert!(matches!(directory.refusal(of_clerk(&epoch)), SiteRefusal::NotOperator { .. }));
    assert_eq!(directory.done(of_clerk(&by(50, &robot))), SiteReceipt::Revoked { members: 1, waits_for: 0 });
}

#[test]
fn an_operator_is_told_if_the_certificate_is_of_a_later_epoch_than_the_revocation() {
    let mut directory = Directory::new();
    directory.redeemed(1, ROBOT, grants("robot-7", &[Role::Robot]));
    let ahead = directory.certificate(1, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.done(issue(&Certificate { epoch: EPOCH + 1, ..ahead.clone() }, ISSUER));
    for what in [Revoked::Key(key(ROBOT)), Revoked::Serial(ahead.serial)] {
        let short = directory.revocation(what);
        let wrong =
            SiteRefusal::WrongEpoch { what: SiteStatement::Revocation, given: EPOCH, min: EPOCH + 1, max: EPOCH + 1 };
        assert_eq!(directory.refusal(revoke(&short, OPERATOR)), wrong);
    }
    let whole = Revocation { epoch: EPOCH + 1, ..directory.revocation(Revoked::Key(key(ROBOT))) };
    directory.done(revoke(&whole, OPERATOR));
    assert!(directory.member(ROBOT).is_none());
}

#[test]
fn members_renew_for_the_next_epoch_before_it_begins() {
    let mut directory = with_robots();
    let renewed = directory.certificate(ROBOT, ROBOT, grants("robot-7", &[Role::Robot]));
    directory.done(issue(&Certificate { epoch: EPOCH + 1, ..renewed }, ISSUER));
    let end = directory.revocation(Revoked::BelowEpoch(EPOCH + 1));
    assert_eq!(directory.done(revoke(&end, OPERATOR)), SiteReceipt::Revoked { members: 1, waits_for: 0 });
    assert!(directory.member(ROBOT).is_some() && directory.member(OTHER).is_none());
    assert_eq!(directory.summary().epoch_min, EPOCH + 1);
    let old = directory.certificate(OTHER, OTHER, grants("robot-8", &[Role::Robot]));
    assert!(matches!(directory.refusal(issue(&old, ISSUER)), SiteRefusal::WrongEpoch { .. }));
}

#[test]
fn a_root_document_follows_the_one_that_holds_and_waits_for_nobody() {
    let mut directory = with_robots();
    directory.join(VOTER, "edge-1", &[Role::Voter]);
    let next = directory.next_document();
    let refused = |directory: &mut Directory, document: &RootDocument, by: &[u8]| directory.refusal(root(document, by));
    assert!(matches!(refused(&mut directory, &next, &ROOTS[..1]), SiteRefusal::NotSealed { .. }));
    let skipped = RootDocument { version: 3, ..next.clone() };
    assert!(matches!(refused(&mut directory, &skipped, &ROOTS), SiteRefusal::RootNotNext { .. }));
    let renamed = RootDocument { name: "yard".parse().unwrap(), ..next.clone() };
    assert!(matches!(refused(&mut directory, &renamed, &ROOTS), SiteRefusal::RootNotNext { .. }));
    let (_, digest) = next.after.unwrap();
    let elsewhere = RootDocument { after: Some((SiteId::from_bytes([7; 32]), digest)), ..next.clone() };
    assert!(matches!(refused(&mut directory, &elsewhere, &ROOTS), SiteRefusal::OtherSite { .. }));
    let raised = RootDocument { epoch: EPOCH + 1, ..next };
    let (_, told) = directory.told(root(&raised, &ROOTS));
    let outs = told.iter().filter(|change| matches!(change, SiteChange::Out { .. })).count();
    assert!(matches!(told.first(), Some(SiteChange::Rooted { version: 2, .. })));
    assert_eq!((outs, directory.summary().members, directory.summary().epoch_min), (3, 0, EPOCH + 1));
    assert!(directory.told(root(&raised, &ROOTS)).1.is_empty(), "the same one again");
    let SiteAnswer::Roots { documents, next: None } = directory.answer(&SiteQuery::Roots { after: 1 }) else {
        panic!()
    };
    assert_eq!(documents, [sealed(&raised, &ROOTS).to_bytes()]);
}

#[test]
fn members_and_revocations_are_told_in_pages() {
    let mut directory = Directory::new();
    for n in 100..105 {
        directory.join(n, &format!("robot-{n}"), &[Role::Robot]);
        out(&mut directory, Revoked::Key(key(n + 50)));
    }
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let SiteAnswer::Members { members, next } = directory.answer(&SiteQuery::Members { after, limit: 2 }) else {
            panic!()
        };
        keys.extend(members.iter().map(|member| member.key));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(keys.len(), 5);
    assert!(keys.is_sorted());
    let revocations = |after| match directory.answer(&SiteQuery::Revocations { after, limit: 3 }) {
        SiteAnswer::Revocations { revocations, next } => (revocations, next),
        other => panic!("{other:?}"),
    };
    let numbers = |page: &[(u64, Vec<u8>)]| page.iter().map(|(number, _)| *number).collect::<Vec<u64>>();
    let (first, next) = revocations(0);
    assert_eq!((numbers(&first), next), (vec![1, 2, 3], Some(3)));
    let (second, next) = revocations(3);
    assert_eq!((numbers(&second), next), (vec![4, 5], None));
    let signed = SignedRevocation::from_bytes(&second[1].1.clone().into()).unwrap();
    assert_eq!(signed.revocation.what, Revoked::Key(key(154)));
    // A page of few bytes holds one.
    let few = directory.state.site_answer(&SiteQuery::Members { after: None, limit: 5 }, directory.now, 1);
    assert!(matches!(few, SiteAnswer::Members { members, next: Some(_) } if members.len() == 1));
}

#[test]
fn what_is_refused_is_told_once_for_each_kind_and_peer_in_a_minute() {
    let mut directory = Directory::within(FleetLimits { site_refusals_kept: 2, ..FleetLimits::default() });
    let knock = |node: u8| SiteOp::Redeem { invitation: code_key(9), node: site_key(node), request: Vec::new() };
    let told = |directory: &mut Directory, node: u8| {
        let peers = directory.told(knock(node)).1.into_iter().map(|change| match change {
            SiteChange::Refused { peer, why } => {
                assert_eq!(*why, Refusal::from(SiteRefusal::NoSuchInvitation { invitation: code_key(9) }));
                peer
            }
            other => panic!("{other:?}"),
        });
        peers.collect::<Vec<Option<SiteKey>>>()
    };
    let peer = |node| vec![Some(site_key(node))];
    assert_eq!(told(&mut directory, ROBOT), peer(ROBOT));
    assert!(told(&mut directory, ROBOT).is_empty());
    assert_eq!(told(&mut directory, OTHER), peer(OTHER));
    // More peers than there is room for: the audit tells of them as of one.
    assert_eq!(told(&mut directory, VOTER), vec![None::<SiteKey>]);
    assert!(told(&mut directory, STRANGER).is_empty());
    directory.shard.state = FleetState::from_snapshot(&directory.state.to_snapshot().unwrap()).unwrap();
    directory.pass(59_999);
    assert!(told(&mut directory, ROBOT).is_empty());
    directory.pass(1);
    assert_eq!(told(&mut directory, ROBOT), peer(ROBOT));
    directory.shard.apply(EntryBody::ClockLost);
    directory.shard.now = directory.state.clock();
    assert_eq!(told(&mut directory, ROBOT), peer(ROBOT), "how long ago that was is not known");
}
