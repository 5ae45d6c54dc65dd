//! Voters that others take the place of while one is cut off or away: it follows who leads by them, or says whom it
//! does not know.

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use skep_protocol::fault::ShardFault;
use skep_protocol::ids::NodeId;

use super::site::{Nodes, SHARD, charter};
use super::strangers::{PATIENCE, shard};
use super::watch::Watch;
use super::workload::{are_equal, check_acknowledged, create_one};
use super::{leader, run, step, within};
use crate::MembershipError;

/// The voter that is away, of the first three nodes.
const AWAY: usize = 2;
/// The node that is made a voter meanwhile.
const ADDED: usize = 3;

fn leads(nodes: &Nodes, at: usize) -> bool {
    nodes.ready().iter().any(|(ready, _)| *ready == at)
}

/// Hands the lead to a node.
async fn give_lead(nodes: &mut Nodes, at: usize) {
    let to = nodes.all[at].id;
    // It may be refused once: whoever is asked may not follow yet.
    for _ in 0..10 {
        let (_, leading) = leader(nodes).await;
        if leads(nodes, at) || leading.transfer_leader(Some(to)).await.is_ok() {
            break;
        }
    }
    assert!(within(nodes, PATIENCE, |nodes| leads(nodes, at)).await, "node {at} does not take the lead");
}

/// A shard of the first three of four nodes, the first of whom leads. All have marked the fourth, but for the one that
/// is to be away: that one has marked so many.
async fn three_of_four(marked: usize, watch: &Watch) -> Nodes {
    let mut nodes = Nodes::new(4, 7, watch.clone());
    for at in 0..4 {
        nodes.marked = if at == AWAY { marked } else { 4 };
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let ids: Vec<NodeId> = nodes.all[..3].iter().map(|node| node.id).collect();
    let first = nodes.all[0].process.clone().unwrap();
    first.shards.open(SHARD).await.unwrap().initialize(&ids, charter()).await.unwrap();
    assert!(within(&mut nodes, PATIENCE, |nodes| !nodes.ready().is_empty() && are_equal(nodes, &ids)).await);
    give_lead(&mut nodes, 0).await;
    nodes
}

fn ids(nodes: &Nodes, of: &[usize]) -> Vec<NodeId> {
    of.iter().map(|at| nodes.all[*at].id).collect()
}

/// While a voter is cut off, another one is replaced, and the first node is elected again, by itself and the new one.
async fn replace_one(nodes: &mut Nodes, watch: &Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let away = nodes.all[AWAY].id;
    let others = ids(nodes, &[0, 1, ADDED]);
    nodes.fabric.cut(others.iter().flat_map(|other| [(*other, away), (away, *other)]));
    let (removed, added) = (nodes.all[1].id, nodes.all[ADDED].id);
    let (_, leading) = leader(nodes).await;
    assert_eq!(leading.add_voter(added).await, Ok(()));
    assert_eq!(leading.remove_voter(removed).await, Ok(()));
    nodes.kill(1);
    give_lead(nodes, ADDED).await;
    give_lead(nodes, 0).await;
    create_one(&shard(nodes, 0).unwrap(), &mut rng, watch).await;
}

/// The replica of the one that was away knows one of the two that elected the leader, and has marked the other one.
async fn come_back_after_a_replacement(watch: Watch) {
    let mut nodes = three_of_four(4, &watch).await;
    replace_one(&mut nodes, &watch).await;
    nodes.fabric.heal();
    let ids = ids(&nodes, &[0, AWAY, ADDED]);
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await, "it refuses its leader");
    step(&mut nodes).await;
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_voter_that_was_cut_off_follows_who_was_elected_by_a_marked_one_that_took_a_place_meanwhile() {
    let outcome = run(come_back_after_a_replacement);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The same, and it has not marked the new voter: it cannot tell it from one that a thief made up.
async fn come_back_without_the_mark(watch: Watch) {
    let mut nodes = three_of_four(3, &watch).await;
    replace_one(&mut nodes, &watch).await;
    nodes.fabric.heal();
    let (leading, last) = (nodes.all[0].id, shard(&nodes, AWAY).unwrap().status().last_log);
    let refuses = |nodes: &Nodes| {
        let faults = shard(nodes, AWAY).map(|shard| shard.status().faults).unwrap_or_default();
        faults.iter().any(|report| report.fault == ShardFault::LeaderUnproven && report.node == Some(leading))
    };
    assert!(within(&mut nodes, PATIENCE, refuses).await, "it does not say whom it refuses");
    assert_eq!(shard(&nodes, AWAY).unwrap().status().last_log, last);
    nodes.kill(AWAY);
    nodes.marked = 4;
    nodes.start(AWAY).await;
    let ids = ids(&nodes, &[0, AWAY, ADDED]);
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await, "it refuses its leader still");
    assert!(within(&mut nodes, PATIENCE, |nodes| !refuses(nodes)).await, "it says so still");
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_voter_that_refuses_its_leader_says_so_and_follows_it_once_it_has_the_mark() {
    let outcome = run(come_back_without_the_mark);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A voter is made while another one is away, which has not marked it, and leads when that one comes back.
async fn come_back_to_a_leader_that_is_not_known(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut nodes = three_of_four(3, &watch).await;
    nodes.kill(AWAY);
    let (_, leading) = leader(&mut nodes).await;
    let added = nodes.all[ADDED].id;
    assert_eq!(leading.add_voter(added).await, Ok(()));
    give_lead(&mut nodes, ADDED).await;
    nodes.marked = 3;
    nodes.start(AWAY).await;
    let ids = ids(&nodes, &[0, 1, AWAY, ADDED]);
    create_one(&shard(&nodes, ADDED).unwrap(), &mut rng, &watch).await;
    assert!(
        within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await,
        "it does not follow who it was not told of"
    );
    step(&mut nodes).await;
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_voter_that_was_away_follows_one_that_was_made_meanwhile() {
    let outcome = run(come_back_to_a_leader_that_is_not_known);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The leader has not marked the node: a voter that is cut off would not follow those whom that one elects.
async fn add_one_that_is_not_marked(watch: Watch) {
    let mut nodes = Nodes::new(4, 7, watch.clone());
    nodes.marked = 3;
    for at in 0..4 {
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let voters = ids(&nodes, &[0, 1, 2]);
    let first = nodes.all[0].process.clone().unwrap();
    first.shards.open(SHARD).await.unwrap().initialize(&voters, charter()).await.unwrap();
    let (_, leading) = leader(&mut nodes).await;
    let refused = leading.add_voter(nodes.all[ADDED].id).await;
    assert!(matches!(&refused, Err(MembershipError::Voters(why)) if why.contains("is not marked")), "{refused:?}");
    assert!(!leading.is_member(nodes.all[ADDED].id), "it was made a member before it was looked at");
    assert_eq!(leading.voters().len(), 3);
}

#[test]
fn a_node_that_the_leader_has_not_marked_is_made_no_voter() {
    let outcome = run(add_one_that_is_not_marked);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
