//! Taking down what the shard delivers: each command once, in its order, and only what an operator may ask of the agent.

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

/// The command that was found to be signed last. One for a group comes to many agents of a node, each with its own copy.
#[derive(Clone, Debug, Default)]
pub(in crate::inbox) struct Verified(Option<Arc<SignedCommand>>);

impl Verified {
    /// Whether a command is signed, signature for signature and byte for byte. All copies of one are made one.
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
    /// Goes back to where there is something of a class: somebody had delivered under places that there are not, and what comes under
    /// those that there are would not be taken. Places are the leader's to give; what was begun is not begun again by its name.
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

    /// Takes down what was delivered. What must not be started ends with it.
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
            // It was had before: whatever became of it is known, or is to be reported.
            if delivery.seq <= *cursor {
                continue;
            }
            // The shard keeps it, and what is behind it in its order: they are delivered again once there is room.
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
            // What is void ends whoever signed it.
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
            // Nothing has begun: if this is forgotten, it is delivered and offered again.
            self.offer(out);
        }
    }

    /// How a delivery ends at once, if it does.
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
            return rejected("its signature does not hold");
        }
        if let Some(number) = command.unknown_field() {
            return rejected(&InvalidCommand::UnknownField { number }.to_string());
        }
        let place = self.place(site, taker.shard).filter(|place| *place == command.place);
        let Some(place) = place else {
            return rejected("it was signed for another site or shard");
        };
        let first = self.head.first.map(|first| first.operator);
        let grant = first.and_then(|first| granted(&delivery.authority, command.operator, first, &place));
        if !grant.is_some_and(|grant| grant.allows(&command.verb, &command.target, command.deadline)) {
            return rejected("nothing proves that its operator may ask for it");
        }
        if self.is_outdated(&delivery.authority, known) {
            return rejected("what proves that its operator may ask for it is not what holds by now");
        }
        let meant = match &command.target {
            Target::Agent(agent) => *agent == taker.agent,
            Target::Group(group) => taker.groups.contains(group),
            Target::All => true,
        };
        if !meant {
            return rejected("it is not for this agent");
        }
        if self.was_begun(&command.id, seq) {
            return Some(begun_before());
        }
        if self.is_past(command.deadline) {
            return Some(CommandOutcome::Expired);
        }
        // Without a clock nothing can be said yet: it is asked again before it is started.
        bound.is_some_and(|now| now >= command.deadline).then_some(CommandOutcome::Expired)
    }
}
