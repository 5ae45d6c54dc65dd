//! S1: no lost ack.

use std::collections::BTreeMap;

use skep_fleet::FleetState;
use skep_protocol::entry::{EntryBody, Op};
use skep_protocol::ids::{RequestId, TaskId};
use skep_protocol::settled::Settled;
use skep_protocol::task::TaskOp;

use super::{Invariant, Seen};

/// Everything that was acknowledged is in the log that all voters hold at the end.
#[derive(Default)]
pub(super) struct NothingLost {
    /// The first index of each request in the log.
    logged: BTreeMap<RequestId, u64>,
    /// Acknowledged requests, their indexes as the answers say, and the task if they made one.
    acknowledged: BTreeMap<RequestId, (u64, Option<TaskId>)>,
}

impl Invariant for NothingLost {
    fn name(&self) -> &'static str {
        "S1"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, entry: Some(entry), .. } => {
                if let EntryBody::Requests(requests) = &entry.body {
                    for request in requests {
                        self.logged.entry(request.id).or_insert(position.index);
                    }
                }
            }
            Seen::Ended { request, settled: Settled::Done { index, .. }, .. } => {
                let task = match &request.op {
                    Op::Task(TaskOp::Create { task, .. }) => Some(*task),
                    _ => None,
                };
                self.acknowledged.insert(request.id, (*index, task));
                if self.logged.get(&request.id).is_none_or(|at| at > index) {
                    return Err(format!(
                        "{} is acknowledged at entry {index} and is not in the log by then",
                        request.id
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, states: &[&FleetState]) -> Result<(), String> {
        for (request, (index, task)) in &self.acknowledged {
            for state in states {
                if state.applied().is_none_or(|applied| applied.index < *index) {
                    return Err(format!(
                        "{request} is acknowledged at entry {index}; a voter does not hold that entry"
                    ));
                }
                if let Some(task) = task.filter(|task| state.task(task).is_none()) {
                    return Err(format!("the creation of {task} is acknowledged; a voter does not know the task"));
                }
            }
        }
        Ok(())
    }
}
