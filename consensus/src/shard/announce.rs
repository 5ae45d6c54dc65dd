//! Tells other nodes which node leads.
//!
//! A new leader announces itself to every connected peer, and to each peer that connects later: they need not search
//! for it, and learn who votes. A peer believes it only after this node has answered as a leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skep_protocol::ids::NodeId;
use skep_protocol::leader::{LeaderHint, Voters};

use super::Shard;

/// Interval at which the leader tells the peers again that it could not reach, and looks at the voters.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

impl Shard {
    /// What this replica knows of who leads.
    pub(crate) fn hint(&self) -> LeaderHint {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|id| membership.get_node(&id).map(|member| member.node));
        let voters = membership.voter_ids().filter_map(|id| membership.get_node(&id).map(|member| member.node));
        LeaderHint { leader, term: metrics.current_term, voters: Voters::of(voters) }
    }

    /// The same hint, from a node that does not lead.
    pub(super) fn elsewhere(&self) -> LeaderHint {
        self.hint().elsewhere(self.inner.parts.node)
    }

    /// Tells a peer that this node leads; returns the peer, and whether it heard.
    async fn announce(self, node: NodeId, hint: LeaderHint) -> (NodeId, bool) {
        (node, self.inner.parts.tell_lead(node, self.id(), &hint).await)
    }
}

/// For each peer: the run of its process that was told, and the voters that it was told of.
type Told = BTreeMap<NodeId, (u64, Voters)>;

/// Tells every peer that this node leads, for as long as the term lasts.
pub(super) async fn run(shard: Shard, term: u64) {
    let mut peers = shard.inner.parts.peers.changes();
    let mut view = shard.view();
    let mut told = Told::new();
    let mut telling = Told::new();
    let mut later: BTreeSet<NodeId> = BTreeSet::new();
    let mut again = tokio::time::interval(AGAIN_EVERY);
    let mut in_flight = FuturesUnordered::new();
    loop {
        peers.borrow_and_update();
        let known = *view.borrow_and_update();
        if known.term > term {
            return;
        }
        // The view may still be of the term before.
        if known.ready && known.term == term {
            let hint = LeaderHint { leader: Some(shard.inner.parts.node), term, ..shard.hint() };
            for (node, process) in shard.inner.parts.peers.present() {
                let what = (process, hint.voters.clone());
                let is_told = told.get(&node) == Some(&what) || telling.contains_key(&node) || later.contains(&node);
                if !is_told {
                    telling.insert(node, what);
                    in_flight.push(shard.clone().announce(node, hint.clone()));
                }
            }
        }
        tokio::select! {
            // In order, and not at random: each simulated run takes the same way.
            biased;
            Some((node, heard)) = in_flight.next() => {
                if let Some(what) = telling.remove(&node).filter(|_| heard) {
                    told.insert(node, what);
                } else {
                    later.insert(node);
                }
            }
            changed = view.changed() => if changed.is_err() { return },
            changed = peers.changed() => if changed.is_err() { return },
            _ = again.tick() => later.clear(),
        }
    }
}
