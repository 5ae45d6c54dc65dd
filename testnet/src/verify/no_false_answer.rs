//! S10: what was said not to be done was not done.

use std::collections::BTreeSet;

use super::Evidence;
use crate::record::{ClientRecord, Op};

/// The log has no order whose creation was refused for good, nor an end or a report that the shard refused. A report
/// has no request id, so that the check looks for its content: how far its claim had come.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let created = evidence.changes().iter().filter(|change| change.change == "created");
    let created: BTreeSet<&str> = created.map(|change| change.task.as_str()).collect();
    let completed = evidence.changes().iter().filter(|change| change.change == "completed");
    let completed: BTreeSet<(&str, u64)> = completed.map(|change| (change.task.as_str(), change.epoch)).collect();
    let mut found = Vec::new();
    for (client, history) in &evidence.clients {
        for record in history {
            let ClientRecord::Fail { call, why, .. } = record else { continue };
            let done = match call.op {
                Op::Create => created.contains(call.task.as_str()),
                Op::Complete => completed.contains(&(call.task.as_str(), call.epoch)),
                Op::Progress | Op::Read => false,
            };
            if done {
                let (op, task) = (call.op, &call.task);
                found.push(format!("{client} was told that {op:?} of task {task} was not done ({why}), and it was"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Call, ChangeRecord, VoterRecord};

    fn judge(op: Op, change: &str) -> usize {
        let call = Call { client: "c".to_owned(), op, task: "t".to_owned(), epoch: 1, errands: 0 };
        let history = vec![ClientRecord::Fail { at_ns: 1, call, why: "no".to_owned() }];
        let (task, change) = ("t".to_owned(), change.to_owned());
        let changes = vec![ChangeRecord { task, change, epoch: 1, ..ChangeRecord::default() }];
        let clients = [("c".to_owned(), history)].into();
        let voters = vec![VoterRecord { changes, ..VoterRecord::default() }];
        check(&Evidence { clients, voters, ..Evidence::default() }).len()
    }

    #[test]
    fn a_false_definite_failure_is_found() {
        assert_eq!(judge(Op::Create, "created"), 1);
        assert_eq!(judge(Op::Complete, "completed"), 1);
        assert_eq!(judge(Op::Complete, "reclaimed"), 0);
        assert_eq!(judge(Op::Read, "created"), 0);
    }
}
