//! A site whose directory is at one node, and machines that join there: real endpoints on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use futures::future::join_all;
use skep_admission::SiteHandle;
use skep_config::{ControlConfig, NodeConfig, PeerConfig, Policy, StoreConfig};
use skep_protocol::fleet::Build;
use skep_protocol::ids::{Genesis, Incarnation, NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::site::{InvitationState, SiteAnswer, SiteJoin, SiteOp, SiteQuery};
use skep_protocol::text::{NodeName, OperatorName, SiteName};
use skep_trust::{
    Certificate, Chain, ChainLink, Grants, Invitation, InvitationCode, InvitationSecret, JoinRequest, PublicKey, Role,
    RootDocument, Scope, Sealed, SecretKey, Serial, SiteClock, SiteTime, SiteView, Validity,
};
use tempfile::TempDir;

use super::Directory;
use super::renew::RenewError;
use crate::identity::Identity;
use crate::join::{JoinError, JoinWish, Membership, join};
use crate::net::hall::{OPERATOR, ROOT, secret};
use crate::net::heard_after;
use crate::service::Consensus;

/// The node that has the directory, and issues.
const FIRST: u16 = 0;
/// How long its issuer may have certificates hold.
const LIFE_MS: u64 = 100_000_000;
const HOUR_MS: u64 = 3_600_000;
/// With these codes the node closes connections.
const TURNED_AWAY: u64 = 3;
const COME_AGAIN: u64 = 4;

/// Of what the keys and secrets of somebody are made.
fn seed(n: u16) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    seed
}

fn secret_of(n: u16) -> SecretKey {
    SecretKey::from_seed(&seed(n))
}

fn key_of(n: u16) -> PublicKey {
    secret_of(n).public()
}

fn node_of(n: u16) -> NodeId {
    key_of(n).node()
}

fn grants(name: &str, roles: &[Role]) -> Grants {
    Grants {
        name: name.parse().unwrap(),
        roles: roles.iter().copied().collect(),
        capabilities: [].into(),
        agents: [].into(),
        scope: None,
    }
}

fn view(per_day: Option<u32>) -> SiteView {
    let roles = [Role::Robot, Role::Voter].into();
    let scope = Scope { roles, name_prefix: None, life_ms_max: LIFE_MS, per_day };
    let document = RootDocument {
        after: None,
        version: 1,
        name: SiteName::new("site").unwrap(),
        nonce: [9; 16],
        root_keys: [secret(ROOT).public()].into(),
        threshold: 1,
        issuers: [(key_of(FIRST), scope)].into(),
        operators: [(secret(OPERATOR).public(), OperatorName::new("first").unwrap())].into(),
        epoch: 1,
    };
    SiteView::new(vec![Sealed::seal(&document, &[&secret(ROOT)]).unwrap()]).unwrap()
}

/// What root keys certify of a node that votes.
fn chain_of(view: &SiteView, of: u16) -> Chain {
    let certificate = Certificate {
        site: view.root().site(),
        serial: Serial::from_bytes([1; 16]),
        key: key_of(of),
        grants: grants("first", &[Role::Voter]),
        epoch: 1,
        validity: Validity { from: SiteTime(0), until: SiteTime(10 * LIFE_MS) },
        issuer: None,
        invitation: None,
    };
    let certificate = Sealed::seal(&certificate, &[&secret(ROOT)]).unwrap();
    Chain::new(vec![ChainLink { certificate, sponsor: None }]).unwrap()
}

fn config(peers: Vec<PeerConfig>) -> ControlConfig {
    ControlConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        heartbeat_ms: 50,
        silence_ms_min: 350,
        silence_ms_max: 1_500,
        rpc_timeout_ms: 1_000,
        idle_timeout_ms: 10_000,
        snapshot_every_entries: 10_000,
        entries_kept: 1_000,
        snapshot_bytes_per_s: 1 << 30,
        policy: Policy::RoundRobin,
        peers,
        node: NodeConfig { name: NodeName::new("node").unwrap(), site: SiteName::new("site").unwrap() },
        store: StoreConfig {
            low_water_bytes: 0,
            segment_bytes: 1 << 20,
            history_days: 90,
            history_bytes: limits::HISTORY_BYTES_DEFAULT,
        },
    }
}

fn start(n: u16, data: &Path, site: &SiteHandle, peers: Vec<PeerConfig>) -> Consensus {
    let identity = Identity::from_seed(seed(n)).unwrap();
    Consensus::start(identity, config(peers), data, Build::default(), Some(site.clone())).unwrap().0
}

struct Hall {
    view: SiteView,
    node: Consensus,
    directory: Directory,
    at: SocketAddr,
    _data: TempDir,
}

impl Hall {
    async fn new() -> Self {
        Self::with(None, FIRST).await
    }

    /// `shows`: whose certificate the node shows.
    async fn with(per_day: Option<u32>, shows: u16) -> Self {
        let (view, data) = (view(per_day), tempfile::tempdir().unwrap());
        let own = chain_of(&view, shows);
        let site = SiteHandle::new(view.clone(), own, key_of(FIRST), SiteClock::Known(SiteTime(0)));
        let node = start(FIRST, data.path(), &site, Vec::new());
        let handle = node.handle();
        let genesis = Genesis::from_bytes([6; 16]);
        handle.init_shard(ShardId::DIRECTORY, vec![node_of(FIRST)], genesis, None).await.unwrap();
        let (directory, at) = (handle.directory(), handle.address().unwrap());
        Self { view, node, directory, at, _data: data }
    }

    async fn now(&self) -> SiteTime {
        match self.directory.ask(SiteQuery::Summary).await.unwrap() {
            (SiteAnswer::Summary(summary), _) => SiteTime(summary.now_ms),
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn change(&self, op: SiteOp) {
        let (_, clock) = self.directory.ask(SiteQuery::Summary).await.unwrap();
        self.directory.change(op, clock).await.unwrap();
    }

    fn code(&self, n: u16) -> InvitationCode {
        let mut random = [5; 16];
        random[..2].copy_from_slice(&n.to_be_bytes());
        InvitationCode {
            site: self.view.root().site().half(),
            node: node_of(FIRST),
            addresses: vec![self.at],
            secret: InvitationSecret::from_bytes(random),
        }
    }

    /// The operator invites whoever has the other half of a key.
    async fn invite_key(&self, key: PublicKey, grants: Grants, for_ms: u64) -> SiteTime {
        let (until, operator) = (self.now().await.plus_ms(for_ms), secret(OPERATOR));
        let site = self.view.root().site();
        let invitation = Invitation { site, key, grants, until, operator: operator.public(), node: None };
        let invitation = Sealed::seal(&invitation, &[&operator]).unwrap().to_bytes();
        self.change(SiteOp::Invite { invitation }).await;
        until
    }

    async fn invite(&self, n: u16, name: &str, roles: &[Role]) -> InvitationCode {
        let code = self.code(n);
        self.invite_key(code.key().public(), grants(name, roles), HOUR_MS).await;
        code
    }

    async fn stands(&self, code: &InvitationCode) -> SiteJoin {
        match self.directory.ask(SiteQuery::Join { invitation: code.key().public().into() }).await.unwrap() {
            (SiteAnswer::Join(Some(join)), _) => *join,
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn stop(self) {
        tokio::task::spawn_blocking(move || self.node.stop()).await.unwrap();
    }
}

async fn join_as(n: u16, code: &InvitationCode, name: Option<&str>) -> Result<Membership, JoinError> {
    let identity = Identity::from_seed(seed(n)).unwrap();
    let name = name.map(|name| name.parse().unwrap());
    join(JoinWish { code, identity: &identity, name, incarnation: Incarnation([3; 16]), addresses: &[] }).await
}

fn refusal(joined: Result<Membership, JoinError>) -> String {
    match joined {
        Err(JoinError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_the_code_becomes_the_member_that_the_invitation_describes() {
    let hall = Hall::new().await;
    let robot = hall.invite(1, "r1", &[Role::Robot]).await;
    let member = join_as(1, &robot, Some("r1")).await.unwrap();
    assert_eq!((member.member.key, &member.member.grants), (key_of(1), &grants("r1", &[Role::Robot])));
    assert_eq!(member.view.root().site(), hall.view.root().site());
    assert_eq!(member.member.validity.life_ms(), LIFE_MS);
    assert_eq!((member.voters[0].node, member.voters[0].control), (key_of(FIRST), Some(hall.at)));
    let voter = hall.invite(2, "v2", &[Role::Voter]).await;
    let member = join_as(2, &voter, None).await.unwrap();
    assert!(member.member.is(Role::Voter), "its chain shows who invited it");
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_hears_nothing_and_an_invitation_that_has_ended_is_as_one_that_never_was() {
    let hall = Hall::new().await;
    let code = hall.invite(1, "r1", &[Role::Robot]).await;
    assert!(matches!(join_as(1, &hall.code(2), None).await, Err(JoinError::NotHeard)));
    assert_eq!(hall.node.handle().refused().get("not-invited"), Some(&1));
    let late = hall.code(3);
    let until = hall.invite_key(late.key().public(), grants("r3", &[Role::Robot]), 4_000).await;
    while hall.now().await <= until {}
    assert!(matches!(join_as(3, &late, None).await, Err(JoinError::NotHeard)));
    assert_eq!(hall.stands(&late).await.state, InvitationState::Ended);
    assert!(join_as(1, &code, None).await.is_ok(), "others are not kept out");
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_hears_no_byte_and_after_some_attempts_is_not_heard_itself() {
    let hall = Hall::new().await;
    let code = hall.invite(1, "r1", &[Role::Robot]).await;
    let identity = Identity::from_seed(seed(66)).unwrap();
    let (mut heard, most) = (Vec::new(), limits::JOINS_PER_SOURCE_MINUTE_MAX);
    for n in 0..2 * most as u16 {
        heard.push(heard_after(&hall.code(100 + n), &identity, Ipv4Addr::new(127, 0, 0, 2)).await);
    }
    assert_eq!(heard[..most], vec![Some((0, TURNED_AWAY)); most]);
    assert_eq!(heard[most..], vec![Some((0, COME_AGAIN)); most]);
    let refused = hall.node.handle().refused();
    let counts = ["not-invited", "joins-too-often"].map(|kind| refused.get(kind).copied());
    assert_eq!(counts, [Some(most as u64); 2]);
    assert!(join_as(1, &code, None).await.is_ok(), "others are not kept out");
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_has_an_invitation_and_gets_the_same_answer_again() {
    let hall = Hall::new().await;
    let code = hall.invite(1, "r1", &[Role::Robot]).await;
    let first = join_as(1, &code, None).await.unwrap();
    let again = join_as(1, &code, None).await.unwrap();
    assert_eq!(first.chain, again.chain);
    assert!(refusal(join_as(2, &code, None).await).contains("was used by"));
    assert_eq!(join_as(1, &code, None).await.unwrap().chain, first.chain, "who came late changed nothing");
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_issuer_began_or_this_one_before_it_was_cut_off_goes_on() {
    let hall = Hall::new().await;
    let code = hall.invite(1, "r1", &[Role::Robot]).await;
    let invitation = code.key();
    let request = JoinRequest {
        site: hall.view.root().site(),
        invitation: invitation.public(),
        node: key_of(1),
        name: None,
        incarnation: Incarnation([3; 16]),
        channel: Some([8; 32]),
    };
    let request = Sealed::seal(&request, &[&invitation, &secret_of(1)]).unwrap();
    let (of, node, request) = (invitation.public().into(), key_of(1).into(), request.to_bytes());
    hall.change(SiteOp::Redeem { invitation: of, node, request }).await;
    assert!(matches!(hall.stands(&code).await.state, InvitationState::Redeemed { member: None, .. }));
    assert!(refusal(join_as(2, &code, None).await).contains("was used by"));
    assert_eq!(join_as(1, &code, None).await.unwrap().member.key, key_of(1));
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_stops_before_it_asks_if_the_node_is_of_another_site() {
    let hall = Hall::new().await;
    let code = InvitationCode { site: [1; 16], ..hall.code(1) };
    hall.invite_key(code.key().public(), grants("r1", &[Role::Robot]), HOUR_MS).await;
    let Err(JoinError::NotMember(why)) = join_as(1, &code, None).await else { panic!("it believes it") };
    assert!(why.contains("another site"), "{why}");
    assert_eq!(hall.stands(&code).await.state, InvitationState::Open);
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_who_it_says_is_told_nothing() {
    let hall = Hall::with(None, 9).await;
    let code = hall.invite(1, "r1", &[Role::Robot]).await;
    let Err(JoinError::NotMember(why)) = join_as(1, &code, None).await else { panic!("it believes it") };
    assert!(why.contains("another node"), "{why}");
    assert_eq!(hall.stands(&code).await.state, InvitationState::Open);
    let elsewhere = InvitationCode { node: node_of(9), ..hall.code(1) };
    assert!(matches!(join_as(1, &elsewhere, None).await, Err(JoinError::Unreachable(_))), "TLS shows its key");
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_may_not_issue_something_writes_nothing_down_and_a_day_has_an_end() {
    let hall = Hall::with(Some(1), FIRST).await;
    let observer = hall.invite(1, "o1", &[Role::Observer]).await;
    assert!(refusal(join_as(1, &observer, None).await).contains("observer"));
    assert_eq!(hall.stands(&observer).await.state, InvitationState::Open);
    let named = hall.invite(2, "r2", &[Role::Robot]).await;
    assert!(refusal(join_as(2, &named, Some("r3")).await).contains("r3"));
    assert!(join_as(2, &named, Some("r2")).await.is_ok());
    let more = hall.invite(4, "r4", &[Role::Robot]).await;
    assert!(refusal(join_as(4, &more, None).await).contains("in a day"));
    assert!(join_as(2, &named, None).await.is_ok(), "what was issued is not issued again");
    hall.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_machines_behind_one_address_join_at_once() {
    let hall = Hall::new().await;
    let mut codes = Vec::new();
    for n in 1..=200 {
        codes.push((n, hall.invite(n, &format!("r{n}"), &[Role::Robot]).await));
    }
    let joined = join_all(codes.iter().map(|(n, code)| join_as(*n, code, None))).await;
    let keys: Vec<PublicKey> = joined.into_iter().map(|joined| joined.unwrap().member.key).collect();
    assert_eq!(keys, (1..=200).map(key_of).collect::<Vec<_>>());
    hall.stop().await;
}

/// A member that runs, and knows where the directory is.
fn runs(hall: &Hall, n: u16, joined: &Membership, data: &Path) -> (Consensus, SiteHandle) {
    let (view, clock) = (joined.view.clone(), SiteClock::Known(joined.now));
    let site = SiteHandle::new(view, joined.chain.clone(), key_of(n), clock);
    let first = PeerConfig { id: node_of(FIRST), name: None, control: Some(hall.at), mesh: None, voter: false };
    (start(n, data, &site, vec![first]), site)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_asks_an_issuer_for_its_next_certificate_and_a_lost_answer_is_given_again() {
    let (hall, data) = (Hall::new().await, tempfile::tempdir().unwrap());
    let code = hall.invite(1, "r1", &[Role::Robot]).await;
    let joined = join_as(1, &code, None).await.unwrap();
    let (node, site) = runs(&hall, 1, &joined, data.path());
    let (handle, directory) = (node.handle(), node.handle().directory());
    let mut changes = handle.peer_changes();
    while !handle.peers().iter().any(|peer| peer.up) {
        changes.changed().await.unwrap();
    }
    assert!(matches!(directory.renew_if_due().await, Ok(false)));
    let own = joined.chain.certificate().unwrap().statement().clone();
    site.heard_clock(own.validity.from.plus_ms(LIFE_MS / 3 * 2));
    let early = directory.renew_if_due().await;
    assert!(matches!(early, Err(RenewError::Refused(_))), "the directory's clock counts: {early:?}");
    // Its issuer issued, and was cut off before it answered.
    let validity = Validity { from: own.validity.from.plus_ms(1), until: own.validity.until.plus_ms(1) };
    let next = Certificate { serial: Serial::from_bytes([2; 16]), validity, ..own };
    let next = Sealed::seal(&next, &[&secret_of(FIRST)]).unwrap();
    hall.change(SiteOp::Issue { certificate: next.to_bytes() }).await;
    assert!(matches!(directory.renew_if_due().await, Ok(true)));
    assert_eq!(site.hello().chain.certificate(), Some(&next));
    tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    hall.stop().await;
}
