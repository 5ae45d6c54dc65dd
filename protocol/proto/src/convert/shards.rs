//! Shards at the border.

use skep_protocol::fault::FaultReport;
use skep_protocol::ids::NodeId;
use skep_protocol::shard_status::{ShardStatus, VoterStatus};
use skep_protocol::task::Task;
use skep_protocol::time::LogInstant;

use crate::v1;

/// The protobuf form of the voters of a shard.
pub fn voters_to_proto(voters: &[VoterStatus]) -> Vec<v1::Voter> {
    let voter = |voter: &VoterStatus| v1::Voter {
        node: voter.node.to_string(),
        incarnation: voter.incarnation.to_string(),
        raft_id: voter.raft_id.to_string(),
        name: voter.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        matched: voter.matched,
        standing: voter.standing.to_string(),
        heard_ms: voter.heard_ms,
        fleet_version_min: voter.speaks.map(|speaks| speaks.min),
        fleet_version_max: voter.speaks.map(|speaks| speaks.max),
    };
    voters.iter().map(voter).collect()
}

/// The protobuf form of a fault of a shard; shard 0 for a fault of the node.
pub fn fault_to_proto(shard: u32, report: FaultReport) -> v1::Fault {
    v1::Fault {
        shard,
        name: report.fault.name().to_owned(),
        node: report.node.map(|node| node.to_string()).unwrap_or_default(),
        detail: report.detail,
        advice: report.fault.advice().to_owned(),
    }
}

/// The protobuf form of a shard's status. `connectivity`: how the node reaches the shard, in a word.
pub fn shard_status_to_proto(status: ShardStatus, connectivity: String) -> v1::ShardStatusReply {
    v1::ShardStatusReply {
        shard: status.shard.0,
        role: status.role.to_string(),
        term: status.term,
        leader: status.leader.map(|node| node.to_string()).unwrap_or_default(),
        last_log_index: status.last_log.unwrap_or(0),
        committed_index: status.committed.unwrap_or(0),
        applied_index: status.applied.unwrap_or(0),
        snapshot_index: status.snapshot.unwrap_or(0),
        purged_index: status.purged.unwrap_or(0),
        digest: format!("{:032x}", status.digest),
        clock: status.clock.map_or(0, LogInstant::raw),
        fleet_version: status.fleet_version,
        fleet_version_max: status.fleet_version_max,
        fleet_version_held_back_by: status.held_back_by.iter().map(NodeId::to_string).collect(),
        genesis: status.genesis.map(|genesis| genesis.as_bytes().to_vec()).unwrap_or_default(),
        recovered: status.recovery.map(|recovery| v1::ShardRecovered {
            from_genesis: recovery.place.genesis.as_bytes().to_vec(),
            last_index: recovery.last_index,
            operator: recovery.by.as_bytes().to_vec(),
        }),
        voters: voters_to_proto(&status.voters),
        pending: status.counts.pending,
        claimed: status.counts.claimed,
        terminal: status.counts.terminal,
        agents: status.counts.agents,
        dedup_ids: status.dedup_ids,
        dropped: Some(v1::DroppedCounts {
            tasks: status.dropped.tasks,
            commands: status.dropped.commands,
            dead_letters: status.dropped.dead_letters,
            request_ids: status.dropped.request_ids,
            agents: status.dropped.agents,
            operators: status.dropped.operators,
        }),
        connectivity,
        log_bytes: status.log_bytes,
        fault: status.fault.unwrap_or_default(),
        faults: status.faults.into_iter().map(|report| fault_to_proto(status.shard.0, report)).collect(),
        history: Some(v1::HistoryStatus {
            begins_index: status.history.begins,
            next_index: status.history.next,
            missing: status.history.missing,
            lost: status.history.lost,
            bytes: status.history.bytes,
            queued_bytes: status.history.queued_bytes,
            given_back: status.history.given_back,
        }),
    }
}

/// The protobuf form of a task in a dump of a shard.
pub fn dumped_task_to_proto(task: &Task) -> v1::DumpTask {
    v1::DumpTask {
        task_id: task.id.as_bytes().to_vec(),
        status: task.state.status().to_string(),
        epoch: task.epoch.0,
        attempts: task.attempts,
    }
}
