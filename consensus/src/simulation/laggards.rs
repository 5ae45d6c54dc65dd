//! Voters that are far behind: they ask for votes now and then, and catch up once they can
//! (redpanda-data/redpanda#30815, where such voters asked each other for votes for ever, as fast as they could).

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::NodeId;

use super::site::{Nodes, Process};
use super::watch::Watch;
use super::workload::{are_equal, check_acknowledged, create_one};
use super::{answers, group, leader, run, step, within};
use crate::shard::Shard;

/// How long the laggards are apart from the others, in virtual time.
const APART: Duration = Duration::from_secs(60);
/// Longest wait until they have caught up, in virtual time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most attempts of a voter in a minute apart: one in each longest silence (1.5 s), and a few more at the
/// beginning.
const ATTEMPTS_MAX: u64 = 60;
/// The most attempts of all voters from the heal until one leads.
const ATTEMPTS_HEALED_MAX: u64 = 40;

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref().and_then(Process::shard)
}

fn votes_asked(nodes: &Nodes) -> u64 {
    nodes.fabric.sent(FrameKind::PreVote) + nodes.fabric.sent(FrameKind::Vote)
}

/// Writes until the log that some voters need is gone.
pub(super) async fn outrun(nodes: &mut Nodes, leading: &Shard, behind: usize, rng: &mut SmallRng) {
    for _ in 0..400 {
        let watch = nodes.watch.clone();
        create_one(leading, rng, &watch).await;
        step(nodes).await;
        let last = shard(nodes, behind).and_then(|shard| shard.status().last_log);
        if leading.status().purged > last.map(|last| last + 20) {
            return;
        }
    }
    panic!("the log that laggards need is still there");
}

async fn apart(nodes: &mut Nodes) {
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < APART {
        step(nodes).await;
    }
}

fn pairs(some: &[NodeId], others: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let both = |a: &NodeId| others.iter().flat_map(|b| [(*a, *b), (*b, *a)]).collect::<Vec<_>>();
    some.iter().flat_map(both).collect()
}

/// Two of five voters are cut off and outrun; when they come back, the leader is gone.
async fn lose_the_leader(seed: u64, watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut nodes, ids) = group(seed, 5, 5, &watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let at = ids.iter().position(|other| *other == id).unwrap();
    let others: Vec<usize> = (0..5).filter(|other| *other != at).collect();
    let laggards = [ids[others[0]], ids[others[1]]];
    let ahead: Vec<NodeId> = ids.iter().copied().filter(|id| !laggards.contains(id)).collect();
    nodes.fabric.cut(pairs(&laggards, &ahead));
    outrun(&mut nodes, &leading, others[0], &mut rng).await;
    let before = votes_asked(&nodes);
    apart(&mut nodes).await;
    // Each of them asks the four others, as far as it reaches them.
    let asked = votes_asked(&nodes) - before;
    assert!(asked <= 2 * 4 * ATTEMPTS_MAX, "{asked} votes were asked for by two laggards in a minute");
    nodes.kill(at);
    nodes.fabric.heal();
    let before = votes_asked(&nodes);
    assert!(answers(&mut nodes, PATIENCE).await, "no voter leads");
    let left: Vec<NodeId> = ids.iter().copied().filter(|other| *other != id).collect();
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &left)).await, "laggards do not catch up");
    let asked = votes_asked(&nodes) - before;
    assert!(asked <= 4 * ATTEMPTS_HEALED_MAX, "{asked} votes were asked for until a leader was found");
    check_acknowledged(&nodes, &left);
}

/// One of three voters does not hear the leader, though it and the third voter reach each other.
async fn hide_the_leader(seed: u64, watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut nodes, ids) = group(seed, 3, 3, &watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let behind = ids.iter().position(|other| *other != id).unwrap();
    nodes.fabric.cut([(id, ids[behind])]);
    outrun(&mut nodes, &leading, behind, &mut rng).await;
    let (before, term) = (votes_asked(&nodes), leading.status().term);
    apart(&mut nodes).await;
    let asked = votes_asked(&nodes) - before;
    assert!(asked <= 2 * ATTEMPTS_MAX, "{asked} votes were asked for by one laggard in a minute");
    assert_eq!(leading.leads_term(), Some(term), "who hears a leader keeps it");
    nodes.fabric.heal();
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await, "the laggard does not catch up");
    assert_eq!(leading.leads_term(), Some(term), "to catch up takes no election");
    check_acknowledged(&nodes, &ids);
}

#[test]
fn voters_far_behind_ask_seldom_and_catch_up_with_the_next_leader() {
    for seed in 1..=3 {
        let outcome = run(|watch| lose_the_leader(seed, watch));
        assert_eq!(outcome.violation, None, "seed {seed}: {:#?}", outcome.story);
    }
}

#[test]
fn a_voter_that_does_not_hear_its_leader_deposes_nobody_and_catches_up() {
    for seed in 1..=3 {
        let outcome = run(|watch| hide_the_leader(seed, watch));
        assert_eq!(outcome.violation, None, "seed {seed}: {:#?}", outcome.story);
    }
}
