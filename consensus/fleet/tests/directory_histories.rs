//! The directory of a site under random histories: what holds after any requests in any order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use skep_fleet::{FleetState, LogPosition};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{Decision, Entry, EntryBody};
use skep_protocol::ids::ShardId;
use skep_protocol::site::{SiteAnswer, SiteChange, SiteKey, SiteMember, SiteOp, SiteQuery};
use skep_trust::{
    Certificate, Chain, Grants, Invitation, JoinRequest, Revocation, Revoked, Role, RootDocument, Sealed, Serial,
    SignedRevocation, SiteTime,
};
use support::Shard;
use support::directory::*;

const SEEDS: u64 = 200;
const STEPS: usize = 120;
/// One history in so many is made again from its entries and snapshots.
const REPLAYED_ONE_IN: u64 = 8;
/// Nodes, and as many invitations.
const NODES: [u8; 6] = [30, 31, 32, 33, 34, 35];

/// Random numbers of a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// What the changes of a history alone tell of it.
#[derive(Default)]
struct Model {
    /// The member that each invitation describes.
    invited: BTreeMap<SiteKey, Grants>,
    /// The latest certificate of each member.
    certificates: BTreeMap<SiteKey, Certificate>,
    /// The nodes that redeemed each invitation.
    redeemed: BTreeMap<SiteKey, BTreeSet<SiteKey>>,
    /// The last epoch in which each key is out.
    out: BTreeMap<SiteKey, u64>,
    /// Nodes that left their office, as the directory heard, while it waited for that.
    left_office: BTreeSet<SiteKey>,
    time: SiteTime,
}

struct History {
    seed: u64,
    dice: Dice,
    directory: Directory,
    entries: Vec<Entry>,
    said: Vec<SiteOp>,
    model: Model,
}

impl History {
    fn new(seed: u64) -> Self {
        let (dice, directory) = (Dice(seed), Directory::new());
        let (entries, said, model) = (Vec::new(), Vec::new(), Model::default());
        Self { seed, dice, directory, entries, said, model }
    }

    fn epoch(&mut self) -> u64 {
        let min = self.directory.summary().epoch_min;
        (min + self.dice.roll(3)).saturating_sub(1)
    }

    fn node(&mut self) -> u8 {
        self.dice.one(&NODES)
    }

    fn some_op(&mut self) -> SiteOp {
        match self.dice.roll(12) {
            0 | 1 => self.some_invitation(),
            2..=4 => self.some_request(),
            5..=7 => self.some_certificate(),
            8 => self.some_revocation(),
            9 => self.some_root(),
            10 => SiteOp::Leave { member: site_key(self.node()) },
            // A request that was made before, again.
            _ if self.said.is_empty() => self.some_invitation(),
            _ => {
                let at = self.dice.roll(self.said.len() as u64) as usize;
                self.said[at].clone()
            }
        }
    }

    fn some_invitation(&mut self) -> SiteOp {
        let of = self.node();
        let role = self.dice.one(&[Role::Robot, Role::Robot, Role::Voter]);
        let named = format!("n-{}", self.dice.roll(4));
        let invitation = self.directory.invitation(of, grants(&named, &[role]));
        invite(&invitation, self.dice.one(&[OPERATOR, OPERATOR, OPERATOR, STRANGER]))
    }

    fn some_request(&mut self) -> SiteOp {
        let (of, node) = (self.node(), self.node());
        let request = self.directory.request_of(of, node);
        match self.dice.roll(8) {
            0 => {
                let liar = JoinRequest { name: Some("somebody".parse().unwrap()), ..request };
                redeem(&liar, of, node)
            }
            1 => {
                let forged = Sealed::seal(&request, &[&sealer(node)]).unwrap().to_bytes();
                SiteOp::Redeem { invitation: code_key(of), node: site_key(node), request: forged }
            }
            _ => redeem(&request, of, node),
        }
    }

    fn some_certificate(&mut self) -> SiteOp {
        let (of, mut node) = (self.node(), self.node());
        // As a rule for the node that has the invitation.
        if let Some(by) = self.model.redeemed.get(&code_key(of)).and_then(|by| by.first().copied())
            && self.dice.roll(8) > 0
        {
            node = NODES.into_iter().find(|n| site_key(*n) == by).unwrap();
        }
        let granted = self.model.invited.get(&code_key(of)).cloned().unwrap_or_else(|| grants("n-9", &[Role::Robot]));
        let certificate = self.directory.certificate(of, node, granted);
        let epoch = self.epoch();
        let certificate = match self.dice.roll(10) {
            0 => Certificate { serial: Serial::from_bytes([1; 16]), ..certificate },
            1 => Certificate { issuer: Some(key(STRANGER)), ..certificate },
            2 => Certificate { invitation: None, ..certificate },
            _ => certificate,
        };
        issue(&Certificate { epoch, ..certificate }, self.dice.one(&[ISSUER, ISSUER, ISSUER, STRANGER]))
    }

    fn some_revocation(&mut self) -> SiteOp {
        let node = self.node();
        let member = self.directory.member(node).map(|member| certificate_of(&member));
        let min = self.directory.summary().epoch_min;
        let what = match (self.dice.roll(8), member) {
            (0, _) => Revoked::BelowEpoch(min + self.dice.roll(2)),
            (1, Some(of)) => Revoked::Serial(of.serial),
            (2, Some(of)) => Revoked::Issued { issuer: key(ISSUER), since: of.validity.from.plus_ms(1) },
            _ => Revoked::Key(key(node)),
        };
        let stated = Revocation { epoch: self.epoch(), ..self.directory.revocation(what) };
        revoke(&stated, self.dice.one(&[OPERATOR, OPERATOR, OPERATOR, STRANGER]))
    }

    fn some_root(&mut self) -> SiteOp {
        let next = self.directory.next_document();
        let epoch = next.epoch.max(self.directory.summary().epoch_min) + self.dice.roll(2);
        let document = RootDocument { epoch, ..next };
        let count = self.dice.one(&[1, 2, 2]);
        root(&document, &ROOTS[..count])
    }

    fn some_body(&mut self) -> EntryBody {
        match self.dice.roll(20) {
            0 => EntryBody::ClockLost,
            1 | 2 => {
                let waiting: Vec<SiteKey> = self.directory.state.to_leave_office().collect();
                let some = site_key(self.node());
                let voter = if waiting.is_empty() { some } else { self.dice.one(&waiting) };
                if waiting.contains(&voter) {
                    self.model.left_office.insert(voter);
                }
                EntryBody::Decisions(vec![Decision::LeftOffice { voter }])
            }
            _ => {
                let op = self.some_op();
                self.said.push(op.clone());
                EntryBody::Requests(vec![self.directory.shard.request(op)])
            }
        }
    }

    fn step(&mut self) {
        let ms = self.dice.one(&[0, 10, 1_000, 200_000]);
        self.directory.pass(ms);
        let body = self.some_body();
        let entry = Entry { stamp: self.directory.now, term: self.directory.term, body };
        let applied = self.directory.shard.apply_entry(&entry);
        self.directory.shard.now = self.directory.state.clock();
        let is_root = matches!(&entry.body, EntryBody::Requests(requests)
            if matches!(&requests[0].op, skep_protocol::entry::Op::Site(SiteOp::Root { .. })));
        self.entries.push(entry);
        for change in applied.changes {
            if let ChangeKind::Site(change) = change.what {
                self.note(&change, is_root);
            }
        }
        self.check();
    }

    fn note(&mut self, change: &SiteChange, is_root: bool) {
        let seed = self.seed;
        match change {
            SiteChange::Invited { invitation, sealed, .. } => {
                let sealed: Sealed<Invitation> = Sealed::from_bytes(&sealed.clone().into()).unwrap();
                self.model.invited.insert(*invitation, sealed.grants.clone());
            }
            SiteChange::Redeemed { invitation, node, .. } => {
                let nodes = self.model.redeemed.entry(*invitation).or_default();
                nodes.insert(*node);
                assert_eq!(nodes.len(), 1, "seed {seed}: {invitation} was redeemed by two nodes");
            }
            SiteChange::Issued { member, certificate, .. } => {
                let sealed: Sealed<Certificate> = Sealed::from_bytes(&certificate.clone().into()).unwrap();
                let is_out = self.model.out.get(member).is_some_and(|epoch| sealed.epoch <= *epoch);
                assert!(!is_out, "seed {seed}: {member} is out, and became a member again");
                self.model.certificates.insert(*member, sealed.statement().clone());
            }
            SiteChange::Revoked { revocation, .. } => {
                let signed = SignedRevocation::from_bytes(&revocation.clone().into()).unwrap();
                if let Revoked::Key(key) = signed.revocation.what {
                    let last = self.model.out.entry(key.into()).or_default();
                    *last = signed.revocation.epoch.max(*last);
                }
            }
            SiteChange::Rooted { document, .. } => {
                let document = Sealed::from_bytes(&document.clone().into()).unwrap();
                self.directory.root = self.directory.root.followed_by(document).unwrap();
            }
            SiteChange::Out { member, .. } if !is_root => {
                let votes =
                    self.model.certificates.get(member).is_some_and(|of| of.grants.roles.contains(&Role::Voter));
                let left = self.model.left_office.contains(member);
                assert!(left || !votes, "seed {seed}: the voter {member} was out while it was in office");
            }
            _ => {}
        }
    }

    fn members(&self) -> Vec<SiteMember> {
        match self.directory.answer(&SiteQuery::Members { after: None, limit: 1_000 }) {
            SiteAnswer::Members { members, next: None } => members,
            other => panic!("{other:?}"),
        }
    }

    /// Checks what holds after each entry.
    fn check(&mut self) {
        let seed = self.seed;
        let time = self.directory.time();
        assert!(time >= self.model.time, "seed {seed}: site time fell");
        self.model.time = time;
        let epoch_min = self.directory.summary().epoch_min;
        let mut names = BTreeSet::new();
        for member in self.members() {
            let certificate = certificate_of(&member);
            let invitation = certificate.invitation.map(SiteKey::from);
            let by = invitation.and_then(|invitation| self.model.redeemed.get(&invitation));
            let is_redeemed = by.is_some_and(|nodes| nodes.contains(&member.key));
            assert!(is_redeemed || certificate.issuer.is_none(), "seed {seed}: {} came by nothing", member.key);
            let last = self.model.out.get(&member.key).copied();
            assert!(last.is_none_or(|last| certificate.epoch > last), "seed {seed}: {} is out and in", member.key);
            assert!(certificate.epoch >= epoch_min, "seed {seed}: {} is of an epoch that is over", member.key);
            let is_over = member.until_ms < time.0;
            let is_alone = is_over || names.insert(certificate.grants.name.clone());
            assert!(is_alone, "seed {seed}: two members are called {}", certificate.grants.name);
        }
    }

    /// What this history reached of all that histories are for.
    fn reached(&self) -> impl Iterator<Item = &'static str> {
        let summary = self.directory.summary();
        let seen = [
            ("members", summary.members > 0),
            ("revocations", summary.revocations > 0),
            ("epochs", summary.epoch_min > EPOCH),
            ("root documents", summary.root_version > 1),
            ("used invitations", !self.model.redeemed.is_empty()),
            ("voters that left", !self.model.left_office.is_empty()),
        ];
        seen.into_iter().filter(|(_, is_seen)| *is_seen).map(|(what, _)| what)
    }

    /// Checks that the state goes on from its own bytes, and that the entries alone make the same state.
    fn check_replay(&mut self) {
        let seed = self.seed;
        let bytes = self.directory.state.to_snapshot().unwrap();
        let restored = FleetState::from_snapshot(&bytes).unwrap();
        assert!(restored.to_snapshot().unwrap() == bytes, "seed {seed}: the snapshot of a snapshot is another one");
        let news = |state: &FleetState| state.site_view().unwrap().news();
        assert_eq!(news(&restored), news(&self.directory.state), "seed {seed}");
        let first = sealed(&document(), &ROOTS[..2]).to_bytes();
        let mut shard = Shard::new();
        let limits = *shard.state.limits();
        shard.apply(founding(ShardId::DIRECTORY, Some(first), limits));
        for (index, entry) in (shard.index + 1..).zip(&self.entries) {
            shard.state.apply(LogPosition { index, term: entry.term }, entry);
        }
        assert_eq!(shard.state.digest(), self.directory.state.digest(), "seed {seed}");
        assert!(shard.state.to_snapshot().unwrap() == bytes, "seed {seed}: a replay made another state");
        self.directory.shard.state = restored;
    }
}

fn certificate_of(member: &SiteMember) -> Certificate {
    let chain = Chain::from_bytes(&member.chain.clone().into()).unwrap();
    chain.certificate().unwrap().statement().clone()
}

#[test]
fn whatever_is_asked_nobody_is_in_who_may_not_be() {
    let mut told: BTreeSet<&'static str> = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut history = History::new(seed);
        for step in 0..STEPS {
            history.step();
            if step % 40 == 39 && seed % REPLAYED_ONE_IN == 0 {
                history.check_replay();
            }
        }
        told.extend(history.reached());
    }
    assert_eq!(told.len(), 6, "of {SEEDS} seeds: {told:?}");
}
