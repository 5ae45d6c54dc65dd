//! Changes of voters that their leader does not finish.

use std::time::Duration;

use skep_protocol::entry::Charter;
use skep_protocol::ids::{Genesis, NodeId, ShardId};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::signing::Place;
use tokio::time::Instant;

use super::site::{Nodes, Process, SHARD, charter};
use super::watch::Watch;
use super::{STEP, answers, group, leader, run, step, three_of, three_seeded, within};
use crate::MembershipError;
use crate::shard::Shard;

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that it takes to hand the lead to a voter that is there: shorter than any voter waits before it stands
/// by itself.
const HANDED_OVER_WITHIN: Duration = Duration::from_millis(200);

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref()?.shard()
}

/// Whether a node knows that exactly these nodes vote, and that no change is under way.
fn votes_only(nodes: &Nodes, at: usize, wanted: &[NodeId]) -> bool {
    let Some(shard) = shard(nodes, at) else { return false };
    let mut known: Vec<NodeId> = shard.voters().into_values().map(|member| member.node).collect();
    let mut wanted = wanted.to_vec();
    known.sort();
    wanted.sort();
    known == wanted && !shard.is_between_voters()
}

/// A voter is gone for good and is replaced; the leader dies between the two steps of that.
async fn cut_off_a_change(seed: u64, watch: Watch) {
    let (mut nodes, _) = three_seeded(seed, 4, &watch).await;
    let (id, leads) = leader(&mut nodes).await;
    let at = nodes.all.iter().position(|node| node.id == id).unwrap();
    let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    let (stays, leaves, comes) = (others[0], others[1], 3);
    leads.take_in(nodes.all[comes].id).await.unwrap();
    nodes.kill(leaves);
    let wanted = [id, nodes.all[stays].id, nodes.all[comes].id];
    // By then no call waits for an answer that will not come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The leader hears no answers: the others get the first step, and it never knows that it could take the second.
    nodes.fabric.cut([(wanted[1], id), (wanted[2], id)]);
    let asked = tokio::spawn(async move { leads.vote_by(&wanted).await });
    let between = |nodes: &Nodes, at| shard(nodes, at).is_some_and(|shard| shard.is_between_voters());
    for _ in 0..300 {
        if between(&nodes, stays) && between(&nodes, comes) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(between(&nodes, stays) && between(&nodes, comes), "the first step did not arrive");
    nodes.kill(at);
    nodes.fabric.heal();
    assert!(!matches!(asked.await, Ok(Ok(()))), "the second step was taken all the same");
    nodes.start(at).await;
    // No client asks for the change again.
    let all = [at, stays, comes];
    let finished = within(&mut nodes, PATIENCE, |nodes| all.iter().all(|at| votes_only(nodes, *at, &wanted))).await;
    assert!(finished, "the old voters and the new ones must still agree");
    // The voter that left does not count: another one may go.
    nodes.kill(stays);
    assert!(answers(&mut nodes, PATIENCE).await, "the loss of one voter stops the shard");
}

#[test]
fn a_change_of_voters_that_was_cut_off_is_finished_by_the_next_leader() {
    for seed in 1..=6 {
        let outcome = run(|watch| cut_off_a_change(seed, watch));
        assert_eq!(outcome.violation, None, "seed {seed}: {:#?}", outcome.story);
    }
}

/// A leader takes out all voters but one, which still follows it: no other voter can be elected.
async fn leave_one(watch: Watch) {
    let (mut nodes, ids) = three_seeded(7, 3, &watch).await;
    let (led_by, shard) = leader(&mut nodes).await;
    let stays = ids.into_iter().find(|id| *id != led_by).unwrap();
    let _ = shard.vote_by(&[stays]).await;
    let stands = |nodes: &Nodes| nodes.ready().iter().any(|(at, _)| nodes.all[*at].id == stays);
    let soon = within(&mut nodes, Duration::from_secs(20), stands).await;
    assert!(soon, "it believes in the lease of a node that has stopped voting");
}

#[test]
fn the_only_voter_that_is_left_leads_though_its_last_leader_votes_no_more() {
    let outcome = run(leave_one);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A leader takes itself out with another voter, and is cut off between the two steps. Of the next voters one voted
/// before and three join, and one of those is down.
async fn leave_halfway(seed: u64, watch: Watch) {
    let (mut nodes, ids) = group(seed, 6, 3, &watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let mut others: Vec<usize> = (0..6).filter(|at| nodes.all[*at].id != id).collect();
    for at in others.iter().filter(|at| !ids.contains(&nodes.all[**at].id)) {
        leading.take_in(nodes.all[*at].id).await.unwrap();
    }
    // The order is that of the ids in the group: of the nodes that join the first is down, and of the voters the last
    // leaves. A leader that picks the first or the last of all soon meets one of these.
    others.sort_by_key(|at| nodes.all[*at].process.as_ref().map(Process::raft_id));
    let leaves = *others.iter().rfind(|at| ids.contains(&nodes.all[**at].id)).unwrap();
    let down = *others.iter().find(|at| !ids.contains(&nodes.all[**at].id)).unwrap();
    let wanted: Vec<NodeId> = others.iter().filter(|at| **at != leaves).map(|at| nodes.all[*at].id).collect();
    let stay: Vec<usize> = others.into_iter().filter(|at| ![leaves, down].contains(at)).collect();
    nodes.kill(down);
    step(&mut nodes).await;
    let led = watch.outcome().coverage.leaders;
    let (changing, voters) = (leading.clone(), wanted.clone());
    let changing = tokio::spawn(async move { changing.vote_by(&voters).await });
    let mut looks = 0..10_000;
    while !leading.is_between_voters() {
        assert!(looks.next().is_some(), "the change does not begin");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // No node takes the second step: it is too soon for the first one to be committed.
    changing.abort();
    let begun = Instant::now();
    match leading.remove_voter(nodes.all[stay[0]].id).await {
        Err(MembershipError::HandedOver { leader }) => {
            let takes = |at: &usize| nodes.all[*at].id == leader;
            assert!(stay.iter().any(takes), "{leader} is down, or leaves too");
        }
        // The leader has looked by itself, at that moment.
        Err(MembershipError::NotLeader { .. }) => {}
        other => panic!("a leader that is to leave goes on: {other:?}"),
    }
    assert!(begun.elapsed() < HANDED_OVER_WITHIN, "it took {:?} to find a leader", begun.elapsed());
    let finished = within(&mut nodes, PATIENCE, |nodes| stay.iter().all(|at| votes_only(nodes, *at, &wanted))).await;
    assert!(finished, "the old voters and the new ones must still agree");
    assert!(watch.outcome().coverage.leaders > led, "the leader took itself out");
    assert!(answers(&mut nodes, PATIENCE).await, "no voter leads");
}

#[test]
fn a_leader_that_is_to_leave_hands_an_unfinished_change_to_a_voter_that_stays_and_is_there() {
    for seed in 1..=6 {
        let outcome = run(|watch| leave_halfway(seed, watch));
        assert_eq!(outcome.violation, None, "seed {seed}: {:#?}", outcome.story);
    }
}

/// Two groups were made under one number, and an operator has one of them take in a node of the other.
async fn ask_for_a_node_of_another_shard(watch: Watch) {
    let (mut nodes, _) = three_of(4, &watch).await;
    let (own, leads) = leader(&mut nodes).await;
    let (node, stray) = (nodes.all[3].id, nodes.all[3].process.clone().unwrap());
    let place = Place { genesis: Genesis::from_bytes([9; 16]), ..charter().place };
    let other = stray.shards.open(SHARD).await.unwrap();
    other.initialize(&[node], Charter { place, first: None, root: None }).await.unwrap();
    // The watch does not look from here on: two leaders in one term are as they should be here.
    let begun = Instant::now();
    while other.lineage().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the other group does not begin");
        tokio::time::sleep(STEP).await;
    }
    let refused = leads.add_voter(node).await;
    let Err(MembershipError::AnotherShard { node: named, why }) = refused else { panic!("{refused:?}") };
    assert_eq!(named, node);
    assert!(why.contains(&own.to_string()) && why.contains("genesis 09090909"), "{why}");
    assert!(!leads.is_member(node), "it was made a member before it was asked");
}

#[test]
fn a_node_of_another_shard_of_the_same_number_is_not_taken_in() {
    let outcome = run(ask_for_a_node_of_another_shard);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The same, of a group whose other voter is gone before the group has begun: its first entry is not applied.
async fn ask_for_a_node_of_one_that_has_not_begun(watch: Watch) {
    let (mut nodes, _) = group(7, 5, 3, &watch).await;
    let (_, leads) = leader(&mut nodes).await;
    let (node, stray) = (nodes.all[3].id, nodes.all[3].process.clone().unwrap());
    let place = Place { genesis: Genesis::from_bytes([9; 16]), ..charter().place };
    let other = stray.shards.open(SHARD).await.unwrap();
    other.initialize(&[node, nodes.all[4].id], Charter { place, first: None, root: None }).await.unwrap();
    nodes.kill(4);
    assert_eq!(other.lineage(), None, "it has begun");
    let refused = leads.add_voter(node).await;
    let Err(MembershipError::AnotherShard { node: named, why }) = refused else { panic!("{refused:?}") };
    assert_eq!(named, node);
    assert!(why.contains("genesis 09090909"), "{why}");
    assert!(!leads.is_member(node), "it was made a member before it was asked");
}

#[test]
fn a_replica_that_has_not_begun_says_by_its_log_of_which_shard_it_is() {
    let outcome = run(ask_for_a_node_of_one_that_has_not_begun);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// An operator wants to make a shard at a node that has heard of one with that number.
async fn make_what_others_have(watch: Watch) {
    let (mut nodes, ids) = three_of(4, &watch).await;
    let (leads, _) = leader(&mut nodes).await;
    let shards = nodes.all[3].process.clone().unwrap().shards;
    let hear = |leader, voters| shards.learn(SHARD, |known| known.hint = LeaderHint { leader, term: 1, voters });
    assert_eq!(shards.check_unheard(SHARD), Ok(()));
    hear(Some(leads), Voters::default());
    let refused = shards.check_unheard(SHARD);
    assert_eq!(refused, Err(MembershipError::Elsewhere { shard: SHARD, voters: leads.to_string() }));
    hear(None, Voters::of(ids.iter().copied()));
    let refused = shards.check_unheard(SHARD).unwrap_err().to_string();
    assert!(ids.iter().all(|id| refused.contains(&id.to_string())) && refused.contains("add-voter"), "{refused}");
    assert_eq!(shards.check_unheard(ShardId(9)), Ok(()), "nothing is known of that one");
    // The only voter lost its disk: no node has the shard.
    hear(None, Voters::of([nodes.all[3].id]));
    assert_eq!(shards.check_unheard(SHARD), Ok(()));
    // The replica of a member tells it that the shard exists.
    assert_eq!(nodes.all[0].process.clone().unwrap().shards.check_unheard(SHARD), Ok(()));
}

#[test]
fn no_shard_is_made_under_a_number_that_has_voters_elsewhere() {
    let outcome = run(make_what_others_have);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
