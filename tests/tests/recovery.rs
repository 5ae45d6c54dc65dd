//! A shard that lost its voters, recovered on the one node that is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use skep_tests::Site;
use skep_tests::hall::Hall;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

fn status(site: &Site, at: usize) -> serde_json::Value {
    site.skep(at, &["shard", "status", "-o", "json"]).json()
}

fn create(site: &Site, at: usize, title: &str) -> String {
    let created = site.skep(at, &["task", "create", title, "-o", "json"]).json();
    created["task"].as_str().unwrap().to_owned()
}

/// Waits until a node and the survivor speak with each other.
async fn until_connected(site: &Site, at: usize) {
    let (client, survivor) = (site.net.nodes[at].impatient_client(), &site.net.nodes[0].id);
    let connected = async || {
        let status = client.node_status().await.ok()?;
        status.peers.iter().any(|peer| peer.node == *survivor && peer.control_up).then_some(())
    };
    site.net.wait_for("the survivor is connected", connected).await.unwrap();
}

/// The other voters are gone: what was acknowledged goes on, and a voter that comes back after all changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_last_voter_holds_goes_on_and_one_that_comes_back_after_all_changes_nothing() {
    let Hall { mut site, key } = Hall::up(NODE, 3, 3).await;
    let key = key.to_string_lossy().into_owned();
    let tasks: Vec<String> = (0..3).map(|at| create(&site, at, "before")).collect();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let before = status(&site, 0);
    let running = site.skep(0, &["shard", "recover", "--unsafe", "--key", &key]);
    assert_eq!(running.code(), Some(1), "{}", running.text());
    assert!(running.error().contains("is in use"), "{}", running.error());

    (0..3).for_each(|at| site.net.kill(at));
    site.net.wipe(1).unwrap();
    let lost = site.net.nodes[2].dir.join("data");
    let away = site.net.nodes[2].dir.join("lost");
    std::fs::rename(&lost, &away).unwrap();
    // An operator that only asks learns what would be lost.
    let asked = site.skep(0, &["shard", "recover"]);
    assert_eq!(asked.code(), Some(2), "{}", asked.text());
    for said in ["--unsafe", "3 tasks pending", site.net.nodes[1].id.as_str(), before["genesis"].as_str().unwrap()] {
        assert!(asked.error().contains(said), "{said}: {}", asked.error());
    }
    let nowhere = site.skep(0, &["shard", "recover", "--unsafe", "--key", &key, "--shard", "7"]);
    assert_eq!(nowhere.code(), Some(1), "{}", nowhere.text());
    let done = site.skep(0, &["shard", "recover", "--unsafe", "--key", &key, "-o", "json"]).json();
    assert_eq!(done["from_genesis"], before["genesis"]);
    assert_ne!(done["genesis"], before["genesis"]);
    let remembered = std::fs::read_to_string(format!("{key}.shard-1")).unwrap();
    assert_eq!(remembered.trim(), done["genesis"].as_str().unwrap(), "the key signs for what it made of the shard");

    site.net.start(0).unwrap();
    assert_eq!(site.net.leader().await.unwrap(), 0);
    let now = status(&site, 0);
    assert_eq!((&now["genesis"], now["voters"].as_array().map(Vec::len)), (&done["genesis"], Some(1)));
    let recovered = &now["recovered"];
    assert_eq!((&recovered["from_genesis"], &recovered["last_index"]), (&done["from_genesis"], &done["last_index"]));
    assert_eq!((&now["history_missing"], &now["history_lost"]), (&0.into(), &0.into()), "the history is whole");
    for task in &tasks {
        let shown = site.skep(0, &["task", "show", task, "-o", "json"]).json();
        assert_eq!((&shown["task"]["status"], &shown["history"][0]["kind"]), (&"pending".into(), &"created".into()));
    }
    create(&site, 0, "after");
    // Its first operator is the same as before, under the new genesis.
    let clerk = site.skep(0, &["operator", "list", "-o", "json"]).json();
    assert_eq!(clerk[0]["operator"], recovered["operator"]);

    // The node has the log of the earlier group, in which the survivor is still a voter.
    std::fs::rename(&away, &lost).unwrap();
    site.net.start(2).unwrap();
    until_connected(&site, 2).await;
    let lonely = async || {
        let status = site.net.nodes[2].impatient_client().shard_status().await.ok()?;
        status.faults.iter().any(|fault| fault.name == "no-leader").then_some(())
    };
    site.net.wait_for("the voter that comes back finds no follower", lonely).await.unwrap();
    let alone = status(&site, 2);
    assert_eq!((&alone["genesis"], alone["voters"].as_array().map(Vec::len)), (&before["genesis"], Some(3)));
    create(&site, 0, "beside it");
    let still = status(&site, 0);
    assert_eq!((&still["role"], &still["term"], &still["genesis"]), (&"leader".into(), &now["term"], &done["genesis"]));
    let id = site.net.nodes[2].id.clone();
    let refused = site.skep(0, &["shard", "add-voter", &id]);
    assert_eq!(refused.code(), Some(1), "{}", refused.text());
    assert!(refused.error().contains("before it was recovered"), "{}", refused.error());

    // Without that log, the node is a voter as any other.
    site.net.kill(2);
    site.net.wipe(2).unwrap();
    site.net.start(2).unwrap();
    until_connected(&site, 2).await;
    let client = site.net.nodes[0].client();
    let added = async || client.add_voter(&id).await.ok();
    let voters = site.net.wait_for("it is taken in", added).await.unwrap().voters;
    assert_eq!(voters.len(), 2);
    let replicas = site.net.until_equal(&[0, 2]).await.unwrap();
    assert!(replicas.iter().all(|replica| replica.genesis == replicas[0].genesis && replica.pending == 5));
    create(&site, 2, "by both");
}
