//! The deeds of the bad robot by turns beside a site at work, and which of its attempts count.

use std::time::Duration;

use skep_protocol::frame::FrameKind;
use skep_protocol::ids::ShardId;
use skep_protocol::text::AgentId;
use skep_testnet::NodeAddress;
use skep_testnet::site::child::suspend;
use skep_tests::rogue::{DEEDS, Turns, Victim, frame};

use super::mesh::says;
use super::{connect, here, rogue, site_with};

/// How long it may take until each deed has had its turn, and another turn if it reached no node.
const PATIENCE: Duration = Duration::from_secs(600);

fn victim(address: NodeAddress) -> Victim {
    let (node, control) = (address.node.parse().unwrap(), address.control.parse().unwrap());
    Victim { node, control, mesh: address.mesh }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_its_deeds_reaches_somebody_where_nothing_else_goes_wrong() {
    let rogue = rogue(79);
    let site = site_with(&rogue, 3).await;
    let victims = site.net.addresses().into_iter().map(victim).collect();
    let mut turns = Turns::begin(79, here(1), victims, 3).unwrap();
    // Without a subscriber no deed on the mesh reaches a node.
    let mut values = site.net.nodes[1].client().subscribe(&["robots/pose"]).await.unwrap();
    let hears = tokio::spawn(async move { while let Ok(Some(_)) = values.message().await {} });
    let (speaker, mut left) = (site.net.nodes[0].client(), DEEDS.to_vec());
    let all = async {
        while !left.is_empty() {
            // The robot then has something to hear, and to send again.
            says(&speaker, "here").await;
            let done = turns.next_deed().await;
            println!("{done:?}");
            let has_reached = done.result.is_ok_and(|times| times > 0);
            left.retain(|deed| *deed != done.deed || !has_reached);
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    hears.abort();
    assert!(all.is_ok(), "these reached no node: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_to_a_node_that_does_not_run_does_not_count() {
    let rogue = rogue(80);
    let site = site_with(&rogue, 3).await;
    let line = connect(&rogue, &site, 1).await;
    let asked = line.lie(FrameKind::Query, rogue.node, &AgentId::new("r1").unwrap());
    let asked = frame(FrameKind::Query, ShardId::FIRST, 1, asked.len(), &asked);
    assert_eq!(line.reach(&asked).await, Ok(()));
    let pid = site.net.nodes[1].pid().unwrap();
    suspend(pid, true).unwrap();
    // The robot can write it, and no node takes it.
    assert!(!line.cut_short(&asked).await);
    let reached = line.reach(&asked).await;
    suspend(pid, false).unwrap();
    assert!(reached.is_err(), "it counts as one that reached its victim");
}
