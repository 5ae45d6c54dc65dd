//! Disks without room, and processes without descriptors: they end no node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use skep_client::command::{Command, CommandClass};
use skep_client::{Client, Code, CommandId, OperatorSecret, Read, TaskSpec};
use skep_tests::Site;
use skep_tests::hall::{Hall, QUICK, Starts, attach, obey, signed};
use skep_tests::small_disk::SmallDisk;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const SEED: [u8; 32] = [7; 32];

/// Sends commands with arguments of 6 kB: such commands filled the journals of a robot within minutes.
async fn send(client: &Client, count: usize) -> Vec<CommandId> {
    let operator = OperatorSecret::from_seed(&SEED);
    let mut ids = Vec::new();
    for _ in 0..count {
        let command = signed(client, &operator, "r1", 600_000, vec![1; 6_000]).await;
        client.send_command(&command).await.unwrap();
        ids.push(command.id);
    }
    ids
}

/// Sends an urgent command, such as one that stops a robot.
async fn stop(client: &Client) -> CommandId {
    let operator = OperatorSecret::from_seed(&SEED);
    let routine = signed(client, &operator, "r1", 600_000, Vec::new()).await.statement().clone();
    let command = Command { class: CommandClass::Urgent, ..routine }.sign(&operator).unwrap();
    client.send_command(&command).await.unwrap();
    command.id
}

/// How many of these commands have succeeded; another outcome fails the test.
async fn succeeded(client: &Client, ids: &[CommandId]) -> usize {
    let mut count = 0;
    for id in ids {
        let view = client.command(*id, Read::Linearizable).await.unwrap().command.unwrap();
        if view.open == 0 {
            assert_eq!(view.deliveries[0].outcome, "succeeded");
            count += 1;
        }
    }
    count
}

async fn until_all_succeeded(site: &Site, client: &Client, ids: &[CommandId]) {
    let done = async || (succeeded(client, ids).await == ids.len()).then_some(());
    site.net.wait_for("every command is done", done).await.unwrap();
}

/// Waits until a node reports a fault with this detail.
async fn until_fault(site: &Site, at: usize, name: &str, detail: &str) {
    let client = site.net.nodes[at].impatient_client();
    let seen = site.net.wait_for(name, async || {
        let faults = client.node_status().await.ok()?.faults;
        faults.iter().any(|fault| fault.name == name && fault.detail.contains(detail)).then_some(())
    });
    seen.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_journals_ends_no_node_and_every_command_is_done_once_there_is_room() {
    let mut site = Site::create(NODE, 1, 1, &QUICK);
    let Some(disk) = SmallDisk::mount(&site.net.nodes[0].dir.join("journals"), "64m") else { return };
    site.net.up().await.unwrap();
    let mut hall = Hall::on(site);
    let operator = OperatorSecret::from_seed(&SEED).key().to_string();
    let key = hall.key.to_str().unwrap().to_owned();
    hall.site.skep(0, &["operator", "add", &operator, "--name", "test", "--key", &key, "-o", "json"]).json();
    let client = hall.client(0);
    let (_agent, offers) = attach(&client, "r1", &[]).await;
    let starts = Starts::default();
    let robot = tokio::spawn(obey(offers, Arc::clone(&starts), |_| Vec::new()));
    let before = send(&client, 10).await;
    until_all_succeeded(&hall.site, &client, &before).await;
    disk.fill();
    until_fault(&hall.site, 0, "journals-nearly-full", "begins no").await;
    let started = starts.lock().unwrap().len();
    // The shard has room for these commands, and keeps them. A node without this limit ended after 230 of them.
    let kept = send(&client, 100).await;
    let spec = TaskSpec { title: "beside them".to_owned(), ..TaskSpec::default() };
    client.create_task(spec).await.expect("the rest of the node goes on");
    assert_eq!(starts.lock().unwrap().len(), started, "nothing is begun without a place for its end");
    // An urgent command, which stops a robot, has a place of its own.
    let stopped = stop(&client).await;
    until_all_succeeded(&hall.site, &client, &[stopped]).await;
    assert_eq!(starts.lock().unwrap().len(), started + 1, "and nothing else is begun");
    let shown = hall.site.skep(0, &["node", "status"]).text();
    assert!(shown.contains("journals-nearly-full") && shown.contains("free some space"), "{shown}");
    // A full disk does not end the processes after it either. Without its clock a shard of one voter would begin
    // another era.
    hall.site.until_clocks_are_left(&[0]).await;
    for _ in 0..3 {
        assert!(!hall.site.net.nodes[0].has_ended());
        hall.site.net.kill(0);
        hall.site.net.start(0).unwrap();
        until_fault(&hall.site, 0, "journals-nearly-full", "begins no").await;
    }
    let stopped_again = stop(&client).await;
    until_all_succeeded(&hall.site, &client, &[stopped_again]).await;
    disk.free();
    until_all_succeeded(&hall.site, &client, &kept).await;
    assert!(!hall.site.net.nodes[0].has_ended());
    let starts = starts.lock().unwrap().clone();
    assert_eq!(starts.len(), before.len() + kept.len() + 2);
    assert!(starts.values().all(|count| *count == 1), "{starts:?}");
    robot.abort();
    // This comes first, so that nothing is mounted in the directory when it is removed.
    drop(disk);
}

/// rabbitmq/rabbitmq-server#10723: what a broker that starts with little room says, and how often, and what its callers
/// hear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_with_little_room_says_so_now_and_then_and_to_its_callers() {
    let mut site = Site::create(NODE, 1, 1, &[]);
    let Some(disk) = SmallDisk::mount(&site.net.nodes[0].dir.join("data"), "200m") else { return };
    site.net.up().await.unwrap();
    assert!(site.net.stop(0).await);
    disk.fill_but(23 << 20);
    site.net.start(0).unwrap();
    let client = site.net.nodes[0].impatient_client();
    let spec = || TaskSpec { title: "no room".to_owned(), ..TaskSpec::default() };
    let refused = async || client.create_task(spec()).await.err().filter(|error| error.code() == Some(Code::DiskFull));
    let refused = site.net.wait_for("the refusal", refused).await.unwrap();
    assert!(refused.to_string().contains("is nearly full"), "{refused}");
    assert!(!refused.to_string().contains("start or reconnect voters"), "{refused}");
    until_fault(&site, 0, "disk-nearly-full", "free").await;
    // In five seconds of its own the node logs only a few lines, however often clients ask.
    let log = site.net.nodes[0].dir.join("log");
    let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
    let uptime = async || Some(client.node_status().await.ok()?.uptime_ms);
    let (begun, before) = (site.net.wait_for("its uptime", async || uptime().await).await.unwrap(), lines());
    let later = async || {
        let _ = client.create_task(spec()).await;
        uptime().await.filter(|now| *now >= begun + 5_000)
    };
    site.net.wait_for("five seconds", later).await.unwrap();
    let said = lines() - before;
    assert!(said <= 20, "{said} lines: {}", std::fs::read_to_string(&log).unwrap());
    assert!(!site.net.nodes[0].has_ended());
    disk.free();
    let created = async || client.create_task(spec()).await.ok();
    site.net.wait_for("service again", created).await.unwrap();
    // This comes first, so that nothing is mounted in the directory when it is removed.
    drop(disk);
}

/// A program that runs the node with other limits of descriptors, in the words of ulimit(1).
fn with_descriptors(dir: &std::path::Path, limits: &str) -> String {
    let path = dir.join("node");
    std::fs::write(&path, format!("#!/bin/sh\nulimit {limits}\nexec {NODE} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// eclipse-mosquitto/mosquitto#948: a broker without descriptors spins, and says nothing to its clients.
#[tokio::test]
async fn a_node_with_few_descriptors_refuses_watchers_by_name_and_serves_whoever_looks_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::up(&with_descriptors(dir.path(), "-n 80"), 1, 1, &[]).await;
    let node = &site.net.nodes[0];
    let mut watches = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let client = node.client();
        match client.watch_tasks(&[], None).await {
            Ok(watch) => watches.push((client, watch)),
            Err(error) => {
                // The connections of watchers that were refused before may not be closed yet.
                assert!(matches!(error.code(), Some(Code::TooManyConnections | Code::TooManyStreams)), "{error}");
                assert!(error.to_string().contains("are open"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !watches.is_empty(), "{refused} of 60 were refused");
    site.skep(0, &["task", "create", "beside them", "-o", "json"]).json();
    assert_eq!(site.skep(0, &["node", "status"]).code(), Some(0));
    drop(watches);
    let client = node.client();
    let again = site.net.wait_for("a watch", async || client.watch_tasks(&[], None).await.ok());
    again.await.unwrap();

    // Connections that say nothing take all places, and a client that calls learns why there is none.
    let idle: Vec<UnixStream> = (0..60).map(|_| UnixStream::connect(node.dir.join("api.sock")).unwrap()).collect();
    let error = site.net.wait_for("the refusal", async || {
        node.impatient_client().node_status().await.err().filter(|error| error.code() == Some(Code::TooManyConnections))
    });
    let error = error.await.unwrap();
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    // The idle connections do not keep their places.
    let served = site.net.wait_for("service again", async || node.client().node_status().await.ok());
    served.await.unwrap();
    drop(idle);
    let log = std::fs::read_to_string(node.dir.join("log")).unwrap();
    let told =
        log.lines().filter(|line| line.contains("as many connections") || line.contains("cannot accept")).count();
    assert!((1..=4).contains(&told), "{told} lines: {log}");
}

/// eclipse-mosquitto/mosquitto#948: what a shell gives a process is less than it may have.
#[tokio::test]
async fn a_node_has_as_many_descriptors_as_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::up(&with_descriptors(dir.path(), "-S -n 80"), 1, 1, &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", site.net.nodes[0].pid().unwrap())).unwrap();
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [has, may_have, ..] = open.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{open}") };
    assert_eq!(has, may_have);
    assert_ne!(has, "80");
}
