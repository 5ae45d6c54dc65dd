//! The identity of a node, its ports, the files beside its own, and the leader: what public bug reports describe, on
//! real processes. Each test names its source.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use skep_client::{Client, Endpoint, v1};
use skep_tests::running::Running;
use skep_tests::{Ran, Site};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const SHARED: &str = "identity-shared";

/// Copies the files that make up the identity of a node.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for part in ["data", "journals", "node.key", "skep.toml"] {
        let copied = Command::new("cp").arg("-a").arg(from.join(part)).arg(to).status().unwrap();
        assert!(copied.success(), "{part}");
    }
}

/// A command that runs the node in a directory, on ports that are free.
fn run_elsewhere(dir: &Path) -> Command {
    let mut command = Command::new(NODE);
    command.args(["run", "--dir"]).arg(dir).env_clear();
    command.args(
        ["control", "mesh", "api"].iter().flat_map(|of| ["--set".to_owned(), format!("{of}.listen=127.0.0.1:0")]),
    );
    command
}

/// How often a node has logged that it connected to another one, on either plane.
fn connects(site: &Site, at: usize, to: &str) -> usize {
    let log = std::fs::read_to_string(site.net.nodes[at].dir.join("log")).unwrap();
    log.lines().filter(|line| line.contains(" connected") && line.contains(to)).count()
}

async fn fault(client: &Client, node: &str) -> Option<v1::Fault> {
    let faults = client.node_status().await.ok()?.faults;
    faults.into_iter().find(|fault| fault.name == SHARED && fault.node == node)
}

/// hashicorp/consul#13037
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_directory_that_runs_beside_the_original_is_refused_and_all_say_so() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let leader = site.net.leader().await.unwrap();
    let (copied, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = site.net.nodes[copied].id.clone();
    let copy_dir = site.net.dir().join("copy");
    assert!(site.net.stop(copied).await);
    copy(&site.net.nodes[copied].dir, &copy_dir);
    site.net.start(copied).unwrap();
    let up = async |site: &Site, at: usize| {
        let client = site.net.nodes[at].client();
        let connected = async || {
            let peers = client.node_status().await.ok()?.peers;
            peers.iter().any(|peer| peer.node == id && peer.control_up && peer.mesh_up).then_some(())
        };
        site.net.wait_for("a connection", connected).await.unwrap();
    };
    up(&site, leader).await;
    up(&site, other).await;
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let before = [leader, other].map(|at| connects(&site, at, &id));

    let twin = Running::start(run_elsewhere(&copy_dir));
    let told = twin.until_told("another process runs under this node's identity");
    assert!(told.contains("127.0.0.1:"), "{told}");
    for at in [leader, other] {
        let client = site.net.nodes[at].client();
        let said = site.net.wait_for("what its peers say", async || fault(&client, &id).await).await.unwrap();
        assert!(said.advice.contains("stop one of the two"), "{said:?}");
    }
    let shown = site.skep(leader, &["shard", "status"]).text();
    assert!(shown.contains(SHARED), "{shown}");
    for client in [site.net.nodes[copied].client(), Client::connect(Endpoint::of_dir(&copy_dir)).unwrap()] {
        let said = site.net.wait_for("what it says itself", async || fault(&client, "").await).await.unwrap();
        assert!(said.detail.contains("at address 127.0.0.1:"), "{said:?}");
    }
    // The original goes on as before, and does not replace connections again and again.
    for n in 0..20 {
        site.skep(copied, &["task", "create", &format!("task {n}"), "-o", "json"]).json();
    }
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let after = [leader, other].map(|at| connects(&site, at, &id));
    assert!((0..2).all(|at| after[at] - before[at] <= 4), "{before:?} {after:?}");
    drop(twin);

    // A node that died without a word, and was started again, is no copy.
    site.net.kill(copied);
    site.net.start(copied).unwrap();
    up(&site, leader).await;
    site.net.until_caught_up(&[copied]).await.unwrap();
}

/// databendlabs/databend#4341
#[test]
fn each_port_that_is_taken_is_named_with_its_setting_and_the_reason() {
    let site = Site::create(NODE, 1, 1, &[]);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp): (SocketAddr, SocketAddr) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let cases = [
        ("the control plane", udp, "QUIC", "control.listen"),
        ("the mesh", udp, "QUIC", "mesh.listen"),
        ("the mesh", tcp, "TCP", "mesh.listen"),
        ("the API", tcp, "TCP", "api.listen"),
    ];
    for (what, address, over, setting) in cases {
        let refused = site.skep(0, &["run", "--set", &format!("{setting}={address}")]);
        assert_eq!(refused.code(), Some(1), "{}", refused.error());
        let expected = format!("{what} cannot listen on {address} over {over}: Address already in use");
        assert!(refused.error().contains(&expected), "{}", refused.error());
        assert!(refused.error().contains(&format!("give {setting} another port")), "{}", refused.error());
    }
}

/// databendlabs/databend#4341, of directories; and etcd-io/etcd#3082, where there is none.
#[test]
fn a_directory_that_cannot_be_made_is_named_and_one_that_is_missing_is_not_passed_over_in_silence() {
    let run = |args: &[&str]| Ran::of(Command::new(NODE).args(args).env_clear());
    for args in [&["init"][..], &["testnet", "up"], &["testnet", "demo"], &["testnet", "chaos"]] {
        let refused = run(&[args, &["--dir", "/dev/null/x"]].concat());
        assert_eq!(refused.code(), Some(1), "{args:?}");
        assert!(refused.error().contains("/dev/null/x"), "{args:?}: {}", refused.error());
    }
    let dir = tempfile::tempdir().unwrap();
    let shown = run(&["config", "show", "-o", "json", "--dir", dir.path().to_str().unwrap()]);
    assert!(!shown.json().as_array().unwrap().is_empty());
    assert!(shown.error().contains("skep.toml does not exist"), "{}", shown.error());
}

/// ches/docker-kafka#28
#[tokio::test]
async fn what_lies_beside_the_files_of_a_node_is_left_alone_or_to_be_taken_away() {
    let mut site = Site::up(NODE, 1, 1, &[]).await;
    let dir = site.net.nodes[0].dir.clone();
    assert!(site.net.stop(0).await);
    for of in ["data", "data/wal", "data/snapshots", "journals", "journals/wal"] {
        std::fs::create_dir(dir.join(of).join("lost+found")).unwrap();
        std::fs::write(dir.join(of).join(".nfs0000000000000001"), "removed and open").unwrap();
    }
    site.net.start(0).unwrap();
    site.net.leader().await.unwrap();
    site.skep(0, &["task", "create", "it works", "-o", "json"]).json();
    assert!(site.net.stop(0).await);
    for of in ["data/wal", "journals/wal"] {
        let foreign = dir.join(of).join("x.bak");
        std::fs::write(&foreign, "somebody's").unwrap();
        let refused = site.skep(0, &["run"]);
        assert_eq!(refused.code(), Some(1));
        let told = refused.error();
        assert!(told.contains("x.bak") && told.contains("remove it") && !told.contains("damaged"), "{told}");
        std::fs::remove_file(foreign).unwrap();
    }
}

/// Sends a signal to a process.
fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// databendlabs/openraft#1747, databendlabs/openraft#2088
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lead_that_is_handed_to_a_suspended_voter_is_not_said_to_be_taken() {
    let site = Site::up(NODE, 3, 3, &[]).await;
    let leader = site.net.leader().await.unwrap();
    let to = (leader + 1) % 3;
    let (id, pid) = (site.net.nodes[to].id.clone(), site.net.nodes[to].pid().unwrap());
    signal("-STOP", pid);
    let handed = site.skep(leader, &["shard", "transfer-leader", "--to", &id]);
    signal("-CONT", pid);
    match handed.code() {
        Some(1) => {
            let told = handed.error();
            let leads = site.net.nodes.iter().find(|node| told.contains(&format!("not done: {} leads", node.id)));
            assert!(leads.is_some_and(|node| node.id != id), "{told}");
        }
        // No voter leads yet.
        Some(6) => println!("unknown: {}", handed.error()),
        other => panic!("{other:?}: {} {}", handed.text(), handed.error()),
    }
    // A voter that runs takes the lead.
    site.net.until_caught_up(&[0, 1, 2]).await.unwrap();
    let taken = async || {
        let leader = site.net.leader().await.ok()?;
        let to = site.net.nodes[(leader + 1) % 3].id.as_str();
        let handed = site.skep(leader, &["shard", "transfer-leader", "--to", to, "-o", "json"]);
        (handed.code() == Some(0)).then(|| assert_eq!(handed.json()["leader"], to))
    };
    site.net.wait_for("a lead that is taken", taken).await.unwrap();
}
