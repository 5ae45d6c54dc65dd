//! S6: one owner.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::change::ChangeKind;
use skep_protocol::ids::TaskId;
use skep_protocol::task::TaskChange;
use skep_protocol::text::AgentId;

use super::{Invariant, Seen};

/// Epochs of a task rise, each has one owner, and the resource accepts none below one that it has seen.
#[derive(Default)]
pub(super) struct OneOwner {
    next: u64,
    owners: BTreeMap<TaskId, (u64, AgentId)>,
    /// Tasks whose latest claim has ended.
    ended: BTreeSet<TaskId>,
    at_resource: BTreeMap<String, u64>,
}

impl OneOwner {
    fn check_stands(&self, task: &TaskId, epoch: u64) -> Result<(), String> {
        let known = self.owners.get(task).map_or(0, |(known, _)| *known);
        if known != epoch || self.ended.contains(task) {
            let ended = if self.ended.contains(task) { "has ended" } else { "stands" };
            return Err(format!("{task}: claim {epoch} was heard while claim {known} {ended}"));
        }
        Ok(())
    }
}

impl Invariant for OneOwner {
    fn name(&self) -> &'static str {
        "S6"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for change in &applied.changes {
                    let ChangeKind::Task { task, change } = &change.what else { continue };
                    match change {
                        TaskChange::Claimed { by, epoch, .. } => {
                            self.ended.remove(task);
                            let former = self.owners.insert(*task, (epoch.0, by.clone()));
                            if let Some((known, owner)) = former.filter(|(known, _)| *known >= epoch.0) {
                                return Err(format!(
                                    "{task}: claim {} of {by} after claim {known} of {owner}",
                                    epoch.0
                                ));
                            }
                        }
                        TaskChange::Progressed { epoch, .. } => self.check_stands(task, epoch.0)?,
                        TaskChange::Completed { epoch, by, .. } => {
                            self.check_stands(task, epoch.0)?;
                            if self.owners.get(task).is_some_and(|(_, owner)| owner != by) {
                                return Err(format!("{task}: {by} completed it under another's claim {}", epoch.0));
                            }
                            self.ended.insert(*task);
                        }
                        TaskChange::Retried { epoch, .. } | TaskChange::Reclaimed { epoch, .. } => {
                            self.check_stands(task, epoch.0)?;
                            self.ended.insert(*task);
                        }
                        _ => {}
                    }
                }
            }
            Seen::Attempted { question, refused: None } => {
                let known = self.at_resource.entry(question.task.clone()).or_default();
                if question.epoch < *known {
                    return Err(format!("task {}: claim {} acted after claim {known}", question.task, question.epoch));
                }
                *known = question.epoch;
            }
            _ => {}
        }
        Ok(())
    }
}
