//! A testnet that stays up, as a user handles it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

struct Up {
    dir: PathBuf,
    launcher: Child,
    _keep: tempfile::TempDir,
}

fn skep(dir: &Path, args: &[&str]) -> Output {
    Command::new(NODE).args(args).arg("--dir").arg(dir).env_clear().output().unwrap()
}

fn launch(dir: &Path) -> Child {
    Command::new(NODE)
        .args(["testnet", "up", "--nodes", "3", "--robots", "1", "-o", "json", "--dir"])
        .arg(dir)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

impl Up {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = keep.path().join("t");
        let launcher = launch(&dir);
        Self { dir, launcher, _keep: keep }
    }

    fn processes(&self) -> Option<Vec<serde_json::Value>> {
        let output = skep(&self.dir, &["testnet", "status", "-o", "json"]);
        if output.status.success() { serde_json::from_slice(&output.stdout).ok() } else { None }
    }

    fn state(&self, name: &str) -> Option<String> {
        let processes = self.processes()?;
        let process = processes.iter().find(|process| process["name"] == name)?;
        process["state"].as_str().map(str::to_owned)
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

/// How many processes were started for this directory and still run.
fn running(dir: &Path) -> usize {
    let text = dir.to_string_lossy().into_owned();
    let of_us = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&text)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(of_us).filter(|is| *is).count()
}

#[test]
fn processes_are_killed_paused_and_restarted_by_name_and_everything_ends_with_down() {
    let mut up = Up::new();
    up.until("it comes up", || up.processes().is_some());
    assert_eq!(up.processes().unwrap().len(), 4, "three nodes and a robot");
    let order = |verb: &str, name: &str| skep(&up.dir, &["testnet", verb, name]).status.code();
    assert_eq!(order("kill", "n1"), Some(0));
    assert_eq!(up.state("n1").as_deref(), Some("stopped"));
    assert_eq!(order("pause", "n1"), Some(1), "what does not run cannot be paused");
    assert_eq!(order("restart", "n1"), Some(0));
    assert_eq!(up.state("n1").as_deref(), Some("running"));
    assert_eq!(order("pause", "robot-0"), Some(0));
    assert_eq!(up.state("robot-0").as_deref(), Some("paused"));
    assert_eq!(order("resume", "robot-0"), Some(0));
    assert_eq!(order("kill", "n9"), Some(1), "there is no such process");
    let logs = skep(&up.dir, &["testnet", "logs", "n0"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("serving"));
    let made = skep(&up.dir.join("n0"), &["task", "create", "one", "-o", "json"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(skep(&up.dir, &["testnet", "down"]).status.code(), Some(0));
    assert!(up.launcher.wait().unwrap().success());
    // The stored data and the ports stay.
    up.launcher = launch(&up.dir);
    up.until("it comes up again", || up.processes().is_some());
    let listed = skep(&up.dir.join("n2"), &["task", "list", "-o", "json"]);
    let tasks: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(tasks.len(), 1);
}

#[test]
fn everything_ends_when_the_launcher_dies() {
    let mut up = Up::new();
    up.until("it comes up", || up.processes().is_some());
    assert!(running(&up.dir) >= 6, "the launcher, the station, three nodes, a robot");
    up.launcher.kill().unwrap();
    up.launcher.wait().unwrap();
    up.until("its children end", || running(&up.dir) == 0);
}

#[test]
fn a_bench_of_endurance_tells_what_each_voter_used_and_how_soon_it_served_again() {
    let args = ["bench", "endure", "--minutes", "0.1", "--rate", "10", "--every", "1s", "-o", "json"];
    let output = Command::new(NODE).args(args).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for done in ["created", "completed", "commands", "succeeded", "visits"] {
        assert!(report[done].as_u64() > Some(0), "{done}: {report:#}");
    }
    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3, "all of them vote");
    for node in nodes {
        let curves = node["curves"].as_object().unwrap();
        let samples = curves["at_s"].as_array().unwrap().len();
        assert!(samples >= 3, "{node:#}");
        assert!(curves.values().all(|curve| curve.as_array().unwrap().len() == samples), "{node:#}");
        for used in ["rss_mib", "descriptors", "wal_mib", "journals_mib"] {
            assert!(
                curves[used].as_array().unwrap().iter().all(|value| value.as_f64() > Some(0.0)),
                "{used}: {node:#}"
            );
        }
        assert!(node["last_to_first"]["rss"].as_f64() > Some(0.0), "{node:#}");
        assert_eq!(node["restart"]["drained"], true, "{node:#}");
        let [listens, serves] = ["listens_ms", "serves_ms"].map(|of| node["restart"][of].as_f64().unwrap());
        assert!(0.0 < listens && listens <= serves, "{node:#}");
    }
}
