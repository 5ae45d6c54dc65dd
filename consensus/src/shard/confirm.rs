//! Confirming that this node still leads: what linearizable reads and renewals wait for.
//!
//! openraft confirms it by heartbeats of its own, of which it sends one at once, and which a follower answers when its disk has
//! written what came before. Where all is quick nothing is sooner. Where a disk takes seconds, and entries are on their way to
//! it, a read would wait for that disk and need nothing of it: that a follower has promised its vote to nobody else it says from
//! memory in each heartbeat of ours (see `beat`). So whichever of the two is there first counts.

use std::time::Duration;

use openraft::LinearizerOption;

use super::{NodeParts, Shard};
use crate::raft::types::Vote;

/// How many times the patience with one call whoever asks the leader waits for what the leader asks a quorum for: on a slow
/// link that takes several times as long as it should. A leader that loses its quorum meanwhile says so at once.
const ROUND_PATIENCE: u32 = 6;

impl NodeParts {
    /// How long a quorum is waited for: by the leader that asks it, and by whoever asks the leader.
    pub(crate) fn round_patience(&self) -> Duration {
        Duration::from_millis(self.config.rpc_timeout_ms) * ROUND_PATIENCE
    }
}

impl Shard {
    /// Waits for what only a leader with a quorum gets: none if it is one no more, or if it takes longer than it is waited for.
    pub(super) async fn while_leading<T>(&self, patience: Duration, round: impl Future<Output = T>) -> Option<T> {
        let mut view = self.inner.view.subscribe();
        tokio::select! {
            // In order, and not by chance: a simulated run is the same every time.
            biased;
            done = round => Some(done),
            // Also if whoever changes the view is gone.
            _ = view.wait_for(|view| !view.ready) => None,
            () = tokio::time::sleep(patience) => None,
        }
    }

    /// The same as [`confirm_quorum`](Self::confirm_quorum), for as long as a quorum is waited for.
    pub(super) async fn confirm_in_time(&self, term: u64) -> bool {
        self.while_leading(self.inner.parts.round_patience(), self.confirm_quorum(term)).await.unwrap_or(false)
    }

    /// Whether a quorum confirms that this node, which was ready to lead in a term, led after this was asked: then everything
    /// that was acknowledged before is applied here.
    pub(super) async fn confirm_quorum(&self, term: u64) -> bool {
        let asked_ms = self.inner.clock.boot_ms();
        // As long as it is waited for here: openraft keeps who asks for so long.
        let fresh =
            LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(self.inner.parts.round_patience());
        tokio::select! {
            biased;
            confirmed = self.raft().ensure_linearizable(fresh) => confirmed.is_ok(),
            () = self.followed_since(term, asked_ms) => true,
        }
    }

    /// Waits until a quorum has acknowledged, as following this leader of a term, heartbeats that were sent after an instant, in
    /// milliseconds of the boot clock.
    ///
    /// Whoever leads a later term, or commits anything in it, has a quorum, and one voter at least is in both. That one says that it
    /// follows only while it has promised its vote to nobody else. So nothing was acknowledged in a later term by that instant.
    async fn followed_since(&self, term: u64, since_ms: u64) {
        loop {
            let next = self.inner.beats.next_acknowledgement();
            let metrics = self.metrics();
            let is_own = |vote: Vote| vote.leader_id.term == term && vote.leader_id.voted_for == metrics.id;
            // This node is of the quorum too.
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
