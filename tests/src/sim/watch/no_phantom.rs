//! S2: no phantom. What is done was asked for, and what is said of it is true.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandChange, CommandOutcome};
use skep_protocol::ids::CommandId;
use skep_protocol::text::AgentId;

use super::{Invariant, Seen};

/// A robot acts only on commands that were released to it. A command that ended as not done was never begun, then or
/// later; a command that ended as done was begun.
#[derive(Default)]
pub(super) struct NoPhantom {
    next: u64,
    released: BTreeSet<(CommandId, AgentId)>,
    acted: BTreeSet<(CommandId, AgentId)>,
    ended: BTreeMap<(CommandId, AgentId), CommandOutcome>,
}

impl NoPhantom {
    fn check(&self, key: &(CommandId, AgentId)) -> Result<(), String> {
        let Some(outcome) = self.ended.get(key) else { return Ok(()) };
        let acted = self.acted.contains(key);
        let false_no = acted && !outcome.may_have_acted();
        let false_yes = !acted && matches!(outcome, CommandOutcome::Succeeded { .. });
        if false_no || false_yes {
            return Err(format!("{} is {} at {}, and was begun: {acted}", key.0, outcome.name(), key.1));
        }
        Ok(())
    }
}

impl Invariant for NoPhantom {
    fn name(&self) -> &'static str {
        "S2"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for change in &applied.changes {
                    let ChangeKind::Command { command, change } = &change.what else { continue };
                    match change {
                        CommandChange::Released { to, .. } => {
                            self.released.extend(to.iter().map(|(agent, _)| (*command, agent.clone())));
                        }
                        CommandChange::DeliveryEnded { agent, outcome, .. } => {
                            let key = (*command, agent.clone());
                            self.ended.insert(key.clone(), outcome.clone());
                            self.check(&key)?;
                        }
                        _ => {}
                    }
                }
            }
            Seen::Acted { agent, command, .. } => {
                let key = (*command, (*agent).clone());
                if !self.released.contains(&key) {
                    return Err(format!("{agent} acts on {command}, which was not released to it"));
                }
                self.acted.insert(key.clone());
                return self.check(&key);
            }
            _ => {}
        }
        Ok(())
    }
}
