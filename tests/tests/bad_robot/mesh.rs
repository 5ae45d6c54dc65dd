//! The mesh: floods, envelopes about the robots of other nodes and in the names of other nodes, old envelopes again,
//! and lies about where peers are, which the robot tells in each of these tests.

use std::time::Duration;

use skep_client::v1::{PublishRequest, TopicValue};
use skep_client::{Client, NodeId, Streaming};
use skep_tests::Site;
use skep_tests::hall::attach;
use skep_tests::rogue::{MeshRogue, Rogue};

use super::beside::Beside;
use super::{here, rogue, site_with};

/// The topic on which robots say where they are.
const TOPIC: &str = "testnet/robots/pose";
/// Number of messages of a flood, of each sort.
const MESSAGES: u32 = 5_000;
/// Number of values that the test reads before something is said again: a subscriber without room for that would miss
/// it.
const LOOKED_AT: usize = 64;
/// The longest that anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn in_mesh(site: &Site, rogue: &Rogue, seed: u64) -> MeshRogue {
    let of = |address: skep_testnet::NodeAddress| (address.node.parse().unwrap(), address.mesh);
    let nodes: Vec<(NodeId, String)> = site.net.addresses().into_iter().map(of).collect();
    let mesh = MeshRogue::start(seed, here(1), &nodes, &[TOPIC]).unwrap();
    assert_eq!(mesh.node, rogue.node);
    mesh
}

pub(super) async fn says(speaker: &Client, payload: &str) {
    let (topic, source) = ("robots/pose".to_owned(), "r1".to_owned());
    let said = PublishRequest { topic, source, content_type: String::new(), payload: payload.as_bytes().to_vec() };
    speaker.publish(said).await.unwrap();
}

/// Waits until a node's subscriber hears what another node says again and again; returns all that it heard until then.
async fn until_heard(
    values: &mut Streaming<TopicValue>,
    (speaker, from): (&Client, &str),
    payload: &str,
) -> Vec<TopicValue> {
    let mut heard = Vec::new();
    let hearing = async {
        loop {
            says(speaker, payload).await;
            for _ in 0..LOOKED_AT {
                let next = tokio::time::timeout(Duration::from_millis(100), values.message()).await;
                let Ok(value) = next else { break };
                let value = value.unwrap().unwrap();
                let is_it = value.sender == from && value.payload == payload.as_bytes();
                heard.push(value);
                if is_it {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("{payload} is heard"));
    heard
}

/// Says something again and again until a neighbour has taken it.
async fn say(mesh: &MeshRogue, data: &[u8]) {
    let said = async {
        while !mesh.say(TOPIC, data.to_vec()).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, said).await.expect("it is said");
}

async fn invalid(site: &Site, at: usize) -> u64 {
    site.net.nodes[at].client().node_status().await.unwrap().mesh_invalid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_and_wild_hints_keep_nobody_from_being_heard_or_found() {
    let rogue = rogue(76);
    let mut site = site_with(&rogue, 3).await;
    let (speaker, from) = (site.net.nodes[0].client(), site.net.nodes[0].id.clone());
    let listener = site.net.nodes[1].client();
    let mut values = listener.subscribe(&[TOPIC]).await.unwrap();
    until_heard(&mut values, (&speaker, &from), "before").await;
    let beside = Beside::of(&site).await;
    let mesh = in_mesh(&site, &rogue, 76);
    say(&mesh, b"the first of much rubbish").await;
    let flood = async {
        for n in 0..MESSAGES {
            // The robot says what no node signed, and what it signed itself, each time about another robot and as large
            // as it may be.
            mesh.say(TOPIC, [&n.to_be_bytes()[..], &[7; 200]].concat()).await;
            let large = mesh.envelope(mesh.node, TOPIC, &format!("ghost-{n}"), &[7; 4_000]).unwrap();
            mesh.say(TOPIC, large).await;
        }
    };
    let beside_it = async {
        for n in 0..20 {
            until_heard(&mut values, (&speaker, &from), &format!("beside it, {n}")).await;
        }
    };
    tokio::join!(flood, beside_it);
    let status = listener.node_status().await.unwrap();
    println!("of {} messages {} were dropped and {} refused", 2 * MESSAGES, status.mesh_overflow, status.mesh_invalid);
    assert!(status.mesh_invalid > 0);
    beside.works(&site, "a flood on the mesh").await;
    // A node that has heard a wrong address still finds its peer at the right one.
    site.net.kill(2);
    site.net.start(2).unwrap();
    let other = site.net.nodes[2].id.clone();
    for client in [&speaker, &listener] {
        let up = async || {
            let peers = client.node_status().await.ok()?.peers;
            peers.iter().any(|peer| peer.node == other && peer.mesh_up).then_some(())
        };
        site.net.wait_for("a peer that is back in the mesh", up).await.unwrap();
    }
    until_heard(&mut values, (&speaker, &from), "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_it_in_the_name_of_another_node_nor_a_robots_own_node_about_that_robot() {
    let rogue = rogue(77);
    let site = site_with(&rogue, 3).await;
    let (speaker, from) = (site.net.nodes[0].client(), site.net.nodes[0].id.clone());
    let (_agent, _offers) = attach(&speaker, "r1", &[]).await;
    let mut here = speaker.subscribe(&[TOPIC]).await.unwrap();
    let mut elsewhere = site.net.nodes[1].client().subscribe(&[TOPIC]).await.unwrap();
    until_heard(&mut elsewhere, (&speaker, &from), "before").await;
    let mesh = in_mesh(&site, &rogue, 77);
    let (own, before) = (invalid(&site, 0).await, invalid(&site, 1).await);
    let told = async || {
        let forged = mesh.envelope(from.parse().unwrap(), TOPIC, "r1", b"forged").unwrap();
        say(&mesh, &forged).await;
        let of_other = mesh.envelope(mesh.node, TOPIC, "r1", b"of another's robot").unwrap();
        say(&mesh, &of_other).await;
        (invalid(&site, 0).await >= own + 2 && invalid(&site, 1).await > before).then_some(())
    };
    site.net.wait_for("both have met what is not its to say", told).await.unwrap();
    let at_its_own = until_heard(&mut here, (&speaker, &from), "after").await;
    let others = until_heard(&mut elsewhere, (&speaker, &from), "after").await;
    assert!(at_its_own.iter().all(|value| value.sender == from), "{at_its_own:?}");
    // At other nodes the robot is heard about the other robot, under its own name: nothing says yet which node may
    // speak for which agent.
    assert!(others.iter().all(|value| value.payload != b"forged"), "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_says_again_of_what_others_said_is_old_after_a_restart_too() {
    let rogue = rogue(78);
    let mut site = site_with(&rogue, 3).await;
    let (speaker, from) = (site.net.nodes[0].client(), site.net.nodes[0].id.clone());
    let mesh = in_mesh(&site, &rogue, 78);
    let listener = site.net.nodes[1].client();
    let mut values = listener.subscribe(&[TOPIC]).await.unwrap();
    // The robot itself hears envelopes of the other node, to send them again later.
    let heard = async {
        while mesh.heard().is_empty() {
            until_heard(&mut values, (&speaker, &from), "old").await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("it hears others");
    let old = mesh.heard();
    until_heard(&mut values, (&speaker, &from), "newer").await;
    assert!(site.net.stop(1).await);
    site.net.start(1).unwrap();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let mut values = listener.subscribe(&[TOPIC]).await.unwrap();
    let again = async || {
        for (_, envelope) in &old {
            say(&mesh, envelope).await;
        }
        (invalid(&site, 1).await > 0).then_some(())
    };
    site.net.wait_for("old envelopes come there", again).await.unwrap();
    let heard = until_heard(&mut values, (&speaker, &from), "newest").await;
    let payloads: Vec<&[u8]> = heard.iter().map(|value| value.payload.as_slice()).collect();
    assert!(!payloads.contains(&b"old".as_slice()), "{heard:?}");
}
