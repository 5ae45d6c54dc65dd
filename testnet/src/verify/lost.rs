//! Lost: what was acknowledged comes to an end.

use std::collections::BTreeMap;

use super::Evidence;
use crate::record::{Op, TaskRecord};

/// Acknowledged orders that have not ended.
pub(super) fn lost(evidence: &Evidence) -> Vec<String> {
    let tasks = evidence.voters.first().map(|voter| voter.tasks.as_slice()).unwrap_or_default();
    let tasks: BTreeMap<&str, &TaskRecord> = tasks.iter().map(|task| (task.task.as_str(), task)).collect();
    let created = evidence.acknowledged().filter(|(call, _)| call.op == Op::Create).map(|(call, _)| call.task.as_str());
    created.filter(|task| !tasks.get(task).is_some_and(|task| task.has_ended())).map(str::to_owned).collect()
}

/// Every order that was acknowledged has ended.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    lost(evidence).into_iter().map(|task| format!("task {task} was acknowledged and has not ended")).collect()
}
