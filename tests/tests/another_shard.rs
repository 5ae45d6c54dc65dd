//! Two shards that were made under one number: their nodes do not speak of it, say so, and one joins the other without
//! what it holds. A node that has heard of a shard makes no second one.
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
async fn of_nodes_that_made_a_shard_each_one_is_taken_in_once_it_has_given_its_own_up() {
    let mut site = Site::create(NODE, 2, 2, &[]);
    let ids = [0, 1].map(|at: usize| site.net.nodes[at].id.clone());
    for (at, id) in ids.iter().enumerate() {
        // Each node is alone: a node that has heard of a shard would refuse to make a second one.
        site.net.start(at).unwrap();
        let client = site.net.nodes[at].client();
        site.net.wait_for("it serves", async || client.node_status().await.ok()).await.unwrap();
        let made = site.skep(at, &["shard", "init", "--voters", id, "--no-operator"]);
        assert_eq!(made.code(), Some(0), "{}", made.error());
        let created = site.skep(at, &["task", "create", "its own"]);
        assert_eq!(created.code(), Some(0), "{}", created.error());
        site.net.kill(at);
    }
    (0..2).for_each(|at| site.net.start(at).unwrap());
    // The two nodes speak with each other, but not in that shard.
    until_connected(&site).await;
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
    assert!(replicas.iter().all(|replica| replica.genesis == replicas[0].genesis && replica.pending == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_heard_of_a_shard_makes_no_other_one_of_its_number() {
    let site = Site::up(NODE, 4, 3, &[]).await;
    // Node 3 finds the leader for that, and so has heard of the shard.
    let created = site.skep(3, &["task", "create", "from a node without a replica"]);
    assert_eq!(created.code(), Some(0), "{}", created.error());
    let refused = site.skep(3, &["shard", "init", "--voters", &site.net.nodes[3].id, "--no-operator"]);
    assert_eq!(refused.code(), Some(1), "{}", refused.text());
    let said = refused.error();
    assert!(said.contains("voters elsewhere") && said.contains("add-voter"), "{said}");
    assert!(site.net.nodes[..3].iter().any(|voter| said.contains(&voter.id)), "{said}");
    let created = site.skep(3, &["task", "create", "it goes on as before"]);
    assert_eq!(created.code(), Some(0), "{}", created.error());
}
