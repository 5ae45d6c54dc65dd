//! What a node does about peers of another shard that has the same number: it says so, and does not speak with them of that shard.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use skep_protocol::codec::Encoded as _;
use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::frame::{FrameKind, Lineages};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::recovery::Lineage;

use super::calls::Class;
use super::lineages::{Known, in_words};
use super::peers::Peers;

impl Peers {
    fn lineages(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards of which this node has a replica, as far as a hello has room for them.
    pub(super) fn shards(&self) -> Vec<Lineage> {
        self.lineages().own.iter().take(limits::HELLO_SHARDS_MAX).cloned().collect()
    }

    /// Takes note of which shards this node has replicas of; whether it was something else before.
    pub(crate) fn have(&self, own: Vec<Lineage>) -> bool {
        {
            let mut known = self.lineages();
            if known.own == own {
                return false;
            }
            known.own = own;
        }
        self.present().into_iter().for_each(|(node, _)| self.log_stray(node));
        true
    }

    /// Tells all that are connected which shards this node has replicas of, and asks them the same.
    pub(crate) async fn ask_all(&self, least: Duration) {
        for (node, _) in self.present() {
            self.ask_shards(node, least).await;
        }
    }

    /// The shards of which a peer has a replica by now; none if it does not answer. It is told which ones this node has, so that
    /// both know.
    pub(crate) async fn ask_shards(&self, node: NodeId, least: Duration) -> Option<Vec<Lineage>> {
        let own = Lineages { shards: self.shards() }.encode().ok()?;
        let answer = self.call(node, Class::Query, FrameKind::Lineages, ShardId(0), &own, least).await.ok()?;
        let Lineages { shards } = Lineages::decode(&answer).ok()?;
        self.note_shards(node, &shards);
        Some(shards)
    }

    /// A peer says of which shards it has replicas.
    pub(crate) fn note_shards(&self, node: NodeId, theirs: &[Lineage]) {
        self.lineages().note(node, theirs);
        self.log_stray(node);
    }

    /// A peer is connected no more.
    pub(super) fn note_left(&self, node: NodeId) {
        self.lineages().left(node);
    }

    /// A peer is not known any more.
    pub(super) fn forget_shards(&self, node: NodeId) {
        self.lineages().forget(node);
    }

    /// The shards of which a peer has a replica, as it said last.
    pub(crate) fn shards_of(&self, node: NodeId) -> Vec<Lineage> {
        self.lineages().of(node).to_vec()
    }

    /// Whether a peer can be spoken with of a shard.
    ///
    /// # Errors
    /// Why not, in words: its shard of this number is another one than this node's.
    pub(crate) fn check_shard(&self, node: NodeId, shard: ShardId) -> Result<(), String> {
        let known = self.lineages();
        match known.conflict(node, shard) {
            None => Ok(()),
            Some((own, their)) => Err(in_words((self.local, own), (node, their))),
        }
    }

    fn log_stray(&self, node: NodeId) {
        let detail = self.lineages().take_unsaid(self.local, node);
        if let Some(detail) = detail {
            let advice = ShardFault::AnotherShard.advice();
            tracing::error!(%node, detail, advice, "a peer is of another shard that has the same number");
        }
    }

    /// The peers of other shards that are connected, or were of late.
    pub(crate) fn strays(&self) -> Vec<FaultReport> {
        let connected: BTreeSet<NodeId> = self.present().into_iter().map(|(node, _)| node).collect();
        let strays = self.lineages().strays(self.local, |node| connected.contains(&node));
        let report = |(node, detail)| FaultReport { fault: ShardFault::AnotherShard, node: Some(node), detail };
        strays.into_iter().map(report).collect()
    }
}
