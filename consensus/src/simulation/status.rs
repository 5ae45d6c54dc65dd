//! What replicas say of themselves.

use std::time::Duration;

use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::ids::NodeId;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::query::Query;

use super::site::{Nodes, Process};
use super::watch::Watch;
use super::workload::create_task;
use super::{leader, run, step, three, three_of, within};
use crate::shard::Shard;

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for a voter that has to catch up over a thin link or from a slow disk.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(60);

fn reports(nodes: &Nodes, at: usize) -> Vec<FaultReport> {
    let shard = nodes.all[at].process.as_ref().and_then(Process::shard);
    shard.map(|shard| shard.status().faults).unwrap_or_default()
}

fn faults(nodes: &Nodes, at: usize) -> Vec<ShardFault> {
    reports(nodes, at).into_iter().map(|report| report.fault).collect()
}

/// Whether a replica reports this fault of another node.
fn names(nodes: &Nodes, at: usize, fault: ShardFault, node: NodeId) -> bool {
    reports(nodes, at).iter().any(|report| report.fault == fault && report.node == Some(node))
}

/// Whether the first three replicas run and report no fault.
fn is_well(nodes: &Nodes) -> bool {
    let says_so = |at: usize| {
        let shard = nodes.all[at].process.as_ref().and_then(Process::shard);
        shard.is_some_and(|shard| shard.status().faults.is_empty())
    };
    (0..3).all(says_so)
}

/// Creates a task with this many bytes.
async fn write(nodes: &mut Nodes, shard: &Shard, bytes: usize) {
    let request = create_task(shard, nodes.random(), bytes).unwrap();
    let outcomes = shard.propose(vec![request]).await;
    assert!(matches!(outcomes[..], [ProposeOutcome::Applied { .. }]), "{outcomes:?}");
}

/// The others hear the leader, and the leader hears none of them.
async fn hear_a_leader_without_a_quorum(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, shard) = leader(&mut nodes).await;
    assert!(within(&mut nodes, PATIENCE, is_well).await);
    let others: Vec<NodeId> = ids.iter().copied().filter(|other| *other != id).collect();
    nodes.fabric.cut(others.iter().map(|other| (*other, id)));
    // A node that is asked knows of the fault, or another node leads.
    let known = |nodes: &Nodes| {
        let told = |at: usize| {
            let faults = faults(nodes, at);
            faults.contains(&ShardFault::LeaderWithoutQuorum) || faults.contains(&ShardFault::NoLeader)
        };
        let goes_on = nodes.ready().iter().any(|(at, _)| nodes.all[*at].id != id);
        goes_on || (0..3).all(told)
    };
    assert!(within(&mut nodes, PATIENCE, known).await, "a node reports no fault");
    // A stale answer of the node that was cut off says how old it is.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let age = shard.query_stale(Query::Counts).await.unwrap().as_of.age_ms;
    assert!(age.is_none_or(|ms| ms > 2_000), "{age:?}");
}

#[test]
fn a_voter_that_hears_a_leader_without_a_quorum_does_not_call_it_well() {
    let outcome = run(hear_a_leader_without_a_quorum);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A link takes 400 ms, where the configuration reckons with 175.
async fn lengthen_the_links(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    leader(&mut nodes).await;
    assert!(within(&mut nodes, PATIENCE, is_well).await);
    nodes.fabric.set_quality(0, (200, 200));
    // By then the patience follows what the node measured.
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        step(&mut nodes).await;
    }
    let told = |nodes: &Nodes| {
        let of = |(at, _): &(usize, Shard)| {
            let mut others = ids.iter().filter(|id| **id != nodes.all[*at].id);
            others.all(|other| names(nodes, *at, ShardFault::SlowLink, *other))
        };
        nodes.ready().iter().any(of)
    };
    assert!(within(&mut nodes, PATIENCE, told).await, "the leader calls its links quick");
    nodes.fabric.set_quality(0, (0, 2));
    assert!(within(&mut nodes, PATIENCE, is_well).await, "the links are quick again");
}

#[test]
fn a_leader_says_that_a_link_is_slower_than_is_reckoned_with_for_as_long_as_it_is() {
    let outcome = run(lengthen_the_links);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The leader is lost. A round trip takes four looks, so that the next leader leads for some of them before it is
/// answered.
async fn lose_the_leader(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, _) = leader(&mut nodes).await;
    assert!(within(&mut nodes, PATIENCE, is_well).await);
    nodes.fabric.set_quality(0, (50, 50));
    let lost = ids.iter().position(|other| *other == id).unwrap();
    let others = [(lost + 1) % 3, (lost + 2) % 3];
    nodes.kill(lost);
    let told = |nodes: &Nodes| {
        for (at, other) in [(others[0], others[1]), (others[1], others[0])] {
            let reports = reports(nodes, at);
            let is_blamed = |report: &FaultReport| {
                report.fault == ShardFault::LeaderWithoutQuorum || report.node == Some(ids[other])
            };
            assert!(!reports.iter().any(is_blamed), "a voter that was about to answer is blamed: {reports:#?}");
        }
        others.iter().any(|at| names(nodes, *at, ShardFault::VoterSilent, id))
    };
    assert!(within(&mut nodes, PATIENCE, told).await, "no node names the voter that never answers");
}

#[test]
fn a_new_leader_blames_nobody_who_is_about_to_answer_and_whoever_never_does() {
    let outcome = run(lose_the_leader);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A voter needs five seconds for each batch, and answers heartbeats from memory meanwhile.
async fn slow_a_disk_down(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let at = ids.iter().position(|other| *other == id).unwrap();
    let slow = (at + 1) % 3;
    assert!(within(&mut nodes, PATIENCE, is_well).await);
    nodes.slow_down(slow, 5_000);
    write(&mut nodes, &leading, 64).await;
    let named = within(&mut nodes, PATIENCE, |nodes| names(nodes, at, ShardFault::VoterBehind, ids[slow]));
    assert!(named.await, "the leader does not name the voter that lacks what is committed");
    nodes.slow_down(slow, 0);
    assert!(within(&mut nodes, CATCHES_UP_WITHIN, is_well).await, "it has caught up");
}

/// databendlabs/openraft#1251: what a leader shows of a voter is what that voter holds.
#[test]
fn a_leader_names_the_voter_that_lacks_what_was_committed_until_it_has_it() {
    let outcome = run(slow_a_disk_down);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A voter comes back 1.25 MiB behind, on a link that carries 32 KiB a second: that takes longer than the longest
/// silence that a link explains.
async fn fall_behind(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let behind = ids.iter().position(|other| *other != id).unwrap();
    assert!(within(&mut nodes, PATIENCE, is_well).await);
    nodes.kill(behind);
    for _ in 0..40 {
        write(&mut nodes, &leading, 32 * 1024).await;
    }
    nodes.fabric.thin(ids[behind], 32 * 1024);
    nodes.start(behind).await;
    let told = |nodes: &Nodes| faults(nodes, behind).contains(&ShardFault::Behind);
    assert!(within(&mut nodes, CATCHES_UP_WITHIN, told).await, "it calls what it has current");
    nodes.fabric.heal();
    assert!(within(&mut nodes, CATCHES_UP_WITHIN, is_well).await, "it has caught up");
}

#[test]
fn a_voter_says_that_it_is_behind_until_it_has_what_its_leader_had_committed() {
    let outcome = run(fall_behind);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A leader that hears no answers replaces a voter: the others get the first step of that.
async fn leave_a_change_halfway(watch: Watch) {
    let (mut nodes, ids) = three_of(4, &watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let others: Vec<NodeId> = ids.iter().copied().filter(|other| *other != id).collect();
    let (stays, comes) = (others[0], nodes.all[3].id);
    leading.take_in(comes).await.unwrap();
    // By then no call waits for an answer that will not come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    nodes.fabric.cut([(others[0], id), (others[1], id), (comes, id)]);
    // The outcome is unknown here: the next leader finishes the change.
    tokio::spawn(async move { leading.vote_by(&[id, stays, comes]).await });
    let wanted: Vec<usize> = (0..4).filter(|at| nodes.all[*at].id != others[1]).collect();
    let at = ids.iter().position(|other| *other == stays).unwrap();
    let told = |nodes: &Nodes| {
        let change = reports(nodes, at).into_iter().find(|report| report.fault == ShardFault::VotersChanging);
        change.is_some_and(|report| report.detail.starts_with("from ") && report.detail.contains(" to "))
    };
    assert!(within(&mut nodes, PATIENCE, told).await, "two sets of voters must agree, and no node says so");
    nodes.fabric.heal();
    let is_over = |nodes: &Nodes| wanted.iter().all(|at| faults(nodes, *at).is_empty()) && !nodes.ready().is_empty();
    assert!(within(&mut nodes, CATCHES_UP_WITHIN, is_over).await, "the change is finished, and called unfinished");
}

#[test]
fn a_change_of_voters_that_is_under_way_is_said_until_it_is_finished() {
    let outcome = run(leave_a_change_halfway);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
