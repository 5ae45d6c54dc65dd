//! A site for tests, with a root key, an operator and an issuer: keys are made of one byte each.

use skep_admission::SiteHandle;
use skep_protocol::ids::NodeId;
use skep_protocol::text::OperatorName;
use skep_trust::{
    Certificate, Chain, ChainLink, Grants, PublicKey, Revocation, Revoked, Role, RootDocument, Scope, Sealed,
    SecretKey, Serial, SignedRevocation, SiteClock, SiteNews, SiteRoot, SiteTime, SiteView, TrustHello, Validity,
};

use super::gate::Gate;
use crate::threads::Threads;

pub(crate) const ROOT: u8 = 201;
pub(crate) const OPERATOR: u8 = 202;
/// Named by the second root document only.
pub(crate) const ISSUER: u8 = 203;
pub(crate) const NOW: SiteTime = SiteTime(1_500_000);
const LIFE: Validity = Validity { from: SiteTime(1_000_000), until: SiteTime(2_000_000) };
const EPOCH: u64 = 3;

pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn key(n: u8) -> PublicKey {
    secret(n).public()
}

pub(crate) fn node(n: u8) -> NodeId {
    key(n).node()
}

fn document() -> RootDocument {
    RootDocument {
        after: None,
        version: 1,
        name: "site".parse().unwrap(),
        nonce: [9; 16],
        root_keys: [key(ROOT)].into(),
        threshold: 1,
        issuers: [].into(),
        operators: [(key(OPERATOR), OperatorName::new("first").unwrap())].into(),
        epoch: EPOCH,
    }
}

fn sealed(document: &RootDocument) -> Sealed<RootDocument> {
    Sealed::seal(document, &[&secret(ROOT)]).unwrap()
}

fn root() -> SiteRoot {
    SiteRoot::first(sealed(&document())).unwrap()
}

/// The second root document, which names the issuer.
pub(crate) fn second() -> Sealed<RootDocument> {
    let root = root();
    let scope = Scope { roles: [Role::Robot].into(), name_prefix: None, life_ms_max: 10_000_000, per_day: None };
    let issuers = [(key(ISSUER), scope)].into();
    sealed(&RootDocument { after: Some((root.site(), root.digest())), version: 2, issuers, ..document() })
}

/// The name in the certificate of a node.
pub(crate) fn name(of: NodeId) -> String {
    let [first, ..] = *of.public_key();
    format!("node-{first}")
}

/// What a root key certifies of a node that is called `node-N`.
pub(crate) fn certificate(of: NodeId, roles: &[Role]) -> Certificate {
    let [first, ..] = *of.public_key();
    Certificate {
        site: root().site(),
        serial: Serial::from_bytes([first; 16]),
        key: of.into(),
        grants: Grants {
            name: name(of).parse().unwrap(),
            roles: roles.iter().copied().collect(),
            capabilities: [].into(),
            agents: [].into(),
            scope: None,
        },
        epoch: EPOCH,
        validity: LIFE,
        issuer: None,
        invitation: None,
    }
}

pub(crate) fn chain(certificate: &Certificate, by: u8) -> Chain {
    let certificate = Sealed::seal(certificate, &[&secret(by)]).unwrap();
    Chain::new(vec![ChainLink { certificate, sponsor: None }]).unwrap()
}

fn view() -> SiteView {
    SiteView::new(vec![sealed(&document())]).unwrap()
}

/// What a node knows that shows a chain.
pub(crate) fn shows(of: NodeId, chain: Chain) -> SiteHandle {
    SiteHandle::new(view(), chain, of.into(), SiteClock::Known(NOW))
}

/// What a member knows.
pub(crate) fn member(of: NodeId, roles: &[Role]) -> SiteHandle {
    shows(of, chain(&certificate(of, roles), ROOT))
}

pub(crate) fn gate(site: &SiteHandle) -> Gate {
    Gate::new(site.clone(), Threads::here())
}

/// What somebody says first who shows a chain.
pub(crate) fn hello(chain: Chain) -> TrustHello {
    TrustHello { chain, news: view().news() }
}

pub(crate) fn revoked(what: Revoked) -> SignedRevocation {
    let revocation = Revocation {
        site: root().site(),
        what,
        epoch: EPOCH,
        reason: "stolen".parse().unwrap(),
        operator: key(OPERATOR),
    };
    SignedRevocation { revocation: Sealed::seal(&revocation, &[&secret(OPERATOR)]).unwrap(), chain: None }
}

/// News that members with these keys are out.
pub(crate) fn out(nodes: &[NodeId]) -> SiteNews {
    let revocations = nodes.iter().map(|node| revoked(Revoked::Key((*node).into()))).collect();
    SiteNews { revocations, ..SiteNews::default() }
}
