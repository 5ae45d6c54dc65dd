//! Connections on which nothing comes: their clients take places, and keep no node out.

use std::net::SocketAddr;

use skep_protocol::limits;
use skep_tests::Site;
use skep_tests::rogue::{Rogue, silent_connections, unfinished};

use super::beside::Beside;
use super::{connect, create, find, here, rogue, site_with};

/// This is more than there are places for.
const HANDSHAKES: u64 = 100;
/// This is more than the mesh has places for connections that shake hands, and descriptors left over.
const CONNECTIONS: usize = 100;

/// The address of a node's mesh, over TCP.
fn mesh_of(site: &Site, at: usize) -> SocketAddr {
    let mesh = site.net.addresses().swap_remove(at).mesh;
    let port = mesh.split("/udp/").nth(1).unwrap().split('/').next().unwrap();
    SocketAddr::new(here(1), port.parse().unwrap())
}

/// A voter is killed and comes back to the besieged one, on both planes.
async fn comes_back(site: &mut Site, what: &str) {
    site.net.kill(1);
    site.net.start(1).unwrap();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let (client, other) = (site.net.nodes[0].client(), site.net.nodes[1].id.clone());
    let both = async || {
        let peers = client.node_status().await.ok()?.peers;
        peers.iter().any(|peer| peer.node == other && peer.control_up && peer.mesh_up).then_some(())
    };
    site.net.wait_for(&format!("a voter that is back, beside {what}"), both).await.unwrap();
    for at in 0..3 {
        create(site, at, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_nobody_finishes_keep_nobody_out() {
    let rogue = rogue(73);
    let mut site = site_with(&rogue, 3).await;
    let (node, address) = find(&site, 0);
    let beside = Beside::of(&site).await;
    // The client is a stranger, at an address of its own.
    let mut begun = Vec::new();
    for n in 0..HANDSHAKES {
        begun.push(unfinished(1_000 + n, here(9), node, address).await.unwrap());
    }
    beside.is_bounded(&site, &format!("{} handshakes that are not finished", begun.len()));
    comes_back(&mut site, "handshakes that are not finished").await;
    drop(begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_a_listed_key_and_says_nothing_keeps_nobody_out() {
    // The robot was admitted from its address before it takes the places.
    let rogue = Rogue::new(74, here(8)).unwrap();
    let mut site = site_with(&rogue, 3).await;
    drop(connect(&rogue, &site, 0).await);
    let (node, address) = find(&site, 0);
    let beside = Beside::of(&site).await;
    let mut open = Vec::new();
    for _ in 0..HANDSHAKES {
        open.extend(rogue.dial(node, address).await);
    }
    open.retain(|connection| connection.close_reason().is_none());
    assert!(!open.is_empty(), "it reached no node");
    beside.is_bounded(&site, &format!("{} connections without hello", open.len()));
    assert!(open.len() <= limits::HANDSHAKES_PER_KNOWN_SOURCE_MAX, "{} places", open.len());
    comes_back(&mut site, "connections without hello").await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_on_which_nothing_comes_keep_nobody_out_of_the_mesh() {
    let rogue = rogue(75);
    let mut site = site_with(&rogue, 3).await;
    let beside = Beside::of(&site).await;
    let open = silent_connections(mesh_of(&site, 0), CONNECTIONS).await;
    assert!(!open.is_empty(), "it reached no node");
    // This is a connection on which the robot said hello, and nothing after it.
    let idle = connect(&rogue, &site, 0).await;
    beside.is_bounded(&site, &format!("{} silent connections to the mesh", open.len()));
    comes_back(&mut site, "silent connections").await;
    assert!(!idle.has_ended(), "a peer may be quiet");
    drop(open);
}
