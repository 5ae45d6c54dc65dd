//! Two shards that were made under one number: their nodes do not speak with each other, say so, and one joins the other without
//! what it holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const ANOTHER: &str = "another-shard";

/// Waits until two nodes speak with each other.
async fn until_connected(site: &Site) {
    for (at, other) in [(0, 1), (1, 0)] {
        let (client, other) = (site.net.nodes[at].client(), &site.net.nodes[other].id);
        let connected = async || {
            let peers = client.node_status().await.ok()?.peers;
            peers.iter().any(|peer| peer.node == *other && peer.control_up).then_some(())
        };
        site.net.wait_for("the other node is connected", connected).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_made_a_shard_each_part_and_one_is_taken_in_once_it_has_given_its_own_up() {
    let mut site = Site::create(NODE, 2, 2, &[]);
    (0..2).for_each(|at| site.net.start(at).unwrap());
    until_connected(&site).await;
    let ids = [0, 1].map(|at: usize| site.net.nodes[at].id.clone());
    for (at, id) in ids.iter().enumerate() {
        let made = site.skep(at, &["shard", "init", "--voters", id, "--no-operator"]);
        assert_eq!(made.code(), Some(0), "{}", made.error());
    }
    // Neither had a shard when they connected.
    for (at, other) in [(0, &ids[1]), (1, &ids[0])] {
        let client = site.net.nodes[at].client();
        let said = async || {
            let faults = client.node_status().await.ok()?.faults;
            faults.into_iter().find(|fault| fault.name == ANOTHER && fault.node == *other)
        };
        let said = site.net.wait_for("what they say of each other", said).await.unwrap();
        assert!(said.detail.contains("genesis") && said.advice.contains("data directory"), "{said:?}");
        let shown = site.skep(at, &["node", "status"]).text();
        assert!(shown.contains(ANOTHER) && shown.contains("off the [[peers]]"), "{shown}");
    }
    let created = site.skep(0, &["task", "create", "beside it"]);
    assert_eq!(created.code(), Some(0), "{}", created.error());
    let refused = site.skep(0, &["shard", "add-voter", &ids[1]]);
    assert_eq!(refused.code(), Some(1), "{}", refused.text());
    assert!(refused.error().contains("belongs to another shard"), "{}", refused.error());
    let voters = site.skep(0, &["shard", "status", "-o", "json"]).json()["voters"].as_array().map(Vec::len);
    assert_eq!(voters, Some(1));

    site.net.kill(1);
    site.net.wipe(1).unwrap();
    site.net.start(1).unwrap();
    until_connected(&site).await;
    let client = site.net.nodes[0].client();
    let added = async || client.add_voter(&ids[1]).await.ok();
    assert_eq!(site.net.wait_for("it is taken in", added).await.unwrap().voters.len(), 2);
    let replicas = site.net.until_equal(&[0, 1]).await.unwrap();
    assert!(replicas.iter().all(|replica| replica.genesis == replicas[0].genesis && replica.pending == 1));
}
