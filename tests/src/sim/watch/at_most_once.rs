//! S3: at most once.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::change::ChangeKind;
use skep_protocol::command::CommandChange;
use skep_protocol::ids::{CommandId, RequestId};
use skep_protocol::text::AgentId;
use skep_testnet::site::station::Step;

use super::{Invariant, Seen, effects};

/// A request takes effect in one entry, and an errand of a claim is begun once in the world.
#[derive(Default)]
pub(super) struct AtMostOnce {
    next: u64,
    took_effect: BTreeMap<RequestId, u64>,
    started: BTreeSet<(String, u64, u32)>,
    done: BTreeSet<(String, u32)>,
    /// Commands that a robot may do again if it does not know whether it did them.
    idempotent: BTreeSet<CommandId>,
    obeyed: BTreeSet<(AgentId, CommandId)>,
}

impl Invariant for AtMostOnce {
    fn name(&self) -> &'static str {
        "S3"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for change in &applied.changes {
                    if let ChangeKind::Command { command, change: CommandChange::Accepted { signed, .. } } =
                        &change.what
                        && signed.idempotent
                    {
                        self.idempotent.insert(*command);
                    }
                }
                for request in effects(applied) {
                    let at = *self.took_effect.entry(request).or_insert(position.index);
                    if at != position.index {
                        return Err(format!(
                            "{request} took effect in entry {at} and again in entry {}",
                            position.index
                        ));
                    }
                }
            }
            Seen::Acted { agent, command, .. } => {
                let first = self.obeyed.insert(((*agent).clone(), *command));
                if !first && !self.idempotent.contains(command) {
                    return Err(format!("{agent} begins {command} twice"));
                }
            }
            Seen::Attempted { question, refused: None } => {
                let errand = (question.task.clone(), question.errand);
                if question.step == Step::Done {
                    if self.done.contains(&errand) {
                        return Err(format!("errand {} of task {} was done twice", errand.1, errand.0));
                    }
                    self.done.insert(errand);
                    return Ok(());
                }
                if self.done.contains(&errand) {
                    return Err(format!("errand {} of task {} was begun after it was done", errand.1, errand.0));
                }
                if !self.started.insert((errand.0.clone(), question.epoch, errand.1)) {
                    return Err(format!("errand {} of task {} was begun twice in one claim", errand.1, errand.0));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
