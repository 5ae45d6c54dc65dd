//! Endpoints of a site, in one process: certificates say who is let in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use skep_admission::SiteHandle;
use skep_config::PeerConfig;
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::{FrameKind, Header};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_trust::{PublicKey, Role, SiteNews};

use super::calls::frame;
use super::gate::TURNED_AWAY;
use super::hall::{ROOT, certificate, chain, hello, member, out, shows};
use super::serve::Answer;
use super::tests::{Node, PATIENCE, identity, peer, start_at, stop, until};
use super::tls::{self, Opens};
use super::{Action, AnswerRoom, Class, Dispatch, Peers, Who};
use crate::threads::work_runtime;

/// Answers what members ask each other about members.
#[derive(Default)]
struct OfMembers(OnceLock<Peers>);

impl Dispatch for OfMembers {
    fn call(&self, _who: Who, header: Header, body: Bytes, _room: AnswerRoom) -> Answer {
        let peers = self.0.get().cloned();
        Box::pin(async move {
            let Some(peers) = peers else { return Err("it has just begun".to_owned()) };
            match header.kind {
                FrameKind::SiteNews => {
                    let news = SiteNews::from_bytes(&body).map_err(|e| e.to_string())?;
                    peers.learn(news).await.map(|()| Vec::new())
                }
                FrameKind::Addresses => peers.addresses_of_voters().encode().map_err(|e| e.to_string()),
                _ => Ok(vec![1]),
            }
        })
    }
}

fn id(seed: u8) -> NodeId {
    identity(seed).node()
}

/// A node that was told where others are.
fn start(seed: u8, site: &SiteHandle, told: Vec<PeerConfig>) -> Node {
    let dispatch = Arc::<OfMembers>::default();
    let node =
        start_at((seed, seed.into()), told, Arc::clone(&dispatch) as Arc<dyn Dispatch>, Vec::new(), Some(site.clone()));
    let _ = dispatch.0.set(node.peers.clone());
    node
}

/// Where a node is.
fn at(seed: u8, node: &Node) -> PeerConfig {
    peer(seed, node.plane.local_address())
}

fn is_connected(node: &Node, to: u8) -> bool {
    node.peers.connected(id(to)).is_some()
}

fn last_error(node: &Node, of: u8) -> String {
    let views = node.peers.views();
    views.into_iter().find(|view| view.node == id(of)).and_then(|view| view.last_error).unwrap_or_default()
}

/// Whether a node would let in a robot.
fn lets_in(site: &SiteHandle, of: u8) -> bool {
    let shown = chain(&certificate(id(of), &[Role::Robot]), ROOT).to_bytes();
    site.admit(&shown.into(), PublicKey::from(id(of))).is_ok()
}

#[test]
fn members_that_nobody_listed_are_let_in_and_are_what_their_certificates_say() {
    let (voter, robot) = (member(id(1), &[Role::Voter]), member(id(2), &[Role::Robot]));
    let one = start(1, &voter, Vec::new());
    let two = start(2, &robot, vec![at(1, &one)]);
    until(&two, || is_connected(&two, 1) && is_connected(&one, 2));
    let name = certificate(id(2), &[]).grants.name;
    assert_eq!(one.peers.name(id(2)), Some(name), "not what it calls itself");
    assert!(two.peers.may(id(1), Action::Vote, None) && !one.peers.may(id(2), Action::Vote, None));
    assert_eq!(two.peers.members_that_vote(), BTreeSet::from([id(1)]));
    assert!(one.peers.members_that_vote().is_empty());
    let answer = one.peers.call(id(2), Class::Query, FrameKind::Query, ShardId::FIRST, b"", PATIENCE);
    assert_eq!(one.work.block_on(answer).unwrap().as_ref(), [1], "streams are open to it");
    stop(two);
    stop(one);
}

/// A connection of somebody who does not belong to the site, from an address of this machine.
async fn connect(seed: u8, from: Ipv4Addr, to: (NodeId, SocketAddr)) -> Option<(quinn::Endpoint, quinn::Connection)> {
    let endpoint = quinn::Endpoint::client((from, 0).into()).unwrap();
    let client = tls::client(&identity(seed), to.0, PATIENCE, Opens::Whole).unwrap();
    let connection = endpoint.connect_with(client, to.1, "0.0.0.0").unwrap().await.ok()?;
    Some((endpoint, connection))
}

#[test]
fn a_stranger_gets_a_closed_connection_and_no_byte() {
    let site = member(id(1), &[Role::Voter]);
    let one = start(1, &site, Vec::new());
    let to = (id(1), one.plane.local_address().unwrap());
    let self_made = chain(&certificate(id(66), &[Role::Voter]), 66);
    one.work.block_on(async {
        let (_endpoint, connection) = connect(66, Ipv4Addr::LOCALHOST, to).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let news = frame(FrameKind::SiteNews, ShardId(0), None, 0, &SiteNews::default().to_bytes());
        let said = [frame(FrameKind::Trust, ShardId(0), None, 0, &hello(self_made).to_bytes()), news].concat();
        let second = tokio::time::timeout(Duration::ZERO, connection.open_bi()).await;
        assert!(second.is_err(), "it may open no other stream");
        send.write_all(&said).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(close) = &ended else { panic!("{ended:?}") };
        assert_eq!((close.error_code, close.reason.len()), (quinn::VarInt::from_u32(TURNED_AWAY), 0));
        assert!(receive.read(&mut [0; 1]).await.is_err());
        assert_eq!(connection.stats().frame_rx.stream, 0, "it was told something");
    });
    until(&one, || one.peers.refused() == BTreeMap::from([("not-sealed", 1)]));
    assert!(one.peers.present().is_empty() && one.peers.views().is_empty());
    stop(one);
}

#[test]
fn a_member_that_is_revoked_is_cut_off_and_stays_out() {
    let (voter, robot) = (member(id(1), &[Role::Voter]), member(id(2), &[Role::Robot]));
    let one = start(1, &voter, Vec::new());
    let two = start(2, &robot, vec![at(1, &one)]);
    until(&two, || is_connected(&two, 1) && is_connected(&one, 2));
    assert!(one.peers.may(id(2), Action::Change, None));
    voter.learn(&out(&[id(2)])).unwrap();
    until(&one, || !is_connected(&one, 2));
    assert!(!one.peers.may(id(2), Action::Change, None));
    // It dials again, and hears nothing.
    until(&two, || last_error(&two, 1).contains("does not let this node in"));
    until(&one, || one.peers.refused().get("revoked").is_some_and(|count| *count > 1));
    assert!(!is_connected(&one, 2) && !is_connected(&two, 1));
    stop(two);
    stop(one);
}

#[test]
fn what_one_member_learns_others_learn_over_links_that_are_there() {
    let sites = [1, 2, 3].map(|n| member(id(n), &[Role::Voter]));
    let one = start(1, &sites[0], Vec::new());
    let two = start(2, &sites[1], vec![at(1, &one)]);
    let three = start(3, &sites[2], vec![at(2, &two)]);
    until(&two, || is_connected(&two, 1) && is_connected(&two, 3));
    until(&two, || is_connected(&one, 2) && is_connected(&three, 2));
    sites[0].learn(&out(&[id(7)])).unwrap();
    until(&three, || sites.iter().all(|site| !lets_in(site, 7)));
    assert!(is_connected(&one, 2) && is_connected(&three, 2), "nobody else is out");
    stop(three);
    stop(two);
    stop(one);
}

#[test]
fn a_voter_that_nobody_configured_is_found_where_another_one_has_met_it() {
    let (first, voter, robot) =
        (member(id(1), &[Role::Voter]), member(id(2), &[Role::Voter]), member(id(3), &[Role::Robot]));
    let one = start(1, &first, Vec::new());
    let two = start(2, &voter, vec![at(1, &one)]);
    until(&two, || is_connected(&one, 2));
    let three = start(3, &robot, vec![at(1, &one)]);
    until(&three, || is_connected(&three, 2) && is_connected(&two, 3));
    stop(three);
    stop(two);
    stop(one);
}

#[test]
fn a_member_without_the_key_of_its_certificate_is_a_stranger() {
    let voter = member(id(1), &[Role::Voter]);
    let one = start(1, &voter, Vec::new());
    // It has the certificate of another one.
    let thief = shows(id(2), chain(&certificate(id(3), &[Role::Voter]), ROOT));
    let two = start(2, &thief, vec![at(1, &one)]);
    until(&two, || last_error(&two, 1).contains("does not let this node in"));
    assert!(one.peers.refused().contains_key("wrong-key") && one.peers.present().is_empty());
    stop(two);
    stop(one);
}

/// A stranger who takes each place that it gets, says nothing, and comes again.
async fn come_again(from: Ipv4Addr, to: (NodeId, SocketAddr)) {
    loop {
        match connect(66, from, to).await {
            Some((_endpoint, connection)) => _ = connection.closed().await,
            // It was refused, and leaves others a turn.
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[test]
fn a_storm_of_strangers_keeps_no_member_out() {
    let (voter, robot) = (member(id(1), &[Role::Voter]), member(id(2), &[Role::Robot]));
    // It was told where its member is, and finds nobody there.
    let nowhere = peer(2, Some((Ipv4Addr::LOCALHOST, 9).into()));
    let one = start(1, &voter, vec![nowhere]);
    let to = (id(1), one.plane.local_address().unwrap());
    let outside = work_runtime().unwrap();
    for last in 2..=20 {
        for _ in 0..limits::HANDSHAKES_PER_SOURCE_MAX {
            outside.spawn(come_again(Ipv4Addr::new(127, 0, 0, last), to));
        }
    }
    until(&one, || one.peers.refused().contains_key("late"));
    let two = start(2, &robot, vec![at(1, &one)]);
    until(&two, || is_connected(&two, 1) && is_connected(&one, 2));
    outside.shutdown_background();
    stop(two);
    stop(one);
}
