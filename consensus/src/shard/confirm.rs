//! Confirms that this node still leads: linearizable reads and renewals wait for that.
//!
//! openraft confirms the lead by heartbeats of its own. It sends one at once, and a follower answers it after its disk
//! has written what came before. Where all is quick, that is the soonest. Where a disk takes seconds and entries wait
//! for it, a read would wait for that disk without a need: a follower says from memory, in each heartbeat of ours, that
//! it has promised its vote to no other node (see `beat`). So the first of the two answers counts.

use std::time::Duration;

use openraft::LinearizerOption;

use super::{NodeParts, Shard};
use crate::raft::types::Vote;

/// How long a node that asks the leader waits while the leader asks a quorum, in times the patience with one call: on a
/// slow link the answer takes several times as long as it should. A leader that loses its quorum meanwhile says so at
/// once.
const ROUND_PATIENCE: u32 = 6;

impl NodeParts {
    /// How long the leader waits for a quorum, and a node that asks the leader for its answer.
    pub(crate) fn round_patience(&self) -> Duration {
        Duration::from_millis(self.config.rpc_timeout_ms) * ROUND_PATIENCE
    }
}

impl Shard {
    /// Waits for what only a leader with a quorum gets; none if this node stops leading, or at the end of the patience.
    pub(super) async fn while_leading<T>(&self, patience: Duration, round: impl Future<Output = T>) -> Option<T> {
        let mut view = self.inner.view.subscribe();
        tokio::select! {
            // In order, and not at random: each simulated run takes the same way.
            biased;
            done = round => Some(done),
            // This ends also if the task that changes the view is gone.
            _ = view.wait_for(|view| !view.ready) => None,
            () = tokio::time::sleep(patience) => None,
        }
    }

    /// The same as [`confirm_quorum`](Self::confirm_quorum), for as long as the leader waits for a quorum.
    pub(super) async fn confirm_in_time(&self, term: u64) -> bool {
        self.while_leading(self.inner.parts.round_patience(), self.confirm_quorum(term)).await.unwrap_or(false)
    }

    /// Whether a quorum confirms that this node, which was ready to lead in a term, led after this call began: then
    /// everything that was acknowledged before is applied here.
    pub(super) async fn confirm_quorum(&self, term: u64) -> bool {
        let asked_ms = self.inner.clock.boot_ms();
        // openraft keeps the caller for as long as the caller waits here.
        let fresh =
            LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(self.inner.parts.round_patience());
        tokio::select! {
            biased;
            confirmed = self.raft().ensure_linearizable(fresh) => confirmed.is_ok(),
            () = self.followed_since(term, asked_ms) => true,
        }
    }

    /// Waits until a quorum has acknowledged, as followers of this leader of a term, heartbeats that were sent after an
    /// instant, in milliseconds of the boot clock.
    ///
    /// A node that leads a later term, or commits in one, has a quorum, and at least one voter is in both quorums. That
    /// voter says that it follows only while it has promised its vote to no other node. So no entry of a later term was
    /// acknowledged by that instant.
    async fn followed_since(&self, term: u64, since_ms: u64) {
        loop {
            let next = self.inner.beats.next_acknowledgement();
            let metrics = self.metrics();
            let is_own = |vote: Vote| vote.leader_id.term == term && vote.leader_id.voted_for == metrics.id;
            // This node is in the quorum too.
            if metrics.current_term == term
                && self.beats_acked_ms(&metrics) > Some(since_ms)
                && self.promised().is_some_and(is_own)
            {
                return;
            }
            drop(metrics);
            next.await;
        }
    }
}
