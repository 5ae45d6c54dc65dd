//! S12: authority. Checked in runs with a liar.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::command::{Command, CommandOp};
use skep_protocol::entry::{EntryBody, Op};
use skep_protocol::ids::{CommandId, Genesis};
use skep_protocol::journal::{JournalPhase, JournalWrite};
use skep_protocol::operator::KnownFirst;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::{Invariant, Seen, effects};
use crate::sim::clerk::{REVOKED_BY, clerk, is_for, is_forged, may_ask};

/// The genesis and the first operator by whose word a journal believes statements.
type Root = (Option<Genesis>, Option<KnownFirst>);

/// A robot begins only commands that an operator signed, for this robot, and that the operator was granted at some
/// time. An operation that its operator did not sign has no effect in the log, whichever node wrote it there. Once a
/// journal has recorded that an operator is revoked, neither it nor another journal of its node under the same first
/// operator takes a command of that operator and begins it, whatever was stated before.
#[derive(Default)]
pub(super) struct Signed {
    next: u64,
    /// All commands that were signed. An operator that loses track of a command before it was sent signs it again, with
    /// another deadline.
    signed: BTreeMap<(CommandId, LogInstant), Command>,
    /// By whose word each journal believes statements; none before it was told.
    roots: BTreeMap<(usize, AgentId), Root>,
    /// Nodes whose journals have recorded that the clerk is revoked, and by whose word.
    revoked: BTreeSet<(usize, Root)>,
    /// The commands of the clerk that such a journal took since.
    late: BTreeSet<(usize, AgentId, CommandId)>,
}

impl Signed {
    fn keep(&mut self, host: usize, agent: &AgentId, write: &JournalWrite) {
        let root = self.roots.get(&(host, agent.clone())).copied().unwrap_or_default();
        match write {
            JournalWrite::Head(head) => {
                let next = (head.genesis, head.first);
                // The numbers go with the journal to another first operator, but to no other shard.
                if self.revoked.contains(&(host, root)) && root.0 == head.genesis {
                    self.revoked.insert((host, next));
                }
                self.roots.insert((host, agent.clone()), next);
            }
            JournalWrite::Stated { operator, serial } if *serial >= REVOKED_BY && *operator == clerk().key() => {
                self.revoked.insert((host, root));
            }
            JournalWrite::Put(entry)
                if entry.phase == JournalPhase::Received
                    && self.revoked.contains(&(host, root))
                    && entry.command.operator == clerk().key() =>
            {
                self.late.insert((host, agent.clone(), entry.command.id));
            }
            _ => {}
        }
    }
}

impl Invariant for Signed {
    fn name(&self) -> &'static str {
        "S12"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Invoked { request, .. } => {
                if let Op::Command(CommandOp::Send { command }) = &request.op {
                    self.signed.insert((command.id, command.deadline), command.statement().clone());
                }
            }
            Seen::Kept { host, agent, write } => self.keep(*host, agent, write),
            Seen::JournalsLost { host } => {
                self.roots.retain(|(of, _), _| of != host);
                self.revoked.retain(|(of, _)| of != host);
                self.late.retain(|(of, ..)| of != host);
            }
            Seen::Began { host, agent, command, deadline, .. } => {
                let Some(signed) = self.signed.get(&(*command, *deadline)) else {
                    return Err(format!("{agent} begins {command} until {deadline}, which no operator signed"));
                };
                if !is_for(&signed.target, agent) {
                    return Err(format!("{agent} begins {command}, which is for {}", signed.target));
                }
                if !may_ask(signed) {
                    return Err(format!("{agent} begins {command}, and {} was never granted it", signed.operator));
                }
                if self.late.contains(&(*host, (*agent).clone(), *command)) {
                    return Err(format!(
                        "{agent} begins {command}, which came after {} was revoked by its journal",
                        signed.operator
                    ));
                }
            }
            Seen::Applied { position, entry, applied, .. } if position.index == self.next => {
                self.next += 1;
                let Some(EntryBody::Requests(requests)) = entry.map(|entry| &entry.body) else { return Ok(()) };
                let forged = requests.iter().filter(|request| is_forged(&request.op)).map(|request| request.id);
                for request in forged {
                    if effects(applied).any(|with_effect| with_effect == request) {
                        return Err(format!("{request} took effect, and the operator that it names did not sign it"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::signing::{OperatorSecret, Signature};
    use std::sync::Arc;

    use skep_protocol::command::{CommandClass, CommandOutcome, DeliverySeq, SignedCommand, Steps, Target};
    use skep_protocol::entry::Request;
    use skep_protocol::ids::RequestId;
    use skep_protocol::journal::JournalEntry;
    use skep_protocol::text::{ContentType, Reason, TraceParent, Verb};

    use crate::sim::clerk::sealed;
    use crate::sim::names::{operator, place};

    const NOW: LogInstant = LogInstant::from_raw(500);

    /// A watch that saw an operator's command for some robots, with a deadline at 1,500 ms.
    fn sent(by: &OperatorSecret, target: Target) -> (Signed, CommandId) {
        let id = CommandId::from_bytes([1; 16]);
        let command = Command {
            place: place(),
            id,
            target,
            verb: Verb::new("goto").unwrap(),
            content_type: ContentType::new("").unwrap(),
            args: Default::default(),
            deadline: LogInstant::from_raw(1_000),
            class: CommandClass::Routine,
            idempotent: false,
            supersedes: None,
            parent: None,
            trace: TraceParent::new("").unwrap(),
            waves: None,
            operator: by.key(),
        };
        let signature = Signature::from_bytes(&[0; 64]);
        let op = sealed(
            Op::Command(CommandOp::Send { command: Box::new(SignedCommand::under(&command, signature).unwrap()) }),
            NOW,
        );
        let id_of_request = RequestId::from_bytes([2; 16]);
        let request = Request { id: id_of_request, first_sent: NOW, deadline: NOW.plus_ms(9_000), op };
        assert!(!is_forged(&request.op), "it is signed by whom it names");
        let mut watch = Signed::default();
        watch.see(&Seen::Invoked { request: &request, valid_ms: 9_000 }, 0).unwrap();
        (watch, id)
    }

    fn begins((watch, command): &mut (Signed, CommandId), robot: &str, deadline_ms: u64) -> bool {
        let (agent, command) = (AgentId::new(robot).unwrap(), *command);
        let (deadline, agent) = (LogInstant::from_raw(deadline_ms), &agent);
        let seen = Seen::Began { host: 1, run: 0, boot_ms: 0, asked_ms: 0, agent, command, deadline };
        watch.see(&seen, 0).is_ok()
    }

    #[test]
    fn what_nobody_signed_so_is_found_and_what_is_for_another_robot_or_was_never_granted() {
        let one = Target::Agent(AgentId::new("robot-2").unwrap());
        let mut signed = sent(&operator(), one.clone());
        assert!(begins(&mut signed, "robot-2", 1_500));
        assert!(!begins(&mut signed, "robot-2", 1_501), "with a deadline that no operator signed");
        assert!(!begins(&mut signed, "robot-4", 1_500));
        signed.1 = CommandId::from_bytes([9; 16]);
        assert!(!begins(&mut signed, "robot-2", 1_500));
        assert!(begins(&mut sent(&clerk(), one), "robot-2", 1_500));
        assert!(!begins(&mut sent(&clerk(), Target::All), "robot-2", 1_500));
    }
    /// The journal of robot 2 on host 1 takes a command, which has come to this phase.
    fn takes((watch, command): &mut (Signed, CommandId), phase: JournalPhase) {
        let signed = watch.signed.values().find(|known| known.id == *command).cloned().unwrap();
        let command = Arc::new(SignedCommand::under(&signed, Signature::from_bytes(&[0; 64])).unwrap());
        let (seq, steps) = (DeliverySeq::default(), Steps::default());
        let entry = JournalEntry { seq, command, steps, phase, begun_before: false };
        keeps(watch, 1, &JournalWrite::Put(entry));
    }

    fn keeps(watch: &mut Signed, host: usize, write: &JournalWrite) {
        let agent = AgentId::new("robot-2").unwrap();
        watch.see(&Seen::Kept { host, agent: &agent, write }, 0).unwrap();
    }

    #[test]
    fn what_a_journal_takes_of_an_operator_that_is_revoked_by_it_is_found_when_it_is_begun() {
        let (one, rejected) = (Target::Agent(AgentId::new("robot-2").unwrap()), Reason::truncated("revoked"));
        let revoked = |by: &OperatorSecret| JournalWrite::Stated { operator: by.key(), serial: REVOKED_BY };
        for (by, host, begun) in [(clerk(), 1, false), (clerk(), 2, true), (operator(), 1, true)] {
            let mut sent = sent(&by, one.clone());
            takes(&mut sent, JournalPhase::Received);
            keeps(&mut sent.0, host, &revoked(&clerk()));
            let outcome = CommandOutcome::Rejected { reason: rejected.clone() };
            takes(&mut sent, JournalPhase::Ended { outcome });
            assert!(begins(&mut sent, "robot-2", 1_500), "it was taken before that");
            takes(&mut sent, JournalPhase::Received);
            assert_eq!(begins(&mut sent, "robot-2", 1_500), begun, "{host}");
            sent.0.see(&Seen::JournalsLost { host: 1 }, 0).unwrap();
            assert!(begins(&mut sent, "robot-2", 1_500), "no journal knows it");
        }
    }
}
