//! One site and its members: each key is made of one byte.

use skep_protocol::ids::Incarnation;
use skep_protocol::text::{NodeName, OperatorName};
use skep_trust::{
    Certificate, Chain, ChainLink, Grants, Invitation, InvitationSecret, JoinRequest, PublicKey, Revocation, Revoked,
    Role, RootDocument, Scope, Sealed, SecretKey, Serial, SignedRevocation, SiteId, SiteRoot, SiteTime, SiteView,
    Sponsor, Validity,
};

/// Root keys, of which two must seal.
pub(crate) const ROOTS: [u8; 3] = [1, 2, 3];
/// Key of an issuer that the root document names.
pub(crate) const ISSUER: u8 = 10;
/// Key of a first operator.
pub(crate) const OPERATOR: u8 = 20;
/// Key of a robot's node.
pub(crate) const ROBOT: u8 = 30;
/// Key of a node that may vote.
pub(crate) const VOTER: u8 = 40;
/// Key of a node that does not belong to the site.
pub(crate) const STRANGER: u8 = 66;
/// The epoch of all certificates.
pub(crate) const EPOCH: u64 = 3;
/// The times at which all certificates hold.
pub(crate) const LIFE: Validity = Validity { from: SiteTime(1_000_000), until: SiteTime(2_000_000) };

pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn key(n: u8) -> PublicKey {
    secret(n).public()
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn scope(roles: &[Role]) -> Scope {
    Scope { roles: roles.iter().copied().collect(), name_prefix: None, life_ms_max: 1_000_000, per_day: None }
}

/// The first root document of the site.
pub(crate) fn document() -> RootDocument {
    RootDocument {
        after: None,
        version: 1,
        name: "hall".parse().unwrap(),
        nonce: [9; 16],
        root_keys: ROOTS.map(key).into(),
        threshold: 2,
        issuers: [(key(ISSUER), scope(&Role::ALL))].into(),
        operators: [(key(OPERATOR), OperatorName::new("first").unwrap())].into(),
        epoch: EPOCH,
    }
}

pub(crate) fn sealed_root(document: &RootDocument, by: &[u8]) -> Sealed<RootDocument> {
    let secrets: Vec<SecretKey> = by.iter().copied().map(secret).collect();
    Sealed::seal(document, &secrets.iter().collect::<Vec<_>>()).unwrap()
}

pub(crate) fn root() -> SiteRoot {
    SiteRoot::first(sealed_root(&document(), &ROOTS[..2])).unwrap()
}

/// The document after a root, as it is but for what the caller changes.
pub(crate) fn after(root: &SiteRoot) -> RootDocument {
    let now = root.document().clone();
    RootDocument { after: Some((root.site(), root.digest())), version: now.version + 1, ..now }
}

pub(crate) fn view() -> SiteView {
    SiteView::new(vec![sealed_root(&document(), &ROOTS[..2])]).unwrap()
}

pub(crate) fn site() -> SiteId {
    root().site()
}

pub(crate) fn grants(named: &str, roles: &[Role]) -> Grants {
    Grants {
        name: name(named),
        roles: roles.iter().copied().collect(),
        capabilities: ["lift".parse().unwrap()].into(),
        agents: [].into(),
        scope: roles.contains(&Role::Issuer).then(|| scope(&[Role::Robot])),
    }
}

/// A certificate that the issuer makes.
pub(crate) fn certificate(of: u8, grants: Grants) -> Certificate {
    Certificate {
        site: site(),
        serial: Serial::from_bytes([of; 16]),
        key: key(of),
        grants,
        epoch: EPOCH,
        validity: LIFE,
        issuer: Some(key(ISSUER)),
        invitation: None,
    }
}

pub(crate) fn robot() -> Certificate {
    certificate(ROBOT, grants("robot-7", &[Role::Robot]))
}

pub(crate) fn link(certificate: &Certificate, by: u8) -> ChainLink {
    ChainLink { certificate: Sealed::seal(certificate, &[&secret(by)]).unwrap(), sponsor: None }
}

pub(crate) fn chain(links: &[ChainLink]) -> Chain {
    Chain::new(links.to_vec()).unwrap()
}

/// The chain of a member whose certificate the issuer made.
pub(crate) fn chain_of(certificate: &Certificate) -> Chain {
    chain(&[link(certificate, ISSUER)])
}

pub(crate) fn code_secret(n: u8) -> SecretKey {
    InvitationSecret::from_bytes([n; 16]).key(&site().half())
}

pub(crate) fn invitation(of: u8, grants: Grants) -> Invitation {
    Invitation {
        site: site(),
        key: code_secret(of).public(),
        grants,
        until: SiteTime(1_500_000),
        operator: key(OPERATOR),
        node: None,
    }
}

pub(crate) fn sealed_invitation(invitation: &Invitation) -> Sealed<Invitation> {
    Sealed::seal(invitation, &[&secret(OPERATOR)]).unwrap()
}

pub(crate) fn request(of: u8) -> JoinRequest {
    JoinRequest {
        site: site(),
        invitation: code_secret(of).public(),
        node: key(of),
        name: None,
        incarnation: Incarnation([of; 16]),
        channel: None,
    }
}

pub(crate) fn sealed_request(request: &JoinRequest, of: u8) -> Sealed<JoinRequest> {
    Sealed::seal(request, &[&code_secret(of), &secret(of)]).unwrap()
}

pub(crate) fn sponsor(of: u8, grants: Grants) -> Sponsor {
    Sponsor { invitation: sealed_invitation(&invitation(of, grants)), request: sealed_request(&request(of), of) }
}

/// A certificate that the issuer makes of a member whom the operator invited.
pub(crate) fn sponsored(of: u8, grants: Grants) -> ChainLink {
    let sponsor = sponsor(of, grants.clone());
    let certificate = Certificate { invitation: Some(sponsor.invitation.key), ..certificate(of, grants) };
    ChainLink { sponsor: Some(sponsor), ..link(&certificate, ISSUER) }
}

pub(crate) fn revocation(what: Revoked) -> Revocation {
    Revocation { site: site(), what, epoch: EPOCH, reason: "stolen".parse().unwrap(), operator: key(OPERATOR) }
}

pub(crate) fn signed(revocation: &Revocation, by: u8) -> SignedRevocation {
    SignedRevocation { revocation: Sealed::seal(revocation, &[&secret(by)]).unwrap(), chain: None }
}

/// A revocation by the first operator.
pub(crate) fn revoked(what: Revoked) -> SignedRevocation {
    signed(&revocation(what), OPERATOR)
}
