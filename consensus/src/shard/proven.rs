//! Checks elections: a node takes what a leader sends only after the leader has shown that a quorum voted for it.
//!
//! A voter whose key was stolen can say that it leads in any term. So its word alone does not count: not for a
//! follower, which would write its vote down, and not for a leader that hands over the lead. Proof that this node took
//! once is in its own vote, as the vote of a leader: openraft writes that down for no other message (see
//! `raft/network.rs` for answers, and [`Shard::vote`] for candidates).

use std::collections::BTreeSet;

use openraft::async_runtime::WatchReceiver as _;
use openraft::impls::leader_id_std::LeaderId;
use skep_protocol::ballot::{LeaderProof, Unproven};
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::RaftAddress;
use skep_protocol::ids::NodeId;
use skep_protocol::mutant::{Mutant, is_on};

use super::Shard;
use crate::net::Who;
use crate::raft::elections::UNPROVEN;
use crate::raft::types::Vote;
use crate::threads::Errand;

impl Shard {
    /// Whether this node already follows, or leads, by this vote.
    fn has_followed(&self, vote: &Vote) -> bool {
        let own = self.raft().metrics().borrow_watched().vote;
        vote.committed && (own == *vote || self.promised() == Some(*vote))
    }

    /// Takes note of the proof that its sender was elected. `is_marked`: whether a node may vote whatever this replica,
    /// or another voter, says.
    ///
    /// # Errors
    /// The reason as text if the proof does not hold.
    pub(crate) async fn take_proof(
        &self,
        who: Who,
        body: &[u8],
        is_marked: impl Fn(NodeId) -> bool,
    ) -> Result<(), String> {
        let (address, body) = RaftAddress::split(body).map_err(|e| e.to_string())?;
        if address.from != who.raft_id || address.to != self.inner.parts.raft_id() {
            return Err("the proof of leadership is not from its sender to this incarnation".to_owned());
        }
        let proof = LeaderProof::decode(body).map_err(|e| e.to_string())?;
        let leader_id = LeaderId { term: proof.term(), voted_for: proof.candidate() };
        let vote = Vote { leader_id, committed: true };
        self.check_vote(who, &vote)?;
        let elections = &self.inner.elections;
        if elections.is_proven(&vote) || self.has_followed(&vote) {
            return Ok(());
        }
        let voters: BTreeSet<NodeId> = proof.voters().voters().map(|voter| voter.node).collect();
        let known = elections.knowledge(voters.into_iter().filter(|node| is_marked(*node)).collect());
        // It ends with the verification, whether its sender still waits or not.
        let Some(under_way) = elections.begin_to_verify(who.node) else {
            return Err("another proof of leadership of this sender is being verified".to_owned());
        };
        let verify = move || {
            let _under_way = under_way;
            proof.verify(&known)
        };
        let verified = self.inner.parts.threads.offload(Errand::Proofs, verify).await.map_err(|e| e.to_string())?;
        if let Err(error) = verified {
            if matches!(error, Unproven::UnknownVoters { .. }) {
                self.inner.condition.note_unproven(who.node, vote.leader_id.term, self.inner.clock.boot_ms());
            }
            if let Some(more) = self.inner.noise.proofs.happened() {
                tracing::error!(
                    shard = %self.id(), node = %who.node, term = vote.leader_id.term, %error, more,
                    "a voter says that it leads, and does not prove it"
                );
            }
            return Err(error.to_string());
        }
        elections.note_proven(&vote);
        Ok(())
    }

    /// Whether a sender that says it leads by this vote has shown that it was elected, or has stopped leading: openraft
    /// then tells it so.
    ///
    /// # Errors
    /// The reason as text if it has not.
    pub(super) async fn check_proven(&self, vote: &Vote) -> Result<(), String> {
        let own = self.raft().metrics().borrow_watched().vote;
        if is_on(Mutant::LeaderNotProven) || *vote < own || self.has_followed(vote) {
            return Ok(());
        }
        if vote.committed && self.inner.elections.until_proven(vote).await {
            return Ok(());
        }
        Err(UNPROVEN.to_owned())
    }
}
