//! S3: at most once, where a voter lies.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::command::CommandOp;
use skep_protocol::entry::Op;
use skep_protocol::ids::CommandId;
use skep_protocol::text::AgentId;

use super::{Invariant, Seen};

/// A robot begins a command once, as far as a journal tells, whichever node delivers it again. Only the shard knows
/// that the robot has a journal elsewhere, or had one on a disk that was wiped, and a leader that lies does not say so.
#[derive(Default)]
pub(super) struct OncePerJournal {
    /// Commands that a robot may do again if it does not know whether it did them.
    idempotent: BTreeSet<CommandId>,
    /// How often the disk of a host has lost its journals.
    lost: BTreeMap<usize, u32>,
    begun: BTreeSet<(AgentId, CommandId, usize, u32)>,
}

impl Invariant for OncePerJournal {
    fn name(&self) -> &'static str {
        "S3"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Invoked { request, .. } => {
                if let Op::Command(CommandOp::Send { command }) = &request.op
                    && command.idempotent
                {
                    self.idempotent.insert(command.id);
                }
            }
            Seen::JournalsLost { host } => *self.lost.entry(*host).or_default() += 1,
            Seen::Began { host, agent, command, .. } => {
                let lost = self.lost.get(host).copied().unwrap_or(0);
                let first = self.begun.insert(((*agent).clone(), *command, *host, lost));
                if !first && !self.idempotent.contains(command) {
                    return Err(format!(
                        "{agent} on host {host} begins {command} again, which its journal has as begun"
                    ));
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
    use skep_protocol::time::LogInstant;

    fn begins(watch: &mut OncePerJournal, host: usize) -> bool {
        let (agent, command) = (AgentId::new("robot-1").unwrap(), CommandId::from_bytes([1; 16]));
        let (deadline, agent) = (LogInstant::ZERO, &agent);
        let seen = Seen::Began { host, run: 0, boot_ms: 0, asked_ms: 0, agent, command, deadline };
        watch.see(&seen, 0).is_ok()
    }

    #[test]
    fn what_a_journal_has_as_begun_is_found_when_it_is_begun_again_by_it_and_by_no_other() {
        let mut watch = OncePerJournal::default();
        assert!(begins(&mut watch, 1) && begins(&mut watch, 2));
        assert!(!begins(&mut watch, 1));
        watch.see(&Seen::JournalsLost { host: 1 }, 0).unwrap();
        assert!(begins(&mut watch, 1));
        assert!(!begins(&mut watch, 1) && !begins(&mut watch, 2));
    }
}
