//! `skep node`

use clap::Subcommand;
use serde::Serialize;

use super::output::{one, span};
use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Who the node is and whom it reaches
    Status,
}

#[derive(Serialize)]
struct Status {
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
}

#[derive(Serialize)]
struct Peer {
    node: String,
    name: String,
    control_up: bool,
    mesh_up: bool,
    control: String,
    last_error: String,
}

impl Node {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let Self::Status = self;
        let reply = common.client()?.node_status().await?;
        let peers: Vec<Peer> = reply
            .peers
            .into_iter()
            .map(|peer| Peer {
                node: peer.node,
                name: peer.name,
                control_up: peer.control_up,
                mesh_up: peer.mesh_up,
                control: peer.control_address,
                last_error: peer.last_error,
            })
            .collect();
        let status = Status {
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
            peers,
        };
        let up = |up: bool| if up { "up" } else { "down" };
        let mut lines = vec![
            ("node", status.node.clone()),
            ("name", status.name.clone()),
            ("site", status.site.clone()),
            ("incarnation", status.incarnation.clone()),
            ("version", status.version.clone()),
            ("pid", status.pid.to_string()),
            ("uptime", span(status.uptime_ms)),
            ("shards", format!("{:?}", status.shards)),
            ("control", status.control.join(" ")),
            ("mesh", status.mesh.join(" ")),
            ("dropped", format!("{} without room, {} not accepted", status.mesh_overflow, status.mesh_invalid)),
        ];
        for peer in &status.peers {
            let why = if peer.control_up { "" } else { &peer.last_error };
            let (control, mesh) = (up(peer.control_up), up(peer.mesh_up));
            lines.push(("peer", format!("{} {} control {control}, mesh {mesh} {why}", peer.node, peer.name)));
        }
        one(common.output, &status, &lines)
    }
}
