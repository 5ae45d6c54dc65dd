//! Whether a node is a voter, as far as this node knows: from its configuration, its replicas, what it has heard, and
//! the answers of voters. See [`belief`](crate::belief).

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::query::{Query, QueryFailure};

use crate::net::Action;
use crate::shards::Shards;

impl Shards {
    /// Whether this node believes what another node says of a shard.
    pub(crate) fn believes(&self, node: NodeId, id: ShardId) -> bool {
        self.may_vote(node) && (self.knows_voter(node, id) || self.belief.is_named(node, id))
    }

    /// Whether a node may vote at all: at a site its certificate says so.
    fn may_vote(&self, node: NodeId) -> bool {
        self.parts.peers.may(node, Action::Vote, None)
    }

    /// Whether a node is believed whatever this node's replica says: it is marked in the configuration, or at a site its
    /// certificate has the role of a voter.
    pub(crate) fn is_marked(&self, node: NodeId) -> bool {
        let peers = &self.parts.peers;
        if peers.is_of_site() { peers.may(node, Action::BeBelieved, None) } else { self.belief.marked.contains(&node) }
    }

    /// The nodes that may vote, as far as this node knows.
    pub(crate) fn marked(&self) -> BTreeSet<NodeId> {
        let peers = &self.parts.peers;
        if peers.is_of_site() { peers.members_that_vote() } else { self.belief.marked.clone() }
    }

    /// Whether this node knows a voter itself, without asking others.
    fn knows_voter(&self, node: NodeId, id: ShardId) -> bool {
        if self.is_marked(node) {
            return true;
        }
        let shard = self.shard(id);
        if shard.as_ref().is_some_and(|shard| shard.is_voter(node)) {
            return true;
        }
        // What this node learned before it became a member is old.
        let is_member = shard.is_some_and(|shard| shard.view().borrow().member);
        !is_member && self.learned_of(id).is_some_and(|learned| learned.hint.voters.contains(&node))
    }

    /// Lets a group's own frame through if a voter sent it.
    ///
    /// # Errors
    /// The reason as text if this node refuses the frame. It opened and stored nothing for it.
    pub(crate) async fn check_voter(
        self: &Arc<Self>,
        node: NodeId,
        kind: FrameKind,
        id: ShardId,
    ) -> Result<(), String> {
        if !self.may_vote(node) {
            return Err(format!("{node} is no voter: its certificate has neither the role voter nor witness"));
        }
        if is_on(Mutant::RaftFromAnybody) || self.knows_voter(node, id) {
            // From then on the replica says who votes, also once the sender has stopped voting.
            let has_it = || self.shard(id).is_some_and(|shard| shard.was_voter(node));
            if self.belief.is_named(node, id) && has_it() {
                self.belief.forget(id, node);
            }
            return Ok(());
        }
        if self.belief.is_named(node, id) {
            if self.belief.is_old(node, id) {
                self.ask_who_votes(id, node);
            }
            return Ok(());
        }
        if let Some(shard) = self.shard(id) {
            // A node that is to become a voter asks for the clock, too.
            let asks = kind == FrameKind::Clock && shard.is_member(node);
            // A node may lead by voters that an uncommitted change replaces.
            if asks || shard.was_voter(node) {
                return Ok(());
            }
        }
        self.ask_who_votes(id, node);
        if let Some(more) = self.belief.refused.happened() {
            let advice = self.advice();
            tracing::warn!(%node, shard = %id, ?kind, more, advice, "a frame of Raft was refused: its sender is no voter");
        }
        Err(format!("{node} is no voter as far as this node knows; {}", self.advice()))
    }

    /// What to do about a refused node that is to vote.
    fn advice(&self) -> &'static str {
        if self.parts.peers.is_of_site() {
            "if it is to vote, invite it with the role voter"
        } else {
            "if it is to vote, set voter = true in its [[peers]] and start this node again"
        }
    }

    /// Asks voters, one after another, until one says that a node votes: that node may have become a voter while this
    /// node was away, and lead by now.
    fn ask_who_votes(self: &Arc<Self>, id: ShardId, doubted: NodeId) {
        if !self.belief.may_ask(self.shard(id).map(|_| id)) {
            return;
        }
        self.belief.asks(id);
        let shards = Arc::clone(self);
        self.parts.threads.work().spawn(async move {
            let present: Vec<NodeId> = shards.parts.peers.present().into_iter().map(|(node, _)| node).collect();
            let believed = present.into_iter().filter(|node| *node != doubted && shards.believes(*node, id));
            // Nodes that a voter only named come last.
            let mut asked: Vec<NodeId> = believed.collect();
            asked.sort_by_key(|node| !shards.knows_voter(*node, id));
            for node in asked {
                let answer = shards.parts.query(node, id, &Query::Counts).await;
                // A voter that leads does not answer who votes: what it sends as a leader does.
                if let Err(QueryFailure::NotLeader(hint) | QueryFailure::NoReplica(hint)) = answer
                    && shards.belief.note(id, doubted, hint)
                {
                    return;
                }
            }
        });
    }
}
