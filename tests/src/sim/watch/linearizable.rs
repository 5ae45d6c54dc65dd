//! S9: linearizable.

use std::collections::BTreeMap;

use skep_protocol::change::ChangeKind;
use skep_protocol::ids::TaskId;
use skep_protocol::query::Answer;
use skep_protocol::settled::Settled;
use skep_protocol::task::TaskChange;

use super::{Invariant, Seen};

/// The order of the log is the order of time: a request that begins after another has ended stands behind it, and a
/// read shows everything that was acknowledged before it began, as the log has it.
#[derive(Default)]
pub(super) struct Linearizable {
    next: u64,
    /// The index of the first entry behind all entries that were acknowledged to any client.
    acknowledged: u64,
    /// The same index at the time when each request began; the next field has it for reads.
    requests: BTreeMap<skep_protocol::ids::RequestId, u64>,
    reads: BTreeMap<usize, u64>,
    /// For each task: from which entry on, which claim, and whether the task has ended.
    versions: BTreeMap<TaskId, Vec<(u64, u64, bool)>>,
}

impl Linearizable {
    fn note(&mut self, index: u64, what: &ChangeKind) {
        let ChangeKind::Task { task, change } = what else { return };
        let versions = self.versions.entry(*task).or_default();
        let (epoch, _) = versions.last().map_or((0, false), |(_, epoch, ended)| (*epoch, *ended));
        let version = match change {
            TaskChange::Claimed { epoch, .. } => (index, epoch.0, false),
            TaskChange::Completed { .. }
            | TaskChange::DeadLettered { .. }
            | TaskChange::Cancelled { .. }
            | TaskChange::Expired => (index, epoch, true),
            _ => (index, epoch, false),
        };
        versions.push(version);
    }

    fn judge(&self, task: TaskId, from: u64, reply: &skep_protocol::query::QueryReply) -> Result<(), String> {
        let at = reply.as_of.index;
        // A reply names the first entry that it does not hold.
        if at < from {
            return Err(format!(
                "a read of {task} is as of entry {at}, and entry {} was acknowledged before",
                from - 1
            ));
        }
        let Answer::Task(view) = &reply.answer else { return Ok(()) };
        let known = self.versions.get(&task).and_then(|all| all.iter().rev().find(|(index, _, _)| *index < at));
        let shown = view.as_ref().map(|view| (view.task.epoch.0, view.task.state.status().is_terminal()));
        let known = known.map(|(_, epoch, ended)| (*epoch, *ended));
        if shown != known {
            return Err(format!("a read of {task} as of entry {at} shows {shown:?}; the log has {known:?}"));
        }
        Ok(())
    }
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "S9"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                applied.changes.iter().for_each(|change| self.note(position.index, &change.what));
            }
            Seen::Invoked { request, .. } => _ = self.requests.insert(request.id, self.acknowledged),
            Seen::Ended { request, settled: Settled::Done { index, .. }, .. } => {
                let before = self.requests.get(&request.id).copied().unwrap_or(0);
                self.acknowledged = self.acknowledged.max(index + 1);
                if *index < before {
                    let id = request.id;
                    return Err(format!(
                        "{id} stands at entry {index}, and entry {} was acknowledged before it began",
                        before - 1
                    ));
                }
            }
            Seen::ReadBegun { customer, .. } => _ = self.reads.insert(*customer, self.acknowledged),
            Seen::ReadEnded { customer, task, reply } => {
                let from = self.reads.remove(customer).unwrap_or(0);
                return self.judge(*task, from, reply);
            }
            _ => {}
        }
        Ok(())
    }
}
