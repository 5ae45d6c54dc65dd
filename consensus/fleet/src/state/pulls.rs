//! What a node hears that pulls for its agents.

use std::collections::BTreeSet;

use skep_protocol::command::{CommandClass, PerClass, VoidCause};
use skep_protocol::ids::{AttachmentId, HomeEpoch, JournalId, NodeId};
use skep_protocol::limits;
use skep_protocol::pull::{Delivery, Pull, PullFor, PulledFor};
use skep_protocol::text::AgentId;

use super::FleetState;

/// About how many bytes of an answer a delivery takes beside its arguments, and a statement about its operator.
const DELIVERY_BYTES: usize = 1_024;
const GRANT_BYTES: usize = 12 * 1_024;

impl FleetState {
    /// What there is for the agents for which a node pulls. The answer leaves out agents for which nothing changed
    /// since the node saw it, and those for which it has no room. Urgent commands of all agents come first: routine
    /// ones keep none of them from the answer, however many there are.
    ///
    /// `looked`: the answer as of that entry was empty, so that this looks only at what changed since. `bytes_max`:
    /// about how many bytes of commands the way to the node carries at once; one command goes in any case, and never
    /// more than [`limits::PULL_BYTES_SOFT_MAX`].
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

    /// Index of the last entry that was applied; 0 before all entries.
    fn as_of(&self) -> u64 {
        self.applied().map_or(0, |position| position.index)
    }

    /// The answer for an agent, without any delivery; none if nothing changed since the node saw it. No node can have
    /// seen what comes after all that there is: a node that says so hears from where it goes on.
    fn begin_answer(&self, node: NodeId, asked: &PullFor, as_of: u64) -> Option<PulledFor> {
        let (agent, home, deliveries, more) = (asked.agent.clone(), asked.home, Vec::new(), PerClass::default());
        if !self.is_inbox(&agent, node, asked.attachment, (asked.journal, home)) {
            let (voids, seen, back) = (Vec::new(), asked.seen, PerClass::default());
            return Some(PulledFor { agent, home, open: false, deliveries, voids, seen, more, back });
        }
        let back = self.commands.back(asked);
        let has_seen_it =
            asked.seen <= as_of && self.commands.outbox_changed_at(&agent).is_none_or(|at| at <= asked.seen);
        if back == PerClass::default() && has_seen_it {
            return None;
        }
        let voids: Vec<_> = self.voids_up_to(&agent, asked.after).collect();
        Some(PulledFor { agent, home, open: true, deliveries, voids, seen: as_of, more, back })
    }

    /// Whether a node is ahead of all that was released to an agent for which it pulls, or says that it knows entries
    /// that there are not: then a leader told it what there is not, or this replica is behind. Only a node that surely
    /// leads may answer it.
    pub fn is_passed(&self, node: NodeId, pull: &Pull) -> bool {
        let as_of = self.as_of();
        pull.authority > self.restated()
            || pull.agents.iter().any(|asked| {
                let inbox = (asked.journal, asked.home);
                self.is_inbox(&asked.agent, node, asked.attachment, inbox)
                    && (asked.seen > as_of || self.commands.back(asked) != PerClass::default())
            })
    }

    /// Puts what comes next of a class into an answer that has so many bytes already.
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
        serves && self.commands.is_home(agent, journal, home)
    }

    /// The agents for whom entries after this one changed what there is to deliver, or to which node. None comes before
    /// all entries.
    pub fn inboxes_changed_after(&self, index: Option<u64>) -> impl Iterator<Item = &AgentId> {
        self.commands.inboxes_changed_after(index)
    }

    /// What was released to an agent after a place in its order of a class, oldest first.
    pub fn deliveries_after(
        &self,
        agent: &AgentId,
        class: CommandClass,
        after: u64,
    ) -> impl Iterator<Item = Delivery> + '_ {
        self.commands.deliveries_after(agent, class, after, &self.operators, &self.head.limits)
    }

    /// The deliveries up to these sequence numbers of an agent that its software must not start: the shard released
    /// them and then voided them.
    pub fn voids_up_to(
        &self,
        agent: &AgentId,
        up_to: PerClass<u64>,
    ) -> impl Iterator<Item = (CommandClass, u64, VoidCause)> + '_ {
        self.commands.voids_up_to(agent, up_to)
    }
}
