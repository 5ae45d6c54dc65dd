//! Which nodes this node believes to be voters.
//!
//! Everybody who is listed is admitted, robots too. Raft is taken from voters alone, and so is what somebody says of a shard: who
//! leads it, what agents hold, what its clock shows. A voter is whom the configuration marks as one, whom this node's replica has
//! as one, and whom somebody names who is believed already. That is no weaker than the marks: a voter that leads can make
//! another one a voter. But whom somebody named elects no leader for this node: see the proofs in `shard/proven.rs`.
//!
//! A named node is believed until another believed node says otherwise, or until this node's replica knows who votes.
//! So a leader for which no other node can vouch has all the time that a long snapshot takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::limits;
use tokio::time::Instant;

use crate::net::Noise;

/// Interval at which this node asks voters whether an unknown node votes: for each of its replicas, and once for all
/// shards of which it has none.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long this node does not ask again about a node that a voter named. It believes the node meanwhile, and until
/// there is an answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The nodes that a node believes beside those that its replicas name.
#[derive(Debug, Default)]
pub(crate) struct Belief {
    /// The nodes that the configuration marks as voters.
    pub(crate) marked: BTreeSet<NodeId>,
    state: Mutex<State>,
    pub(crate) refused: Noise,
}

/// Who votes, as a voter said: of those alone whom it was asked about.
#[derive(Debug)]
struct Named {
    voters: Voters,
    /// The term of which the voter spoke.
    term: u64,
    /// When the voter said so, or when this node asked again.
    asked: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// For each shard, what voters answered.
    named: BTreeMap<ShardId, Named>,
    /// When this node last asked voters, for each of its replicas, and for all other shards together.
    asked: BTreeMap<Option<ShardId>, Instant>,
}

impl Belief {
    pub(crate) fn new(marked: BTreeSet<NodeId>) -> Self {
        Self { marked, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node may ask voters again.
    pub(crate) fn may_ask(&self, replica: Option<ShardId>) -> bool {
        let mut state = self.state();
        let waits = state.asked.get(&replica).is_some_and(|asked| asked.elapsed() < ASK_EVERY);
        if !waits {
            state.asked.insert(replica, Instant::now());
        }
        !waits
    }

    pub(crate) fn is_named(&self, node: NodeId, shard: ShardId) -> bool {
        self.state().named.get(&shard).is_some_and(|named| named.voters.contains(&node))
    }

    /// Whether this node asked long ago about a node that a voter named.
    pub(crate) fn is_old(&self, node: NodeId, shard: ShardId) -> bool {
        let is_old = |named: &Named| named.voters.contains(&node) && named.asked.elapsed() >= ASK_AGAIN_AFTER;
        self.state().named.get(&shard).is_some_and(is_old)
    }

    /// Notes that this node asks voters about a shard.
    pub(crate) fn asks(&self, shard: ShardId) {
        if let Some(named) = self.state().named.get_mut(&shard) {
            named.asked = Instant::now();
        }
    }

    /// Notes which voters a voter names, when this node asked it about a node; returns whether it names that node.
    /// Beyond the number of shards that a node may take part in, this keeps nothing.
    pub(crate) fn note(&self, shard: ShardId, doubted: NodeId, said: LeaderHint) -> bool {
        let LeaderHint { term, voters, .. } = said;
        let mut state = self.state();
        let names_it = voters.contains(&doubted);
        if !names_it {
            // A voter that does not know who votes, or has not heard of that term, does not contradict it.
            let is_news = state.named.get(&shard).is_some_and(|named| named.term <= term);
            drop(state);
            if is_news && !voters.is_empty() {
                self.forget(shard, doubted);
            }
        } else if state.named.contains_key(&shard) || state.named.len() < limits::SHARDS_PER_NODE_MAX {
            // Nobody asked about the others, so that nobody would be asked again about them.
            let before = state.named.remove(&shard).map(|named| named.voters).unwrap_or_default();
            let still = before.iter().copied().filter(|node| voters.contains(node));
            let voters = Voters::of(still.chain([doubted]));
            state.named.insert(shard, Named { voters, term, asked: Instant::now() });
        }
        names_it
    }

    /// Forgets what voters said of a node.
    pub(crate) fn forget(&self, shard: ShardId, node: NodeId) {
        let mut state = self.state();
        let Some(named) = state.named.get_mut(&shard) else { return };
        named.voters = Voters::of(named.voters.iter().copied().filter(|voter| *voter != node));
        if named.voters.is_empty() {
            state.named.remove(&shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    /// The hint of a node that does not lead.
    fn says(term: u64, voters: &[u8]) -> LeaderHint {
        LeaderHint { leader: None, term, voters: Voters::of(voters.iter().copied().map(node)) }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_named_is_believed_until_somebody_who_knows_says_otherwise() {
        let (belief, shard) = (Belief::default(), ShardId::FIRST);
        assert!(belief.note(shard, node(7), says(4, &[1, 6, 7])));
        assert!(belief.is_named(node(7), shard) && !belief.is_old(node(7), shard));
        // This takes as long as a snapshot.
        for _ in 0..10 {
            tokio::time::advance(ASK_AGAIN_AFTER).await;
            assert!(belief.is_old(node(7), shard) && !belief.is_old(node(8), shard));
            belief.asks(shard);
            assert!(belief.is_named(node(7), shard), "no voter has answered");
            assert!(!belief.is_old(node(7), shard), "no voter is asked again at each frame");
        }
        assert!(!belief.note(shard, node(7), says(9, &[])));
        assert!(!belief.note(shard, node(7), says(3, &[1, 2])));
        assert!(belief.is_named(node(7), shard), "neither knows better");
        assert!(!belief.note(shard, node(7), says(4, &[1, 6])));
        assert!(!belief.is_named(node(7), shard));
        assert!(belief.state().named.is_empty());
    }

    #[test]
    fn of_those_whom_a_voter_names_the_one_is_believed_that_it_was_asked_about() {
        let (belief, shard) = (Belief::default(), ShardId::FIRST);
        assert!(belief.note(shard, node(7), says(4, &[1, 6, 7])));
        assert!(!belief.is_named(node(6), shard) && !belief.is_named(node(1), shard), "nobody asked about them");
        assert!(belief.note(shard, node(6), says(4, &[1, 6, 7])));
        assert!(belief.is_named(node(7), shard) && belief.is_named(node(6), shard));
        belief.forget(shard, node(6));
        assert!(belief.is_named(node(7), shard) && !belief.is_named(node(6), shard));
    }

    #[tokio::test(start_paused = true)]
    async fn voters_are_asked_seldom_whatever_shards_somebody_makes_up() {
        let belief = Belief::default();
        assert!(belief.may_ask(Some(ShardId::FIRST)));
        let mut asked = 0;
        for _ in 0..100 {
            // This node has no replica of these shards.
            asked += usize::from(belief.may_ask(None));
            assert!(!belief.may_ask(Some(ShardId::FIRST)));
        }
        assert_eq!(asked, 1);
        tokio::time::advance(ASK_EVERY).await;
        assert!(belief.may_ask(None) && belief.may_ask(Some(ShardId::FIRST)));
    }

    #[test]
    fn what_voters_say_of_shards_that_there_cannot_be_is_not_kept() {
        let belief = Belief::new([node(1)].into());
        for shard in 0..10_000 {
            belief.note(ShardId(shard), node(7), says(4, &[7]));
        }
        assert!(belief.is_named(node(7), ShardId(0)) && !belief.is_named(node(8), ShardId(0)));
        assert_eq!(belief.state().named.len(), limits::SHARDS_PER_NODE_MAX);
        belief.note(ShardId(0), node(8), says(4, &[8]));
        assert!(
            belief.is_named(node(8), ShardId(0)) && !belief.is_named(node(7), ShardId(0)),
            "the latest word counts"
        );
    }
}
