//! Disks that are restored from a copy: they hold less than their nodes acknowledged.

use std::cell::Cell;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use skep_protocol::fault::ShardFault;
use skep_protocol::ids::NodeId;

use super::site::{Nodes, Process};
use super::watch::Watch;
use super::workload::{are_equal, check_acknowledged, create_one};
use super::{answers, leader, run, step, three_seeded, within};
use crate::MembershipError;
use crate::shard::Shard;

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the test watches that nothing comes, in virtual time.
const QUIET: Duration = Duration::from_secs(20);

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref().and_then(Process::shard)
}

fn has_fault(nodes: &Nodes, at: usize, fault: ShardFault) -> bool {
    let status = shard(nodes, at).map(|shard| shard.status());
    status.is_some_and(|status| status.faults.iter().any(|report| report.fault == fault))
}

fn leads(nodes: &Nodes, at: usize) -> bool {
    shard(nodes, at).is_some_and(|shard| shard.leads_term().is_some())
}

/// Creates tasks until this many are acknowledged.
async fn create(nodes: &mut Nodes, shard: &Shard, rng: &mut SmallRng, count: usize) {
    let mut done = 0;
    for _ in 0..50 * count {
        let watch = nodes.watch.clone();
        done += usize::from(create_one(shard, rng, &watch).await.is_some());
        if done == count {
            return;
        }
        step(nodes).await;
    }
    panic!("{done} of {count} tasks were acknowledged");
}

/// A voter forgets what it acknowledged and only the leader holds besides. Its vote would lose that for all.
async fn restore_a_voter(seed: u64, watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut nodes, ids) = three_seeded(seed, 3, &watch).await;
    let (id, leading) = leader(&mut nodes).await;
    let at = ids.iter().position(|other| *other == id).unwrap();
    let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    let (forgets, third) = (others[0], others[1]);
    create(&mut nodes, &leading, &mut rng, 3).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    nodes.kill(forgets);
    let copy = nodes.copy(forgets);
    nodes.start(forgets).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await, "a restart is no loss");
    // Five entries that the third voter does not get.
    let both = |a: NodeId, b: NodeId| [(a, b), (b, a)];
    nodes.fabric.cut([both(ids[third], id), both(ids[third], ids[forgets])].concat());
    create(&mut nodes, &leading, &mut rng, 5).await;
    nodes.restore(forgets, &copy);
    nodes.start(forgets).await;
    let told = Cell::new(false);
    let found = within(&mut nodes, PATIENCE, |nodes| {
        told.set(told.get() || has_fault(nodes, at, ShardFault::VoterRestoredFromCopy));
        told.get() && has_fault(nodes, forgets, ShardFault::RestoredFromCopy)
    });
    assert!(found.await, "no node says that a voter forgot what it had acknowledged");
    assert_eq!(create_one(&leading, &mut rng, &watch).await, None, "it is counted on all the same");
    // The leader is down, and the last sound voter has one vote.
    nodes.kill(at);
    nodes.fabric.heal();
    let elected = within(&mut nodes, QUIET, |nodes| leads(nodes, third) || leads(nodes, forgets));
    assert!(!elected.await, "its vote elects a leader that lacks what was acknowledged");
    nodes.kill(forgets);
    nodes.start(forgets).await;
    let elected = within(&mut nodes, QUIET, |nodes| leads(nodes, third) || leads(nodes, forgets));
    assert!(!elected.await, "after a restart it votes again");
    nodes.start(at).await;
    assert!(answers(&mut nodes, PATIENCE).await, "two of three go on");
    let two = [id, ids[third]];
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &two)).await);
    check_acknowledged(&nodes, &two);
    take_in_again(&mut nodes, &ids, forgets).await;
}

/// The voter is wiped, and comes back as another member, and not before that.
async fn take_in_again(nodes: &mut Nodes, ids: &[NodeId], forgets: usize) {
    let (_, leading) = leader(nodes).await;
    let at = (0..3).find(|at| leads(nodes, *at)).unwrap();
    assert!(within(nodes, PATIENCE, |nodes| has_fault(nodes, at, ShardFault::VoterRestoredFromCopy)).await);
    let refused = leading.add_voter(ids[forgets]).await;
    assert_eq!(refused, Err(MembershipError::Forgot { node: ids[forgets] }));
    nodes.wipe(forgets);
    nodes.start(forgets).await;
    step(nodes).await;
    assert_eq!(leading.add_voter(ids[forgets]).await, Ok(()));
    assert!(within(nodes, PATIENCE, |nodes| are_equal(nodes, ids)).await);
    check_acknowledged(nodes, ids);
    assert!(!has_fault(nodes, forgets, ShardFault::RestoredFromCopy));
}

/// databendlabs/openraft#1251, etcd-io/etcd#10166
#[test]
fn a_voter_that_was_restored_from_a_copy_is_found_out_and_votes_no_more() {
    for seed in 1..=4 {
        let outcome = run(|watch| restore_a_voter(seed, watch));
        assert_eq!(outcome.violation, None, "seed {seed}: {:#?}", outcome.story);
    }
}
