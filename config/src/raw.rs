//! The configuration as the file has it, before any check.

use serde::{Deserialize, Serialize};

/// A configuration file. Every key may be missing; an unknown key is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The preset: `lan`, `wan` or `sim`.
    pub preset: Option<String>,
    /// The node's names.
    pub node: RawNode,
    /// The control plane.
    pub control: RawControl,
    /// The data plane.
    pub mesh: RawMesh,
    /// The local API.
    pub api: RawApi,
    /// The durable store.
    pub store: RawStore,
    /// The agents that this node serves.
    pub agents: RawAgents,
    /// Settings that only a node of a testnet takes.
    pub testnet: RawTestnet,
    /// The nodes to admit and dial.
    pub peers: Vec<RawPeer>,
}

macro_rules! raw_section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}

raw_section! {
    /// The node's names.
    RawNode {
        /// The node's name for people.
        name: String,
        /// The name of the node's site, which is its trust domain.
        site: String,
        /// The file of the node's history, in the node's directory.
        history: String,
    }
}

raw_section! {
    /// Settings that only a node of a testnet takes.
    RawTestnet {
        /// The file that names the peers with which the node does not speak.
        cuts: String,
    }
}

raw_section! {
    /// The control plane.
    RawControl {
        /// The UDP address, such as 127.0.0.1:7341.
        listen: String,
        /// The interval between a leader's heartbeats, in milliseconds.
        heartbeat_ms: u64,
        /// The shortest silence of a leader that counts as a failure, in milliseconds.
        silence_ms_min: u64,
        /// The longest time that a voter waits before it asks for votes while no node leads, in milliseconds.
        silence_ms_max: u64,
        /// How long the node waits for a call on a quick link, in milliseconds.
        rpc_timeout_ms: u64,
        /// The silence after which the node gives up a connection, in milliseconds.
        idle_timeout_ms: u64,
        /// The number of entries between two snapshots.
        snapshot_every_entries: u64,
        /// The number of entries that a leader keeps behind a snapshot for followers that lag.
        entries_kept: u64,
        /// The rate at which a node sends a snapshot, in bytes a second.
        snapshot_bytes_per_s: u64,
        /// The policy of the orchestrator: `round-robin` or `nearest`.
        policy: String,
    }
}

raw_section! {
    /// The agents that this node serves.
    RawAgents {
        /// The lease of an agent that asks for none of its own, in milliseconds.
        lease_ttl_ms: u64,
        /// The interval between heartbeats to the orchestrator, in milliseconds.
        heartbeat_ms: u64,
    }
}

raw_section! {
    /// The data plane.
    RawMesh {
        /// The address for UDP and TCP, such as 127.0.0.1:7340.
        listen: String,
        /// Whether the node looks for peers on its network with multicast DNS.
        mdns: bool,
    }
}

raw_section! {
    /// The local API.
    RawApi {
        /// A loopback TCP address, or `off`.
        listen: String,
    }
}

raw_section! {
    /// The durable store.
    RawStore {
        /// The free space below which the node refuses new work, in bytes.
        low_water_bytes: u64,
        /// The size of a log segment, in bytes.
        segment_bytes: u64,
        /// How long the node keeps the history, in days.
        history_days: u64,
        /// How many bytes of history the node keeps; the oldest part goes first.
        history_bytes: u64,
    }
}

/// A node to admit and dial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPeer {
    /// The node's id, as a peer id.
    pub id: String,
    /// The node's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The UDP address of the node's control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// The multiaddress of the node's mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// Whether the node votes, or may come to: this node believes what it says of a shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voter: Option<bool>,
}
