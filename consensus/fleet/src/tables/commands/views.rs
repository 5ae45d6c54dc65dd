//! What queries show of commands.

use std::sync::Arc;

use skep_protocol::command::{CommandOutcome, CommandView, DeliveryView};
use skep_protocol::ids::CommandId;
use skep_protocol::limits;
use skep_protocol::text::AgentId;

use super::{CommandState, Commands, DeliveryState};

fn delivery_view(agent: &AgentId, of: &DeliveryState) -> DeliveryView {
    DeliveryView {
        agent: agent.clone(),
        wave: of.wave,
        seq: of.seq,
        node: of.node,
        released_at: of.released_at,
        void: of.void,
        outcome: of.outcome.clone(),
        ended_at: of.ended_at,
        steps: of.steps,
        progress: of.progress.clone(),
    }
}

/// About how many bytes a delivery takes in an answer.
fn bytes_of(view: &DeliveryView) -> u64 {
    let said = match &view.outcome {
        Some(CommandOutcome::Succeeded { result }) => result.len(),
        _ => limits::REASON_BYTES_MAX,
    };
    (512 + said) as u64
}

fn summary(record: &CommandState) -> CommandView {
    let (index, term) = record.accepted_by;
    CommandView {
        command: Arc::clone(&record.signed),
        accepted_at: record.accepted_at,
        index,
        term,
        agents: record.agents,
        open: record.open,
        failed: record.failed,
        discarded: record.discarded,
        deliveries: Vec::new(),
    }
}

impl Commands {
    /// A command with about this many bytes of its deliveries, from after an agent on, and at least one; also the agent
    /// after which the next page begins, if there is more.
    pub(crate) fn page(
        &self,
        id: &CommandId,
        after: Option<&AgentId>,
        bytes_max: u64,
    ) -> Option<(CommandView, Option<AgentId>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let record = self.record(id)?;
        let from = after.map_or(Unbounded, |agent| Excluded(agent.clone()));
        let (mut deliveries, mut bytes, mut next): (Vec<DeliveryView>, u64, _) = (Vec::new(), 0, None);
        for (agent, of) in record.deliveries.range((from, Unbounded)) {
            let delivery = delivery_view(agent, of);
            bytes = bytes.saturating_add(bytes_of(&delivery));
            if bytes > bytes_max && !deliveries.is_empty() {
                next = deliveries.last().map(|last| last.agent.clone());
                break;
            }
            deliveries.push(delivery);
        }
        Some((CommandView { deliveries, ..summary(record) }, next))
    }

    /// Commands in the order of their ids, from after this one, without their deliveries.
    pub(crate) fn after(&self, after: Option<CommandId>) -> impl Iterator<Item = CommandView> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.records.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, record)| summary(record))
    }
}
