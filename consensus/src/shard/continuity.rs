//! That the log clock goes on: from one process of this node to the next, and from one leader to the next.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skep_protocol::ids::NodeId;
use skep_protocol::time::LogInstant;

use super::Shard;
use crate::threads::Errand;

/// How often the clock is kept for the next process, if something was learned of it.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What a voter said of the clock.
pub(crate) enum ClockSaid {
    Clock(LogInstant),
    /// It knows none.
    None,
    /// Nobody knows whether it does.
    Nothing,
}

impl Shard {
    /// Takes up the clock that the process before this one left, if it was in the same boot of the machine.
    pub(super) fn resume_clock(&self) {
        let (clock, marks) = (&self.inner.clock, self.inner.parts.store.clock_marks());
        let mark = clock.boot().and_then(|boot| marks.load(self.id(), boot));
        if mark.is_some_and(|mark| clock.resume(&mark)) {
            tracing::info!(shard = %self.id(), "the machine was not booted since: the log clock goes on");
        }
    }

    /// Leaves the clock for the next process. The reason if it could not be written.
    pub(super) async fn keep_clock(&self, boot: u128) -> Result<(), std::io::Error> {
        let Some(mark) = self.inner.clock.to_keep(boot) else { return Ok(()) };
        let (marks, shard) = (self.inner.parts.store.clock_marks().clone(), self.id());
        // A disk that is being synced can hold up a write, though it is not waited for.
        self.inner.parts.threads.offload(Errand::Files, move || marks.save(shard, &mark)).await?
    }

    /// Asks the other voters for their clocks, as a new leader that has none: the shard keeps its era if anybody knows how
    /// long it lasts. Waits for all, but after a while only until a quorum has said that it knows none. False if nobody
    /// knows yet whether there is a clock.
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
                // In order, and not by chance: a simulated run is the same every time.
                biased;
                said = answers.next() => said,
                () = &mut patience, if enough => None,
            };
            match said {
                Some(ClockSaid::Clock(clock)) if self.inner.clock.learn(clock, asked_at) => return true,
                // Of an era that the log knows to be over, or longer under way than anything may be.
                Some(ClockSaid::Clock(_) | ClockSaid::None) => without += 1,
                Some(ClockSaid::Nothing) => {}
                None => return enough,
            }
        }
    }
}

/// Keeps the clock of a shard for the next process, for as long as the group runs.
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
