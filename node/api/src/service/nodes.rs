//! The node itself.

use skep_proto::{convert, v1};

use super::Host;
use crate::calls::Call;
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Nodes {
    host: Host,
}

impl Nodes {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    pub(crate) async fn status(&self) -> Result<v1::NodeStatusReply, Failed> {
        let view = self.host.calls.ask(|answer| Call::NodeStatus { answer }).await;
        let view = view.map_err(|_| Failed::stopping())?;
        let peers = view.peers.into_iter().map(|peer| v1::PeerStatus {
            node: peer.node.to_string(),
            name: peer.name.unwrap_or_default(),
            control_up: peer.control_up,
            mesh_up: peer.mesh_up,
            control_address: peer.control_address.unwrap_or_default(),
            last_error: peer.last_error.unwrap_or_default(),
            rtt_ms: peer.rtt_ms,
            lost_permille: peer.lost_permille,
            bytes_per_s: peer.bytes_per_s,
        });
        Ok(v1::NodeStatusReply {
            node: view.node.to_string(),
            name: view.name,
            site: view.site,
            incarnation: view.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: view.uptime_ms,
            peers: peers.collect(),
            shards: view.shards,
            pid: std::process::id(),
            control_addresses: view.control_address.into_iter().collect(),
            mesh_addresses: view.mesh_addresses,
            mesh_overflow: view.mesh_overflow,
            mesh_invalid: view.mesh_invalid,
            faults: view.faults.into_iter().map(|(shard, report)| convert::fault_to_proto(shard, report)).collect(),
        })
    }

    pub(crate) async fn clock(&self, request: v1::ClockRequest) -> Result<v1::ClockReply, Failed> {
        let clock = self.host.clock(convert::shard_id(request.shard)).await?;
        Ok(v1::ClockReply { clock: clock.raw() })
    }
}
