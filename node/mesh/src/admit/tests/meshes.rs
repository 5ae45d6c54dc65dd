//! Whole meshes of a site, on loopback.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, Swarm};
use skep_admission::SiteHandle;
use skep_config::{MeshConfig, PeerConfig};
use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{Envelope, Publication, TopicPath};
use skep_protocol::text::{AgentId, ContentType, SiteName};
use skep_trust::Role;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::hall::*;
use super::probe::{Noted, Probe, SPOKEN};
use crate::admit::Members;
use crate::behaviour::Behaviour;
use crate::gate::Gate;
use crate::peer::peer_id;
use crate::speakers::{NotHeard, Speakers};
use crate::{KnownMembers, Mesh, MeshView, transport};

fn peer(id: NodeId, mesh: Option<String>) -> PeerConfig {
    PeerConfig { id, name: None, control: None, mesh, voter: false }
}

fn start_heard(n: u8, site: Option<SiteHandle>, peers: Vec<PeerConfig>) -> (Mesh, mpsc::Receiver<Envelope>) {
    let name = SiteName::new("s").unwrap();
    let config = MeshConfig { listen: "127.0.0.1:0".parse().unwrap(), mdns: false, site: name, peers };
    Mesh::start_in(site, [n; 32], &config, None).unwrap()
}

fn start(n: u8, site: &SiteHandle, peers: Vec<PeerConfig>) -> Mesh {
    start_heard(n, Some(site.clone()), peers).0
}

/// The address of a mesh over a transport.
async fn address(mesh: &Mesh, over: &str) -> String {
    let mut view = mesh.handle().view();
    let listening = view.wait_for(|view| view.listening.len() == 2).await.unwrap().listening.clone();
    listening.into_iter().find(|at| at.contains(over)).unwrap()
}

async fn until(mesh: &Mesh, is_so: impl FnMut(&MeshView) -> bool) {
    let mut view = mesh.handle().view();
    let seen = tokio::time::timeout(Duration::from_secs(60), view.wait_for(is_so)).await;
    assert!(matches!(seen, Ok(Ok(_))), "it did not come to that: {:?}", mesh.handle().view().borrow().clone());
}

async fn until_up(mesh: &Mesh, n: u8) {
    until(mesh, |view| view.up.contains(&node(n))).await;
}

async fn until_down(mesh: &Mesh, n: u8) {
    until(mesh, |view| !view.up.contains(&node(n))).await;
}

async fn until_refused(mesh: &Mesh, kind: &str) {
    until(mesh, |view| view.refused.contains_key(kind)).await;
}

fn pose() -> TopicPath {
    TopicPath::new("s/robots/pose").unwrap()
}

fn publication(source: &str) -> Publication {
    let source = AgentId::new(source).unwrap();
    Publication { topic: pose(), source, content_type: ContentType::default(), payload: b"here".to_vec() }
}

/// The first envelope that arrives of several that a speaker publishes again and again.
async fn first_heard(speaker: &Mesh, sources: &[&str], heard: &mut mpsc::Receiver<Envelope>) -> Envelope {
    let said = async {
        loop {
            sources.iter().for_each(|source| speaker.handle().publish(publication(source)));
            let wait = Duration::from_millis(100);
            if let Ok(Some(envelope)) = tokio::time::timeout(wait, heard.recv()).await {
                return envelope;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), said).await.unwrap()
}

#[tokio::test]
async fn members_connect_over_quic_and_tcp_and_hear_what_each_says_of_its_own_agent() {
    for over in ["quic-v1", "tcp"] {
        let (a, b) = (robot(30).handle(), robot(31).handle());
        let (listener, mut heard) = start_heard(30, Some(a), Vec::new());
        let at = address(&listener, over).await;
        let speaker = start(31, &b, vec![peer(node(30), Some(at))]);
        until_up(&speaker, 30).await;
        until_up(&listener, 31).await;
        listener.handle().subscribe(pose());
        let envelope = first_heard(&speaker, &["robot-30", "robot-31"], &mut heard).await;
        assert_eq!((envelope.sender, envelope.publication), (node(31), publication("robot-31")));
        assert!(listener.handle().dropped().counts().1 > 0, "what it says of another's agent is dropped, and counted");
        speaker.stop().await;
        until_down(&listener, 31).await;
    }
}

#[tokio::test]
async fn a_stranger_is_opened_nothing_and_accepted_nothing() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    let node_of_site = start(30, &a, Vec::new());
    let at = address(&node_of_site, "tcp").await;
    // The listener has something to tell: a member that subscribes, and that others subscribe to.
    let member = start(31, &b, vec![peer(node(30), Some(at.clone()))]);
    [&node_of_site, &member].iter().for_each(|mesh| mesh.handle().subscribe(pose()));
    until_up(&node_of_site, 31).await;
    // Until the listener closes the connection.
    let noted = Probe::dial(66, &at).note_until(|_| false).await;
    let refused = SPOKEN.map(|name| Noted::Refused(name.to_owned()));
    assert_eq!(noted, BTreeSet::from(refused));
    until_refused(&node_of_site, "silent").await;
    assert!(!node_of_site.handle().view().borrow().up.contains(&node(66)));
}

/// This shows that the test before this one would see what it looks for.
#[tokio::test]
async fn a_listed_peer_is_opened_and_accepted_what_the_mesh_speaks() {
    let (by_list, _) = start_heard(30, None, vec![peer(node(66), None)]);
    by_list.handle().subscribe(pose());
    let at = address(&by_list, "tcp").await;
    let opened = ["/meshsub/1.3.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"].map(|name| Noted::Opened(name.to_owned()));
    let accepted = ["/meshsub/1.3.0", "/skep/s/kad/1", "/ipfs/id/1.0.0"].map(|name| Noted::Accepted(name.to_owned()));
    let wanted: BTreeSet<Noted> = opened.into_iter().chain(accepted).collect();
    let noted = Probe::dial(66, &at).note_until(|noted| noted.is_superset(&wanted)).await;
    assert!(noted.is_superset(&wanted), "{noted:?}");
}

#[tokio::test]
async fn who_shows_nothing_that_holds_is_refused_on_both_ends() {
    let a = robot(30).handle();
    a.learn(&stolen(36)).unwrap();
    let acceptor = start(30, &a, Vec::new());
    let at = address(&acceptor, "quic-v1").await;
    let shown = [
        ("expired", Shows { validity: OVER, ..robot(33) }),
        ("lower-epoch", Shows { epoch: 2, ..robot(34) }),
        ("self-made", Shows { issuer: 35, ..robot(35) }),
        ("revoked", robot(36)),
        // The node shows the certificate of another node.
        ("wrong-key", robot(37)),
    ];
    for (kind, shows) in shown {
        let seed = if kind == "wrong-key" { 38 } else { shows.of };
        let dialler = start(seed, &shows.handle(), vec![peer(node(30), Some(at.clone()))]);
        until_refused(&acceptor, kind).await;
        until_refused(&dialler, "ended").await;
        assert!(!dialler.handle().view().borrow().up.contains(&node(30)), "{kind}");
    }
    let of_other_site = Shows { nonce: OTHER_HALL, ..robot(39) }.handle();
    let dialler = start(39, &of_other_site, vec![peer(node(30), Some(at))]);
    until_refused(&dialler, "other-site").await;
    assert!(acceptor.handle().view().borrow().up.is_empty());
}

#[tokio::test]
async fn a_revoked_member_is_cut_off_at_once_and_stays_out() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    let revoking = start(30, &a, Vec::new());
    let at = address(&revoking, "quic-v1").await;
    let revoked = start(31, &b, vec![peer(node(30), Some(at))]);
    until_up(&revoking, 31).await;
    until_up(&revoked, 30).await;
    assert!(a.learn(&stolen(31)).unwrap());
    until_down(&revoking, 31).await;
    until_down(&revoked, 30).await;
    // The revoked node dials again, and is known at the door.
    until(&revoking, |view| view.refused.get("revoked").is_some_and(|times| *times >= 2)).await;
    assert!(!revoking.handle().view().borrow().up.contains(&node(31)));
}

#[tokio::test]
async fn a_visitor_carries_a_revocation_to_those_who_were_cut_off_from_it() {
    let (a, b, visitor) = (robot(30).handle(), robot(31).handle(), robot(32).handle());
    let cut_off = start(30, &a, Vec::new());
    let at = address(&cut_off, "quic-v1").await;
    let stolen_one = start(31, &b, vec![peer(node(30), Some(at.clone()))]);
    until_up(&cut_off, 31).await;
    visitor.learn(&stolen(31)).unwrap();
    let visiting = start(32, &visitor, vec![peer(node(30), Some(at))]);
    until_up(&cut_off, 32).await;
    until_down(&cut_off, 31).await;
    until_down(&stolen_one, 30).await;
    until_up(&visiting, 30).await;
}

#[tokio::test]
async fn a_member_comes_in_however_many_strangers_are_at_the_door() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    let member = start(31, &b, Vec::new());
    let at_member = address(&member, "quic-v1").await;
    let besieged = start(30, &a, Vec::new());
    let at = address(&besieged, "tcp").await;
    let port: u16 = at.rsplit('/').next().unwrap().parse().unwrap();
    // These do not even shake hands; the others do, and do not show themselves.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let strangers = (100..120).map(|n| tokio::spawn(Probe::dial(n, &at).note_until(|_| false)));
    let strangers: Vec<_> = strangers.collect();
    besieged.handle().know_members(KnownMembers::from([(node(31), Some(at_member))]));
    until_up(&besieged, 31).await;
    until_up(&member, 30).await;
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(silent);
}

#[tokio::test]
async fn members_that_become_known_are_dialled_and_stay_while_they_are_up() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    let member = start(31, &b, Vec::new());
    let at = address(&member, "quic-v1").await;
    let learning = start(30, &a, Vec::new());
    learning.handle().know_members(KnownMembers::from([(node(31), None)]));
    learning.handle().know_members(KnownMembers::from([(node(31), Some("rubbish".to_owned()))]));
    learning.handle().know_members(KnownMembers::from([(node(31), Some(at))]));
    until_up(&learning, 31).await;
    // A member that is connected stays.
    learning.handle().know_members(KnownMembers::new());
    until_up(&member, 30).await;
    assert!(learning.handle().view().borrow().up.contains(&node(31)));
}

#[tokio::test]
async fn only_members_are_dialled_and_none_of_them_once_it_is_revoked() {
    let site = robot(30).handle();
    let members = Members::of(site.clone());
    let name = SiteName::new("s").unwrap();
    let config = MeshConfig { listen: "127.0.0.1:0".parse().unwrap(), mdns: false, site: name, peers: Vec::new() };
    let gate = Arc::new(Gate::new(mpsc::channel(1).0, Arc::default()));
    let key = Keypair::ed25519_from_bytes([30; 32]).unwrap();
    let mut swarm = transport::swarm(key, &config, 1, gate, Some(members.clone())).unwrap();
    let peer = peer_id(node(31)).unwrap();
    let at: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    let dial = |swarm: &mut Swarm<Behaviour>| {
        let options = DialOpts::peer_id(peer).addresses(vec![at.clone()]).condition(PeerCondition::Always);
        matches!(swarm.dial(options.build()), Err(DialError::Denied { .. }))
    };
    assert!(dial(&mut swarm), "it is not known to be a member");
    swarm.behaviour_mut().door.know(peer, None);
    members.meet(&robot(31).member(&site));
    assert!(!dial(&mut swarm));
    site.learn(&stolen(31)).unwrap();
    assert!(dial(&mut swarm), "it is revoked");
}

#[test]
fn an_envelope_counts_of_a_member_that_was_met_for_its_own_agents_until_it_is_out() {
    let site = robot(30).handle();
    let members = Members::of(site.clone());
    let speakers = Speakers::Members(members.clone());
    let agent = |name: &str| AgentId::new(name).unwrap();
    let says = |n: u8, source: &str| speakers.check(node(n), &agent(source));
    assert_eq!(says(31, "robot-31"), Err(NotHeard::Stranger), "it was not met");
    members.meet(&robot(31).member(&site));
    members.meet(&Shows { role: Role::Observer, ..robot(32) }.member(&site));
    assert_eq!([says(31, "robot-31"), says(31, "robot-31/arm")], [Ok(()), Ok(())]);
    assert_eq!(says(31, "robot-30"), Err(NotHeard::NotIts));
    assert_eq!(says(32, "robot-32"), Err(NotHeard::NotIts), "it reads, and says nothing");
    site.learn(&stolen(31)).unwrap();
    assert_eq!(says(31, "robot-31"), Err(NotHeard::Stranger));
    assert!(members.is_revoked(node(31)) && !members.is_revoked(node(32)) && !members.is_revoked(node(33)));
}
