//! Nodes of two builds in one group: what they agree on, and what becomes of a node that is too old for it.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use skep_protocol::fault::ShardFault;
use skep_protocol::fleet::{Build, FleetLimits, FleetVersions};
use skep_protocol::ids::NodeId;

use super::site::{Nodes, Process, SHARD, charter};
use super::watch::Watch;
use super::workload::{are_equal, check_acknowledged, create_one};
use super::{run, step, within};
use crate::MembershipError;
use crate::shard::{Shard, ShardRole};

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the test watches that nothing comes, in virtual time.
const QUIET: Duration = Duration::from_secs(10);
/// Number of tasks after which a snapshot is made.
const FOR_A_SNAPSHOT: usize = 80;

/// A build that speaks the versions from 1 to `max`, and allows this many live tasks.
fn build(max: u32, live_tasks_max: u64) -> Build {
    let limits = FleetLimits { live_tasks_max, ..FleetLimits::default() };
    Build { versions: FleetVersions { min: 1, max }, limits }
}

/// Nodes of these builds, and a shard of the first three.
async fn group_of(seed: u64, builds: &[Build], watch: &Watch) -> (Nodes, Vec<NodeId>) {
    let mut nodes = Nodes::new(builds.len(), seed, watch.clone());
    for (at, build) in builds.iter().enumerate() {
        nodes.all[at].build = *build;
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let ids: Vec<NodeId> = nodes.all[..3].iter().map(|node| node.id).collect();
    let first = nodes.all[0].process.clone().unwrap();
    first.shards.open(SHARD).await.unwrap().initialize(&ids, charter()).await.unwrap();
    (nodes, ids)
}

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref().and_then(Process::shard)
}

/// The version that a node applies entries by.
fn version(nodes: &Nodes, at: usize) -> Option<u32> {
    shard(nodes, at).map(|shard| shard.status().fleet_version)
}

fn all_speak(nodes: &Nodes, of: &[usize], wanted: u32) -> bool {
    of.iter().all(|at| version(nodes, *at) == Some(wanted))
}

fn has_fault(nodes: &Nodes, at: usize, fault: ShardFault) -> bool {
    let status = shard(nodes, at).map(|shard| shard.status());
    status.is_some_and(|status| status.faults.iter().any(|report| report.fault == fault))
}

/// The node that leads, within a time limit.
async fn led(nodes: &mut Nodes) -> (usize, Shard) {
    assert!(within(nodes, PATIENCE, |nodes| !nodes.ready().is_empty()).await, "no voter leads");
    nodes.ready().pop().unwrap()
}

/// Asks the leader to create this many tasks. It may have no room for some.
async fn create(nodes: &mut Nodes, rng: &mut SmallRng, count: usize) {
    for _ in 0..count {
        let (_, shard) = led(nodes).await;
        let watch = nodes.watch.clone();
        create_one(&shard, rng, &watch).await;
        step(nodes).await;
    }
}

async fn install(nodes: &mut Nodes, at: usize, build: Build) {
    nodes.kill(at);
    nodes.all[at].build = build;
    nodes.start(at).await;
}

/// Every node leads for a while, whatever its build, and asks for more tasks than any build allows.
async fn lead_in_turn(nodes: &mut Nodes, rng: &mut SmallRng, ids: &[NodeId]) {
    for _ in 0..2 * ids.len() {
        create(nodes, rng, 12).await;
        let (at, _) = led(nodes).await;
        nodes.kill(at);
        let others = |nodes: &Nodes| nodes.ready().iter().any(|(other, _)| *other != at);
        assert!(within(nodes, PATIENCE, others).await, "no other voter leads");
        nodes.start(at).await;
    }
    assert!(within(nodes, PATIENCE, |nodes| are_equal(nodes, ids)).await, "they differ");
}

async fn upgrade_one_after_another(seed: u64, watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let limits = [23, 31, 17];
    let (mut nodes, ids) =
        group_of(seed, &[build(2, limits[0]), build(1, limits[1]), build(1, limits[2])], &watch).await;
    lead_in_turn(&mut nodes, &mut rng, &ids).await;
    assert!(all_speak(&nodes, &[0, 1, 2], 1), "two of them speak nothing newer");
    let agreed = shard(&nodes, 0).unwrap().live_tasks_max();
    assert!(limits.contains(&agreed), "{agreed} is of no build");
    for at in 0..3 {
        let held = shard(&nodes, at).unwrap().status().counts.pending;
        assert_eq!(held, agreed, "node {at} goes by another limit than that in the log");
    }

    install(&mut nodes, 1, build(2, limits[1])).await;
    lead_in_turn(&mut nodes, &mut rng, &ids).await;
    let raised = within(&mut nodes, QUIET, |nodes| (0..3).any(|at| version(nodes, at) == Some(2)));
    assert!(!raised.await, "one of them speaks nothing newer");
    // A node that is down may still be old.
    nodes.kill(2);
    let raised = within(&mut nodes, QUIET, |nodes| (0..2).any(|at| version(nodes, at) == Some(2)));
    assert!(!raised.await, "one of them has not said what it speaks");
    nodes.start(2).await;
    let named = within(&mut nodes, PATIENCE, |nodes| {
        let leads = nodes.ready().pop().filter(|(at, _)| *at != 2);
        leads.is_some_and(|(_, shard)| shard.status().held_back_by == [ids[2]])
            || nodes.ready().iter().any(|(at, _)| *at == 2)
    });
    assert!(named.await, "the leader does not name who holds the version back");

    install(&mut nodes, 2, build(2, limits[2])).await;
    let raised = within(&mut nodes, PATIENCE, |nodes| all_speak(nodes, &[0, 1, 2], 2));
    assert!(raised.await, "all of them speak it");
    lead_in_turn(&mut nodes, &mut rng, &ids).await;
    let agreed: Vec<u64> = (0..3).map(|at| shard(&nodes, at).unwrap().live_tasks_max()).collect();
    assert!(limits.contains(&agreed[0]) && agreed.iter().all(|limit| *limit == agreed[0]), "{agreed:?}");
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_shard_is_raised_once_its_last_voter_is_upgraded_and_two_builds_never_differ() {
    for seed in 1..=4 {
        let outcome = run(|watch| upgrade_one_after_another(seed, watch));
        assert_eq!(outcome.violation, None, "seed {seed}: {:#?}", outcome.story);
    }
}

/// The entry that raised the version is in the log of a node, or in its snapshot, when an older build is installed on
/// it.
async fn downgrade_one(seed: u64, in_snapshot: bool, watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let new = build(2, 1_000);
    let (mut nodes, ids) = group_of(seed, &[new, new, new], &watch).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| all_speak(nodes, &[0, 1, 2], 2)).await);
    create(&mut nodes, &mut rng, if in_snapshot { FOR_A_SNAPSHOT } else { 3 }).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    let (leads, _) = led(&mut nodes).await;
    let (old, third) = ((leads + 1) % 3, (leads + 2) % 3);
    let has_snapshot = shard(&nodes, old).unwrap().status().snapshot.is_some();
    assert_eq!(has_snapshot, in_snapshot);

    install(&mut nodes, old, build(1, 1_000)).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| has_fault(nodes, old, ShardFault::WrongVersion)).await);
    let status = shard(&nodes, old).unwrap().status();
    assert_eq!(status.role, ShardRole::Down);
    assert!(status.fault.is_some_and(|fault| fault.contains("fleet version 2")), "it does not say why");
    let named = within(&mut nodes, PATIENCE, |nodes| has_fault(nodes, leads, ShardFault::VoterWrongVersion));
    assert!(named.await, "its leader does not say who is too old");
    create(&mut nodes, &mut rng, 10).await;
    let two = [ids[leads], ids[third]];
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &two)).await, "two of three go on");

    // The group does not count on that node for anything.
    nodes.kill(leads);
    let elected = within(&mut nodes, QUIET, |nodes| !nodes.ready().is_empty());
    assert!(!elected.await, "it votes for what it cannot apply");
    nodes.start(leads).await;
    create(&mut nodes, &mut rng, 3).await;

    install(&mut nodes, old, new).await;
    assert!(
        within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await,
        "it has everything once it is upgraded"
    );
    check_acknowledged(&nodes, &ids);
    assert!(!has_fault(&nodes, old, ShardFault::WrongVersion));
}

#[test]
fn a_node_that_is_too_old_for_its_shard_stops_at_the_entry_that_raised_it_and_votes_for_nobody() {
    for seed in 1..=3 {
        for in_snapshot in [false, true] {
            let outcome = run(|watch| downgrade_one(seed, in_snapshot, watch));
            assert_eq!(outcome.violation, None, "seed {seed}, {in_snapshot}: {:#?}", outcome.story);
        }
    }
}

async fn add_one_that_is_too_old(watch: Watch) {
    let (new, old) = (build(2, 1_000), build(1, 1_000));
    let (mut nodes, _) = group_of(7, &[new, new, new, old], &watch).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| all_speak(nodes, &[0, 1, 2], 2)).await);
    let (_, leading) = led(&mut nodes).await;
    let node = nodes.all[3].id;
    let speaks = FleetVersions { min: 1, max: 1 };
    assert_eq!(leading.add_voter(node).await, Err(MembershipError::WrongVersion { node, speaks, version: 2 }));
    assert_eq!(leading.voters().len(), 3);
    install(&mut nodes, 3, new).await;
    step(&mut nodes).await;
    assert_eq!(leading.add_voter(node).await, Ok(()));
    assert!(within(&mut nodes, PATIENCE, |nodes| all_speak(nodes, &[0, 1, 2, 3], 2)).await);
}

#[test]
fn a_node_that_does_not_speak_the_version_of_a_shard_is_not_made_a_voter() {
    let outcome = run(add_one_that_is_too_old);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// An entry of another encoding: no node guesses at it, and no node writes down what would stop it again after each
/// start.
async fn write_what_nobody_reads(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, ids) = group_of(7, &[build(1, 1_000); 3], &watch).await;
    create(&mut nodes, &mut rng, 3).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    let (leads, leading) = led(&mut nodes).await;
    let (digest, last) = (leading.status().digest, leading.status().last_log);
    leading.write_bytes(vec![99, 1, 2, 3]).await;
    let taken = |nodes: &Nodes| (0..3).any(|at| at != leads && shard(nodes, at).unwrap().status().last_log > last);
    assert!(!within(&mut nodes, QUIET, taken).await, "a node wrote down what no node can apply");
    assert!((0..3).all(|at| shard(&nodes, at).unwrap().status().digest == digest));
    // Only the node that made the entry has it: the others go on without it.
    nodes.kill(leads);
    create(&mut nodes, &mut rng, 3).await;
    nodes.start(leads).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await, "it does not follow the others");
    assert!((0..3).all(|at| !has_fault(&nodes, at, ShardFault::WrongVersion)));
    check_acknowledged(&nodes, &ids);
}

#[test]
fn an_entry_that_a_build_does_not_understand_is_not_taken_and_stops_nobody() {
    let outcome = run(write_what_nobody_reads);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
