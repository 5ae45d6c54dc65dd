//! A figure: of a thousand open deliveries, how long it takes until no robot begins what a revoked operator sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Instant;

use skep_client::{CommandId, OperatorGrant, OperatorSecret};
use skep_tests::hall::{Hall, attach, signed};
use tokio::task::JoinSet;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// Number of robots, and of commands that each has open: fewer than its node takes for it.
const ROBOTS: usize = 20;
const COMMANDS: usize = 50;
/// How long a command is valid, in milliseconds: longer than the test.
const VALID_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_voids_a_thousand_open_deliveries_and_it_is_told_how_long_that_takes() {
    let hall = Hall::up(NODE, 3, 3).await;
    let leader = hall.site.net.leader().await.unwrap();
    let (client, first) = (hall.client(leader), hall.site.net.operator().unwrap());
    let clerk = OperatorSecret::from_seed(&[44; 32]);
    let whole = OperatorGrant::of_first(client.place().await.unwrap(), clerk.key(), "clerk".parse().unwrap());
    let granted = OperatorGrant { by: first.key(), serial: 1, admin_depth: 0, ..whole };
    client.grant_operator(&granted.clone().sign(&first).unwrap()).await.unwrap();
    // The robots' software takes commands and begins none.
    let (mut robots, mut sending) = (Vec::new(), JoinSet::new());
    for n in 0..ROBOTS {
        let name = format!("r{n}");
        robots.push(attach(&hall.client(n % 3), &name, &[]).await);
        let client = client.clone();
        sending.spawn(async move {
            let (clerk, mut ids) = (OperatorSecret::from_seed(&[44; 32]), Vec::new());
            for _ in 0..COMMANDS {
                let command = signed(&client, &clerk, &name, VALID_MS, Vec::new()).await;
                client.send_command(&command).await.unwrap();
                ids.push(command.id);
            }
            ids
        });
    }
    let ids: Vec<CommandId> = sending.join_all().await.concat();
    let revoked = OperatorGrant { serial: 2, revoked: true, broadcast: false, ..granted };
    let revoked = revoked.sign(&first).unwrap();
    let begun = Instant::now();
    client.grant_operator(&revoked).await.unwrap();
    // From here on the shard lets no robot begin any of them; the robots' nodes hear of it, and report that none was
    // begun.
    let decided = begun.elapsed();
    for id in &ids {
        let ended = client.command_end(*id).await.unwrap();
        let outcomes: Vec<&str> = ended.deliveries.iter().map(|of| of.outcome.as_str()).collect();
        assert_eq!(outcomes, ["cancelled"], "{id}");
    }
    println!(
        "a revocation of {} open deliveries at {ROBOTS} robots: decided after {} ms, ended at all of them after {} ms",
        ids.len(),
        decided.as_millis(),
        begun.elapsed().as_millis()
    );
    assert_eq!(ids.len(), ROBOTS * COMMANDS);
    drop(robots);
}
