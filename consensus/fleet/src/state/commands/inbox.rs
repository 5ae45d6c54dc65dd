//! Outboxes as the nodes of agents see them.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{
    CommandClass, CommandOutcome, Delivery, DeliverySeq, InvalidCommand, PerClass, VoidCause,
};
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch, JournalId, NodeId};
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Refusal};
use skep_protocol::pull::{Pull, PullFor, PulledFor};
use skep_protocol::text::{AgentId, GroupName, Reason};

use crate::state::FleetState;
use crate::state::changes::Changes;

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
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        self.agents.check_attachment(agent, attachment)?;
        let (given, max) = (groups.len(), self.head.limits.groups_max);
        if given as u64 > max {
            return Err(InvalidCommand::Groups { given, max }.into());
        }
        let known = self.commands.outboxes.get(agent).and_then(|outbox| outbox.journal);
        if known != Some(to) {
            self.move_home(agent, to, changes);
        }
        let groups = Arc::new(groups.clone());
        let (before, home, queued) = self.change_outbox(agent, |outbox| {
            let before = std::mem::replace(&mut outbox.groups, Arc::clone(&groups));
            (before, outbox.home, outbox.queued().collect::<Vec<CommandId>>())
        });
        self.commands.regroup(agent, &before, &groups);
        let node = self.agents.attachment(agent).map(|attachment| attachment.node);
        // From now on the journal may have all of it.
        for command in queued {
            self.change_command(command, |record| {
                if let Some(delivery) = record.deliveries.get_mut(agent) {
                    delivery.node = node;
                }
            });
        }
        Ok(Receipt::Inbox { agent: agent.clone(), home })
    }

    /// Nobody takes the commands of an agent that is forgotten.
    pub(in crate::state) fn close_inbox(&mut self, agent: &AgentId) {
        if self.commands.outboxes.contains_key(agent) {
            let before = self.change_outbox(agent, |outbox| {
                outbox.journal = None;
                std::mem::take(&mut outbox.groups)
            });
            self.commands.regroup(agent, &before, &BTreeSet::new());
            self.forget_outbox(agent);
        }
    }

    /// Lets go of the outbox of an agent that is forgotten once all that was sent to it has ended. If the agent comes back,
    /// its home is another than any that a journal may remember.
    pub(super) fn forget_outbox(&mut self, agent: &AgentId) {
        if self.agents.is_known(agent) {
            return;
        }
        let outbox = self.commands.outboxes.get(agent);
        if let Some(behind) = outbox.filter(|outbox| outbox.is_empty()).map(|outbox| outbox.home.next()) {
            self.remove_outbox(agent);
            self.commands.homes_from = self.commands.homes_from.max(behind);
        }
    }

    /// Whether a command to an agent has not ended.
    pub(in crate::state) fn has_open_commands(&self, agent: &AgentId) -> bool {
        self.commands.outboxes.get(agent).is_some_and(|outbox| !outbox.is_empty())
    }

    fn move_home(&mut self, agent: &AgentId, to: JournalId, changes: &mut Changes) {
        let outbox = self.commands.outboxes.get(agent);
        let (had, kept): (Vec<CommandId>, Vec<CommandId>) = outbox
            .into_iter()
            .flat_map(|outbox| outbox.queued())
            .partition(|command| self.delivery(*command, agent).is_some_and(|d| d.node.is_some()));
        let mut queues: PerClass<OrdMap<u64, CommandId>> = PerClass::default();
        for (record, command) in kept.iter().filter_map(|command| Some((self.commands.record(command)?, *command))) {
            let queue = queues.of_mut(record.class());
            queue.insert(queue.len() as u64 + 1, command);
        }
        for command in had {
            let reason = Reason::truncated("the agent's node has another journal now, and the one before it had this");
            self.end_delivery(command, agent, CommandOutcome::Indeterminate { reason }, None, changes);
        }
        let home = self.change_outbox(agent, |outbox| {
            outbox.home = outbox.home.next();
            outbox.journal = Some(to);
            for class in CommandClass::URGENT_FIRST {
                let (lane, queue) = (outbox.lanes.of_mut(class), queues.of(class));
                (lane.queue, lane.last) = (queue.clone(), queue.len() as u64);
                // What nobody can have had is never void: it ends at once.
                lane.voided = OrdSet::new();
            }
            outbox.home
        });
        for class in CommandClass::URGENT_FIRST {
            for (n, command) in queues.of(class).iter() {
                let seq = DeliverySeq { home, class, n: *n };
                self.change_command(*command, |record| {
                    if let Some(delivery) = record.deliveries.get_mut(agent) {
                        delivery.seq = Some(seq);
                    }
                });
            }
        }
        changes.record(self.head.clock, ChangeKind::InboxOpened { agent: agent.clone(), journal: to, home });
    }

    /// What there is for the agents that a node pulls for. Those are left out for whom nothing changed since the node saw
    /// it, and those for whom there is no place in this answer. Urgent commands come first, of all agents: however much
    /// there is of routine ones, it keeps none of them from the answer.
    ///
    /// `looked`: the answer as of that entry was empty, so that only what changed since is looked at. `bytes_max`: about how
    /// many bytes of commands the way to the node carries at once; one goes in any case, and more than
    /// [`limits::PULL_BYTES_SOFT_MAX`] never.
    pub fn pull(&self, node: NodeId, pull: &Pull, looked: Option<u64>, bytes_max: usize) -> Vec<PulledFor> {
        let bytes_max = bytes_max.min(limits::PULL_BYTES_SOFT_MAX);
        let as_of = self.as_of();
        let news: Option<BTreeSet<&AgentId>> = looked.map(|looked| self.inboxes_changed_after(Some(looked)).collect());
        if news.as_ref().is_some_and(BTreeSet::is_empty) {
            return Vec::new();
        }
        let (mut bytes, mut answered) = (0, Vec::new());
        for asked in pull.agents.iter().filter(|asked| news.as_ref().is_none_or(|news| news.contains(&asked.agent))) {
            if bytes > bytes_max {
                break;
            }
            let Some(mut of) = self.begin_answer(node, asked, as_of) else { continue };
            if of.open {
                self.fill(asked, CommandClass::Urgent, &mut of, &mut bytes, bytes_max);
            }
            answered.push((asked, of));
        }
        for (asked, of) in answered.iter_mut().filter(|(_, of)| of.open) {
            self.fill(asked, CommandClass::Routine, of, &mut bytes, bytes_max);
        }
        answered.into_iter().map(|(_, of)| of).collect()
    }

    /// The last entry that was applied; 0 before all.
    pub(super) fn as_of(&self) -> u64 {
        self.applied().map_or(0, |position| position.index)
    }

    /// What a node is told of an agent, without anything to deliver; none if nothing changed since the node saw it. Nobody can have
    /// seen what comes after all that there is: whoever says so is told from where it goes on.
    fn begin_answer(&self, node: NodeId, asked: &PullFor, as_of: u64) -> Option<PulledFor> {
        let (agent, home, deliveries, more) = (asked.agent.clone(), asked.home, Vec::new(), PerClass::default());
        if !self.is_inbox(&agent, node, asked.attachment, (asked.journal, home)) {
            let (voids, seen, back) = (Vec::new(), asked.seen, PerClass::default());
            return Some(PulledFor { agent, home, open: false, deliveries, voids, seen, more, back });
        }
        let back = self.back(asked);
        let has_seen_it = asked.seen <= as_of && self.outbox_changed_at(&agent).is_none_or(|at| at <= asked.seen);
        if back == PerClass::default() && has_seen_it {
            return None;
        }
        let voids: Vec<_> = self.voids_up_to(&agent, asked.after).collect();
        Some(PulledFor { agent, home, open: true, deliveries, voids, seen: as_of, more, back })
    }

    /// Whether a node is ahead of all that was let out to an agent that it pulls for, or says that it knows what comes after all that
    /// there is: then somebody told it what there is not, or this replica is behind. Only who surely leads may answer it.
    pub fn is_passed(&self, node: NodeId, pull: &Pull) -> bool {
        let as_of = self.as_of();
        pull.authority > self.restated()
            || pull.agents.iter().any(|asked| {
                let inbox = (asked.journal, asked.home);
                self.is_inbox(&asked.agent, node, asked.attachment, inbox)
                    && (asked.seen > as_of || self.back(asked) != PerClass::default())
            })
    }

    /// Behind which places a node goes on that is ahead of all that was let out: before what has not ended, which it need not have had.
    fn back(&self, asked: &PullFor) -> PerClass<Option<u64>> {
        let outbox = self.commands.outboxes.get(&asked.agent);
        PerClass::from_fn(|class| {
            let lane = outbox?.lanes.of(class);
            let behind = || lane.queue.keys().next().map_or(lane.last, |first| first.saturating_sub(1));
            (*asked.after.of(class) > lane.last).then(behind)
        })
    }

    /// Puts what comes next of a class into an answer, of which there are so many bytes already.
    fn fill(&self, asked: &PullFor, class: CommandClass, of: &mut PulledFor, bytes: &mut usize, bytes_max: usize) {
        let mut room = *asked.room.of(class);
        let after = of.back.of(class).unwrap_or(*asked.after.of(class));
        for delivery in self.deliveries_after(&asked.agent, class, after) {
            let takes_room = u32::from(delivery.void.is_none());
            if room < takes_room || *bytes > bytes_max {
                *of.more.of_mut(class) = true;
                return;
            }
            room -= takes_room;
            let authority = delivery.authority.len() * GRANT_BYTES;
            *bytes += delivery.command.args.len() + DELIVERY_BYTES + authority;
            of.deliveries.push(delivery);
        }
    }

    /// Whether a node may have the commands of an agent.
    pub fn is_inbox(
        &self,
        agent: &AgentId,
        node: NodeId,
        attachment: AttachmentId,
        (journal, home): (JournalId, HomeEpoch),
    ) -> bool {
        let attached = self.agents.attachment(agent);
        let serves = attached.is_some_and(|known| known.node == node && known.id == attachment);
        let outbox = self.commands.outboxes.get(agent);
        serves && outbox.is_some_and(|outbox| outbox.journal == Some(journal) && outbox.home == home)
    }

    /// The agents for whom entries after this one changed what there is to deliver, or to whom. None comes before all.
    pub fn inboxes_changed_after(&self, index: Option<u64>) -> impl Iterator<Item = &AgentId> {
        let from = index.map_or(0, |index| index.saturating_add(1));
        self.commands.changed.range((from, None)..).filter_map(|(_, agent)| agent.as_ref())
    }

    /// An agent is attached otherwise than it was, or not any more: whoever waits for its commands hears that they are not
    /// for it.
    pub(in crate::state) fn note_attachment(&mut self, agent: &AgentId) {
        if self.commands.outboxes.contains_key(agent) {
            self.change_outbox(agent, |_| {});
        }
    }

    /// The last entry that changed what there is to deliver to an agent.
    fn outbox_changed_at(&self, agent: &AgentId) -> Option<u64> {
        self.commands.outboxes.get(agent).map(|outbox| outbox.changed_at)
    }

    /// What was let out to an agent after a place in its order of a class, oldest first.
    pub fn deliveries_after(
        &self,
        agent: &AgentId,
        class: CommandClass,
        after: u64,
    ) -> impl Iterator<Item = Delivery> + '_ {
        let lane = self.commands.outboxes.get(agent).map(|outbox| outbox.lanes.of(class));
        let agent = agent.clone();
        let queued = lane.into_iter().flat_map(move |lane| lane.queue.range(after.saturating_add(1)..));
        queued.filter_map(move |(seq, command)| {
            let record = self.commands.records.get(command)?;
            let void = record.deliveries.get(&agent)?.void;
            // As it is by now: whoever stated it again knows that the statement before it is not to be believed.
            let authority = self.operators.authority_of(record.signed.operator, &self.head.limits);
            let (command, authority) = (Arc::clone(&record.signed), Arc::new(authority));
            Some(Delivery { seq: *seq, command, authority, void })
        })
    }

    /// What was let out to an agent up to these places in its orders, and is not to be started any more.
    pub fn voids_up_to(
        &self,
        agent: &AgentId,
        up_to: PerClass<u64>,
    ) -> impl Iterator<Item = (CommandClass, u64, VoidCause)> + '_ {
        let outbox = self.commands.outboxes.get(agent);
        let agent = agent.clone();
        let lanes =
            CommandClass::URGENT_FIRST.into_iter().filter_map(move |class| Some((class, outbox?.lanes.of(class))));
        let voided =
            lanes.flat_map(move |(class, lane)| lane.voided.range(..=*up_to.of(class)).map(move |n| (class, lane, *n)));
        voided.filter_map(move |(class, lane, n)| {
            let record = self.commands.records.get(lane.queue.get(&n)?)?;
            Some((class, n, record.deliveries.get(&agent)?.void?))
        })
    }
}
