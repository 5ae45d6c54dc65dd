//! Sites whose links are slow, thin, one-sided, or cut in ways that leave no two sides: real processes behind a relay.
//!
//! A link that carries a datagram in time carries a site: the site is slow there, and it works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_client::{Client, Settings, TaskSpec};
use skep_testnet::TestNode;
use skep_testnet::site::child::suspend;
use skep_testnet::site::relay::{Law, Line, Links};
use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// Longer than a leader's lease of the `lan` preset: only a leader that hears its followers meanwhile still leads after
/// it.
const PAUSE: Duration = Duration::from_millis(400);
/// Bytes a second that a link of 256 kbit/s carries.
const THIN_BYTES_PER_S: u64 = 32_000;

fn links(law: Law) -> Links {
    let seed = std::env::var("SKEP_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SKEP_TEST_SEED={seed}");
    Links { law, seed }
}

/// A client that waits as long as a bad link may take.
fn patient(node: &TestNode) -> Client {
    let (patience, attempt_timeout) = (Duration::from_secs(60), Duration::from_secs(20));
    node.client_with(Settings { patience, attempt_timeout, ..Settings::default() })
}

/// Creates tasks one after another, each at the next node, after pauses in which only heartbeats go over links.
async fn write_with_pauses(site: &Site, count: usize) {
    let clients: Vec<Client> = site.net.nodes.iter().map(patient).collect();
    for (n, client) in (0..count).zip(clients.iter().cycle()) {
        tokio::time::sleep(PAUSE).await;
        let spec = TaskSpec { title: format!("task {n}"), ..TaskSpec::default() };
        client.create_task(spec).await.unwrap_or_else(|error| panic!("write {n} of {count}: {error}"));
    }
}

/// The position of the leader, and its term.
async fn leadership(site: &Site) -> (usize, u64) {
    let leader = site.net.leader().await.unwrap();
    let status = site.net.nodes[leader].client().shard_status().await.unwrap();
    (leader, status.term)
}

async fn slow_and_works(one_way_ms: u64, writes: usize) {
    let site = Site::up_behind_relay(NODE, 3, "lan", links(Law::delay(one_way_ms))).await;
    let before = leadership(&site).await;
    write_with_pauses(&site, writes).await;
    assert_eq!(leadership(&site).await, before, "{one_way_ms} ms one way: no voter stood for election");
}

#[tokio::test]
async fn a_site_on_a_slow_link_is_slow_and_works() {
    slow_and_works(35, 9).await;
    slow_and_works(300, 6).await;
}

#[tokio::test]
async fn a_site_whose_round_trip_takes_longer_than_a_second_works_and_replaces_a_leader_that_dies() {
    let mut site = Site::up_behind_relay(NODE, 3, "lan", links(Law::delay(600))).await;
    write_with_pauses(&site, 1).await;
    let (leader, term) = leadership(&site).await;
    write_with_pauses(&site, 2).await;
    assert_eq!(leadership(&site).await, (leader, term), "no voter stood for election");
    site.net.kill(leader);
    for at in (0..3).filter(|at| *at != leader) {
        let spec = TaskSpec { title: format!("through {at}, after the leader"), ..TaskSpec::default() };
        patient(&site.net.nodes[at]).create_task(spec).await.unwrap();
    }
    let (next, raised) = leadership(&site).await;
    assert!(next != leader && raised > term, "node {next} leads in term {raised}, after node {leader} in term {term}");
}

#[tokio::test]
async fn delays_in_one_direction_reordering_doubling_and_changing_delays_stop_nobody() {
    let site = Site::up_behind_relay(NODE, 3, "lan", links(Law::delay(5))).await;
    let (leader, _) = leadership(&site).await;
    let relay = site.relay();
    let others = (0..3).filter(|at| *at != leader);
    others.clone().for_each(|other| relay.set(leader, other, Law::delay(150)));
    write_with_pauses(&site, 3).await;
    relay.set_all(Law::delay(5));
    others.for_each(|other| relay.set(other, leader, Law::delay(150)));
    write_with_pauses(&site, 3).await;
    let shuffled =
        Law { held_back_permille: 200, held_back_ms: 60, doubled_permille: 100, lost_permille: 20, ..Law::delay(20) };
    relay.set_all(shuffled);
    write_with_pauses(&site, 6).await;
    relay.set_all(Law { jitter_ms: 250, ..Law::delay(5) });
    write_with_pauses(&site, 6).await;
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
}

/// Makes small writes until it is told to stop; returns how many were done.
async fn trickle(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let spec = TaskSpec { title: format!("meanwhile {done}"), ..TaskSpec::default() };
        client.create_task(spec).await.unwrap();
        done += 1;
        // This is little enough for the thin link.
        tokio::time::sleep(PAUSE).await;
    }
    done
}

#[tokio::test]
async fn a_follower_far_behind_on_a_thin_link_catches_up_while_writes_go_on() {
    let site = Site::up_behind_relay(NODE, 3, "lan", links(Law::delay(1))).await;
    let (leader, term) = leadership(&site).await;
    let behind = (leader + 1) % 3;
    let pid = site.net.nodes[behind].pid().unwrap();
    suspend(pid, true).unwrap();
    let client = patient(&site.net.nodes[leader]);
    for n in 0..16 {
        let spec = TaskSpec { title: format!("large {n}"), payload: vec![n; 32 * 1024], ..TaskSpec::default() };
        client.create_task(spec).await.unwrap();
    }
    let thin = Law::delay(20).through(Line::of(THIN_BYTES_PER_S));
    site.relay().set_around(behind, thin);
    suspend(pid, false).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writes = tokio::spawn(trickle(client, Arc::clone(&stop)));
    site.net.until_caught_up(&[behind]).await.unwrap();
    // The follower keeps up as well: what was written while it caught up soon arrives.
    site.net.until_caught_up(&[behind]).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let meanwhile = writes.await.unwrap();
    let counts = [site.relay().counts(leader, behind), site.relay().counts(behind, leader)];
    println!("{meanwhile} writes meanwhile; the thin link, there and back: {counts:?}");
    assert!(meanwhile > 0);
    assert_eq!(leadership(&site).await, (leader, term), "it asked no voter for a vote, and no voter gave it one");
}

#[tokio::test]
async fn a_cut_that_is_not_transitive_leaves_a_leader() {
    let mut site = Site::up_behind_relay(NODE, 5, "lan", links(Law::delay(1))).await;
    let (leader, term) = leadership(&site).await;
    let [down, near, cut_off, beside] = [1, 2, 3, 4].map(|n| (leader + n) % 5);
    site.net.kill(down);
    // The leader hears one of the other voters, which hears all. Two of five are no quorum; three of five see each
    // other.
    let cut = Law::default().cut();
    site.relay().set_both(leader, cut_off, cut);
    site.relay().set_both(leader, beside, cut);
    let client = patient(&site.net.nodes[cut_off]);
    for n in 0..3 {
        let spec = TaskSpec { title: format!("beyond the cut {n}"), ..TaskSpec::default() };
        client.create_task(spec).await.unwrap();
    }
    let seen = client.shard_status().await.unwrap();
    let led_by = [near, cut_off, beside].map(|at| site.net.nodes[at].id.as_str());
    assert!(led_by.contains(&seen.leader.as_str()), "{} leads", seen.leader);
    assert!(seen.term > term);
    assert!(site.relay().counts(leader, cut_off).lost > 0, "the cut took nothing");
    site.relay().set_all(Law::delay(1));
    site.net.until_equal(&[leader, near, cut_off, beside]).await.unwrap();
}

#[tokio::test]
async fn nodes_behind_a_relay_find_each_other_again_after_restarts() {
    let mut site = Site::up_behind_relay(NODE, 3, "sim", links(Law::delay(1))).await;
    for at in 0..3 {
        let carried = |site: &Site| {
            let others = (0..3).filter(|other| *other != at);
            others.map(|other| site.relay().counts(at, other).left).sum::<u64>()
        };
        site.net.kill(at);
        let before = carried(&site);
        site.net.start(at).unwrap();
        let spec = TaskSpec { title: format!("after {at}"), ..TaskSpec::default() };
        patient(&site.net.nodes[at]).create_task(spec).await.unwrap();
        assert!(carried(&site) > before, "what node {at} said after its restart went past the relay");
    }
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
}
