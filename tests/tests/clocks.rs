//! Wall clocks that are wrong, on real nodes: nothing depends on them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_client::NotStarted;
use skep_tests::hall::{Hall, attach};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const DAY: i64 = 24 * 60 * 60;
const YEAR: i64 = 365 * DAY;

/// The program under test, for nodes whose wall clocks can be set: each shows what `set` says, and before that the
/// machine's.
fn with_own_clocks(dir: &Path) -> String {
    let (clock, program) = (dir.join("wall_clock.so"), dir.join("skep"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wall_clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&clock).arg(source).status();
    assert!(built.expect("a C compiler, which Skep itself is built with").success());
    // Nodes are started without the environment of the test: this passes on a seeded bug.
    let bug = std::env::var("SKEP_MUTANT").map(|name| format!("export SKEP_MUTANT={name}\n")).unwrap_or_default();
    let script = format!(
        "#!/bin/sh\n{bug}for arg; do [ \"$before\" = --dir ] && dir=$arg; before=$arg; done\n\
         WALL_SHIFT=\"$dir/wall-shift\" LD_PRELOAD={} exec {NODE} \"$@\"\n",
        clock.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

/// Sets the wall clock of a node to the machine's plus this many seconds.
fn set(hall: &Hall, node: usize, seconds: i64) {
    let file = hall.site.net.nodes[node].dir.join("wall-shift");
    let new = file.with_extension("new");
    std::fs::write(&new, seconds.to_ne_bytes()).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn within<T>(what: impl Future<Output = T>, expected: &str) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect(expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_wall_clock_jumps_starts_nothing_late_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut hall = Hall::up(&with_own_clocks(dir.path()), 4, 3).await;
    // The robot's node starts with the clock of a machine that has none. Certificates are valid from 1975 on: the node
    // says so, and joins the site once an operator sets its clock, whatever to.
    let since_1970 = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    hall.site.net.kill(3);
    set(&hall, 3, DAY - since_1970);
    hall.site.net.start(3).unwrap();
    let log = hall.site.net.nodes[3].dir.join("log");
    let warned = || std::fs::read_to_string(&log).ok().filter(|log| log.contains("wall clock is before 1975"));
    hall.site.net.wait_for("the node says what is wrong", async || warned()).await.unwrap();
    set(&hall, 3, 6 * YEAR - since_1970);
    let client = hall.client(3);
    let (_agent, mut offers) = attach(&client, "r1", &[]).await;

    // The clock jumps ahead between the offer and the start: the robot does what is still in time.
    hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "2min"]).json();
    let offer = within(offers.next(), "it is offered").await.unwrap();
    set(&hall, 3, 10 * YEAR);
    let running = within(offer.start(), "it may start").await.unwrap();
    // A leader's clock is set while no test looks at it.
    let leader = hall.site.net.leader().await.unwrap();
    set(&hall, leader, -YEAR);
    within(running.succeed(b"there".to_vec()), "its outcome is written down").await.unwrap();

    // The quorum is gone, and with it every word of the shard's clock; the wall clock of the robot's node goes back.
    hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "8s"]).json();
    let (sent, valid) = (tokio::time::Instant::now(), Duration::from_secs(8));
    let offer = within(offers.next(), "it is offered").await.unwrap();
    for voter in 0..3 {
        hall.site.net.kill(voter);
    }
    set(&hall, 3, 10 * YEAR - DAY);
    // The test waits for the deadline itself.
    tokio::time::sleep_until(sent + valid + Duration::from_secs(1)).await;
    let starting = tokio::spawn(offer.start());
    tokio::task::yield_now().await;
    for voter in 0..3 {
        hall.site.net.start(voter).unwrap();
    }
    let refused = within(starting, "its node says so, or has it back").await.unwrap();
    assert!(matches!(refused, Err(NotStarted::Void(_))), "{:?}", refused.err());
}
