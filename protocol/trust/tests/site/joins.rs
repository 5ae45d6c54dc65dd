//! How nodes join, and how they do not.

use skep_protocol::ids::NodeId;
use skep_trust::{
    ChainError, ChainLink, Grants, Invitation, InvitationCode, InvitationSecret, JoinError, JoinRefusal, JoinReply,
    JoinRequest, Joined, Knock, Refusal, Revoked, Role, Sealed, Serial, SiteId, SiteTime, Sponsor, Used, redeem,
};

use crate::hall::*;

const NOW: SiteTime = SiteTime(1_200_000);

fn robot_grants() -> Grants {
    grants("robot-7", &[Role::Robot])
}

fn redeemed(request: &JoinRequest) -> Result<Used, JoinRefusal> {
    let invitation = sealed_invitation(&invitation(ROBOT, robot_grants()));
    redeem(&invitation, &sealed_request(request, ROBOT), None, NOW)
}

/// The issuer's answer to a request.
fn reply(request: &Sealed<JoinRequest>, grants: Grants) -> JoinReply {
    let invitation = invitation(ROBOT, grants);
    let certificate = request.certificate(&invitation, Serial::from_bytes([5; 16]), (EPOCH, LIFE), key(ISSUER));
    let sponsor = Sponsor { invitation: sealed_invitation(&invitation), request: request.clone() };
    let link = ChainLink { sponsor: Some(sponsor), ..link(&certificate, ISSUER) };
    JoinReply {
        request: request.digest(),
        roots: vec![sealed_root(&document(), &ROOTS)],
        chain: chain(&[link]),
        revocations: vec![revoked(Revoked::Key(key(STRANGER)))],
        now: NOW,
        voters: vec![skep_trust::MemberAddress {
            node: key(VOTER),
            control: Some("10.0.0.7:7341".parse().unwrap()),
            mesh: None,
        }],
    }
}

fn accept(reply: &JoinReply, by: u8) -> Result<Joined, JoinError> {
    let sealed = Sealed::seal(reply, &[&secret(by)]).unwrap();
    sealed.accept(&site().half(), &sealed_request(&request(ROBOT), ROBOT))
}

#[test]
fn a_machine_that_has_the_code_becomes_what_the_invitation_says() {
    // The operator has the secret for a moment, the directory has the public half, the machine has the code.
    let code = InvitationCode {
        site: site().half(),
        node: NodeId::from_public_key(*key(ISSUER).as_bytes()),
        addresses: vec!["10.0.0.7:7341".parse().unwrap()],
        secret: InvitationSecret::from_bytes([ROBOT; 16]),
    };
    let code = InvitationCode::from_text(&code.to_text().unwrap()).unwrap();
    let invitation = sealed_invitation(&invitation(ROBOT, robot_grants()));
    assert_eq!(invitation.key, code.key().public());
    let knock = Knock { invitation: code.key().public(), channel: [4; 32] };
    let knock = Sealed::seal(&knock, &[&code.key()]).unwrap();
    assert!(knock.holds(&[4; 32]) && !knock.holds(&[5; 32]), "it is good for one connection");
    let asked = JoinRequest { channel: Some([4; 32]), ..request(ROBOT) };
    let asked = Sealed::seal(&asked, &[&code.key(), &secret(ROBOT)]).unwrap();
    assert_eq!(asked.check_channel(Some(&[4; 32])), Ok(()));
    assert_eq!(asked.check_channel(Some(&[5; 32])), Err(JoinRefusal::OtherChannel));
    assert_eq!(asked.check_channel(None), Err(JoinRefusal::OtherChannel));
    let used = redeem(&invitation, &asked, None, NOW).unwrap();
    assert_eq!(used, Used { node: key(ROBOT), request: asked.digest() });
    let answer = Sealed::seal(&reply(&asked, robot_grants()), &[&secret(ISSUER)]).unwrap();
    let Joined { view, member } = answer.accept(&code.site, &asked).unwrap();
    assert_eq!((view.root().site(), member.key, member.grants), (site(), key(ROBOT), robot_grants()));
    assert_eq!(view.revocations().len(), 1);
}

#[test]
fn an_invitation_is_redeemed_once_and_by_the_same_node_again() {
    let invitation = sealed_invitation(&invitation(ROBOT, robot_grants()));
    let asked = sealed_request(&request(ROBOT), ROBOT);
    let used = redeem(&invitation, &asked, None, NOW).unwrap();
    let late = invitation.until.plus_ms(1);
    assert_eq!(redeem(&invitation, &asked, Some(used), late), Ok(used), "its reply was lost");
    let thief = JoinRequest { node: key(STRANGER), ..request(ROBOT) };
    let thief = Sealed::seal(&thief, &[&code_secret(ROBOT), &secret(STRANGER)]).unwrap();
    assert_eq!(redeem(&invitation, &thief, Some(used), NOW), Err(JoinRefusal::Used { node: key(ROBOT) }));
    assert_eq!(redeem(&invitation, &asked, None, late), Err(JoinRefusal::Late { until: invitation.until }));
    assert!(redeem(&invitation, &asked, None, invitation.until).is_ok());
}

#[test]
fn an_invitation_for_one_node_is_of_no_use_to_another_one_that_has_the_code() {
    let of = |node| sealed_invitation(&Invitation { node: Some(key(node)), ..invitation(ROBOT, robot_grants()) });
    let asked = sealed_request(&request(ROBOT), ROBOT);
    assert!(redeem(&of(ROBOT), &asked, None, NOW).is_ok());
    assert_eq!(redeem(&of(VOTER), &asked, None, NOW), Err(JoinRefusal::OtherNode { node: key(VOTER) }));
}

#[test]
fn a_request_that_is_altered_or_for_something_else_redeems_nothing() {
    assert!(redeemed(&request(ROBOT)).is_ok());
    let named = JoinRequest { name: Some(name("robot-7")), ..request(ROBOT) };
    assert!(redeemed(&named).is_ok());
    let liar = JoinRequest { name: Some(name("edge-1")), ..request(ROBOT) };
    assert!(matches!(redeemed(&liar), Err(JoinRefusal::OtherName { .. })));
    let elsewhere = JoinRequest { site: SiteId::from_bytes([7; 32]), ..request(ROBOT) };
    assert_eq!(redeemed(&elsewhere), Err(JoinRefusal::OtherSite));
    let other = JoinRequest { invitation: code_secret(VOTER).public(), ..request(ROBOT) };
    assert_eq!(redeemed(&other), Err(JoinRefusal::OtherInvitation));
    let someone_else = JoinRequest { node: key(STRANGER), ..request(ROBOT) };
    assert_eq!(redeemed(&someone_else), Err(JoinRefusal::NotSealed { what: "the request" }), "it has not that key");
}

#[test]
fn whoever_has_a_wrong_secret_redeems_nothing() {
    let invitation = sealed_invitation(&invitation(ROBOT, robot_grants()));
    for wrong in 0..=255_u8 {
        let secret_key = InvitationSecret::from_bytes([wrong; 16]).key(&site().half());
        let asked = Sealed::seal(&request(ROBOT), &[&secret_key, &secret(ROBOT)]).unwrap();
        assert_eq!(redeem(&invitation, &asked, None, NOW).is_ok(), wrong == ROBOT, "{wrong}");
    }
    // The same secret in a code of another site.
    let elsewhere = InvitationSecret::from_bytes([ROBOT; 16]).key(&[7; 16]);
    let asked = Sealed::seal(&request(ROBOT), &[&elsewhere, &secret(ROBOT)]).unwrap();
    assert_eq!(redeem(&invitation, &asked, None, NOW), Err(JoinRefusal::NotSealed { what: "the request" }));
    let forged = Sealed::seal(invitation.statement(), &[&secret(STRANGER)]).unwrap();
    let asked = sealed_request(&request(ROBOT), ROBOT);
    assert_eq!(redeem(&forged, &asked, None, NOW), Err(JoinRefusal::NotSealed { what: "the invitation" }));
}

#[test]
fn a_reply_is_believed_if_all_of_it_is_of_the_site_and_for_this_request() {
    let asked = sealed_request(&request(ROBOT), ROBOT);
    let good = || reply(&asked, robot_grants());
    assert!(accept(&good(), ISSUER).is_ok());
    let error = |reply: JoinReply| accept(&reply, ISSUER).unwrap_err();
    assert_eq!(accept(&good(), STRANGER).unwrap_err(), JoinError::NotSealed);
    assert_eq!(error(JoinReply { request: [1; 32], ..good() }), JoinError::OtherRequest);
    let twin = skep_trust::RootDocument { nonce: [1; 16], ..document() };
    assert_eq!(error(JoinReply { roots: vec![sealed_root(&twin, &ROOTS)], ..good() }), JoinError::OtherSite);
    assert!(matches!(error(JoinReply { roots: vec![], ..good() }), JoinError::Root(_)));
    let self_made = chain(&[link(&skep_trust::Certificate { issuer: Some(key(ROBOT)), ..robot() }, ROBOT)]);
    assert_eq!(error(JoinReply { chain: self_made, ..good() }), JoinError::Chain(ChainError::SelfMade));
    let of_other = chain_of(&certificate(VOTER, robot_grants()));
    assert_eq!(error(JoinReply { chain: of_other, ..good() }), JoinError::OtherKey);
    let late = LIFE.until.plus_ms(1);
    let expired = JoinError::Refused(Refusal::Expired { until: LIFE.until });
    assert_eq!(error(JoinReply { now: late, ..good() }), expired);
    let revoked_itself = vec![revoked(Revoked::Key(key(ROBOT)))];
    assert!(matches!(error(JoinReply { revocations: revoked_itself, ..good() }), JoinError::Refused(_)));
    let forged = vec![signed(&revocation(Revoked::Key(key(VOTER))), STRANGER)];
    assert!(matches!(error(JoinReply { revocations: forged, ..good() }), JoinError::Revocation(_)));
}

#[test]
fn a_node_that_asked_for_a_name_takes_no_other() {
    let asked = JoinRequest { name: Some(name("robot-8")), ..request(ROBOT) };
    let asked = sealed_request(&asked, ROBOT);
    let answer = Sealed::seal(&reply(&asked, robot_grants()), &[&secret(ISSUER)]).unwrap();
    let error = answer.accept(&site().half(), &asked).unwrap_err();
    assert_eq!(error, JoinError::OtherName(name("robot-7")));
}

#[test]
fn a_voter_that_joined_is_let_in_by_everybody() {
    let asked = sealed_request(&request(ROBOT), ROBOT);
    let answer = reply(&asked, grants("edge-1", &[Role::Voter]));
    let Joined { view, member } = accept(&answer, ISSUER).unwrap();
    assert!(member.is(Role::Voter));
    assert_eq!(answer.chain.verify(view.root()).map(|member| member.key), Ok(key(ROBOT)));
}
