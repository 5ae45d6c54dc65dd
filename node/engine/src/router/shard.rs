//! What the router knows of a shard, and what the node can reach of it.

use std::collections::BTreeSet;

use skep_protocol::ids::NodeId;
use skep_protocol::leader::LeaderHint;

use crate::connectivity::Connectivity;
use crate::known::{Known, Word};
use crate::pace::Pace;

/// A shard, as the router knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardState {
    /// What this node's own replica says, or what other nodes say.
    pub(super) known: Known,
    pub(super) ready: bool,
    /// Whether this node's own replica tells which node leads.
    pub(super) member: bool,
    /// Since when no node is known to lead, in milliseconds of the node's clock; none if a node is.
    pub(super) leaderless_since_ms: Option<u64>,
    pub(super) connectivity: Connectivity,
    /// How long answers take.
    pub(super) pace: Pace,
    /// What the router handed out for the node to tell others.
    pub(super) told: LeaderHint,
}

impl ShardState {
    /// When the shard will have been without a leader for too long, in milliseconds; none if it has one.
    pub(super) fn lost_at(&self, patience_ms: u64) -> Option<u64> {
        let since = self.leaderless_since_ms.filter(|_| self.connectivity == Connectivity::Connected)?;
        Some(since + patience_ms)
    }

    /// Judges anew what the node can reach of the shard with these peers. Gives the connectivity if it changed.
    pub(super) fn judge(
        &mut self,
        local: NodeId,
        up: &BTreeSet<NodeId>,
        patience_ms: u64,
        now_ms: u64,
    ) -> Option<Connectivity> {
        // Another node's word is no reason to believe in a leader: voters without a quorum may still name one.
        let reachable = self.known.lead().is_some_and(|lead| {
            let is_up = if lead.node == local { self.ready } else { up.contains(&lead.node) };
            is_up && lead.word > Word::Hearsay
        });
        if reachable {
            self.leaderless_since_ms = None;
        } else if self.leaderless_since_ms.is_none() {
            self.leaderless_since_ms = Some(now_ms);
        }
        let patient = |since: u64| now_ms.saturating_sub(since) < patience_ms;
        let judged = match self.leaderless_since_ms {
            None => Connectivity::Connected,
            Some(since) if patient(since) => Connectivity::Connected,
            Some(_) if up.is_empty() => Connectivity::Isolated,
            Some(_) => Connectivity::NoQuorum,
        };
        (std::mem::replace(&mut self.connectivity, judged) != judged).then_some(judged)
    }
}
