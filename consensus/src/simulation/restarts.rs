//! What becomes of the log clock when processes and machines restart.

use std::time::Duration;

use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::RequestId;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::task::TaskOp;
use skep_protocol::time::LogInstant;

use super::site::{Node, Nodes};
use super::watch::Watch;
use super::{leader, run, step, three};
use crate::shard::Shard;

fn clock(shard: &Shard) -> Option<LogInstant> {
    shard.clock().now()
}

fn clock_of(node: &Node) -> Option<LogInstant> {
    clock(&node.process.as_ref()?.shard()?)
}

/// Waits until every voter knows the clock, and has had the time to save it.
async fn all_know_the_clock(nodes: &mut Nodes) {
    while !nodes.all.iter().all(|node| clock_of(node).is_some()) {
        step(nodes).await;
    }
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        step(nodes).await;
    }
}

/// Writes an entry that changes nothing.
async fn write(shard: &Shard) {
    let now = clock(shard).unwrap();
    let op = Op::Task(TaskOp::Claim { agent: "nobody".parse().unwrap(), task: None, attachment: None });
    let request = Request { id: RequestId::from_bytes([5; 16]), first_sent: now, deadline: now.plus_ms(60_000), op };
    let outcomes = shard.propose(vec![request]).await;
    assert!(matches!(outcomes[..], [ProposeOutcome::Applied { .. }]), "{outcomes:?}");
}

async fn restart_all(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (_, shard) = leader(&mut nodes).await;
    all_know_the_clock(&mut nodes).await;
    let before = clock(&shard).unwrap();
    for at in 0..3 {
        nodes.kill(at);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    for at in 0..3 {
        nodes.start(at).await;
    }
    let (_, shard) = leader(&mut nodes).await;
    let after = clock(&shard).unwrap();
    // A clock runs slower than true time by at most this much.
    assert!(after.checked_since_ms(before).is_some_and(|ms| ms >= 29_900), "{before} {after}");
    // The machines restart: no node knows how long they were off.
    for at in 0..3 {
        nodes.cut_power(at);
    }
    for at in 0..3 {
        nodes.start(at).await;
    }
    let (_, shard) = leader(&mut nodes).await;
    assert_eq!(clock(&shard).unwrap().era(), after.era() + 1);
}

#[test]
fn a_quorum_whose_processes_restart_keeps_its_clock_and_one_whose_machines_do_does_not() {
    let outcome = run(restart_all);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The only voter that can be elected is the one that knows no clock.
async fn elect_one_without_a_clock(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, shard) = leader(&mut nodes).await;
    all_know_the_clock(&mut nodes).await;
    let at = nodes.all.iter().position(|node| node.id == id).unwrap();
    let (ahead, behind) = ((at + 1) % 3, (at + 2) % 3);
    let lagging = nodes.all[behind].id;
    let others = ids.iter().filter(|other| **other != lagging);
    nodes.fabric.cut(others.flat_map(|other| [(*other, lagging), (lagging, *other)]));
    write(&shard).await;
    let era = clock(&shard).unwrap().era();
    nodes.kill(at);
    nodes.cut_power(ahead);
    nodes.start(ahead).await;
    assert_eq!(clock_of(&nodes.all[ahead]), None);
    nodes.fabric.heal();
    let (elected, shard) = leader(&mut nodes).await;
    assert_eq!(elected, nodes.all[ahead].id, "the other one lacks an entry");
    assert_eq!(clock(&shard).unwrap().era(), era, "a voter that it reaches knows the clock");
}

#[test]
fn a_leader_that_knows_no_clock_asks_the_voters_before_it_begins_a_new_era() {
    let outcome = run(elect_one_without_a_clock);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
