//! S1: no acknowledged write is lost.

use std::collections::BTreeSet;

use super::Evidence;

/// Every request that a client was told is done stands in the history of every voter.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    for voter in &evidence.voters {
        let held: BTreeSet<&str> = voter.changes.iter().map(|change| change.request.as_str()).collect();
        for (call, request) in evidence.acknowledged() {
            if !held.contains(request) {
                let (client, op, task, node) = (&call.client, call.op, &call.task, &voter.head.node);
                found
                    .push(format!("{client} was told that {op:?} of task {task} is done, and {node} does not hold it"));
            }
        }
    }
    found
}
