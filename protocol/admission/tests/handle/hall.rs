//! A site with an issuer, an operator and two robots: each key is made of one byte.

use skep_admission::SiteHandle;
use skep_protocol::text::OperatorName;
use skep_trust::{
    Certificate, Chain, ChainLink, Grants, PublicKey, Revocation, Revoked, Role, RootDocument, Scope, Sealed,
    SecretKey, Serial, SignedRevocation, SiteClock, SiteNews, SiteRoot, SiteTime, SiteView, Validity,
};

pub(crate) const ROOT: u8 = 1;
pub(crate) const ISSUER: u8 = 10;
pub(crate) const OPERATOR: u8 = 20;
pub(crate) const ROBOT: u8 = 30;
pub(crate) const OTHER: u8 = 31;
pub(crate) const STRANGER: u8 = 66;
pub(crate) const NOW: SiteTime = SiteTime(1_500_000);
pub(crate) const LIFE: Validity = Validity { from: SiteTime(1_000_000), until: SiteTime(2_000_000) };

pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn key(n: u8) -> PublicKey {
    secret(n).public()
}

pub(crate) fn document() -> RootDocument {
    let scope = Scope { roles: [Role::Robot].into(), name_prefix: None, life_ms_max: 10_000_000, per_day: None };
    RootDocument {
        after: None,
        version: 1,
        name: "hall".parse().unwrap(),
        nonce: [9; 16],
        root_keys: [key(ROOT)].into(),
        threshold: 1,
        issuers: [(key(ISSUER), scope)].into(),
        operators: [(key(OPERATOR), OperatorName::new("first").unwrap())].into(),
        epoch: 0,
    }
}

pub(crate) fn sealed(document: &RootDocument) -> Sealed<RootDocument> {
    Sealed::seal(document, &[&secret(ROOT)]).unwrap()
}

pub(crate) fn root() -> SiteRoot {
    SiteRoot::first(sealed(&document())).unwrap()
}

/// The document after the first one, as it is but for what the caller changes.
pub(crate) fn second() -> RootDocument {
    let root = root();
    RootDocument { after: Some((root.site(), root.digest())), version: 2, ..document() }
}

pub(crate) fn certificate(of: u8, validity: Validity) -> Certificate {
    Certificate {
        site: root().site(),
        serial: Serial::from_bytes([of; 16]),
        key: key(of),
        grants: Grants {
            name: format!("robot-{of}").parse().unwrap(),
            roles: [Role::Robot].into(),
            capabilities: [].into(),
            agents: [].into(),
            scope: None,
        },
        epoch: 0,
        validity,
        issuer: Some(key(ISSUER)),
        invitation: None,
    }
}

pub(crate) fn chain(of: u8, validity: Validity) -> Chain {
    let certificate = Sealed::seal(&certificate(of, validity), &[&secret(ISSUER)]).unwrap();
    Chain::new(vec![ChainLink { certificate, sponsor: None }]).unwrap()
}

/// What the robot's node knows.
pub(crate) fn handle() -> SiteHandle {
    let view = SiteView::new(vec![sealed(&document())]).unwrap();
    SiteHandle::new(view, chain(ROBOT, LIFE), key(ROBOT), SiteClock::Known(NOW))
}

pub(crate) fn revoked(what: Revoked, by: u8) -> SignedRevocation {
    let revocation =
        Revocation { site: root().site(), what, epoch: 0, reason: "stolen".parse().unwrap(), operator: key(OPERATOR) };
    SignedRevocation { revocation: Sealed::seal(&revocation, &[&secret(by)]).unwrap(), chain: None }
}

pub(crate) fn news(revocations: Vec<SignedRevocation>) -> SiteNews {
    SiteNews { revocations, ..SiteNews::default() }
}
