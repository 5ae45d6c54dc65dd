//! The whole warehouse: real nodes, robots and a station, and a judgement from outside on what they left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

/// Runs a demo; returns its report. The files that it wrote stay if the run failed.
fn demo(args: &[&str]) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap().keep();
    let output = Command::new(NODE)
        .args(["testnet", "demo", "--keep", "-o", "json", "--dir"])
        .arg(&dir)
        .args(args)
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{args:?}, kept in {}:\n{told}\n{}",
        dir.display(),
        String::from_utf8_lossy(&output.stdout)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    verified_again(&dir, &report);
    std::fs::remove_dir_all(dir).unwrap();
    report
}

/// Checks that a second verification of the kept files says the same.
fn verified_again(dir: &Path, report: &serde_json::Value) {
    let output = Command::new(NODE).args(["testnet", "verify", "-o", "json"]).arg(dir).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(&serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), report);
}

fn nothing_lost_doubled_or_stale(report: &serde_json::Value) {
    let (tasks, effects) = (&report["tasks"], &report["effects"]);
    let counts = [&tasks["lost"], &effects["duplicates"], &effects["stale"], &effects["refused"]["stale"]];
    assert!(counts.iter().all(|count| **count == 0), "{report:#}");
    assert_eq!(report["ok"], true, "{report:#}");
}

#[test]
fn a_warehouse_survives_the_loss_of_its_orchestrator_and_of_a_robots_node() {
    let report = demo(&["--robots", "4", "--tasks", "24", "--lease", "2s", "--tick", "20ms", "--seed", "1"]);
    nothing_lost_doubled_or_stale(&report);
    assert_eq!(report["failovers_ms"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert!(report["reassigned"].as_u64() >= Some(1), "{report:#}");
    assert_eq!(report["tasks"]["completed"], 24, "{report:#}");
    for invariant in ["S1", "S3", "S6", "S7", "L1", "L4"] {
        let checked = report["invariants"]["checked"].as_array().unwrap();
        assert!(checked.iter().any(|name| name == invariant), "{invariant}: {report:#}");
    }
}

/// Ten sites, in each of which a random process is killed at a random moment.
fn kills(seeds: std::ops::Range<u32>) {
    for seed in seeds {
        println!("seed {seed}");
        let seed = seed.to_string();
        let quick = ["--robots", "3", "--nodes", "3", "--tasks", "12", "--lease", "1s", "--tick", "20ms"];
        nothing_lost_doubled_or_stale(&demo(
            &[&quick, ["--faults", "random-kill", "--seed", &seed].as_slice()].concat(),
        ));
    }
}

#[test]
fn a_random_kill_at_a_random_moment_loses_and_doubles_nothing_first_ten() {
    kills(1..11);
}

#[test]
fn a_random_kill_at_a_random_moment_loses_and_doubles_nothing_second_ten() {
    kills(11..21);
}

#[test]
fn a_random_kill_at_a_random_moment_loses_and_doubles_nothing_third_ten() {
    kills(21..31);
}

#[test]
fn problems_of_the_league_of_robot_runners_are_worked_through() {
    let problems = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/lorr");
    let Ok(maze) = problems.join("maze.domain/maze-example_40.json").canonicalize() else {
        println!("skipped: there are no problem files at {}", problems.display());
        return;
    };
    let maze = maze.to_string_lossy().into_owned();
    let report = demo(&["--problem", &maze, "--robots", "5", "--tasks", "30", "--tick", "5ms", "--lease", "2s"]);
    nothing_lost_doubled_or_stale(&report);
    assert_eq!(report["workload"], "maze-example_40");
}
