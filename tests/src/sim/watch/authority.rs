//! S12: authority. Looked at where somebody lies.

use std::collections::BTreeMap;

use skep_protocol::command::Command;
use skep_protocol::entry::{EntryBody, Op};
use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;

use super::{Invariant, Seen, effects};
use crate::sim::clerk::{is_for, is_forged, may_ask};

/// A robot begins only what an operator signed, for it, and was granted once; and what nobody signed has no effect in the
/// log, whoever wrote it there.
#[derive(Default)]
pub(super) struct Signed {
    next: u64,
    /// All that was signed. Whoever loses track of a command before it was sent signs it again, with another deadline.
    signed: BTreeMap<(CommandId, LogInstant), Command>,
}

impl Invariant for Signed {
    fn name(&self) -> &'static str {
        "S12"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Invoked { request, .. } => {
                if let Op::SendCommand { command } = &request.op {
                    let command = &command.command;
                    self.signed.insert((command.id, command.deadline), command.clone());
                }
            }
            Seen::Began { agent, command, deadline, .. } => {
                let Some(signed) = self.signed.get(&(*command, *deadline)) else {
                    return Err(format!("{agent} begins {command} until {deadline}, which nobody signed"));
                };
                if !is_for(&signed.target, agent) {
                    return Err(format!("{agent} begins {command}, which is for {}", signed.target));
                }
                if !may_ask(signed) {
                    return Err(format!("{agent} begins {command}, and {} was never granted it", signed.operator));
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
    use skep_protocol::authority::{OperatorSecret, Signature};
    use skep_protocol::command::{CommandClass, SignedCommand, Target};
    use skep_protocol::entry::Request;
    use skep_protocol::ids::RequestId;
    use skep_protocol::text::{AgentId, ContentType, TraceParent, Verb};

    use crate::sim::clerk::clerk;
    use crate::sim::customer::{operator, sealed};
    use crate::sim::host::{SHARD, site};

    const NOW: LogInstant = LogInstant::from_raw(500);

    /// A watch that saw a command of an operator for some robots, with a deadline at 1,500 ms.
    fn sent(by: &OperatorSecret, target: Target) -> (Signed, CommandId) {
        let id = CommandId::from_bytes([1; 16]);
        let command = Command {
            site: site(),
            shard: SHARD,
            id,
            target,
            verb: Verb::new("goto").unwrap(),
            content_type: ContentType::new("").unwrap(),
            args: Vec::new(),
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
        let op = sealed(Op::SendCommand { command: Box::new(SignedCommand { command, signature }) }, NOW);
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
        assert!(!begins(&mut signed, "robot-2", 1_501), "with a deadline that nobody signed");
        assert!(!begins(&mut signed, "robot-4", 1_500));
        signed.1 = CommandId::from_bytes([9; 16]);
        assert!(!begins(&mut signed, "robot-2", 1_500));
        assert!(begins(&mut sent(&clerk(), one), "robot-2", 1_500));
        assert!(!begins(&mut sent(&clerk(), Target::All), "robot-2", 1_500));
    }
}
