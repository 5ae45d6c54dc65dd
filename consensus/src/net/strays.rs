//! What a node does about peers of another shard that has the same number: it says so, and does not speak with them.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use skep_protocol::codec::Encoded as _;
use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::frame::{FrameKind, Lineages};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::recovery::Lineage;
use skep_protocol::text::escaped;
use tokio::time::Instant;

use super::calls::Class;
use super::lineages::{Known, conflict, in_words};
use super::peers::Peers;

/// How long it is said of a peer after it was last met, unless it comes again as another one: longer than two nodes of which each
/// takes the other one for none that votes wait until they dial again.
const SAID_FOR: Duration = Duration::from_secs(90);
/// The code with which a connection is closed since the other side is of another shard.
const ANOTHER_SHARD: u32 = 5;

impl Peers {
    fn lineages(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards of which this node has a replica.
    pub(super) fn shards(&self) -> Vec<Lineage> {
        self.lineages().own.clone()
    }

    /// Takes note of which shards this node has replicas of, and lets go of peers that said that they are of others; whether it was
    /// something else before.
    pub(crate) fn have(&self, own: Vec<Lineage>) -> bool {
        {
            let mut known = self.lineages();
            if known.own == own {
                return false;
            }
            known.own = own;
        }
        let present = self.present().into_iter().filter_map(|(node, _)| self.connected(node));
        present.for_each(|peer| self.part(peer.node, &peer.hello.shards));
        true
    }

    /// Asks all that are connected which shards they have replicas of, and lets go of those that are of others.
    pub(crate) async fn ask_all(&self, least: Duration) {
        for (node, _) in self.present() {
            if let Some(theirs) = self.ask_shards(node, least).await {
                self.part(node, &theirs);
            }
        }
    }

    /// The shards of which a peer has a replica by now; none if it does not answer.
    pub(crate) async fn ask_shards(&self, node: NodeId, least: Duration) -> Option<Vec<Lineage>> {
        let answer = self.call(node, Class::Query, FrameKind::Lineages, ShardId(0), &[], least).await.ok()?;
        Lineages::decode(&answer).ok().map(|said| said.shards)
    }

    /// Lets go of a peer if it is of another shard.
    pub(super) fn part(&self, node: NodeId, theirs: &[Lineage]) {
        if let (Err(why), Some(peer)) = (self.check_shards(node, theirs), self.connected(node)) {
            peer.link.close(ANOTHER_SHARD, why.as_bytes());
        }
    }

    /// Whether a peer that has replicas of these shards can be spoken with.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn check_shards(&self, node: NodeId, theirs: &[Lineage]) -> Result<(), String> {
        let why = {
            let mut known = self.lineages();
            let why = conflict(&known.own, theirs).map(|(own, their)| in_words((self.local, own), (node, their)));
            if why.is_none() {
                known.strays.remove(&node);
            }
            why
        };
        let Some(why) = why else { return Ok(()) };
        self.note_stray(node, why.clone());
        Err(why)
    }

    /// Closes a connection of a peer of another shard.
    pub(super) fn refuse_stray(connection: &quinn::Connection, why: &str) {
        connection.close(quinn::VarInt::from_u32(ANOTHER_SHARD), why.as_bytes());
    }

    /// Whether a connection has ended since this node is of another shard than the peer, as that one says: then it is known.
    pub(super) fn note_if_stray(&self, node: NodeId, connection: &quinn::Connection) {
        let Some(quinn::ConnectionError::ApplicationClosed(close)) = connection.close_reason() else { return };
        if close.error_code == quinn::VarInt::from_u32(ANOTHER_SHARD) {
            let said = String::from_utf8_lossy(&close.reason).into_owned();
            self.note_stray(node, format!("it says: {}", escaped(&said)));
        }
    }

    fn note_stray(&self, node: NodeId, detail: String) {
        let before = self.lineages().strays.insert(node, (detail.clone(), Instant::now()));
        if before.is_none_or(|(_, last)| last.elapsed() > SAID_FOR) {
            let advice = ShardFault::AnotherShard.advice();
            tracing::error!(%node, detail, advice, "a peer is of another shard that has the same number");
        }
    }

    /// What was seen of a peer that is of another shard and was met of late.
    pub(crate) fn stray(&self, node: NodeId) -> Option<String> {
        let known = self.lineages();
        known.strays.get(&node).filter(|(_, last)| last.elapsed() <= SAID_FOR).map(|(detail, _)| detail.clone())
    }

    /// The peers of other shards that were met of late.
    pub(crate) fn strays(&self) -> Vec<FaultReport> {
        let known = self.lineages();
        let recent = known.strays.iter().filter(|(_, (_, last))| last.elapsed() <= SAID_FOR);
        let report = |(node, (detail, _)): (&NodeId, &(String, Instant))| FaultReport {
            fault: ShardFault::AnotherShard,
            node: Some(*node),
            detail: detail.clone(),
        };
        recent.map(report).collect()
    }
}
