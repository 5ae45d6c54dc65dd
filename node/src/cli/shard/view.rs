//! How the command line shows a shard.

use serde::Serialize;
use skep_client::v1::{ShardRecovered, ShardStatusReply, Voter};
use skep_client::{Genesis, OperatorKey};

use crate::cli::Failure;
use crate::cli::fault::FaultView;
use crate::cli::output::{Format, Row, one, span};

#[derive(Serialize)]
pub(super) struct VoterView {
    node: String,
    name: String,
    incarnation: String,
    raft_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    standing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet_version_min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet_version_max: Option<u32>,
}

impl Row for VoterView {
    const COLUMNS: &'static [&'static str] = &["node", "name", "raft id", "matched", "standing"];
    fn cells(&self) -> Vec<String> {
        let matched = self.matched.map(|index| index.to_string()).unwrap_or_default();
        vec![self.node.clone(), self.name.clone(), self.raft_id.clone(), matched, self.standing.clone()]
    }
}

/// The rows of voters.
pub(super) fn views(voters: Vec<Voter>) -> Vec<VoterView> {
    let view = |voter: Voter| VoterView {
        node: voter.node,
        name: voter.name,
        incarnation: voter.incarnation,
        raft_id: voter.raft_id,
        matched: voter.matched,
        standing: voter.standing,
        heard_ms: voter.heard_ms,
        fleet_version_min: voter.fleet_version_min,
        fleet_version_max: voter.fleet_version_max,
    };
    voters.into_iter().map(view).collect()
}

#[derive(Serialize)]
pub(super) struct Status {
    shard: u32,
    role: String,
    term: u64,
    leader: String,
    connectivity: String,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    purged_index: u64,
    digest: String,
    clock: u64,
    fleet_version: u32,
    fleet_version_max: u32,
    fleet_version_held_back_by: Vec<String>,
    genesis: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<RecoveredFrom>,
    pending: u64,
    claimed: u64,
    terminal: u64,
    agents: u64,
    dedup_ids: u64,
    dropped_tasks: u64,
    dropped_commands: u64,
    dropped_dead_letters: u64,
    dropped_request_ids: u64,
    dropped_agents: u64,
    dropped_operators: u64,
    log_bytes: u64,
    history_begins_index: u64,
    history_next_index: u64,
    history_missing: u64,
    history_lost: u64,
    history_bytes: u64,
    history_queued_bytes: u64,
    history_given_back: u64,
    fault: String,
    faults: Vec<FaultView>,
    voters: Vec<VoterView>,
}

/// The last recovery of the shard.
#[derive(Serialize)]
struct RecoveredFrom {
    from_genesis: String,
    last_index: u64,
    operator: String,
}

impl From<ShardRecovered> for RecoveredFrom {
    fn from(recovered: ShardRecovered) -> Self {
        let operator: Option<[u8; 32]> = recovered.operator.as_slice().try_into().ok();
        Self {
            from_genesis: genesis_text(&recovered.from_genesis),
            last_index: recovered.last_index,
            operator: operator.map(|bytes| OperatorKey::from_bytes(bytes).to_string()).unwrap_or_default(),
        }
    }
}

/// A genesis as people compare it; empty if there is none yet.
fn genesis_text(bytes: &[u8]) -> String {
    let genesis: Option<[u8; 16]> = bytes.try_into().ok();
    genesis.map(|bytes| Genesis::from_bytes(bytes).to_string()).unwrap_or_default()
}

impl From<ShardStatusReply> for Status {
    fn from(reply: ShardStatusReply) -> Self {
        let (history, dropped) = (reply.history.unwrap_or_default(), reply.dropped.unwrap_or_default());
        Self {
            shard: reply.shard,
            role: reply.role,
            term: reply.term,
            leader: reply.leader,
            connectivity: reply.connectivity,
            last_log_index: reply.last_log_index,
            committed_index: reply.committed_index,
            applied_index: reply.applied_index,
            snapshot_index: reply.snapshot_index,
            purged_index: reply.purged_index,
            digest: reply.digest,
            clock: reply.clock,
            fleet_version: reply.fleet_version,
            fleet_version_max: reply.fleet_version_max,
            fleet_version_held_back_by: reply.fleet_version_held_back_by,
            genesis: genesis_text(&reply.genesis),
            recovered: reply.recovered.map(RecoveredFrom::from),
            pending: reply.pending,
            claimed: reply.claimed,
            terminal: reply.terminal,
            agents: reply.agents,
            dedup_ids: reply.dedup_ids,
            dropped_tasks: dropped.tasks,
            dropped_commands: dropped.commands,
            dropped_dead_letters: dropped.dead_letters,
            dropped_request_ids: dropped.request_ids,
            dropped_agents: dropped.agents,
            dropped_operators: dropped.operators,
            log_bytes: reply.log_bytes,
            history_begins_index: history.begins_index,
            history_next_index: history.next_index,
            history_missing: history.missing,
            history_lost: history.lost,
            history_bytes: history.bytes,
            history_queued_bytes: history.queued_bytes,
            history_given_back: history.given_back,
            fault: reply.fault,
            faults: reply.faults.into_iter().map(FaultView::from).collect(),
            voters: views(reply.voters),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Leader {
    pub(super) leader: String,
}

#[derive(Serialize)]
pub(super) struct DumpRow {
    pub(super) task: String,
    pub(super) status: String,
    pub(super) epoch: u64,
    pub(super) attempts: u32,
}

/// The version of the entries, and the voters that keep it from being raised.
fn fleet_version(status: &Status) -> String {
    let name = |node: &String| {
        let voter = status.voters.iter().find(|voter| voter.node == *node);
        let name = voter.map(|voter| voter.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(node.as_str());
        match voter.and_then(|voter| voter.fleet_version_max) {
            Some(max) => format!("{name}, which speaks up to {max}"),
            None => format!("{name}, which is not connected"),
        }
    };
    let held_back_by: Vec<String> = status.fleet_version_held_back_by.iter().map(name).collect();
    let (version, max) = (status.fleet_version, status.fleet_version_max);
    match held_back_by.is_empty() {
        true => version.to_string(),
        false => format!("{version}; {max} is held back by {}", held_back_by.join("; ")),
    }
}

fn history(status: &Status) -> String {
    let (begins, next) = (status.history_begins_index, status.history_next_index);
    let mut text = format!("entries {begins} to {next}, {} bytes", status.history_bytes);
    if status.history_missing > 0 {
        text += &format!(", {} of them are being fetched", status.history_missing);
    }
    if status.history_lost > 0 {
        text += &format!(", {} of them are lost", status.history_lost);
    }
    if begins > 0 {
        text += &format!("; what {begins} before them did is gone");
    }
    if status.history_given_back > 0 {
        text += &format!(", {} of them for want of disk space", status.history_given_back);
    }
    text
}

/// The shard from which this one goes on, if it was recovered.
fn recovered(recovered: &RecoveredFrom) -> String {
    let RecoveredFrom { from_genesis, last_index, operator } = recovered;
    format!("from genesis {from_genesis}, up to entry {last_index}, by operator {operator}")
}

/// What the shard dropped because it keeps no more, and how much of it.
fn dropped(status: &Status) -> String {
    let kinds = [
        ("tasks", status.dropped_tasks),
        ("commands", status.dropped_commands),
        ("dead letters", status.dropped_dead_letters),
        ("request ids", status.dropped_request_ids),
        ("agents", status.dropped_agents),
        ("operators", status.dropped_operators),
    ];
    let some = kinds.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(what, count)| format!("{what} {count}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

impl Status {
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let mut lines = vec![
            ("shard", self.shard.to_string()),
            ("role", self.role.clone()),
            ("term", self.term.to_string()),
            ("leader", self.leader.clone()),
            ("connectivity", self.connectivity.clone()),
            (
                "applied",
                format!("{} of {} (committed {})", self.applied_index, self.last_log_index, self.committed_index),
            ),
            ("snapshot", format!("{} (purged {})", self.snapshot_index, self.purged_index)),
            ("history", history(self)),
            ("digest", self.digest.clone()),
            (
                "clock",
                if self.clock == 0 {
                    String::new()
                } else {
                    skep_protocol::time::LogInstant::from_raw(self.clock).to_string()
                },
            ),
            ("fleet version", fleet_version(self)),
            ("genesis", self.genesis.clone()),
            ("recovered", self.recovered.as_ref().map(recovered).unwrap_or_default()),
            ("tasks", format!("{} pending, {} claimed, {} ended", self.pending, self.claimed, self.terminal)),
            ("agents", self.agents.to_string()),
            ("dropped", dropped(self)),
        ];
        for voter in &self.voters {
            let matched = voter.matched.map(|index| format!(" matched {index}")).unwrap_or_default();
            let heard = voter.heard_ms.map(|ms| format!(", answered {} ago", span(ms))).unwrap_or_default();
            let standing = if voter.standing == "voter" { String::new() } else { format!(", {}", voter.standing) };
            lines.push(("voter", format!("{} {}{matched}{heard}{standing}", voter.node, voter.name)));
        }
        lines.extend(self.faults.iter().flat_map(FaultView::lines));
        one(format, self, &lines)
    }
}

#[cfg(test)]
mod tests {
    use skep_client::v1::{DroppedCounts, HistoryStatus};

    use super::*;

    #[test]
    fn what_was_dropped_is_told_by_kind_as_text_and_as_json() {
        let counts = DroppedCounts { tasks: 3, request_ids: 1, ..DroppedCounts::default() };
        let status = Status::from(ShardStatusReply { dropped: Some(counts), ..ShardStatusReply::default() });
        assert_eq!(dropped(&status), "tasks 3, request ids 1");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((json["dropped_tasks"].as_u64(), json["dropped_agents"].as_u64()), (Some(3), Some(0)));
        assert_eq!(dropped(&Status::from(ShardStatusReply::default())), "nothing");
    }

    #[test]
    fn a_history_says_how_much_of_it_is_gone_and_what_went_for_want_of_room() {
        let of = |begins_index, given_back| {
            let of = HistoryStatus { begins_index, next_index: 90, given_back, ..HistoryStatus::default() };
            history(&Status::from(ShardStatusReply { history: Some(of), ..ShardStatusReply::default() }))
        };
        assert_eq!(of(0, 0), "entries 0 to 90, 0 bytes");
        assert_eq!(of(40, 0), "entries 40 to 90, 0 bytes; what 40 before them did is gone");
        assert!(of(40, 10).ends_with("what 40 before them did is gone, 10 of them for want of disk space"));
    }
}
