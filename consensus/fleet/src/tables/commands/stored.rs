//! Commands in a snapshot: what does not follow from the commands themselves, and how the rest is made anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_protocol::command::PerClass;
use skep_protocol::ids::{HomeEpoch, JournalId};
use skep_protocol::text::{AgentId, GroupName};
use skep_protocol::time::LogInstant;

use super::{CommandState, Commands, Lane, Outbox};

/// The parts of which a shard has one.
#[derive(Serialize, Deserialize)]
pub(crate) struct CommandsHead {
    homes_from: HomeEpoch,
    led_since: (u64, LogInstant),
}

/// The part of an outbox that does not follow from the commands in it.
#[derive(Serialize, Deserialize)]
pub(crate) struct OutboxHead {
    journal: Option<JournalId>,
    home: HomeEpoch,
    groups: Arc<BTreeSet<GroupName>>,
    last: PerClass<u64>,
}

impl Commands {
    pub(crate) fn head(&self) -> CommandsHead {
        CommandsHead { homes_from: self.homes_from, led_since: self.led_since }
    }

    /// All outboxes, each with its agent.
    pub(crate) fn outbox_heads(&self) -> impl ExactSizeIterator<Item = (&AgentId, OutboxHead)> {
        self.outboxes.iter().map(|(agent, outbox)| {
            let last = PerClass::from_fn(|class| outbox.lanes.of(class).last);
            let (journal, home) = (outbox.journal, outbox.home);
            (agent, OutboxHead { journal, home, groups: Arc::clone(&outbox.groups), last })
        })
    }

    /// All commands.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = &CommandState> {
        self.records.iter().map(|(_, record)| record.as_ref())
    }

    /// An empty table. Outboxes are restored before the records that are in them.
    pub(crate) fn from_head(head: CommandsHead) -> Self {
        let CommandsHead { homes_from, led_since } = head;
        Self { homes_from, led_since, ..Self::default() }
    }

    /// Restores an outbox as it was after an entry.
    pub(crate) fn restore_outbox(&mut self, agent: AgentId, head: OutboxHead, applied: u64) {
        let OutboxHead { journal, home, groups, last } = head;
        if journal.is_some() {
            self.regroup(&agent, &BTreeSet::new(), &groups);
        }
        let lanes = PerClass::from_fn(|class| Lane { last: *last.of(class), ..Lane::default() });
        let outbox = Outbox { journal, home, groups, lanes, changed_at: applied };
        self.changed.insert((applied, Some(agent.clone())));
        self.outboxes.insert(agent, Arc::new(outbox));
    }

    /// Restores a command, and puts it into the outboxes of its agents.
    pub(crate) fn restore_record(&mut self, mut record: CommandState) {
        record.count();
        self.index(&record);
        for (agent, delivery) in record.deliveries.iter().filter(|(_, delivery)| delivery.outcome.is_none()) {
            let Some(outbox) = self.outboxes.get_mut(agent).map(Arc::make_mut) else { continue };
            let (home, lane) = (outbox.home, outbox.lanes.of_mut(record.class()));
            lane.open += 1;
            if let Some(seq) = delivery.seq.filter(|seq| seq.home == home) {
                lane.queue.insert(seq.n, record.id());
                if delivery.void.is_some() {
                    lane.voided.insert(seq.n);
                }
            }
        }
        self.records.insert(record.id(), Arc::new(record));
    }
}
