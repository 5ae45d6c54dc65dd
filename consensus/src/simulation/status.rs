//! What replicas say of themselves.

use std::time::Duration;

use skep_protocol::fault::ShardFault;
use skep_protocol::ids::NodeId;
use skep_protocol::query::Query;

use super::site::Nodes;
use super::watch::Watch;
use super::{leader, run, three, within};

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(20);

fn faults(nodes: &Nodes, at: usize) -> Vec<ShardFault> {
    let shard = nodes.all[at].process.as_ref().and_then(super::site::Process::shard);
    shard.map(|shard| shard.status().faults.into_iter().map(|report| report.fault).collect()).unwrap_or_default()
}

/// The leader is heard, and hears nobody.
async fn hear_a_leader_without_a_quorum(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, shard) = leader(&mut nodes).await;
    let all_is_well = within(&mut nodes, PATIENCE, |nodes| (0..3).all(|at| faults(nodes, at).is_empty()));
    assert!(all_is_well.await);
    let others: Vec<NodeId> = ids.iter().copied().filter(|other| *other != id).collect();
    nodes.fabric.cut(others.iter().map(|other| (*other, id)));
    // Whoever is asked knows, or somebody else leads.
    let known = |nodes: &Nodes| {
        let told = |at: usize| {
            let faults = faults(nodes, at);
            faults.contains(&ShardFault::LeaderWithoutQuorum) || faults.contains(&ShardFault::NoLeader)
        };
        let goes_on = nodes.ready().iter().any(|(at, _)| nodes.all[*at].id != id);
        goes_on || (0..3).all(told)
    };
    assert!(within(&mut nodes, PATIENCE, known).await, "somebody calls it well");
    // A stale answer of the one that was cut off says how old it is.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let age = shard.query_stale(Query::Counts).await.unwrap().as_of.age_ms;
    assert!(age.is_none_or(|ms| ms > 2_000), "{age:?}");
}

#[test]
fn a_voter_that_hears_a_leader_without_a_quorum_does_not_call_it_well() {
    let outcome = run(hear_a_leader_without_a_quorum);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
