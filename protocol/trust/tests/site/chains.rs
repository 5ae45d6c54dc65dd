//! Which chains of certificates hold.

use bytes::Bytes;
use skep_protocol::text::AgentId;
use skep_trust::{
    Certificate, Chain, ChainError, ChainLink, Grants, Invitation, JoinRequest, Role, Scope, Sealed, SecretKey, SiteId,
    SiteRoot, SiteTime, Sponsor, Validity,
};

use crate::hall::*;

fn why(links: &[ChainLink]) -> ChainError {
    chain(links).verify(&root()).unwrap_err()
}

/// A certificate of an issuer that the root document does not name.
fn deputy() -> Certificate {
    certificate(11, grants("deputy", &[Role::Issuer]))
}

fn of_deputy() -> Certificate {
    Certificate { issuer: Some(key(11)), ..robot() }
}

#[test]
fn a_member_is_who_an_issuer_of_the_site_says() {
    let member = chain_of(&robot()).verify(&root()).unwrap();
    assert_eq!((member.key, member.epoch, member.validity), (key(ROBOT), EPOCH, LIFE));
    assert!(member.is(Role::Robot) && !member.is(Role::Voter));
    let serves = |agent: &str| member.serves(&AgentId::new(agent).unwrap());
    assert!(serves("robot-7") && serves("robot-7/arm") && !serves("robot-8"));
    let host = Grants { agents: ["amr-*".parse().unwrap()].into(), ..grants("host-1", &[Role::Agent]) };
    let host = chain_of(&certificate(31, host)).verify(&root()).unwrap();
    assert!(host.serves(&AgentId::new("amr-9").unwrap()) && !host.serves(&AgentId::new("host-1").unwrap()));
}

#[test]
fn root_keys_issue_in_place_of_an_issuer_as_many_as_must() {
    let voter = Certificate { issuer: None, ..certificate(VOTER, grants("edge-1", &[Role::Voter])) };
    let by = |keys: &[u8]| {
        let secrets: Vec<SecretKey> = keys.iter().copied().map(secret).collect();
        let certificate = Sealed::seal(&voter, &secrets.iter().collect::<Vec<_>>()).unwrap();
        chain(&[ChainLink { certificate, sponsor: None }]).verify(&root()).map(|member| member.key)
    };
    assert_eq!(by(&[1, 3]), Ok(key(VOTER)));
    assert_eq!(by(&[1, 2, 3]), Ok(key(VOTER)));
    for few in [&[][..], &[1], &[1, STRANGER], &[ISSUER]] {
        assert_eq!(by(few), Err(ChainError::NotSealed), "{few:?}");
    }
}

#[test]
fn an_issuer_may_have_its_place_from_another_one_and_no_further() {
    let issuer = sponsored(11, grants("deputy", &[Role::Issuer]));
    let member = chain(&[link(&of_deputy(), 11), issuer.clone()]).verify(&root()).unwrap();
    assert_eq!(member.key, key(ROBOT));
    // Ten deep: the node looks at none of them.
    let ten = vec![link(&robot(), ISSUER); 10];
    assert_eq!(Chain::new(ten), Err(ChainError::TooDeep { certificates: 10, max: 2 }));
    let three = [chain(&[link(&of_deputy(), 11), issuer.clone()]), chain(&[issuer])].map(|chain| chain.to_bytes());
    assert_eq!(
        Chain::from_bytes(&Bytes::from(three.concat())),
        Err(ChainError::TooDeep { certificates: 3, max: 2 }),
        "messages one after the other are one message"
    );
    assert_eq!(Chain::new(vec![]), Err(ChainError::Empty));
    assert_eq!(Chain::from_bytes(&Bytes::new()), Err(ChainError::Empty));
}

#[test]
fn the_chain_holds_only_while_all_of_it_does() {
    let earlier = Validity { from: SiteTime(900_000), until: SiteTime(1_100_000) };
    let grants = grants("deputy", &[Role::Issuer]);
    let ChainLink { certificate, sponsor } = sponsored(11, grants);
    let short = Certificate { validity: earlier, epoch: EPOCH - 1, ..certificate.statement().clone() };
    let issuer = ChainLink { sponsor, ..link(&short, ISSUER) };
    let member = chain(&[link(&of_deputy(), 11), issuer]).verify(&root()).unwrap();
    assert_eq!(member.validity, Validity { from: LIFE.from, until: earlier.until });
    assert_eq!(member.epoch, EPOCH - 1);
}

#[test]
fn what_nobody_of_the_site_issued_is_refused_with_its_reason() {
    let stranger = key(STRANGER);
    let self_made = Certificate { key: stranger, issuer: Some(stranger), ..robot() };
    assert_eq!(why(&[link(&self_made, STRANGER)]), ChainError::SelfMade);
    let foreign = Certificate { issuer: Some(stranger), ..robot() };
    assert_eq!(why(&[link(&foreign, STRANGER)]), ChainError::UnknownIssuer { issuer: stranger });
    // In the issuer's name, sealed by another key or by none.
    assert_eq!(why(&[link(&robot(), STRANGER)]), ChainError::NotSealed);
    let unsealed = ChainLink { certificate: Sealed::seal(&robot(), &[]).unwrap(), sponsor: None };
    assert_eq!(why(&[unsealed]), ChainError::NotSealed);
    // Changed after it was issued: the seal is of other bytes.
    let issued = link(&robot(), ISSUER).certificate;
    let voter = Certificate { grants: grants("robot-7", &[Role::Voter]), ..robot() };
    let body = Sealed::seal(&voter, &[]).unwrap().body().clone();
    let changed = Sealed::from_parts(body, issued.seals().to_vec()).unwrap();
    assert_eq!(why(&[ChainLink { certificate: changed, sponsor: None }]), ChainError::NotSealed);
    let elsewhere = Certificate { site: SiteId::from_bytes([7; 32]), ..robot() };
    assert_eq!(why(&[link(&elsewhere, ISSUER)]), ChainError::OtherSite);
}

#[test]
fn a_member_issues_nothing() {
    let member = certificate(11, grants("robot-8", &[Role::Robot]));
    assert_eq!(why(&[link(&of_deputy(), 11), link(&member, ISSUER)]), ChainError::NotAnIssuer { issuer: key(11) });
    // An issuer's certificate helps no member for whom it did not issue.
    assert_eq!(
        why(&[link(&robot(), ISSUER), sponsored(11, grants("deputy", &[Role::Issuer]))]),
        ChainError::NotBy { issuer: key(11) }
    );
}

#[test]
fn an_issuer_stays_within_its_scope_and_within_the_scope_of_the_one_above_it() {
    let within = |scope: Scope, certificate: &Certificate| {
        let document = skep_trust::RootDocument { issuers: [(key(ISSUER), scope)].into(), ..document() };
        let root = SiteRoot::first(sealed_root(&document, &ROOTS)).unwrap();
        let certificate = Certificate { site: root.site(), ..certificate.clone() };
        chain(&[link(&certificate, ISSUER)]).verify(&root).map(|member| member.key)
    };
    let robots = scope(&[Role::Robot]);
    assert_eq!(within(robots.clone(), &robot()), Ok(key(ROBOT)));
    let of_agents = scope(&[Role::Agent]);
    let named = Scope { name_prefix: Some(name("hall-2/")), ..robots.clone() };
    let short = Scope { life_ms_max: LIFE.life_ms() - 1, ..robots };
    for narrow in [of_agents, named, short] {
        assert!(matches!(within(narrow.clone(), &robot()), Err(ChainError::OutOfScope(_))), "{narrow:?}");
    }
    // The deputy may issue for robots only.
    let observer = Certificate { grants: grants("eye-1", &[Role::Observer]), ..of_deputy() };
    let links = [link(&observer, 11), sponsored(11, grants("deputy", &[Role::Issuer]))];
    assert!(matches!(why(&links), ChainError::OutOfScope(_)));
}

#[test]
fn an_issuer_alone_makes_neither_voters_nor_operators_nor_issuers() {
    for role in [Role::Voter, Role::Witness, Role::Gateway, Role::Operator, Role::Issuer] {
        let alone = certificate(VOTER, grants("edge-1", &[Role::Robot, role]));
        assert_eq!(why(&[link(&alone, ISSUER)]), ChainError::NotSponsored { role });
        let member = chain(&[sponsored(VOTER, grants("edge-1", &[Role::Robot, role]))]).verify(&root()).unwrap();
        assert!(member.is(role));
    }
    assert_eq!(
        why(&[link(&of_deputy(), 11), link(&deputy(), ISSUER)]),
        ChainError::NotSponsored { role: Role::Issuer }
    );
}

#[test]
fn the_invitation_of_a_voter_is_good_for_that_voter_alone() {
    let voter = || grants("edge-1", &[Role::Voter]);
    let good = sponsored(VOTER, voter());
    let Sponsor { invitation: invited, request: redeemed } = good.sponsor.clone().unwrap();
    let wrong = |what: &str, sponsor: Sponsor, certificate: Certificate| {
        let link = ChainLink { sponsor: Some(sponsor), ..link(&certificate, ISSUER) };
        let error = why(&[link]);
        assert!(matches!(error, ChainError::Sponsor { role: Role::Voter, .. }), "{what}: {error}");
    };
    let certificate = good.certificate.statement().clone();
    let with = |invitation: Sealed<Invitation>| Sponsor { invitation, request: redeemed.clone() };
    let by_other = Invitation { operator: key(STRANGER), ..invited.statement().clone() };
    wrong("no operator", with(Sealed::seal(&by_other, &[&secret(STRANGER)]).unwrap()), certificate.clone());
    wrong("not sealed", with(Sealed::seal(invited.statement(), &[&secret(ISSUER)]).unwrap()), certificate.clone());
    let elsewhere = Invitation { site: SiteId::from_bytes([7; 32]), ..invited.statement().clone() };
    wrong("another site", with(sealed_invitation(&elsewhere)), certificate.clone());
    let for_other = Invitation { node: Some(key(STRANGER)), ..invited.statement().clone() };
    wrong("for another node", with(sealed_invitation(&for_other)), certificate.clone());
    let as_robot = Invitation { grants: grants("edge-1", &[Role::Robot]), ..invited.statement().clone() };
    wrong("as a robot", with(sealed_invitation(&as_robot)), certificate.clone());
    let other_node = Certificate { key: key(STRANGER), ..certificate.clone() };
    wrong("another node", Sponsor { invitation: invited.clone(), request: redeemed.clone() }, other_node);
    // The issuer lacks a half of the invitation's key: it redeems for no node.
    let forged = JoinRequest { node: key(STRANGER), ..redeemed.statement().clone() };
    let forged = Sealed::seal(&forged, &[&secret(ISSUER), &secret(STRANGER)]).unwrap();
    let of_stranger = Certificate { key: key(STRANGER), ..certificate.clone() };
    wrong("not redeemed", Sponsor { invitation: invited.clone(), request: forged }, of_stranger);
    let other = Certificate { invitation: Some(key(STRANGER)), ..certificate };
    wrong("another invitation", Sponsor { invitation: invited, request: redeemed }, other);
}

#[test]
fn a_field_that_changes_what_a_certificate_means_refuses_it_and_others_are_passed_over() {
    let with = |field: &[u8]| {
        let body = Sealed::seal(&robot(), &[]).unwrap().body().clone();
        let certificate =
            Sealed::<Certificate>::seal_body([&body[..], field].concat().into(), &[&secret(ISSUER)]).unwrap();
        chain(&[ChainLink { certificate, sponsor: None }]).verify(&root()).map(|member| member.key)
    };
    // Field 31, and field 40.
    assert_eq!(with(&[0xf8, 0x01, 1]), Err(ChainError::UnknownField { field: 31 }));
    assert_eq!(with(&[0xc0, 0x02, 1]), Ok(key(ROBOT)));
}

#[test]
fn a_chain_is_read_as_it_was_written() {
    let issuer = sponsored(11, grants("deputy", &[Role::Issuer]));
    for chain in [chain_of(&robot()), chain(&[link(&of_deputy(), 11), issuer])] {
        assert_eq!(Chain::from_bytes(&chain.to_bytes().into()), Ok(chain));
    }
    let kept = postcard::to_stdvec(&link(&robot(), ISSUER).certificate).unwrap();
    assert_eq!(postcard::from_bytes::<Sealed<Certificate>>(&kept), Ok(link(&robot(), ISSUER).certificate));
}
