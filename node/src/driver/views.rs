//! What the API shows of this node and its shards.

use std::time::Duration;

use skep_api::{NodeView, PeerRow, ShardRow};
use skep_config::NodeConfig;
use skep_consensus::ConsensusHandle;
use skep_engine::Connectivity;
use skep_mesh::{MeshHandle, MeshView};
use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::ids::ShardId;
use skep_protocol::pressure::DiskPressure;
use skep_protocol::shard_status::ShardStatus;

/// The fault of the journals, if there is one. It concerns the agents of all shards, so its shard has number 0, which
/// is no shard of work. `takes_urgent` says whether the reserve has room for urgent commands.
fn fault_of_journals(pressure: DiskPressure, takes_urgent: bool) -> Option<(u32, FaultReport)> {
    let detail = match pressure {
        DiskPressure::None => return None,
        DiskPressure::Low => "the node takes no more routine commands for its agents; it takes urgent ones",
        DiskPressure::Exhausted if takes_urgent => {
            "the node takes and begins no routine command for its agents; urgent ones have room that is set aside"
        }
        DiskPressure::Exhausted => {
            "the node takes and begins no command for its agents: urgent ones have used all room that is set aside"
        }
    };
    Some((0, FaultReport { fault: ShardFault::JournalsNearlyFull, node: None, detail: detail.to_owned() }))
}

/// The fault of journals that have no place for a statement that the node saw; `agents` is the number of those
/// journals.
fn fault_of_statements(agents: usize) -> Option<(u32, FaultReport)> {
    let detail = format!("{agents} agents' journals have no place for the number of a grant that replaced another one");
    let report = FaultReport { fault: ShardFault::JournalsLackStatements, node: None, detail };
    (agents > 0).then_some((0, report))
}

/// How long the node reports two processes under one identity after the mesh last met both.
const SHARED_SAID_FOR: Duration = Duration::from_secs(30);

/// The node as it sees itself.
pub(super) fn node_view(
    consensus: &ConsensusHandle,
    mesh: &MeshHandle,
    config: &NodeConfig,
    uptime_ms: u64,
    (journals, takes_urgent, lacking): (DiskPressure, bool, usize),
) -> NodeView {
    let (overflow, invalid) = mesh.dropped().counts();
    let mesh = mesh.view().borrow().clone();
    let peers = consensus.peers().into_iter().map(|peer| PeerRow {
        node: peer.node,
        name: peer.name.map(|name| name.to_string()),
        control_up: peer.up,
        mesh_up: mesh.up.contains(&peer.node),
        control_address: peer.address.map(|address| address.to_string()),
        last_error: if peer.up { None } else { peer.last_error },
        rtt_ms: peer.rtt_ms,
        lost_permille: peer.lost_permille,
        bytes_per_s: peer.bytes_per_s,
    });
    let shards = consensus.shards();
    let of = |shard: &ShardId| consensus.status(*shard).map_or_else(Vec::new, |status| status.faults);
    let faults = shards.iter().flat_map(|shard| of(shard).into_iter().map(move |report| (shard.0, report)));
    // The status of each shard has these faults, too; they are of no shard.
    let of_peers = |fault| matches!(fault, ShardFault::IdentityShared | ShardFault::AnotherShard);
    let faults = faults.filter(|(_, report)| !of_peers(report.fault));
    let faults = faults.chain(faults_of_peers(consensus, &mesh).into_iter().map(|report| (0, report)));
    let faults = faults.chain(fault_of_journals(journals, takes_urgent)).chain(fault_of_statements(lacking));
    NodeView {
        node: consensus.node(),
        name: config.name.to_string(),
        site: config.site.to_string(),
        incarnation: consensus.incarnation().to_string(),
        uptime_ms,
        peers: peers.collect(),
        shards: shards.iter().map(|shard| shard.0).collect(),
        control_address: consensus.address().map(|address| address.to_string()),
        mesh_addresses: mesh.listening,
        mesh_overflow: overflow,
        mesh_invalid: invalid,
        faults: faults.collect(),
    }
}

/// The identities under which two processes run, as the control plane knows them, and as the mesh knows them for peers
/// with which the control plane does not speak; and the peers that are of another shard.
fn faults_of_peers(consensus: &ConsensusHandle, mesh: &MeshView) -> Vec<FaultReport> {
    let mut reports = consensus.faults();
    let recent = mesh.shared.iter().filter(|(_, met)| met.elapsed() <= SHARED_SAID_FOR).map(|(node, _)| *node);
    for node in recent {
        let is_said = |report: &FaultReport| report.fault == ShardFault::IdentityShared && report.node == Some(node);
        if !reports.iter().any(is_said) {
            let detail =
                "two processes join the mesh in turn under this identity, and the mesh keeps the first one".to_owned();
            reports.push(FaultReport { fault: ShardFault::IdentityShared, node: Some(node), detail });
        }
    }
    reports
}

/// A shard as this node sees it. A node that reaches a leader but is not current, or not a member, is not called
/// connected.
pub(super) fn row(status: ShardStatus, connectivity: Connectivity) -> ShardRow {
    let unlike_connected = status.faults.iter().find_map(|report| report.fault.unlike_connected());
    let connectivity = match unlike_connected {
        Some(other) if connectivity == Connectivity::Connected => other.to_owned(),
        Some(_) | None => connectivity.to_string(),
    };
    ShardRow { status, connectivity }
}
