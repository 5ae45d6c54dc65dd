//! A site, and nodes of it: each key is one byte, repeated.

use skep_admission::SiteHandle;
use skep_protocol::ids::NodeId;
use skep_protocol::text::OperatorName;
use skep_trust::{
    Certificate, Chain, ChainLink, Grants, Member, PublicKey, Revocation, Revoked, Role, RootDocument, Scope, Sealed,
    SecretKey, Serial, SignedRevocation, SiteClock, SiteId, SiteNews, SiteRoot, SiteTime, SiteView, Validity,
};

const ROOT: u8 = 1;
const ISSUER: u8 = 10;
/// An issuer that the second root document names.
pub(crate) const LATER_ISSUER: u8 = 11;
const OPERATOR: u8 = 20;
const EPOCH: u64 = 3;
const NOW: SiteTime = SiteTime(1_500_000);
pub(crate) const LIFE: Validity = Validity { from: SiteTime(1_000_000), until: SiteTime(2_000_000) };
pub(crate) const OVER: Validity = Validity { from: SiteTime(1_000_000), until: SiteTime(1_400_000) };

pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn key(n: u8) -> PublicKey {
    secret(n).public()
}

pub(crate) fn node(n: u8) -> NodeId {
    key(n).node()
}

fn scope() -> Scope {
    Scope { roles: [Role::Robot, Role::Observer].into(), name_prefix: None, life_ms_max: 10_000_000, per_day: None }
}

/// A root document; another nonce makes it another site.
fn document(nonce: u8) -> RootDocument {
    RootDocument {
        after: None,
        version: 1,
        name: "hall".parse().unwrap(),
        nonce: [nonce; 16],
        root_keys: [key(ROOT)].into(),
        threshold: 1,
        issuers: [(key(ISSUER), scope())].into(),
        operators: [(key(OPERATOR), OperatorName::new("first").unwrap())].into(),
        epoch: EPOCH,
    }
}

fn sealed(document: &RootDocument) -> Sealed<RootDocument> {
    Sealed::seal(document, &[&secret(ROOT)]).unwrap()
}

fn root(nonce: u8) -> SiteRoot {
    SiteRoot::first(sealed(&document(nonce))).unwrap()
}

/// The second root document: it names another issuer beside the first.
pub(crate) fn second() -> Sealed<RootDocument> {
    let root = root(HALL);
    let issuers = [(key(ISSUER), scope()), (key(LATER_ISSUER), scope())].into();
    sealed(&RootDocument { after: Some((root.site(), root.digest())), version: 2, issuers, ..document(HALL) })
}

/// The nonces of two sites.
pub(crate) const HALL: u8 = 9;
pub(crate) const OTHER_HALL: u8 = 8;

pub(crate) fn site() -> SiteId {
    root(HALL).site()
}

/// What a node shows.
#[derive(Clone, Copy)]
pub(crate) struct Shows {
    pub(crate) nonce: u8,
    pub(crate) of: u8,
    pub(crate) role: Role,
    pub(crate) epoch: u64,
    pub(crate) validity: Validity,
    pub(crate) issuer: u8,
}

/// What a robot of the hall shows.
pub(crate) fn robot(of: u8) -> Shows {
    Shows { nonce: HALL, of, role: Role::Robot, epoch: EPOCH, validity: LIFE, issuer: ISSUER }
}

impl Shows {
    pub(crate) fn chain(self) -> Chain {
        let certificate = Certificate {
            site: root(self.nonce).site(),
            serial: Serial::from_bytes([self.of; 16]),
            key: key(self.of),
            grants: Grants {
                name: format!("robot-{}", self.of).parse().unwrap(),
                roles: [self.role].into(),
                capabilities: [].into(),
                agents: [].into(),
                scope: None,
            },
            epoch: self.epoch,
            validity: self.validity,
            issuer: Some(key(self.issuer)),
            invitation: None,
        };
        let certificate = Sealed::seal(&certificate, &[&secret(self.issuer)]).unwrap();
        Chain::new(vec![ChainLink { certificate, sponsor: None }]).unwrap()
    }

    /// The site as the node that shows this knows it, with the first root document.
    pub(crate) fn handle(self) -> SiteHandle {
        let view = SiteView::new(vec![sealed(&document(self.nonce))]).unwrap();
        SiteHandle::new(view, self.chain(), key(self.of), SiteClock::Known(NOW))
    }

    /// The member, at a node where its chain holds.
    pub(crate) fn member(self, at: &SiteHandle) -> std::sync::Arc<Member> {
        at.admit(&self.chain().to_bytes().into(), key(self.of)).unwrap().member
    }
}

/// News of a revocation by an operator.
pub(crate) fn revoked(what: Revoked) -> SiteNews {
    let (site, operator) = (site(), key(OPERATOR));
    let stated = Revocation { site, what, epoch: EPOCH, reason: "stolen".parse().unwrap(), operator };
    let signed = SignedRevocation { revocation: Sealed::seal(&stated, &[&secret(OPERATOR)]).unwrap(), chain: None };
    SiteNews { revocations: vec![signed], ..SiteNews::default() }
}

/// News that revokes all certificates of a node.
pub(crate) fn stolen(n: u8) -> SiteNews {
    revoked(Revoked::Key(key(n)))
}
