//! Outboxes as the nodes of agents see them.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::agent::AgentChange;
use skep_protocol::command::{
    CommandClass, CommandOutcome, CommandRefusal, DeliverySeq, InvalidCommand, PerClass, VoidCause,
};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch, JournalId};
use skep_protocol::outcome::Receipt;
use skep_protocol::pull::{Delivery, PullFor};
use skep_protocol::refusal::Refusal;
use skep_protocol::text::{AgentId, GroupName, Reason};

use super::{Agents, Commands, Cx, Operators};

impl Commands {
    /// Sends the commands of an agent to this journal from here on.
    ///
    /// A new journal does not know what the former journal had. What the former journal may have had is in doubt, and
    /// is never delivered again. What no journal can have had is delivered to the new one, in the same order.
    pub(super) fn open_inbox(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        to: JournalId,
        groups: &BTreeSet<GroupName>,
        peers: &Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        peers.check_attachment(agent, attachment)?;
        let (given, max) = (groups.len(), cx.limits.groups_max);
        if given as u64 > max {
            return Err(CommandRefusal::Invalid(InvalidCommand::Groups { given, max }).into());
        }
        let known = self.outboxes.get(agent).and_then(|outbox| outbox.journal);
        if known != Some(to) {
            self.move_home(agent, to, peers, cx);
        }
        let groups = Arc::new(groups.clone());
        let (before, home, queued) = self.change_outbox(agent, cx.index, |outbox| {
            let before = std::mem::replace(&mut outbox.groups, Arc::clone(&groups));
            (before, outbox.home, outbox.queued().collect::<Vec<CommandId>>())
        });
        self.regroup(agent, &before, &groups);
        let node = peers.attachment(agent).map(|attachment| attachment.node);
        // From here on the journal may have all of it.
        for command in queued {
            self.change(command, |record| {
                if let Some(delivery) = record.deliveries.get_mut(agent) {
                    delivery.node = node;
                }
            });
        }
        Ok(Receipt::Inbox { agent: agent.clone(), home })
    }

    /// Closes the inbox of an agent that is forgotten: no journal takes its commands.
    pub(crate) fn close_inbox(&mut self, agent: &AgentId, peers: &Agents, index: u64) {
        if self.outboxes.contains_key(agent) {
            let before = self.change_outbox(agent, index, |outbox| {
                outbox.journal = None;
                std::mem::take(&mut outbox.groups)
            });
            self.regroup(agent, &before, &BTreeSet::new());
            self.forget_outbox(agent, peers);
        }
    }

    /// Forgets the outbox of a forgotten agent once all that was sent to it has ended. If the agent returns, its home
    /// epoch differs from every one that a journal may remember.
    pub(super) fn forget_outbox(&mut self, agent: &AgentId, peers: &Agents) {
        if peers.is_known(agent) {
            return;
        }
        let outbox = self.outboxes.get(agent);
        if let Some(behind) = outbox.filter(|outbox| outbox.is_empty()).map(|outbox| outbox.home.next()) {
            self.remove_outbox(agent);
            self.homes_from = self.homes_from.max(behind);
        }
    }

    /// Whether a command to an agent has not ended.
    pub(crate) fn has_open_commands(&self, agent: &AgentId) -> bool {
        self.outboxes.get(agent).is_some_and(|outbox| !outbox.is_empty())
    }

    fn move_home(&mut self, agent: &AgentId, to: JournalId, peers: &Agents, cx: &mut Cx<'_>) {
        let outbox = self.outboxes.get(agent);
        let (had, kept): (Vec<CommandId>, Vec<CommandId>) = outbox
            .into_iter()
            .flat_map(|outbox| outbox.queued())
            .partition(|command| self.delivery(*command, agent).is_some_and(|d| d.node.is_some()));
        let mut queues: PerClass<OrdMap<u64, CommandId>> = PerClass::default();
        for (record, command) in kept.iter().filter_map(|command| Some((self.record(command)?, *command))) {
            let queue = queues.of_mut(record.class());
            queue.insert(queue.len() as u64 + 1, command);
        }
        for command in had {
            let reason = Reason::truncated("the agent's node has another journal now, and the one before it had this");
            self.end_delivery(command, agent, CommandOutcome::Indeterminate { reason }, None, peers, cx);
        }
        let home = self.change_outbox(agent, cx.index, |outbox| {
            outbox.home = outbox.home.next();
            outbox.journal = Some(to);
            for class in CommandClass::URGENT_FIRST {
                let (lane, queue) = (outbox.lanes.of_mut(class), queues.of(class));
                (lane.queue, lane.last) = (queue.clone(), queue.len() as u64);
                // What no node can have had is never void: it ends at once.
                lane.voided = OrdSet::new();
            }
            outbox.home
        });
        for class in CommandClass::URGENT_FIRST {
            for (n, command) in queues.of(class).iter() {
                let seq = DeliverySeq { home, class, n: *n };
                self.change(*command, |record| {
                    if let Some(delivery) = record.deliveries.get_mut(agent) {
                        delivery.seq = Some(seq);
                    }
                });
            }
        }
        cx.record((agent.clone(), AgentChange::InboxOpened { journal: to, home }));
    }

    /// The sequence numbers behind which a node continues that is ahead of all that was released: in front of what has
    /// not ended, which the node need not have had.
    pub(crate) fn back(&self, asked: &PullFor) -> PerClass<Option<u64>> {
        let outbox = self.outboxes.get(&asked.agent);
        PerClass::from_fn(|class| {
            let lane = outbox?.lanes.of(class);
            let behind = || lane.queue.keys().next().map_or(lane.last, |first| first.saturating_sub(1));
            (*asked.after.of(class) > lane.last).then(behind)
        })
    }

    /// Whether the commands of an agent go to this journal, under this home epoch.
    pub(crate) fn is_home(&self, agent: &AgentId, journal: JournalId, home: HomeEpoch) -> bool {
        self.outboxes.get(agent).is_some_and(|outbox| outbox.journal == Some(journal) && outbox.home == home)
    }

    /// The agents for which entries after this one changed what there is to deliver, or to which node. None comes
    /// before all.
    pub(crate) fn inboxes_changed_after(&self, index: Option<u64>) -> impl Iterator<Item = &AgentId> {
        let from = index.map_or(0, |index| index.saturating_add(1));
        self.changed.range((from, None)..).filter_map(|(_, agent)| agent.as_ref())
    }

    /// An agent was attached anew, or detached: a node that waits for its commands learns that they are not for that
    /// node.
    pub(crate) fn note_attachment(&mut self, agent: &AgentId, index: u64) {
        if self.outboxes.contains_key(agent) {
            self.change_outbox(agent, index, |_| {});
        }
    }

    /// The last entry that changed what there is to deliver to an agent.
    pub(crate) fn outbox_changed_at(&self, agent: &AgentId) -> Option<u64> {
        self.outboxes.get(agent).map(|outbox| outbox.changed_at)
    }

    /// What was released to an agent after a sequence number of a class, oldest first.
    pub(crate) fn deliveries_after<'a>(
        &'a self,
        agent: &AgentId,
        class: CommandClass,
        after: u64,
        operators: &'a Operators,
        limits: &'a FleetLimits,
    ) -> impl Iterator<Item = Delivery> + use<'a> {
        let lane = self.outboxes.get(agent).map(|outbox| outbox.lanes.of(class));
        let agent = agent.clone();
        let queued = lane.into_iter().flat_map(move |lane| lane.queue.range(after.saturating_add(1)..));
        queued.filter_map(move |(seq, command)| {
            let record = self.records.get(command)?;
            let void = record.deliveries.get(&agent)?.void;
            // The present authority counts: an operator who stated it again knows that the statement before it does not
            // count.
            let authority = operators.authority_of(record.signed.operator, limits);
            let (command, authority) = (Arc::clone(&record.signed), Arc::new(authority));
            Some(Delivery { seq: *seq, command, authority, void })
        })
    }

    /// What was released to an agent up to these sequence numbers, and is void.
    pub(crate) fn voids_up_to<'a>(
        &'a self,
        agent: &AgentId,
        up_to: PerClass<u64>,
    ) -> impl Iterator<Item = (CommandClass, u64, VoidCause)> + use<'a> {
        let outbox = self.outboxes.get(agent);
        let agent = agent.clone();
        let lanes =
            CommandClass::URGENT_FIRST.into_iter().filter_map(move |class| Some((class, outbox?.lanes.of(class))));
        let voided =
            lanes.flat_map(move |(class, lane)| lane.voided.range(..=*up_to.of(class)).map(move |n| (class, lane, *n)));
        voided.filter_map(move |(class, lane, n)| {
            let record = self.records.get(lane.queue.get(&n)?)?;
            Some((class, n, record.deliveries.get(&agent)?.void?))
        })
    }
}
