//! Three real processes: what a user sees, and what survives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use skep_client::{ClientError, Code, Read, Settings, TaskSpec, v1};
use skep_testnet::Load;
use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// Snapshots are so frequent that a short test sees them.
const SMALL_SNAPSHOTS: [&str; 2] = ["control.snapshot_every_entries=100", "control.entries_kept=20"];

fn spec(title: &str) -> TaskSpec {
    TaskSpec { title: title.to_owned(), ..TaskSpec::default() }
}

fn failure(result: Result<v1::TaskReceipt, ClientError>) -> v1::Failure {
    match result {
        Err(ClientError::NotDone(failure)) => *failure,
        other => panic!("expected a definite failure: {other:?}"),
    }
}

/// A small generator, so that a failing run can be repeated from its printed seed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("SKEP_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) | 1);
        println!("SKEP_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_killing_and_restarting_any_node_at_any_moment() {
    let mut dice = Dice::new();
    let mut site = Site::up(NODE, 3, 3, &SMALL_SNAPSHOTS).await;
    // Half of the load goes over streams, half in calls of its own.
    let settings = Settings { patience: Duration::from_secs(30), ..Settings::default() };
    let pipelined = Settings { pipelined: true, ..settings };
    let connections: Vec<_> =
        site.net.nodes.iter().flat_map(|node| [node.client_with(settings), node.client_with(pipelined)]).collect();
    let load = Load::start(&connections, 12, 256);
    load.measure();
    for round in 0..8 {
        // The leader is hit as often as any other node, and sometimes two nodes in a row without a pause.
        let victim = dice.below(3) as usize;
        let before = load.count();
        site.net
            .wait_for("progress", async || (load.count() > before + 20 + dice.below(200)).then_some(()))
            .await
            .unwrap();
        println!("round {round}: SIGKILL of node {victim} after {} acknowledged writes", load.count());
        site.net.kill(victim);
        if dice.below(2) == 0 {
            let before = load.count();
            site.net
                .wait_for("progress without it", async || (load.count() > before + 20).then_some(()))
                .await
                .unwrap();
        }
        site.net.start(victim).unwrap();
    }
    let done = load.stop().await;
    let status = site.net.until_equal(&[0, 1, 2]).await.unwrap().remove(0);
    let verified = site.net.verify(&done.acknowledged).await.unwrap();
    println!(
        "{} acknowledged, {verified} verified, {} unknown, {} not done",
        done.acknowledged.len(),
        done.unknown,
        done.errors
    );
    assert_eq!(verified, done.acknowledged.len(), "every acknowledged write is on every voter");
    assert!(done.acknowledged.len() > 200);
    assert!(status.snapshot_index > 0, "snapshots were taken meanwhile");
}

#[tokio::test]
async fn a_task_lives_from_create_to_complete_on_any_node() {
    let site = Site::up(NODE, 3, 3, &[]).await;
    let created = site.skep(0, &["task", "create", "fetch pallet 7", "--priority", "high", "-o", "json"]).json();
    let task = created["task"].as_str().unwrap();
    let claimed = site.skep(1, &["task", "claim", task, "--agent", "r1", "-o", "json"]).json();
    assert_eq!((claimed["status"].as_str(), claimed["epoch"].as_u64()), (Some("claimed"), Some(1)));
    let lost = site.skep(2, &["task", "claim", task, "--agent", "r2"]);
    assert_eq!(lost.code(), Some(1), "the loser of a race learns that it lost");
    assert!(lost.error().contains(Code::LostRace.as_str()) && lost.error().contains("r1"), "{}", lost.error());
    let thief = site.skep(0, &["task", "complete", task, "--agent", "r2"]);
    assert_eq!(thief.code(), Some(5), "{}", thief.error());
    site.skep(2, &["task", "progress", task, "40", "--agent", "r1", "-o", "json"]).json();
    site.skep(0, &["task", "complete", task, "--agent", "r1", "--result", "ok", "-o", "json"]).json();
    let shown = site.skep(1, &["task", "show", task, "-o", "json"]).json();
    assert_eq!(shown["task"]["status"], "completed");
    assert_eq!(shown["task"]["result"], "ok");
    let kinds: Vec<_> = shown["history"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "claimed", "progressed", "completed"]);
    assert_eq!(site.skep(1, &["task", "show", "01a1fd21-0000-7000-8000-000000000000"]).code(), Some(3));
    assert_eq!(site.skep(1, &["task", "show", "rubbish"]).code(), Some(2));
    assert_eq!(site.skep(1, &["task", "claim", "--agent", "r3"]).code(), Some(3), "nothing waits");
    let listed = site.skep(2, &["task", "list", "--status", "completed", "-o", "jsonl"]);
    assert_eq!(listed.text().lines().count(), 1);
    let again = site.skep(0, &["shard", "init", "--no-operator", "--voters", &site.net.nodes[0].id]);
    assert_eq!(again.code(), Some(1));
    assert!(again.error().contains("exists already"), "{}", again.error());
}

#[tokio::test]
async fn the_same_request_id_is_done_once_wherever_it_is_sent() {
    let site = Site::up(NODE, 3, 3, &[]).await;
    let clock = site.net.nodes[0].client().clock().await.unwrap().clock;
    let meta = v1::RequestMeta { request_id: vec![7; 16], shard: 1, first_sent: clock, deadline: clock + 60_000 };
    let request =
        |title: &str| v1::CreateTaskRequest { meta: Some(meta.clone()), task_id: Vec::new(), spec: Some(spec(title)) };
    let first = site.net.nodes[0].client().send_create(request("one")).await.unwrap();
    let retried = site.net.nodes[1].client().send_create(request("one")).await.unwrap();
    assert_eq!(first.task_id, retried.task_id);
    let other = failure(site.net.nodes[2].client().send_create(request("two")).await);
    assert_eq!(other.code, Code::RequestIdReused.as_str(), "another body under a used id is refused");
    let tasks = site.net.nodes[2].client().tasks(&[], &[], 10, Read::Linearizable).await.unwrap().tasks;
    assert_eq!(tasks.len(), 1);
}

#[tokio::test]
async fn without_a_quorum_writes_are_refused_and_stale_reads_say_their_age() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let created = site.skep(0, &["task", "create", "before", "-o", "json"]).json();
    let task = created["task"].as_str().unwrap().to_owned();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    site.net.kill(1);
    site.net.kill(2);
    let refused = site.skep(0, &["task", "create", "after"]);
    assert!(matches!(refused.code(), Some(4 | 6)), "never ok: {:?} {}", refused.code(), refused.error());
    let client = site.net.nodes[0].client();
    site.net
        .wait_for("isolation noticed", async || {
            let status = client.shard_status().await.ok()?;
            (status.connectivity == "isolated").then_some(())
        })
        .await
        .unwrap();
    let refused = site.skep(0, &["task", "create", "after"]);
    assert_eq!(refused.code(), Some(4), "{}", refused.error());
    assert!(refused.error().contains(Code::NoQuorum.as_str()), "{}", refused.error());
    assert_eq!(site.skep(0, &["task", "list"]).code(), Some(4));
    let stale = site.skep(0, &["task", "show", &task, "--stale", "-o", "json"]).json();
    assert_eq!(stale["task"]["title"], "before");
    assert_eq!(stale["as_of"]["linearizable"], false);
    site.net.start(1).unwrap();
    site.skep(0, &["task", "create", "with two of three", "-o", "json"]).json();
}

/// Kills the processes of all three nodes and starts them again. If `machines_too` is false, each finds what it saved
/// of the shard's clock, as after a restart within one boot of its machine; if true, it does not, as after another
/// boot.
async fn restart_all(site: &mut Site, machines_too: bool) {
    site.until_clocks_are_left(&[0, 1, 2]).await;
    (0..3).for_each(|at| site.net.kill(at));
    for node in site.net.nodes.iter().filter(|_| machines_too) {
        std::fs::remove_dir_all(node.dir.join("data/clocks")).unwrap();
    }
    (0..3).for_each(|at| site.net.start(at).unwrap());
    site.net.leader().await.unwrap();
}

async fn request_from_before(site: &Site) -> v1::CreateTaskRequest {
    let client = site.net.nodes[0].client();
    let clock = client.clock().await.unwrap().clock;
    client.create_task(spec("before")).await.unwrap();
    let meta = v1::RequestMeta { request_id: vec![9; 16], shard: 1, first_sent: clock, deadline: clock + 3_600_000 };
    v1::CreateTaskRequest { meta: Some(meta), task_id: Vec::new(), spec: Some(spec("old")) }
}

#[tokio::test]
async fn a_request_from_before_all_machines_restarted_is_expired() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let old = request_from_before(&site).await;
    restart_all(&mut site, true).await;
    let client = site.net.nodes[1].client();
    let refused = failure(client.send_create(old).await);
    assert_eq!(refused.code, Code::RequestExpired.as_str(), "{}", refused.message);
    let tasks = client.tasks(&[], &[], 10, Read::Linearizable).await.unwrap().tasks;
    assert_eq!(tasks.len(), 1, "what was acknowledged is there, and the old request was not done");
    client.create_task(spec("after")).await.unwrap();
}

#[tokio::test]
async fn a_request_from_before_all_processes_restarted_is_done_once() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let old = request_from_before(&site).await;
    restart_all(&mut site, false).await;
    let client = site.net.nodes[1].client();
    let first = client.send_create(old.clone()).await.unwrap();
    let again = site.net.nodes[2].client().send_create(old).await.unwrap();
    assert_eq!(first.task_id, again.task_id, "the clock went on, and with it what is remembered of the request");
    let tasks = client.tasks(&[], &[], 10, Read::Linearizable).await.unwrap().tasks;
    assert_eq!(tasks.len(), 2);
}

#[tokio::test]
async fn a_wiped_voter_waits_until_it_is_added_again_and_gets_everything() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let leader = site.net.leader().await.unwrap();
    let wiped = (leader + 1) % 3;
    let mut ids = Vec::new();
    for at in 0..20 {
        let receipt = site.net.nodes[leader].client().create_task(spec(&format!("task {at}"))).await.unwrap();
        ids.push(receipt.task_id.try_into().unwrap());
    }
    site.net.kill(wiped);
    site.net.wipe(wiped).unwrap();
    site.net.start(wiped).unwrap();
    let (client, others) = (site.net.nodes[wiped].client(), [leader, (leader + 2) % 3]);
    site.net
        .wait_for("the wiped node connected", async || {
            let status = client.node_status().await.ok()?;
            status.peers.iter().all(|peer| peer.control_up).then_some(())
        })
        .await
        .unwrap();
    // The group goes on without the node, and the node takes no part: it holds nothing and gives no vote.
    for at in others {
        site.net.nodes[at].client().create_task(spec("meanwhile")).await.unwrap();
    }
    assert!(site.net.nodes[wiped].held().await.unwrap_or_default().is_empty());
    let id = site.net.nodes[wiped].id.clone();
    let leader = site.net.leader().await.unwrap();
    let added = site.skep(leader, &["shard", "add-voter", &id, "-o", "json"]).json();
    assert_eq!(added.as_array().unwrap().len(), 3);
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    assert_eq!(site.net.verify(&ids).await.unwrap(), ids.len());
}

#[tokio::test]
async fn a_follower_far_behind_gets_a_snapshot_and_its_history() {
    let mut site = Site::up(NODE, 3, 3, &SMALL_SNAPSHOTS).await;
    let leader = site.net.leader().await.unwrap();
    let behind = (leader + 1) % 3;
    let task = site.net.nodes[leader].client().create_task(spec("first")).await.unwrap().task_id;
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    site.net.kill(behind);
    let client = site.net.nodes[leader].client();
    let claimed = client.claim_task("r1", Some(&task)).await.unwrap().receipt.unwrap();
    for at in 0..400 {
        client.create_task(spec(&format!("task {at}"))).await.unwrap();
    }
    let claim = v1::Claim { task_id: task.clone(), agent: "r1".into(), epoch: claimed.epoch };
    client.complete_task(claim, Vec::new()).await.unwrap();
    site.net
        .wait_for("the log behind the snapshot is gone", async || {
            let status = client.shard_status().await.ok()?;
            (status.purged_index > 100).then_some(())
        })
        .await
        .unwrap();
    site.net.start(behind).unwrap();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let client = site.net.nodes[behind].client();
    let kinds = site
        .net
        .wait_for("the history filled from a peer", async || {
            let page = client.history(&task, 0, 100, Read::Stale).await.ok()?;
            let kinds: Vec<String> = page.events.into_iter().map(|event| event.kind).collect();
            (kinds.len() >= 3).then_some(kinds)
        })
        .await
        .unwrap();
    assert_eq!(kinds, ["created", "claimed", "completed"]);
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_and_drains() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let leader = site.net.leader().await.unwrap();
    let term = site.net.nodes[leader].client().shard_status().await.unwrap().term;
    assert!(site.net.stop(leader).await, "it ends well");
    let next = site.net.leader().await.unwrap();
    assert_ne!(next, leader);
    let status = site.net.nodes[next].client().shard_status().await.unwrap();
    assert_eq!(status.term, term + 1, "one election, by transfer");
}

#[tokio::test]
async fn a_watcher_sees_every_transition_from_any_point_on() {
    let site = Site::up(NODE, 3, 3, &[]).await;
    let client = site.net.nodes[2].client();
    let first = client.create_task(spec("one")).await.unwrap();
    let claimed = client.claim_task("r1", Some(&first.task_id)).await.unwrap().receipt.unwrap();
    let mut watch = site.net.nodes[1].client().watch_tasks(&[], Some(first.index)).await.unwrap();
    let claim = v1::Claim { task_id: first.task_id.clone(), agent: "r1".into(), epoch: claimed.epoch };
    client.complete_task(claim, Vec::new()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = watch.message().await.unwrap().unwrap();
        seen.push((event.feed, event.kind));
    }
    let expected = [("new-orders", "created"), ("assigned-tasks", "claimed"), ("task-completions", "completed")];
    assert_eq!(seen, expected.map(|(feed, kind)| (feed.to_owned(), kind.to_owned())));
}

#[tokio::test]
async fn a_node_that_votes_nowhere_serves_as_a_client_of_the_shard() {
    let site = Site::up(NODE, 4, 3, &[]).await;
    let created = site.skep(3, &["task", "create", "from outside", "-o", "json"]).json();
    let task = created["task"].as_str().unwrap();
    site.skep(3, &["task", "claim", task, "--agent", "r1", "-o", "json"]).json();
    let shown = site.skep(3, &["task", "show", task, "-o", "json"]).json();
    assert_eq!(shown["task"]["status"], "claimed");
    assert_eq!(site.skep(3, &["shard", "status"]).code(), Some(1), "it holds no replica and says so");
}

#[tokio::test]
async fn a_shard_is_not_made_anew_over_a_replica_of_it() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    site.net.nodes[0].client().create_task(spec("precious")).await.unwrap();
    let before = site.net.until_equal(&[0, 1, 2]).await.unwrap()[2].last_log_index;
    (0..3).for_each(|at| site.net.kill(at));
    for at in [0, 1] {
        site.net.wipe(at).unwrap();
    }
    (0..3).for_each(|at| site.net.start(at).unwrap());
    let voters = site.net.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>().join(",");
    let refused = site
        .net
        .wait_for("the refusal", async || {
            let ran = site.skep(0, &["shard", "init", "--no-operator", "--voters", &voters]);
            assert_ne!(ran.code(), Some(0), "two that forgot would outvote the one that knows");
            ran.error().contains(Code::VotersUnchanged.as_str()).then(|| ran.error())
        })
        .await
        .unwrap();
    assert!(refused.contains(&site.net.nodes[2].id), "{refused}");
    let status = site.net.nodes[2].client().shard_status().await.unwrap();
    assert_eq!(status.last_log_index, before, "it has everything that it had");
}
