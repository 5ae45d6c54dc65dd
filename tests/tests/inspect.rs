//! One command to all robots of a site, whatever happens meanwhile: more of it with `skep testnet run inspect`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

#[test]
fn every_robot_inspects_once_and_in_time_or_the_operator_knows_why_not() {
    let seed = rand::random::<u32>().to_string();
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(NODE);
    command
        .args(["testnet", "run", "inspect", "--robots", "24", "--nodes", "5", "--seed", &seed, "-o", "json", "--dir"]);
    let output = command.arg(dir.path()).output().unwrap();
    let story = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    // On a busy machine some of the planned faults may not have had their time: that is no fault of the site.
    let is_fault = |violation: &serde_json::Value| !violation.to_string().contains("it was to happen");
    let sound = report["violations"].as_array().is_some_and(|all| !all.iter().any(is_fault));
    if !sound {
        panic!("{story}\n{text}\nkept in {}", dir.keep().display());
    }
    let ended: u64 = report["outcomes"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(ended, 24, "{report:#}");
}
