//! How the command line shows a node.

use serde::Serialize;
use skep_client::v1;

use crate::cli::Failure;
use crate::cli::fault::FaultView;
use crate::cli::output::{Format, one, span};

#[derive(Serialize)]
pub(super) struct Status {
    node: String,
    name: String,
    site: String,
    incarnation: String,
    version: String,
    pid: u32,
    uptime_ms: u64,
    shards: Vec<u32>,
    control: Vec<String>,
    mesh: Vec<String>,
    mesh_overflow: u64,
    mesh_invalid: u64,
    peers: Vec<Peer>,
    faults: Vec<FaultView>,
}

#[derive(Serialize)]
struct Peer {
    node: String,
    name: String,
    control_up: bool,
    mesh_up: bool,
    control: String,
    last_error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_permille: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_s: Option<u64>,
}

impl Peer {
    /// The link to the peer, as far as the node measured it.
    fn link(&self) -> String {
        let rtt = self.rtt_ms.map(|ms| format!(", round trip {ms} ms")).unwrap_or_default();
        let lost = self.lost_permille.map(|lost| format!(", lost {}.{} %", lost / 10, lost % 10)).unwrap_or_default();
        let rate = self.bytes_per_s.map(|rate| format!(", {} kB/s", rate / 1_000)).unwrap_or_default();
        format!("{rtt}{lost}{rate}")
    }
}

impl From<v1::PeerStatus> for Peer {
    fn from(peer: v1::PeerStatus) -> Self {
        Self {
            node: peer.node,
            name: peer.name,
            control_up: peer.control_up,
            mesh_up: peer.mesh_up,
            control: peer.control_address,
            last_error: peer.last_error,
            rtt_ms: peer.rtt_ms,
            lost_permille: peer.lost_permille,
            bytes_per_s: peer.bytes_per_s,
        }
    }
}

impl From<v1::NodeStatusReply> for Status {
    fn from(reply: v1::NodeStatusReply) -> Self {
        Self {
            node: reply.node,
            name: reply.name,
            site: reply.site,
            incarnation: reply.incarnation,
            version: reply.version,
            pid: reply.pid,
            uptime_ms: reply.uptime_ms,
            shards: reply.shards,
            control: reply.control_addresses,
            mesh: reply.mesh_addresses,
            mesh_overflow: reply.mesh_overflow,
            mesh_invalid: reply.mesh_invalid,
            peers: reply.peers.into_iter().map(Peer::from).collect(),
            faults: reply.faults.into_iter().map(FaultView::from).collect(),
        }
    }
}

impl Status {
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let up = |up: bool| if up { "up" } else { "down" };
        let mut lines = vec![
            ("node", self.node.clone()),
            ("name", self.name.clone()),
            ("site", self.site.clone()),
            ("incarnation", self.incarnation.clone()),
            ("version", self.version.clone()),
            ("pid", self.pid.to_string()),
            ("uptime", span(self.uptime_ms)),
            ("shards", format!("{:?}", self.shards)),
            ("control", self.control.join(" ")),
            ("mesh", self.mesh.join(" ")),
            ("dropped", format!("{} without room, {} not accepted", self.mesh_overflow, self.mesh_invalid)),
        ];
        for peer in &self.peers {
            let why = if peer.control_up { "" } else { &peer.last_error };
            let (control, mesh) = (up(peer.control_up), up(peer.mesh_up));
            let link = peer.link();
            lines.push(("peer", format!("{} {} control {control}, mesh {mesh}{link} {why}", peer.node, peer.name)));
        }
        lines.extend(self.faults.iter().flat_map(FaultView::lines));
        one(format, self, &lines)
    }
}
