//! A little of the chaos, on real processes: `skep testnet chaos` and `skep testnet power` do more of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use skep_tests::Site;
use skep_tests::rogue::DEEDS;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const ROGUE: &str = env!("CARGO_BIN_EXE_rogue");

/// Runs the program; returns its report. Fails if anything was violated, except for L3: that is about the time until
/// replicas are equal, and it is unknown how busy this machine is.
fn run(args: &[&str]) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(NODE).args(args).args(["-o", "json", "--dir"]).arg(dir.path()).output().unwrap();
    let story = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
    let violations = report.as_ref().and_then(|report| report["invariants"]["violations"].as_array());
    let only_late = violations.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["invariant"] == "L3"));
    if !output.status.success() && !only_late {
        panic!("{story}\n{}\nkept in {}", String::from_utf8_lossy(&output.stdout), dir.keep().display());
    }
    report.unwrap_or_else(|| panic!("no report: {story}"))
}

/// A site at work on such links, where such things go wrong. At least `calls` calls and `commands` commands are done.
fn survives(faults: &str, (links, lease): (&str, &str), calls: u64, commands: u64) {
    survives_with(&[], faults, (links, lease), calls, commands);
}

/// The same with more options. Returns the report.
fn survives_with(
    options: &[&str],
    faults: &str,
    (links, lease): (&str, &str),
    calls: u64,
    commands: u64,
) -> serde_json::Value {
    let seed = rand::random::<u32>().to_string();
    println!("seed {seed}");
    let mut args = vec!["testnet", "chaos", "--robots", "6", "--voters", "3", "--minutes", "0.4"];
    args.extend(["--faults", faults, "--links", links, "--lease", lease, "--seed", seed.as_str()]);
    args.extend(options);
    let report = run(&args);
    assert_eq!(report["tasks"]["lost"], 0, "{report:#}");
    assert!(report["acknowledged"].as_u64() > Some(calls), "{report:#}");
    assert!(report["commands"]["outcomes"]["succeeded"].as_u64() > Some(commands), "{report:#}");
    assert!(!report["faults"].as_object().unwrap().is_empty(), "{report:#}");
    report
}

#[test]
fn a_site_at_work_survives_whatever_goes_wrong() {
    survives("all", ("lan", "2s"), 100, 10);
}

#[test]
fn a_site_whose_links_all_differ_survives_whatever_goes_wrong() {
    survives("all", ("mixed", "5s"), 25, 2);
}

#[test]
fn a_site_with_a_bad_robot_in_it_survives_whatever_goes_wrong() {
    let report = survives_with(&["--bad-robot", ROGUE], "all", ("lan", "3s"), 50, 5);
    println!("the bad robot: {}; what reached no node: {}", report["bad_robot"], report["not_shown"]);
    let deeds = report["bad_robot"].as_object().unwrap();
    assert_eq!(deeds.len(), DEEDS.len(), "each is counted, whether it was its turn or not");
    for (deed, count) in deeds {
        let [turns, done, times] = ["turns", "done", "times"].map(|name| count[name].as_u64().unwrap());
        assert!(done <= turns && done <= times && (done > 0) == (times > 0), "{deed}: {count}");
    }
    let mut never: Vec<&str> =
        report["not_shown"].as_array().unwrap().iter().map(|deed| deed.as_str().unwrap()).collect();
    never.sort_unstable();
    let reached_nobody = deeds.iter().filter(|(_, count)| count["done"] == 0).map(|(deed, _)| deed.as_str());
    let mut reached_nobody: Vec<&str> = reached_nobody.collect();
    reached_nobody.sort_unstable();
    assert_eq!(never, reached_nobody, "of deeds that reached no node the run shows nothing, and says so");
}

#[test]
fn a_site_whose_disks_and_descriptors_fail_survives_it() {
    survives("disks", ("lan", "2s"), 50, 5);
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_doubled_when_the_power_goes() {
    let seed = rand::random::<u32>().to_string();
    println!("seed {seed}");
    let report = run(&["testnet", "power", "--cuts", "3", "--seed", &seed]);
    if let Some(why) = report["skipped"].as_str() {
        println!("skipped: {why}");
        return;
    }
    assert_eq!((report["lost"].as_u64(), report["doubled"].as_u64()), (Some(0), Some(0)), "{report:#}");
    assert!(report["acknowledged"].as_u64() > Some(100), "{report:#}");
    assert_eq!(report["of_all"].as_u64(), Some(1), "{report:#}");
}

#[tokio::test]
async fn a_node_of_a_testnet_speaks_with_nobody_it_is_told_not_to() {
    let site = Site::up(NODE, 3, 3, &["testnet.cuts=cuts"]).await;
    let others = [site.net.nodes[1].id.as_str(), &site.net.nodes[2].id].join("\n");
    let cuts = site.net.nodes[0].dir.join("cuts");
    let client = site.net.nodes[0].client();
    let up = async || {
        let peers = client.node_status().await.ok()?.peers;
        Some(peers.iter().filter(|peer| peer.control_up || peer.mesh_up).count())
    };
    std::fs::write(&cuts, others).unwrap();
    site.net.wait_for("silence", async || (up().await? == 0).then_some(())).await.unwrap();
    // The other nodes go on without it.
    let spec = skep_client::TaskSpec { title: "beyond the cut".into(), ..Default::default() };
    site.net.nodes[1].client().create_task(spec).await.unwrap();
    std::fs::write(&cuts, "").unwrap();
    site.net.wait_for("voices", async || (up().await? == 2).then_some(())).await.unwrap();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
}
