//! What a node says of its shard when something is wrong: the fault, and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use skep_client::v1;
use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

fn names(faults: &[v1::Fault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.name.as_str()).collect()
}

async fn until_fault(site: &Site, at: usize, name: &str) -> v1::ShardStatusReply {
    let client = site.net.nodes[at].client();
    let seen = site.net.wait_for(name, async || {
        let status = client.shard_status().await.ok()?;
        names(&status.faults).contains(&name).then_some(status)
    });
    seen.await.unwrap()
}

/// Waits until a node reports a fault of another node; returns the detail. Other nodes may have been slow for a moment.
async fn until_fault_of(site: &Site, at: usize, name: &str, of: &str) -> (v1::ShardStatusReply, v1::Fault) {
    let client = site.net.nodes[at].client();
    let seen = site.net.wait_for(name, async || {
        let status = client.shard_status().await.ok()?;
        let fault = status.faults.iter().find(|fault| fault.name == name && fault.node == of).cloned()?;
        Some((status, fault))
    });
    seen.await.unwrap()
}

#[tokio::test]
async fn a_voter_without_a_leader_is_not_connected_and_says_what_to_do() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let leader = site.net.leader().await.unwrap();
    let (left, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let client = site.net.nodes[left].client();
    site.net
        .wait_for("a shard without a fault", async || client.shard_status().await.ok()?.faults.is_empty().then_some(()))
        .await
        .unwrap();
    site.net.kill(leader);
    site.net.kill(other);
    let status = until_fault(&site, left, "no-leader").await;
    assert_ne!(status.connectivity, "connected");
    assert!(status.faults.iter().all(|fault| !fault.advice.is_empty() && !fault.detail.is_empty()), "{status:?}");
    let shown = site.skep(left, &["shard", "status"]).text();
    assert!(shown.contains("no-leader") && shown.contains("start voters until a majority runs"), "{shown}");
    let shown = site.skep(left, &["node", "status", "-o", "json"]).json();
    assert_eq!(shown["faults"][0]["shard"], 1, "{shown}");
}

#[tokio::test]
async fn a_leader_names_the_voter_that_is_silent_and_the_one_that_lost_its_disk() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let leader = site.net.leader().await.unwrap();
    let gone = (leader + 1) % 3;
    let id = site.net.nodes[gone].id.clone();
    site.net.kill(gone);
    let (status, _) = until_fault_of(&site, leader, "voter-silent", &id).await;
    assert_eq!(status.connectivity, "connected", "two of three are a quorum");
    site.net.wipe(gone).unwrap();
    site.net.start(gone).unwrap();
    let (_, fault) = until_fault_of(&site, leader, "voter-replaced", &id).await;
    assert!(fault.advice.contains("skep shard add-voter"), "{fault:?}");
    site.skep(leader, &["shard", "add-voter", &id, "-o", "json"]).json();
    let client = site.net.nodes[leader].client();
    let well = site.net.wait_for("all is well", async || {
        let status = client.shard_status().await.ok()?;
        (status.faults.is_empty() && status.voters.len() == 3).then_some(status)
    });
    assert!(well.await.unwrap().voters.iter().all(|voter| voter.standing == "voter"));
}
