//! A site of two builds: what it speaks, when it speaks something newer, and what becomes of a node that is too old.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use skep_client::{ClientError, TaskSpec, v1};
use skep_tests::Site;
use skep_tests::pose::{POSE, pose};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

/// Nodes of these builds, the first three of which vote.
async fn site_of(poses: &[String]) -> Site {
    let mut site = Site::create(NODE, poses.len(), 3, &[]);
    for (at, pose) in poses.iter().enumerate() {
        site.net.nodes[at].set_variable(POSE, pose);
    }
    site.net.up().await.unwrap();
    site
}

async fn status(site: &Site, at: usize) -> Option<v1::ShardStatusReply> {
    site.net.nodes[at].client().shard_status().await.ok()
}

/// Waits until all these nodes speak a version.
async fn until_version(site: &Site, nodes: &[usize], version: u32) {
    let speak = async || {
        for at in nodes {
            if status(site, *at).await?.fleet_version != version {
                return None;
            }
        }
        Some(())
    };
    site.net.wait_for(&format!("fleet version {version}"), speak).await.unwrap();
}

async fn until_fault(site: &Site, at: usize, name: &str) -> v1::Fault {
    let found = async || status(site, at).await?.faults.into_iter().find(|fault| fault.name == name);
    site.net.wait_for(name, found).await.unwrap()
}

/// Stops a node and starts it again as another build.
fn install(site: &mut Site, at: usize, pose: &str) {
    site.net.kill(at);
    site.net.nodes[at].set_variable(POSE, pose);
    site.net.start(at).unwrap();
}

/// Hands the lead to a node, as often as that takes.
async fn lead(site: &Site, to: usize) {
    let led = async || {
        let leader = site.net.leader().await.ok()?;
        if leader == to {
            return Some(());
        }
        let _ = site.net.nodes[leader].client().transfer_leader(&site.net.nodes[to].id).await;
        None
    };
    site.net.wait_for("the lead of that node", led).await.unwrap();
}

/// Creates tasks one after another; returns how many the shard took.
async fn create(site: &Site, at: usize, count: usize) -> usize {
    let client = site.net.nodes[at].client();
    let mut done = 0;
    for n in 0..count {
        match client.create_task(TaskSpec { title: format!("task {n}"), ..TaskSpec::default() }).await {
            Ok(_) => done += 1,
            Err(ClientError::NotDone(failure)) => assert!(failure.message.contains("full"), "{failure:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    done
}

#[tokio::test]
async fn a_site_of_two_builds_speaks_the_older_version_and_is_raised_with_its_last_voter() {
    // Each build would allow another number of tasks.
    let limits = [12, 17, 7];
    let poses = [pose(1, 2, limits[0]), pose(1, 2, limits[1]), pose(1, 1, limits[2])];
    let mut site = site_of(&poses).await;
    let mut taken = 0;
    for at in [0, 1, 2] {
        lead(&site, at).await;
        taken += create(&site, at, 12).await;
    }
    let all = site.net.until_equal(&[0, 1, 2]).await.unwrap();
    assert!(all.iter().all(|status| status.fleet_version == 1), "one of them speaks nothing newer");
    assert!(limits.contains(&(taken as u64)), "{taken} tasks were taken by builds that let in {limits:?}");

    lead(&site, 0).await;
    let old = site.net.nodes[2].id.clone();
    let held_back = async || {
        let status = status(&site, 0).await?;
        (status.fleet_version_held_back_by == [old.clone()] && status.fleet_version_max == 2).then_some(())
    };
    site.net.wait_for("the leader names who holds the version back", held_back).await.unwrap();
    let shown = site.skep(0, &["shard", "status"]).text();
    assert!(shown.contains("2 is held back by n2, which speaks up to 1"), "{shown}");

    install(&mut site, 2, &pose(1, 2, limits[2]));
    until_version(&site, &[0, 1, 2], 2).await;
    let all = site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let digests: BTreeSet<&String> = all.iter().map(|status| &status.digest).collect();
    assert_eq!(digests.len(), 1);
    let shown = site.skep(0, &["shard", "status", "-o", "json"]).json();
    assert_eq!(shown["fleet_version"], 2);
}

#[tokio::test]
async fn a_node_that_is_older_than_its_shard_stops_says_so_and_goes_on_once_it_is_upgraded() {
    let (old, new) = (pose(1, 1, 1_000), pose(1, 2, 1_000));
    let mut site = site_of(&[new.clone(), new.clone(), new.clone(), old.clone()]).await;
    until_version(&site, &[0, 1, 2], 2).await;
    let leader = site.net.leader().await.unwrap();
    let id = site.net.nodes[3].id.clone();
    let refused = site.skep(leader, &["shard", "add-voter", &id]);
    assert_eq!(refused.code(), Some(1), "{}", refused.error());
    assert!(refused.error().contains("fleet version"), "{}", refused.error());

    let back = (leader + 1) % 3;
    install(&mut site, back, &old);
    let fault = until_fault(&site, back, "wrong-version").await;
    assert!(fault.advice.contains("install a Skep"), "{fault:?}");
    let shown = site.skep(back, &["shard", "status", "-o", "json"]).json();
    assert_eq!(shown["role"], "down", "{shown}");
    let named = until_fault(&site, leader, "voter-wrong-version").await;
    assert_eq!(named.node, site.net.nodes[back].id);
    assert_eq!(create(&site, leader, 5).await, 5, "two of three are a quorum");

    install(&mut site, back, &new);
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    assert!(status(&site, back).await.unwrap().faults.iter().all(|fault| fault.name != "wrong-version"));
}
