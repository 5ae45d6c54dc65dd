//! The data plane of real nodes: topics, and how peers find each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use skep_client::v1::{PublishRequest, TopicValue};
use skep_client::{Client, Endpoint};
use skep_tests::Site;
use tokio::time::Instant;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

fn says(payload: &str) -> PublishRequest {
    let (topic, source) = ("robots/pose".to_owned(), "r1".to_owned());
    PublishRequest { topic, source, content_type: "text/plain".to_owned(), payload: payload.as_bytes().to_vec() }
}

/// What a subscriber hears of a value that is published again and again: gossip is best effort.
async fn heard(listener: &Client, speaker: &Client, payload: &str) -> TopicValue {
    let mut values = listener.subscribe(&["testnet/robots/pose"]).await.unwrap();
    let hearing = async {
        loop {
            speaker.publish(says(payload)).await.unwrap();
            if let Ok(value) = tokio::time::timeout(Duration::from_millis(100), values.message()).await {
                let value = value.unwrap().unwrap();
                if value.payload == payload.as_bytes() {
                    return value;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), hearing).await.expect("it is heard")
}

#[tokio::test]
async fn what_one_node_says_others_hear_and_newcomers_hear_the_latest_with_its_age() {
    let site = Site::up(NODE, 4, 3, &[]).await;
    let (listener, speaker) = (site.net.nodes[0].client(), site.net.nodes[3].client());
    let value = heard(&listener, &speaker, "here").await;
    assert_eq!((value.topic.as_str(), value.source.as_str()), ("testnet/robots/pose", "r1"));
    assert_eq!((value.sender.as_str(), value.payload.as_slice()), (site.net.nodes[3].id.as_str(), b"here".as_slice()));
    let _still_listening = listener.subscribe(&["robots/pose"]).await.unwrap();
    let tail = ["topic", "tail", "robots/pose", "--limit", "1", "-o", "jsonl"];
    heard(&listener, &speaker, "there").await;
    let shown = site.skep(0, &tail).json();
    assert_eq!((&shown["source"], &shown["payload"]), (&"r1".into(), &"there".into()), "{shown}");
    assert!(shown["age_ms"].is_u64(), "{shown}");
}

#[tokio::test]
async fn a_topic_of_another_site_or_none_at_all_is_refused() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    for topic in ["elsewhere/robots/pose", "pose", "a/b/c/d", "robots/po se"] {
        let ran = site.skep(0, &["topic", "publish", topic, "x"]);
        assert_eq!(ran.code(), Some(2), "{topic}: {}", ran.error());
        assert!(ran.error().contains("topic"), "{}", ran.error());
    }
}

/// Two network namespaces with a wire between them, and a node in each. Dropping this removes all of it.
struct Wire {
    names: [String; 2],
    nodes: Vec<Child>,
}

fn ip(args: &str) -> bool {
    let ran = Command::new("ip").args(args.split(' ')).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

impl Wire {
    /// None if this user may not make namespaces.
    fn lay() -> Option<Self> {
        let id = std::process::id();
        let names = [format!("skep-{id}-a"), format!("skep-{id}-b")];
        let wire = Self { names, nodes: Vec::new() };
        let [a, b] = &wire.names;
        let (left, right) = (format!("sk{id}a"), format!("sk{id}b"));
        let made = ip(&format!("netns add {a}"))
            && ip(&format!("netns add {b}"))
            && ip(&format!("link add {left} netns {a} type veth peer name {right} netns {b}"));
        if !made {
            return None;
        }
        for (name, link, address) in [(a, &left, "10.77.0.1/24"), (b, &right, "10.77.0.2/24")] {
            assert!(ip(&format!("-n {name} link set lo up")));
            assert!(ip(&format!("-n {name} addr add {address} dev {link}")));
            assert!(ip(&format!("-n {name} link set {link} up")));
        }
        Some(wire)
    }

    fn run(&mut self, at: usize, dir: &Path) {
        let node = Command::new("ip")
            .args(["netns", "exec", &self.names[at], NODE, "run", "--while-stdin", "--dir"])
            .arg(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(dir.join("log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.nodes.push(node);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}

fn init(dir: &Path, name: &str) -> String {
    let output = Command::new(NODE)
        .args(["init", "--name", name, "--site", "wire", "-o", "json", "--dir"])
        .arg(dir)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    made["node"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn listed_peers_without_an_address_find_each_other_by_multicast_on_one_network() {
    let Some(mut wire) = Wire::lay() else {
        println!("skipped: this user may not make network namespaces");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| dir.path().join(name));
    let ids = [init(&dirs[0], "a"), init(&dirs[1], "b")];
    for at in 0..2 {
        let config = dirs[at].join("skep.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        // 'skep init' leaves the section commented out or with a port of its own.
        let mesh = format!("[mesh]\nlisten = \"10.77.0.{}:7340\"\nmdns = true\n", at + 1);
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("listen") || !line.contains("7340")).collect();
        let text = lines.join("\n").replacen("[mesh]\n", &mesh, 1);
        let peer = format!("\n[[peers]]\nid = \"{}\"\n", ids[1 - at]);
        std::fs::write(&config, text + &peer).unwrap();
        wire.run(at, &dirs[at]);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let client = Client::connect(Endpoint::of_dir(&dirs[0])).unwrap();
        let status = client.node_status().await;
        if status.as_ref().is_ok_and(|status| status.peers.iter().any(|peer| peer.mesh_up)) {
            return;
        }
        let log = || std::fs::read_to_string(dirs[0].join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{status:?}\n{}", log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
