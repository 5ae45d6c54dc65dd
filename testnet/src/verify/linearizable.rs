//! S9: what clients were told of an order fits one order of things.
//!
//! Every answer names its index in the log, so that the check need not search: the log is the one order, and it must
//! agree with real time and with what reads saw. One pass over the calls of each order, in the order of time.

use std::collections::BTreeMap;

use super::Evidence;
use crate::record::{Call, ChangeRecord, ClientRecord};

/// An answered call.
struct Answered<'a> {
    began_ns: u64,
    ended_ns: u64,
    index: u64,
    call: &'a Call,
    /// What a read saw; none for other calls.
    seen: Option<(&'a str, u64)>,
}

/// The answered calls of each order. A client has one call under way at a time.
fn answered(evidence: &Evidence) -> BTreeMap<&str, Vec<Answered<'_>>> {
    let mut by_task: BTreeMap<&str, Vec<Answered<'_>>> = BTreeMap::new();
    for history in evidence.clients.values() {
        let mut began = None;
        for record in history {
            let answer = match record {
                ClientRecord::Invoke { at_ns, call } => {
                    began = Some((*at_ns, call));
                    continue;
                }
                ClientRecord::Ok { at_ns, call, index, .. } => Some((*at_ns, call, *index, None)),
                ClientRecord::Seen { at_ns, call, index, status, epoch } => {
                    Some((*at_ns, call, *index, Some((status.as_str(), *epoch))))
                }
                ClientRecord::Fail { .. } | ClientRecord::Unknown { .. } => {
                    began = None;
                    continue;
                }
                // A robot's notes of its lease come between.
                ClientRecord::Renewed { .. } | ClientRecord::Fenced { .. } => continue,
            };
            let (Some((ended_ns, call, index, seen)), Some((began_ns, invoked))) = (answer, began.take()) else {
                continue;
            };
            if invoked == call {
                by_task.entry(&call.task).or_default().push(Answered { began_ns, ended_ns, index, call, seen });
            }
        }
    }
    by_task
}

/// No call that began after the answer of another one stands before it in the log.
fn real_time(task: &str, calls: &mut [Answered<'_>], found: &mut Vec<String>) {
    calls.sort_by_key(|call| call.began_ns);
    let mut by_end: Vec<(u64, u64, bool)> =
        calls.iter().map(|call| (call.ended_ns, call.index, call.seen.is_some())).collect();
    by_end.sort_unstable();
    let mut ended = by_end.into_iter().peekable();
    // The latest index that was answered before: of writes, and of reads.
    let (mut written, mut read) = (0, 0);
    for call in calls {
        while let Some((_, index, was_read)) = ended.next_if(|(ended_ns, ..)| *ended_ns < call.began_ns) {
            if was_read { read = read.max(index) } else { written = written.max(index) }
        }
        // Two writes share an entry only if both were under way, and no read that was answered knows of a later one.
        let latest = written.max(read);
        let early = if call.seen.is_some() { call.index < latest } else { call.index <= latest };
        if early {
            let (client, op, index) = (&call.call.client, call.call.op, call.index);
            found.push(format!(
                "{op:?} of task {task} by {client} stands at {index}, before what was answered at {}",
                written.max(read)
            ));
        }
    }
}

/// The status of a task after a transition; none if the transition does not say.
fn status_after(change: &ChangeRecord) -> Option<&'static str> {
    Some(match change.change.as_str() {
        "created" | "reclaimed" | "retried" | "requeued" => "TASK_STATUS_PENDING",
        "claimed" | "progressed" => "TASK_STATUS_CLAIMED",
        "completed" => "TASK_STATUS_COMPLETED",
        "dead-lettered" => "TASK_STATUS_DEAD_LETTERED",
        "cancelled" => "TASK_STATUS_CANCELLED",
        "expired" => "TASK_STATUS_EXPIRED",
        _ => return None,
    })
}

/// Every read saw what the log says at its index.
fn reads(task: &str, calls: &[Answered<'_>], changes: &[&ChangeRecord], found: &mut Vec<String>) {
    for call in calls {
        let Some((status, epoch)) = call.seen else { continue };
        let before = || changes.iter().take_while(|change| change.index <= call.index);
        let expected = before().filter_map(|change| status_after(change)).last();
        let claimed = before().filter(|change| change.change == "claimed").last().map_or(0, |change| change.epoch);
        if expected != Some(status) || claimed != epoch {
            let (client, index) = (&call.call.client, call.index);
            found.push(format!(
                "{client} read {status} under epoch {epoch} of task {task} at {index}, where the log says {} under {claimed}",
                expected.unwrap_or("nothing")
            ));
        }
    }
}

/// Clients agree with the log, with real time, and with each other.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut changes: BTreeMap<&str, Vec<&ChangeRecord>> = BTreeMap::new();
    for change in evidence.changes() {
        changes.entry(&change.task).or_default().push(change);
    }
    let mut found = Vec::new();
    for (task, mut calls) in answered(evidence) {
        real_time(task, &mut calls, &mut found);
        reads(task, &calls, changes.get(task).map(Vec::as_slice).unwrap_or_default(), &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Op, VoterRecord};

    fn call(client: &str, op: Op) -> Call {
        Call { client: client.to_owned(), op, task: "t".to_owned(), epoch: 0, errands: 0 }
    }

    fn wrote(client: &str, from: u64, to: u64, index: u64) -> Vec<ClientRecord> {
        let call = call(client, Op::Progress);
        vec![
            ClientRecord::Invoke { at_ns: from, call: call.clone() },
            ClientRecord::Ok { at_ns: to, call, request: String::new(), index },
        ]
    }

    fn read(client: &str, from: u64, to: u64, index: u64, status: &str, epoch: u64) -> Vec<ClientRecord> {
        let call = call(client, Op::Read);
        vec![
            ClientRecord::Invoke { at_ns: from, call: call.clone() },
            ClientRecord::Seen { at_ns: to, call, index, status: status.to_owned(), epoch },
        ]
    }

    fn change(index: u64, kind: &str, epoch: u64) -> ChangeRecord {
        let (task, change) = ("t".to_owned(), kind.to_owned());
        ChangeRecord { index, task, change, epoch, ..ChangeRecord::default() }
    }

    fn judge(histories: Vec<Vec<ClientRecord>>) -> usize {
        let changes = vec![change(1, "created", 0), change(4, "claimed", 1), change(8, "completed", 1)];
        let clients = histories.into_iter().enumerate().map(|(n, history)| (format!("c{n}"), history)).collect();
        let voters = vec![VoterRecord { changes, ..VoterRecord::default() }];
        check(&Evidence { clients, voters, ..Evidence::default() }).len()
    }

    const PENDING: &str = "TASK_STATUS_PENDING";
    const CLAIMED: &str = "TASK_STATUS_CLAIMED";

    #[test]
    fn what_fits_one_order_is_accepted() {
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), wrote("b", 5, 20, 5)]), 0, "two that were under way together");
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), wrote("b", 11, 20, 6)]), 0);
        assert_eq!(judge(vec![read("a", 0, 10, 3, PENDING, 0), read("b", 11, 20, 7, CLAIMED, 1)]), 0);
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), read("b", 5, 20, 4, CLAIMED, 1)]), 0, "it had not been answered");
    }

    #[test]
    fn known_bad_histories_are_found() {
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), wrote("b", 11, 20, 4)]), 1, "a write that goes back in time");
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), wrote("b", 11, 20, 5)]), 1, "one entry, and not together");
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), read("b", 11, 20, 4, CLAIMED, 1)]), 1, "a stale read");
        let back = vec![read("a", 0, 10, 5, CLAIMED, 1), read("b", 11, 20, 4, CLAIMED, 1)];
        assert_eq!(judge(back), 1, "two reads that go back in time");
        let unseen = vec![read("a", 0, 10, 5, CLAIMED, 1), wrote("b", 11, 20, 4)];
        assert_eq!(judge(unseen), 1, "a write before what a read had seen");
        let mut renewed = wrote("b", 11, 20, 4);
        renewed.insert(1, ClientRecord::Renewed { at_ms: 1, until_ms: 2 });
        assert_eq!(judge(vec![wrote("a", 0, 10, 5), renewed]), 1, "a renewal in between hides nothing");
        assert_eq!(judge(vec![read("a", 0, 10, 5, PENDING, 0)]), 1, "a value that is not the log's");
        assert_eq!(judge(vec![read("a", 0, 10, 5, CLAIMED, 2)]), 1, "an epoch that is not the log's");
        assert_eq!(judge(vec![read("a", 0, 10, 0, PENDING, 0)]), 1, "something out of nothing");
    }
}
