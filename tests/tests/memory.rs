//! How much of its machine's memory a node takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

/// The most memory of its own that a voter at rest may take, in KiB. It takes about 8 MiB in a release build, and a
/// little more in a debug build. Tables of a library that nothing reads took 27 MiB more.
const OWN_KIB_MAX: u64 = 20 * 1024;

/// The memory of a process's own, in KiB: without the pages of mapped files.
fn own_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn a_voter_at_rest_leaves_a_small_machine_to_its_robot() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    site.net.leader().await.unwrap();
    let own = own_kib(site.net.nodes[0].pid().unwrap());
    println!("a voter at rest has {own} KiB of its own");
    assert!(own <= OWN_KIB_MAX, "a voter at rest has {own} KiB of its own; {OWN_KIB_MAX} are allowed");
}
