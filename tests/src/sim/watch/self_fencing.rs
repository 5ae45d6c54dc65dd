//! S7: self-fencing.

use std::collections::BTreeMap;

use skep_protocol::change::ChangeKind;
use skep_protocol::ids::TaskId;
use skep_protocol::task::{ReclaimCause, TaskChange};

use super::{Invariant, Seen};

/// Once a later claim is committed, or the end of the holder's lease is, the holder of the earlier claim never finds
/// that it may go on. This is in true time, which neither of them knows.
#[derive(Default)]
pub(super) struct SelfFencing {
    next: u64,
    /// The least claim that a holder may still believe in, by task, and since when.
    least: BTreeMap<TaskId, (u64, u64)>,
}

impl SelfFencing {
    fn fence(&mut self, task: TaskId, least: u64, now: u64) {
        let known = self.least.entry(task).or_insert((least, now));
        if known.0 < least {
            *known = (least, now);
        }
    }
}

impl Invariant for SelfFencing {
    fn name(&self) -> &'static str {
        "S7"
    }

    fn see(&mut self, seen: &Seen, now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for change in &applied.changes {
                    let ChangeKind::Task { task, change } = &change.what else { continue };
                    match change {
                        TaskChange::Claimed { epoch, .. } => self.fence(*task, epoch.0, now),
                        TaskChange::Reclaimed { epoch, cause: ReclaimCause::LeaseExpired, .. } => {
                            self.fence(*task, epoch.0 + 1, now);
                        }
                        _ => {}
                    }
                }
            }
            Seen::Checked { robot, task, epoch } => {
                let known = self.least.get(task).filter(|(least, _)| least > epoch);
                if let Some((least, since)) = known {
                    let ago = now - since;
                    return Err(format!(
                        "robot-{robot} believed in claim {epoch} of {task} {ago} ms after claims below {least} had ended"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
