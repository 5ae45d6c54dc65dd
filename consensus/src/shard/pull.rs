//! Hands commands to the nodes of their agents.

use std::pin::Pin;
use std::time::Duration;

use skep_protocol::ids::{CommandId, NodeId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::text::AgentId;
use tokio::sync::futures::Notified;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::lead::has_quorum;
use super::{Shard, ShardView};
use crate::net::AnswerRoom;
use crate::pulls::PullWaiter;

/// Why a pull looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// There may be something for the node's agents.
    News,
    /// The pull has waited for its whole time.
    Over,
    /// This node has stopped leading.
    Deposed,
}

/// Waits until something wakes a pull. A pull that nothing wakes looks again when its time is over.
async fn wait(news: Option<Notified<'_>>, view: &mut watch::Receiver<ShardView>, over: Pin<&mut Sleep>) -> Woken {
    let news = async {
        match news {
            Some(news) => news.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = over => Woken::Over,
        () = news => Woken::News,
        // This ends also if the task that changes the view is gone.
        _ = view.wait_for(|view| !view.ready) => Woken::Deposed,
    }
}

impl Shard {
    /// Whether a node may say what became of a command at an agent.
    pub(crate) fn may_report(&self, command: CommandId, agent: &AgentId, node: NodeId) -> bool {
        self.inner.state.read().may_report(command, agent, node)
    }

    /// Answers a node as soon as there is something for its agents, or when it has waited as long as it said. Only the
    /// leader answers: it has applied everything that was acknowledged, and its clock is the shard's. The leader asks a
    /// quorum whether it still leads in two cases: for a node that knows nothing yet, since such a node has no clock by
    /// which to tell an ended era, and for a node that is ahead of all that was released or applied here. `room`: the
    /// room for the answer, which the pull does not hold while it waits.
    pub(crate) async fn pull(&self, node: NodeId, pull: &Pull, room: &AnswerRoom) -> Result<Pulled, PullFailure> {
        let elsewhere = || PullFailure::NotLeader(self.elsewhere());
        let mut view = self.inner.view.subscribe();
        // A machine that slept may not have looked since.
        let ShardView { ready, term, .. } = *view.borrow_and_update();
        let ready = ready && has_quorum(self, &self.metrics());
        // Read after the question arrived, so that the node that asked knows the greatest age of the clock.
        let clock = self.inner.clock.to_send().filter(|_| ready).ok_or_else(elsewhere)?;
        let knows_nothing = pull.agents.iter().all(|asked| asked.seen == 0) && !is_on(Mutant::FirstPullNotConfirmed);
        let is_passed = self.inner.state.read().is_passed(node, pull);
        if (knows_nothing || is_passed) && !self.confirm_in_time(term).await {
            return Err(elsewhere());
        }
        let patience = Duration::from_millis(pull.wait_ms.min(limits::PULL_WAIT_MS_MAX).into());
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        let waiter = self.inner.pulls.wait_for(pull);
        let (mut looked, mut is_over) = (None, false);
        loop {
            let news = waiter.as_ref().map(PullWaiter::next);
            let bytes_max = usize::try_from(self.inner.parts.peers.answer_bytes(node)).unwrap_or(usize::MAX);
            room.take(bytes_max.min(limits::PULL_BYTES_SOFT_MAX)).await;
            let (agents, root, authority) = {
                let state = self.inner.state.read();
                let agents = state.pull(node, pull, looked, bytes_max);
                looked = state.applied().map(|position| position.index);
                (agents, state.root(pull.replaced), state.authority_news(pull.authority, bytes_max))
            };
            if is_over || !agents.is_empty() || !authority.chains.is_empty() {
                return Ok(Pulled { clock, root, agents, authority });
            }
            room.give_back();
            match wait(news, &mut view, over.as_mut()).await {
                Woken::News => {}
                Woken::Over => is_over = true,
                Woken::Deposed => return Err(elsewhere()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulls::Pulls;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_hears_that_this_node_leads_no_more() {
        let view = watch::channel(ShardView { ready: true, ..ShardView::default() }).0;
        let (pulls, pull) = (Pulls::default(), Pull { agents: Vec::new(), wait_ms: 1_000, replaced: 0, authority: 0 });
        let waits = || async {
            let waiter = pulls.wait_for(&pull).unwrap();
            let over = tokio::time::sleep(Duration::from_secs(1));
            tokio::pin!(over);
            wait(Some(waiter.next()), &mut view.subscribe(), over.as_mut()).await
        };
        let deposes = async { view.send_modify(|view| view.ready = false) };
        let (first, second, ()) = tokio::join!(waits(), waits(), deposes);
        assert_eq!([first, second], [Woken::Deposed; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_that_nothing_wakes_looks_again_when_its_time_is_over() {
        let view = watch::channel(ShardView { ready: true, ..ShardView::default() }).0;
        let over = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(over);
        assert_eq!(wait(None, &mut view.subscribe(), over.as_mut()).await, Woken::Over);
    }
}
