//! The configuration as it is written, before anything is checked.

use serde::{Deserialize, Serialize};

/// A configuration file. Every key may be missing; an unknown one is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `lan`, `wan` or `sim`.
    pub preset: Option<String>,
    /// Who the node is.
    pub node: RawNode,
    /// The control plane.
    pub control: RawControl,
    /// The data plane.
    pub mesh: RawMesh,
    /// The local API.
    pub api: RawApi,
    /// The durable store.
    pub store: RawStore,
    /// Agents that this node serves.
    pub agents: RawAgents,
    /// What only a testnet may be told.
    pub testnet: RawTestnet,
    /// Nodes to admit and dial.
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
    /// Who the node is.
    RawNode {
        /// For people.
        name: String,
        /// The trust domain.
        site: String,
        /// File of its history.
        history: String,
    }
}

raw_section! {
    /// What only a testnet may be told.
    RawTestnet {
        /// File that names the peers that are cut off.
        cuts: String,
    }
}

raw_section! {
    /// The control plane.
    RawControl {
        /// UDP address.
        listen: String,
        /// Interval of heartbeats.
        heartbeat_ms: u64,
        /// Shortest silence of a leader that is taken for a failure.
        silence_ms_min: u64,
        /// A voter asks for votes at least this often while nobody leads.
        silence_ms_max: u64,
        /// Patience with a call on a quick link.
        rpc_timeout_ms: u64,
        /// Silence after which a connection is given up.
        idle_timeout_ms: u64,
        /// Entries between snapshots.
        snapshot_every_entries: u64,
        /// Entries kept behind a snapshot for followers that lag.
        entries_kept: u64,
        /// Rate of a snapshot on the wire.
        snapshot_bytes_per_s: u64,
        /// Who gets a task: `round-robin` or `nearest`.
        policy: String,
    }
}

raw_section! {
    /// Agents that this node serves.
    RawAgents {
        /// Lease of an agent that asks for none of its own.
        lease_ttl_ms: u64,
        /// Interval of heartbeats to the orchestrator.
        heartbeat_ms: u64,
    }
}

raw_section! {
    /// The data plane.
    RawMesh {
        /// Address for UDP and TCP.
        listen: String,
        /// Whether peers on the same network are looked for with multicast DNS.
        mdns: bool,
    }
}

raw_section! {
    /// The local API.
    RawApi {
        /// Loopback TCP address, or `off`.
        listen: String,
    }
}

raw_section! {
    /// The durable store.
    RawStore {
        /// Free space below which new work is refused.
        low_water_bytes: u64,
        /// Size of a log segment.
        segment_bytes: u64,
        /// How long the history is kept.
        history_days: u64,
        /// Bytes of history beyond which the oldest goes.
        history_bytes: u64,
    }
}

/// A node to admit and dial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPeer {
    /// Its PeerId.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// UDP address of its control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Multiaddress of its mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// Whether it votes, or may come to: what it says of a shard is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voter: Option<bool>,
}
