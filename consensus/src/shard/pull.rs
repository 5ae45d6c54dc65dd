//! Handing commands to the nodes of their agents.

use std::time::Duration;

use skep_protocol::ids::{CommandId, NodeId};
use skep_protocol::limits;
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::text::AgentId;

use super::Shard;
use super::lead::has_quorum;

impl Shard {
    /// Whether a node may say what became of a command at an agent.
    pub(crate) fn may_report(&self, command: CommandId, agent: &AgentId, node: NodeId) -> bool {
        self.inner.state.read().may_report(command, agent, node)
    }

    /// Answers a node as soon as there is something for its agents, or when it has waited as long as it said. Only the
    /// leader does: it has applied everything that was acknowledged, and its clock is the shard's. That it still leads is
    /// asked of a quorum for a node that knows nothing yet: it has no clock to tell an era that is over by.
    pub(crate) async fn pull(&self, node: NodeId, pull: &Pull) -> Result<Pulled, PullFailure> {
        let elsewhere = || PullFailure::NotLeader(self.elsewhere());
        let mut view = self.inner.view.subscribe();
        // A machine that slept may not have looked since.
        let ready = view.borrow_and_update().ready && has_quorum(self, &self.metrics());
        // Read after the question arrived, so that whoever asked knows how old it is at most.
        let clock = self.inner.clock.to_send().filter(|_| ready).ok_or_else(elsewhere)?;
        let knows_nothing = pull.agents.iter().all(|asked| asked.seen == 0);
        if knows_nothing && !self.confirm_lead().await {
            return Err(elsewhere());
        }
        let mut applied = self.inner.applied.clone();
        let patience = Duration::from_millis(pull.wait_ms.min(limits::PULL_WAIT_MS_MAX).into());
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        let mut looked = None;
        loop {
            applied.borrow_and_update();
            let (agents, first) = {
                let state = self.inner.state.read();
                let agents = state.pull(node, pull, looked);
                looked = state.applied().map(|position| position.index);
                (agents, state.first_operator())
            };
            if !agents.is_empty() {
                return Ok(Pulled { clock, first, agents });
            }
            tokio::select! {
                biased;
                () = &mut over => return Ok(Pulled { clock, first, agents }),
                changed = applied.changed() => changed.map_err(|_| elsewhere())?,
                changed = view.wait_for(|view| !view.ready) => {
                    drop(changed);
                    return Err(elsewhere());
                }
            }
        }
    }
}
