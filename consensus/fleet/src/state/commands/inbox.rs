//! Outboxes as the nodes of agents see them.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandOutcome, Delivery, DeliverySeq, InvalidCommand, VoidCause};
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch, JournalId, NodeId};
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Refusal};
use skep_protocol::pull::{Pull, PulledFor};
use skep_protocol::text::{AgentId, GroupName, Reason};

use crate::state::FleetState;
use crate::state::apply::Journal;

/// About how many bytes of an answer a delivery takes beside its arguments, and a statement about its operator.
const DELIVERY_BYTES: usize = 1_024;
const GRANT_BYTES: usize = 12 * 1_024;

impl FleetState {
    /// The commands of an agent go to this journal from now on.
    ///
    /// Another journal knows nothing of what the one before it had: whatever that may have had is in doubt, and is never
    /// delivered again. What nobody can have had is delivered to the new one, in the same order.
    pub(in crate::state) fn open_inbox(
        &mut self,
        agent: &AgentId,
        attachment: AttachmentId,
        to: JournalId,
        groups: &BTreeSet<GroupName>,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        self.check_attachment(agent, attachment)?;
        if groups.len() > limits::GROUPS_MAX {
            return Err(InvalidCommand::Groups { given: groups.len() }.into());
        }
        let known = self.commands.outboxes.get(agent).and_then(|outbox| outbox.journal);
        if known != Some(to) {
            self.move_home(agent, to, journal);
        }
        let groups = Arc::new(groups.clone());
        let (home, queue) = self.change_outbox(agent, |outbox| {
            outbox.groups = groups;
            (outbox.home, outbox.queue.clone())
        });
        let node = self.agents.get(agent).and_then(|record| record.attachment).map(|attachment| attachment.node);
        // From now on the journal may have all of it.
        for command in queue.values() {
            self.change_command(*command, |record| {
                if let Some(delivery) = record.deliveries.get_mut(agent) {
                    delivery.node = node;
                }
            });
        }
        Ok(Receipt::Inbox { agent: agent.clone(), home, first: self.commands.first })
    }

    /// Nobody takes the commands of an agent that is forgotten.
    pub(in crate::state) fn close_inbox(&mut self, agent: &AgentId) {
        if self.commands.outboxes.contains_key(agent) {
            self.change_outbox(agent, |outbox| (outbox.journal, outbox.groups) = (None, Arc::default()));
            self.forget_outbox(agent);
        }
    }

    /// Lets go of the outbox of an agent that is forgotten once all that was sent to it has ended. If the agent comes back,
    /// its home is another than any that a journal may remember.
    pub(super) fn forget_outbox(&mut self, agent: &AgentId) {
        if self.agents.contains_key(agent) {
            return;
        }
        let outbox = self.commands.outboxes.get(agent);
        if let Some(behind) = outbox.filter(|outbox| outbox.open == 0).map(|outbox| outbox.home.next()) {
            self.remove_outbox(agent);
            self.commands.homes_from = self.commands.homes_from.max(behind);
        }
    }

    fn move_home(&mut self, agent: &AgentId, to: JournalId, journal: &mut Journal) {
        let queue = self.commands.outboxes.get(agent).map(|outbox| outbox.queue.clone()).unwrap_or_default();
        let (had, kept): (Vec<CommandId>, Vec<CommandId>) = queue
            .values()
            .copied()
            .partition(|command| self.delivery(*command, agent).is_some_and(|d| d.node.is_some()));
        for command in had {
            let reason = Reason::truncated("the agent's node has another journal now, and the one before it had this");
            self.end_delivery(command, agent, CommandOutcome::Indeterminate { reason }, None, journal);
        }
        let home = self.change_outbox(agent, |outbox| {
            outbox.home = outbox.home.next();
            outbox.journal = Some(to);
            outbox.queue = (1_u64..).zip(kept.iter().copied()).collect::<OrdMap<u64, CommandId>>();
            outbox.last = kept.len() as u64;
            // What nobody can have had is never void: it ends at once.
            outbox.voided = OrdSet::new();
            outbox.home
        });
        for (n, command) in (1..).zip(kept) {
            self.change_command(command, |record| {
                if let Some(delivery) = record.deliveries.get_mut(agent) {
                    delivery.seq = Some(DeliverySeq { home, n });
                }
            });
        }
        journal.record(self.clock, ChangeKind::InboxOpened { agent: agent.clone(), journal: to, home });
    }

    /// What there is for the agents that a node pulls for. Those are left out for whom nothing changed since the node saw
    /// it, and those for whom there is no place in this answer.
    ///
    /// `looked`: the answer as of that entry was empty, so that only what changed since is looked at. That an agent was
    /// attached elsewhere is then not seen before its commands go there: the next full look sees it.
    pub fn pull(&self, node: NodeId, pull: &Pull, looked: Option<u64>) -> Vec<PulledFor> {
        let as_of = self.applied().map_or(0, |position| position.index);
        let news: Option<BTreeSet<&AgentId>> = looked.map(|looked| self.outboxes_changed_since(looked).collect());
        let (mut bytes, mut answered) = (0, Vec::new());
        if news.as_ref().is_some_and(BTreeSet::is_empty) {
            return answered;
        }
        for asked in pull.agents.iter().filter(|asked| news.as_ref().is_none_or(|news| news.contains(&asked.agent))) {
            if bytes > limits::PULL_BYTES_SOFT_MAX {
                break;
            }
            let (agent, home) = (asked.agent.clone(), asked.home);
            if !self.is_inbox(&agent, node, asked.attachment, (asked.journal, home)) {
                let (deliveries, voids, seen) = (Vec::new(), Vec::new(), asked.seen);
                answered.push(PulledFor { agent, home, open: false, deliveries, voids, seen, more: false });
                continue;
            }
            if self.outbox_changed_at(&agent).is_none_or(|at| at <= asked.seen) {
                continue;
            }
            let (mut deliveries, mut room, mut more) = (Vec::new(), asked.room, false);
            for delivery in self.deliveries_after(&agent, asked.after) {
                let takes_room = u32::from(delivery.void.is_none());
                if room < takes_room || bytes > limits::PULL_BYTES_SOFT_MAX {
                    more = true;
                    break;
                }
                room -= takes_room;
                let authority = delivery.authority.len() * GRANT_BYTES;
                bytes += delivery.command.command.args.len() + DELIVERY_BYTES + authority;
                deliveries.push(delivery);
            }
            let voids: Vec<_> = self.voids_up_to(&agent, asked.after).collect();
            answered.push(PulledFor { agent, home, open: true, deliveries, voids, seen: as_of, more });
        }
        answered
    }

    /// Whether a node may have the commands of an agent.
    pub fn is_inbox(
        &self,
        agent: &AgentId,
        node: NodeId,
        attachment: AttachmentId,
        (journal, home): (JournalId, HomeEpoch),
    ) -> bool {
        let attached = self.agents.get(agent).and_then(|record| record.attachment);
        let serves = attached.is_some_and(|known| known.node == node && known.id == attachment);
        let outbox = self.commands.outboxes.get(agent);
        serves && outbox.is_some_and(|outbox| outbox.journal == Some(journal) && outbox.home == home)
    }

    /// The agents for whom what there is to deliver was changed by an entry after this one.
    fn outboxes_changed_since(&self, index: u64) -> impl Iterator<Item = &AgentId> {
        self.commands.changed.range((index.saturating_add(1), None)..).filter_map(|(_, agent)| agent.as_ref())
    }

    /// The last entry that changed what there is to deliver to an agent.
    fn outbox_changed_at(&self, agent: &AgentId) -> Option<u64> {
        self.commands.outboxes.get(agent).map(|outbox| outbox.changed_at)
    }

    /// What was let out to an agent after a place in its order, oldest first.
    pub fn deliveries_after(&self, agent: &AgentId, after: u64) -> impl Iterator<Item = Delivery> + '_ {
        let outbox = self.commands.outboxes.get(agent);
        let agent = agent.clone();
        outbox.into_iter().flat_map(move |outbox| outbox.queue.range(after.saturating_add(1)..)).filter_map(
            move |(seq, command)| {
                let record = self.commands.records.get(command)?;
                let void = record.deliveries.get(&agent)?.void;
                let (command, authority) = (Arc::clone(&record.signed), Arc::clone(&record.authority));
                Some(Delivery { seq: *seq, command, authority, void })
            },
        )
    }

    /// What was let out to an agent up to a place in its order, and is not to be started any more.
    pub fn voids_up_to(&self, agent: &AgentId, up_to: u64) -> impl Iterator<Item = (u64, VoidCause)> + '_ {
        let outbox = self.commands.outboxes.get(agent);
        let agent = agent.clone();
        outbox.into_iter().flat_map(move |outbox| outbox.voided.range(..=up_to).map(move |n| (outbox, *n))).filter_map(
            move |(outbox, n)| {
                let record = self.commands.records.get(outbox.queue.get(&n)?)?;
                Some((n, record.deliveries.get(&agent)?.void?))
            },
        )
    }
}
