//! S4: a robot's order.

use std::collections::BTreeMap;

use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandChange, CommandClass};
use skep_protocol::ids::CommandId;
use skep_protocol::text::AgentId;

use super::{Invariant, Seen};

/// A robot begins the commands of one class in the order in which they were released to it.
#[derive(Default)]
pub(super) struct InOrder {
    next: u64,
    class: BTreeMap<CommandId, (CommandClass, bool)>,
    /// When each command was released: the entry, and the place of the change in it.
    released: BTreeMap<(CommandId, AgentId), (u64, usize)>,
    last: BTreeMap<(AgentId, CommandClass), (u64, usize)>,
}

impl Invariant for InOrder {
    fn name(&self) -> &'static str {
        "S4"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for (nth, change) in (0..).zip(&applied.changes) {
                    let ChangeKind::Command { command, change } = &change.what else { continue };
                    match change {
                        CommandChange::Accepted { signed, .. } => {
                            self.class.insert(*command, (signed.class, signed.idempotent));
                        }
                        CommandChange::Released { to, .. } => {
                            for (agent, _) in to {
                                self.released.insert((*command, agent.clone()), (position.index, nth));
                            }
                        }
                        _ => {}
                    }
                }
            }
            Seen::Acted { agent, command, .. } => {
                let Some((class, idempotent)) = self.class.get(command).copied() else { return Ok(()) };
                let Some(at) = self.released.get(&(*command, (*agent).clone())).copied() else { return Ok(()) };
                let last = self.last.entry(((*agent).clone(), class)).or_default();
                // A command that may be done again is done again when its outcome is unknown.
                if at < *last || (at == *last && !idempotent) {
                    return Err(format!("{agent} begins {command} of entry {at:?} after one of entry {last:?}"));
                }
                *last = at;
            }
            _ => {}
        }
        Ok(())
    }
}
