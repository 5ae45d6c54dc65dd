//! S1: no acknowledged write is lost.

use std::collections::BTreeSet;

use super::Evidence;
use crate::record::Op;
use crate::site::station::Refused;

/// The history of every voter has each request that a client was told is done, and the next holder knew of every such
/// report.
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
    // A robot that asks for an errand that is done was not told of a report that was acknowledged.
    for effect in evidence.effects.iter().filter(|effect| effect.refused == Some(Refused::Duplicate)) {
        let q = &effect.question;
        let reported = evidence.acknowledged().any(|(call, _)| {
            call.op == Op::Progress && call.task == q.task && call.epoch < q.epoch && call.errands > q.errand
        });
        if reported {
            found.push(format!(
                "{} did not know of errand {} of task {}, which was reported",
                q.robot, q.errand, q.task
            ));
        }
    }
    found
}
