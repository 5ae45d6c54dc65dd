//! Keeps the log clock going: from one process of this node to the next, and from one leader to the next.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skep_protocol::ids::NodeId;
use skep_protocol::time::LogInstant;

use super::Shard;
use crate::threads::Errand;

/// Interval at which the clock is saved for the next process, if the node learned something of it.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What a voter said of the clock.
pub(crate) enum ClockSaid {
    Clock(LogInstant),
    /// The voter knows no clock.
    None,
    /// It is unknown whether the voter knows a clock.
    Nothing,
}

impl Shard {
    /// Takes up the clock that the previous process saved, if the machine was not booted since.
    pub(super) fn resume_clock(&self) {
        let (clock, marks) = (&self.inner.clock, self.inner.parts.store.clock_marks());
        let mark = clock.boot().and_then(|boot| marks.load(self.id(), boot));
        if mark.is_some_and(|mark| clock.resume(&mark)) {
            tracing::info!(shard = %self.id(), "the machine was not booted since: the log clock goes on");
        }
    }

    /// Saves the clock for the next process. Returns the error if it could not be written.
    pub(super) async fn keep_clock(&self, boot: u128) -> Result<(), std::io::Error> {
        let Some(mark) = self.inner.clock.to_keep(boot) else { return Ok(()) };
        let (marks, shard) = (self.inner.parts.store.clock_marks().clone(), self.id());
        // A disk that is being synced can hold up a write, even one that is not synced itself.
        self.inner.parts.threads.offload(Errand::Files, move || marks.save(shard, &mark)).await?
    }

    /// Asks the other voters for their clocks, as a new leader that has none: the shard keeps its era if one voter
    /// knows how long it lasts. Waits for all voters, but after a while only until a quorum has said that it knows
    /// none. False if it is still unknown whether there is a clock.
    pub(super) async fn learn_from_voters(&self) -> bool {
        let parts = &self.inner.parts;
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let nodes = voters.iter().filter_map(|id| membership.get_node(id)).map(|member| member.node);
        let others: BTreeSet<NodeId> = nodes.filter(|node| *node != parts.node).collect();
        let asked_at = self.inner.clock.boot_ms();
        let mut answers: FuturesUnordered<_> =
            others.into_iter().map(|node| parts.ask_clock(node, self.id())).collect();
        let patience = tokio::time::sleep(Duration::from_millis(parts.config.rpc_timeout_ms));
        tokio::pin!(patience);
        let mut without = 1;
        loop {
            let enough = without > voters.len() / 2;
            let said = tokio::select! {
                // In order, and not at random: each simulated run takes the same way.
                biased;
                said = answers.next() => said,
                () = &mut patience, if enough => None,
            };
            match said {
                Some(ClockSaid::Clock(clock)) if self.inner.clock.learn(clock, asked_at) => return true,
                // A clock of an era that has ended by the log, or one that has run longer than any may.
                Some(ClockSaid::Clock(_) | ClockSaid::None) => without += 1,
                Some(ClockSaid::Nothing) => {}
                None => return enough,
            }
        }
    }
}

/// Saves the clock of a shard for the next process, for as long as the group runs.
pub(super) async fn keep(shard: Shard) {
    let Some(boot) = shard.inner.clock.boot() else {
        tracing::warn!(shard = %shard.id(), "the system does not say which boot this is: the log clock outlives no restart");
        return;
    };
    let mut failed = false;
    while shard.metrics().running_state.is_ok() {
        tokio::time::sleep(KEEP_EVERY).await;
        let kept = shard.keep_clock(boot).await;
        if let Err(error) = &kept
            && !failed
        {
            tracing::warn!(shard = %shard.id(), %error, "the log clock cannot be kept for a restart");
        }
        failed = kept.is_err();
    }
}
