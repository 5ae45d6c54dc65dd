//! Takes what the shard delivers: each command once, in its sequence, and only what an operator may ask of the agent.

use std::sync::Arc;

use skep_protocol::command::{
    CommandClass, CommandOutcome, DeliverySeq, InvalidCommand, PerClass, SignedCommand, Steps, Target,
};
use skep_protocol::journal::{JournalEntry, JournalPhase, JournalWrite, Serials};
use skep_protocol::operator::granted;
use skep_protocol::pull::Delivery;
use skep_protocol::text::{Reason, SiteName};
use skep_protocol::time::LogInstant;

use super::begun::begun_before;
use super::{Inbox, Live, Out};
use crate::inbox::pressure::COMMAND_BYTES;

/// The signed command that the node verified last. A command for a group comes to many agents of a node, each with its
/// own copy.
#[derive(Clone, Debug, Default)]
pub(in crate::inbox) struct Verified(Option<Arc<SignedCommand>>);

impl Verified {
    /// Whether the signature of a command holds, compared byte for byte with the one verified last. Equal copies become
    /// one.
    fn is_signed(&mut self, command: &mut Arc<SignedCommand>) -> bool {
        match &self.0 {
            Some(known) if *known == *command => {
                *command = Arc::clone(known);
                true
            }
            _ => {
                let signed = command.is_signed();
                if signed {
                    self.0 = Some(Arc::clone(command));
                }
                signed
            }
        }
    }
}

impl Inbox {
    /// Goes back to the number up to which a class has commands. An earlier leader delivered under numbers that do not
    /// exist, and the node would not take what comes under the true ones. The leader gives the numbers; the ids keep
    /// the software from beginning a command twice.
    pub(in crate::inbox) fn go_back(&mut self, to: PerClass<Option<u64>>, out: &mut Out) {
        let before = self.head.cursor;
        for class in CommandClass::URGENT_FIRST {
            let cursor = self.head.cursor.of_mut(class);
            *cursor = to.of(class).map_or(*cursor, |to| to.min(*cursor));
        }
        if self.head.cursor != before {
            out.writes.push(JournalWrite::Head(self.head));
        }
    }

    /// Takes what was delivered. A command that must not be started ends at once.
    pub(in crate::inbox) fn deliver(
        &mut self,
        deliveries: Vec<Delivery>,
        site: &SiteName,
        verified: &mut Verified,
        bound: Option<LogInstant>,
        out: &mut Out,
    ) {
        let (mut came, mut kept_back) = (false, PerClass::<bool>::default());
        for mut delivery in deliveries {
            let class = delivery.command.class;
            let cursor = self.head.cursor.of_mut(class);
            // The inbox had this one before: it has reported the end, or will.
            if delivery.seq <= *cursor {
                continue;
            }
            // The shard keeps this command and the ones behind it, and delivers them again once there is room.
            *kept_back.of_mut(class) |= !out.room.has_for(class) && delivery.void.is_none();
            if *kept_back.of(class) {
                continue;
            }
            *cursor = delivery.seq;
            came = true;
            let seq = DeliverySeq { home: self.head.home, class, n: delivery.seq };
            if self.live.contains_key(&seq) || self.gone.contains(&seq) {
                continue;
            }
            if delivery.void.is_none() {
                out.room.take(COMMAND_BYTES + delivery.command.body().len());
            }
            // A void command ends, whichever key signed it.
            let signed = delivery.void.is_some() || verified.is_signed(&mut delivery.command);
            let phase = match self.judge(&delivery, (signed, seq), (site, &out.stated), bound) {
                Some(outcome) => JournalPhase::Ended { outcome },
                None => {
                    self.note_stated(&delivery.authority, out);
                    JournalPhase::Received
                }
            };
            let steps = Steps { received: bound, ..Steps::default() };
            let entry = JournalEntry { seq, command: delivery.command, steps, phase, begun_before: false };
            out.writes.push(JournalWrite::Put(entry.clone()));
            out.written.push(seq);
            self.live.insert(seq, Live::new(entry, 1));
        }
        if came {
            out.writes.push(JournalWrite::Head(self.head));
            // Nothing has begun: if a crash forgets this, the shard delivers again and the node offers again.
            self.offer(out);
        }
    }

    /// How a delivery ends at once; none if it does not.
    fn judge(
        &self,
        delivery: &Delivery,
        (signed, seq): (bool, DeliverySeq),
        (site, known): (&SiteName, &Serials),
        bound: Option<LogInstant>,
    ) -> Option<CommandOutcome> {
        let command = &delivery.command;
        let taker = self.taker.as_ref()?;
        let rejected = |why: &str| Some(CommandOutcome::Rejected { reason: Reason::truncated(why) });
        if let Some(cause) = delivery.void {
            return Some(cause.outcome());
        }
        if !signed {
            return rejected("the command's signature does not hold");
        }
        if let Some(number) = command.unknown_field() {
            return rejected(&InvalidCommand::UnknownField { number }.to_string());
        }
        let place = self.place(site, taker.shard).filter(|place| *place == command.place);
        let Some(place) = place else {
            return rejected("the command was signed for another site or shard");
        };
        let first = self.head.first.map(|first| first.operator);
        let grant = first.and_then(|first| granted(&delivery.authority, command.operator, first, &place));
        if !grant.is_some_and(|grant| grant.allows(&command.verb, &command.target, command.deadline)) {
            return rejected("no grant proves that the operator may send this command");
        }
        if self.is_outdated(&delivery.authority, known) {
            return rejected("a later statement replaced or revoked the operator's grant");
        }
        let meant = match &command.target {
            Target::Agent(agent) => *agent == taker.agent,
            Target::Group(group) => taker.groups.contains(group),
            Target::All => true,
        };
        if !meant {
            return rejected("the command is not for this agent");
        }
        if self.was_begun(&command.id, seq) {
            return Some(begun_before());
        }
        if self.is_past(command.deadline) {
            return Some(CommandOutcome::Expired);
        }
        // Without the shard's clock the node cannot tell yet: it looks again before it starts the command.
        bound.is_some_and(|now| now >= command.deadline).then_some(CommandOutcome::Expired)
    }
}
