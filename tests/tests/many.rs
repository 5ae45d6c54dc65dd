//! A site of three voters and many nodes that do not vote, each of which lists all others: real processes.
//!
//! The ordinary tests have a dozen of them; `SKEP_MANY=57` makes sixty nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use skep_client::{AgentOptions, Assignment, AttachedAgent, Client, Role, Settings, TaskSpec};
use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const VOTERS: usize = 3;
/// Number of robots at nodes that do not vote, each with a claimed task.
const ROBOTS: usize = 3;

/// How many nodes do not vote.
fn others() -> usize {
    let many = std::env::var("SKEP_MANY").ok().and_then(|text| text.parse().ok());
    many.unwrap_or(12).max(ROBOTS)
}

/// A client that waits as long as a busy machine may take.
fn patient(site: &Site, at: usize) -> Client {
    let (patience, attempt_timeout) = (Duration::from_secs(120), Duration::from_secs(20));
    site.net.nodes[at].client_with(Settings { patience, attempt_timeout, ..Settings::default() })
}

/// Writes once through each of these nodes, at the same time, and waits for all of them.
async fn write_through(site: &Site, nodes: impl Iterator<Item = usize>, title: &str) {
    let writes = nodes.map(|at| {
        let client = patient(site, at);
        let spec = TaskSpec { title: format!("{title}, through {at}"), ..TaskSpec::default() };
        (at, tokio::spawn(async move { client.create_task(spec).await }))
    });
    for (at, write) in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap_or_else(|error| panic!("{title}: the write through node {at}: {error}"));
    }
}

/// A robot at a node, and the task that it got.
async fn robot_at_work(site: &Site, at: usize) -> (AttachedAgent, Assignment) {
    let role = Role { name: "robot".into(), max_concurrent: Some(1), ..Role::default() };
    let options = AgentOptions::new(&format!("robot-{at}"), role);
    let mut agent = AttachedAgent::attach(&patient(site, at), options, None).await.unwrap();
    let work = tokio::time::timeout(Duration::from_secs(120), agent.next_task()).await;
    (agent, work.expect("a task comes").expect("it goes on"))
}

/// The position of the leader, and its term.
async fn leadership(site: &Site) -> (usize, u64) {
    let leader = site.net.leader().await.unwrap();
    (leader, site.net.nodes[leader].client().shard_status().await.unwrap().term)
}

/// Waits until a node keeps control connections to exactly these nodes.
async fn until_connected_to(site: &Site, at: usize, those: &BTreeSet<String>) {
    let client = site.net.nodes[at].client();
    let kept = site.net.wait_for("control connections to the needed nodes and to no others", async || {
        let peers = client.node_status().await.ok()?.peers;
        let up: BTreeSet<String> = peers.into_iter().filter(|peer| peer.control_up).map(|peer| peer.node).collect();
        (up == *those).then_some(())
    });
    kept.await.unwrap_or_else(|error| panic!("node {at}: {error}"));
}

#[tokio::test]
async fn every_node_that_does_not_vote_finds_a_new_leader_and_keeps_connections_to_voters_only() {
    let nodes = VOTERS + others();
    println!("{nodes} nodes");
    let mut site = Site::up(NODE, nodes, VOTERS, &["agents.lease_ttl_ms=60000"]).await;
    // All nodes have found the leader that is killed. The tasks that are created are work for the robots, too.
    write_through(&site, VOTERS..nodes, "before").await;
    let mut robots = Vec::new();
    for at in VOTERS..VOTERS + ROBOTS {
        robots.push(robot_at_work(&site, at).await);
    }
    let (leader, term) = leadership(&site).await;
    site.net.kill(leader);
    write_through(&site, VOTERS..nodes, "after the kill").await;
    let (_, raised) = leadership(&site).await;
    // One election, and at most two more for split votes, on a machine where many processes want a core at once.
    assert!((1..=3).contains(&(raised - term)), "the term went from {term} to {raised}");
    for (_agent, work) in &robots {
        let receipt = work.complete(Vec::new()).await.unwrap();
        assert_eq!(receipt.attempts, 1, "no other agent took it from its holder");
    }
    site.net.start(leader).unwrap();
    let all: BTreeSet<String> = site.net.nodes.iter().map(|node| node.id.clone()).collect();
    let voters: BTreeSet<String> = site.net.nodes[..VOTERS].iter().map(|node| node.id.clone()).collect();
    for at in 0..nodes {
        let mut needed = if at < VOTERS { all.clone() } else { voters.clone() };
        needed.remove(&site.net.nodes[at].id);
        until_connected_to(&site, at, &needed).await;
    }
    site.net.until_equal(&(0..VOTERS).collect::<Vec<_>>()).await.unwrap();
    restarts_among_voters_only(&mut site, nodes - 1, &voters).await;
}

/// A node that does not vote remembers the voters over a restart: it connects to them, and before them to no other
/// node.
async fn restarts_among_voters_only(site: &mut Site, at: usize, voters: &BTreeSet<String>) {
    let (list, log) = (site.net.nodes[at].dir.join("data/voters"), site.net.nodes[at].dir.join("log"));
    let is_left = async || {
        let list = std::fs::read_to_string(&list).ok()?;
        voters.iter().all(|voter| list.contains(voter)).then_some(())
    };
    site.net.wait_for("it has written down who votes", is_left).await.unwrap();
    site.net.kill(at);
    site.net.nodes[at].mark("started again");
    site.net.start(at).unwrap();
    until_connected_to(site, at, voters).await;
    let log = std::fs::read_to_string(log).unwrap();
    let (_, since) = log.rsplit_once("--- started again").unwrap();
    let strangers = since.lines().filter(|line| line.contains("control plane connected"));
    let strangers: Vec<&str> = strangers.filter(|line| !voters.iter().any(|voter| line.contains(voter))).collect();
    assert!(strangers.is_empty(), "{strangers:#?}");
    write_through(site, std::iter::once(at), "after its restart").await;
}
