//! The directory of a site, in a test of members. Each key is made of one byte.

use skep_fleet::{Applied, FleetLimits};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{Charter, Decision, EntryBody, Founding};
use skep_protocol::fleet::{FLEET_VERSIONS, Rules};
use skep_protocol::ids::{Genesis, Incarnation, ShardId};
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::Place;
use skep_protocol::site::{
    SiteAnswer, SiteChange, SiteKey, SiteMember, SiteOp, SiteQuery, SiteReceipt, SiteRefusal, SiteSummary,
};
use skep_protocol::text::OperatorName;
use skep_trust::{
    Certificate, Grants, Invitation, JoinRequest, PublicKey, Revocation, Revoked, Role, RootDocument, Scope, Sealed,
    SecretKey, Serial, SignedRevocation, SiteId, SiteRoot, SiteTime, Stated, Validity,
};

use super::Shard;

/// Root keys, of which two must seal.
pub const ROOTS: [u8; 3] = [1, 2, 3];
/// Key of an issuer that the root document names.
pub const ISSUER: u8 = 10;
/// Key of an operator whom the root document names.
pub const OPERATOR: u8 = 20;
/// Key of a robot's node, and of another one.
pub const ROBOT: u8 = 30;
pub const OTHER: u8 = 31;
/// Key of a node that may vote.
pub const VOTER: u8 = 40;
/// A key that does not belong to the site.
pub const STRANGER: u8 = 66;
/// The epoch of the site.
pub const EPOCH: u64 = 3;
/// For how long an invitation is open, in milliseconds.
pub const OPEN_MS: u64 = 600_000;
/// For how long a certificate holds, in milliseconds.
pub const LIFE_MS: u64 = 1_000_000;
/// Number of certificates that an issuer may issue in a day.
pub const PER_DAY: u32 = 40;

pub fn sealer(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub fn key(n: u8) -> PublicKey {
    sealer(n).public()
}

pub fn site_key(n: u8) -> SiteKey {
    key(n).into()
}

/// The key of an invitation.
pub fn code(n: u8) -> SecretKey {
    let mut seed = [n; 32];
    seed[0] = 0xcc;
    SecretKey::from_seed(&seed)
}

pub fn code_key(n: u8) -> SiteKey {
    code(n).public().into()
}

pub fn scope(roles: &[Role]) -> Scope {
    Scope { roles: roles.iter().copied().collect(), name_prefix: None, life_ms_max: LIFE_MS, per_day: Some(PER_DAY) }
}

pub fn grants(named: &str, roles: &[Role]) -> Grants {
    Grants {
        name: named.parse().unwrap(),
        roles: roles.iter().copied().collect(),
        capabilities: ["lift".parse().unwrap()].into(),
        agents: [].into(),
        scope: roles.contains(&Role::Issuer).then(|| scope(&[Role::Robot])),
    }
}

pub fn document() -> RootDocument {
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

pub fn sealed<T: Stated>(stated: &T, by: &[u8]) -> Sealed<T> {
    let secrets: Vec<SecretKey> = by.iter().copied().map(sealer).collect();
    Sealed::seal(stated, &secrets.iter().collect::<Vec<_>>()).unwrap()
}

/// The first entry of a shard of this number that has this root document.
pub fn founding(shard: ShardId, root: Option<Vec<u8>>, limits: FleetLimits) -> EntryBody {
    let place = Place { site: "hall".parse().unwrap(), shard, genesis: Genesis::from_bytes([6; 16]) };
    let rules = Rules { version: FLEET_VERSIONS.max, limits };
    EntryBody::Founding(Box::new(Founding { rules, charter: Charter { place, first: None, root } }))
}

pub fn invite(invitation: &Invitation, by: u8) -> SiteOp {
    SiteOp::Invite { invitation: sealed(invitation, &[by]).to_bytes() }
}

/// The operation by which a node redeems an invitation, with a request that both keys sealed.
pub fn redeem(request: &JoinRequest, of: u8, node: u8) -> SiteOp {
    let request_of = Sealed::seal(request, &[&code(of), &sealer(node)]).unwrap();
    SiteOp::Redeem { invitation: code_key(of), node: site_key(node), request: request_of.to_bytes() }
}

pub fn issue(certificate: &Certificate, by: u8) -> SiteOp {
    SiteOp::Issue { certificate: sealed(certificate, &[by]).to_bytes() }
}

pub fn revoke(revocation: &Revocation, by: u8) -> SiteOp {
    let signed = SignedRevocation { revocation: sealed(revocation, &[by]), chain: None };
    SiteOp::Revoke { revocation: signed.to_bytes() }
}

pub fn root(document: &RootDocument, by: &[u8]) -> SiteOp {
    SiteOp::Root { document: sealed(document, by).to_bytes() }
}

/// The directory of a site.
pub struct Directory {
    pub shard: Shard,
    pub root: SiteRoot,
    serial: u64,
}

impl std::ops::Deref for Directory {
    type Target = Shard;
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl std::ops::DerefMut for Directory {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Directory {
    pub fn new() -> Self {
        Self::within(FleetLimits::default())
    }

    pub fn within(limits: FleetLimits) -> Self {
        let mut shard = Shard::with_limits(limits);
        let first = sealed(&document(), &ROOTS[..2]);
        shard.apply(founding(ShardId::DIRECTORY, Some(first.to_bytes()), limits));
        Self { shard, root: SiteRoot::first(first).unwrap(), serial: 0 }
    }

    pub fn site(&self) -> SiteId {
        self.root.site()
    }

    /// Site time.
    pub fn time(&self) -> SiteTime {
        self.state.site_time(self.now).expect("it is a directory")
    }

    pub fn invitation(&self, of: u8, grants: Grants) -> Invitation {
        Invitation {
            site: self.site(),
            key: code(of).public(),
            grants,
            until: self.time().plus_ms(OPEN_MS),
            operator: key(OPERATOR),
            node: None,
        }
    }

    pub fn request_of(&self, of: u8, node: u8) -> JoinRequest {
        JoinRequest {
            site: self.site(),
            invitation: code(of).public(),
            node: key(node),
            name: None,
            incarnation: Incarnation([node; 16]),
            channel: None,
        }
    }

    /// A certificate that says what an invitation says, from this moment on.
    pub fn certificate(&mut self, of: u8, node: u8, grants: Grants) -> Certificate {
        self.serial += 1;
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&self.serial.to_be_bytes());
        Certificate {
            site: self.site(),
            serial: Serial::from_bytes(serial),
            key: key(node),
            grants,
            epoch: EPOCH,
            validity: Validity { from: self.time(), until: self.time().plus_ms(LIFE_MS) },
            issuer: Some(key(ISSUER)),
            invitation: Some(code(of).public()),
        }
    }

    pub fn revocation(&self, what: Revoked) -> Revocation {
        Revocation { site: self.site(), what, epoch: EPOCH, reason: "stolen".parse().unwrap(), operator: key(OPERATOR) }
    }

    /// The document after the latest one, as it is but for what the caller changes.
    pub fn next_document(&self) -> RootDocument {
        let now = self.root.document().clone();
        RootDocument { after: Some((self.root.site(), self.root.digest())), version: now.version + 1, ..now }
    }

    /// Gives the site another root document.
    pub fn follow(&mut self, document: &RootDocument) {
        let next = sealed(document, &ROOTS[..2]);
        self.root = self.root.followed_by(next.clone()).unwrap();
        self.done(SiteOp::Root { document: next.to_bytes() });
    }

    pub fn done(&mut self, op: SiteOp) -> SiteReceipt {
        match self.shard.ok(op) {
            Receipt::Site(receipt) => receipt,
            other => panic!("{other:?}"),
        }
    }

    pub fn refusal(&mut self, op: SiteOp) -> SiteRefusal {
        match self.shard.refused(op) {
            Refusal::Site(refusal) => refusal,
            other => panic!("{other}"),
        }
    }

    /// Invites a node, which redeems that.
    pub fn redeemed(&mut self, of: u8, node: u8, grants: Grants) {
        let invitation = self.invitation(of, grants);
        self.done(invite(&invitation, OPERATOR));
        let request = self.request_of(of, node);
        self.done(redeem(&request, of, node));
    }

    /// Makes a node a member; returns its certificate.
    pub fn join(&mut self, node: u8, named: &str, roles: &[Role]) -> Certificate {
        self.redeemed(node, node, grants(named, roles));
        let certificate = self.certificate(node, node, grants(named, roles));
        self.done(issue(&certificate, ISSUER));
        certificate
    }

    pub fn left_office(&mut self, node: u8) -> Applied {
        self.shard.decide(Decision::LeftOffice { voter: site_key(node) })
    }

    pub fn answer(&self, query: &SiteQuery) -> SiteAnswer {
        self.state.site_answer(query, self.now, u64::MAX)
    }

    pub fn member(&self, node: u8) -> Option<SiteMember> {
        match self.answer(&SiteQuery::Member(site_key(node))) {
            SiteAnswer::Member(member) => member.map(|member| *member),
            other => panic!("{other:?}"),
        }
    }

    pub fn summary(&self) -> SiteSummary {
        match self.answer(&SiteQuery::Summary) {
            SiteAnswer::Summary(summary) => *summary,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to one request, and what it changed.
    pub fn told(&mut self, op: SiteOp) -> (Reply, Vec<SiteChange>) {
        let request = self.shard.request(op);
        let mut applied = self.shard.apply(EntryBody::Requests(vec![request]));
        let changes = applied.changes.into_iter().map(|change| match change.what {
            ChangeKind::Site(change) => change,
            other => panic!("{other:?}"),
        });
        (applied.replies.remove(0), changes.collect())
    }
}
