//! The configuration after it is checked: one section per subsystem.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use skep_protocol::ids::NodeId;
use skep_protocol::lease::LeaseTerms;
use skep_protocol::limits;
use skep_protocol::text::{NodeName, SiteName};

use crate::listen::collide;
use crate::preset::Preset;
use crate::raw::RawConfig;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kind of network.
    pub preset: Preset,
    /// Who the node is.
    pub node: NodeConfig,
    /// For the control plane.
    pub control: ControlConfig,
    /// For the mesh.
    pub mesh: MeshConfig,
    /// For the API.
    pub api: ApiConfig,
    /// For the node's brain.
    pub engine: EngineConfig,
    /// For checkers.
    pub checks: ChecksConfig,
}

/// What checkers of a run have the node do. Relative paths are in the node's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChecksConfig {
    /// Where it keeps a history of what it does, one JSON object a line.
    pub history: Option<PathBuf>,
    /// A file that names peers, one a line, with whom it does not speak. Only in a testnet.
    pub cuts: Option<PathBuf>,
}

/// The site of which alone a node can be told whom it does not reach.
pub const TESTNET_SITE: &str = "testnet";

/// Who the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// For people.
    pub name: NodeName,
    /// The trust domain.
    pub site: SiteName,
}

/// Who gets a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Agents in turns.
    RoundRobin,
    /// The agent that is nearest to where the task begins.
    Nearest,
}

impl std::str::FromStr for Policy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "round-robin" => Ok(Self::RoundRobin),
            "nearest" => Ok(Self::Nearest),
            other => Err(format!("{other:?} is no policy; use round-robin or nearest")),
        }
    }
}

/// The durable store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Free space below which new work is refused, in bytes. Not zero.
    pub low_water_bytes: u64,
    /// Size of a log segment, in bytes.
    pub segment_bytes: u64,
    /// How long the history is kept, in days of the shard's clock.
    pub history_days: u64,
    /// Bytes of history, of all shards, beyond which the oldest goes.
    pub history_bytes: u64,
}

/// The control plane and the Raft groups on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// UDP address.
    pub listen: SocketAddr,
    /// Interval of a leader's heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest silence of a leader that is taken for a failure; on slow links and disks it is longer, as measured.
    pub silence_ms_min: u64,
    /// A voter asks for votes at least this often while nobody leads; on slow links it waits for longer, as measured.
    pub silence_ms_max: u64,
    /// Patience with a call; with slow links it is longer, as measured.
    pub rpc_timeout_ms: u64,
    /// Silence after which a connection is given up.
    pub idle_timeout_ms: u64,
    /// Entries between snapshots, at least: one of a large state waits for more.
    pub snapshot_every_entries: u64,
    /// Entries kept behind a snapshot for followers that lag.
    pub entries_kept: u64,
    /// Rate of a snapshot on the wire.
    pub snapshot_bytes_per_s: u64,
    /// Who gets a task, while this node is the orchestrator.
    pub policy: Policy,
    /// Nodes that are admitted.
    pub peers: Vec<PeerConfig>,
    /// Who the node is.
    pub node: NodeConfig,
    /// The durable store.
    pub store: StoreConfig,
}

/// The data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Address for UDP and TCP.
    pub listen: SocketAddr,
    /// Whether peers on the same network are looked for with multicast DNS.
    pub mdns: bool,
    /// The trust domain: topics and discovery of another are not heard.
    pub site: SiteName,
    /// Nodes that are admitted.
    pub peers: Vec<PeerConfig>,
}

/// The local API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Loopback TCP address; none if it serves its Unix socket only.
    pub listen: Option<SocketAddr>,
    /// The trust domain.
    pub site: SiteName,
}

/// The node's brain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Time without a leader after which the node calls itself without quorum.
    pub no_quorum_after_ms: u64,
    /// Wait before a refused request is proposed again.
    pub retry_ms_min: u64,
    /// Longest wait between proposals of one request.
    pub retry_ms_max: u64,
    /// Time without an answer after which a proposal is repeated under the same id.
    pub attempt_timeout_ms: u64,
    /// Lease of an agent that asks for none of its own.
    pub lease: LeaseTerms,
    /// Interval of heartbeats to the orchestrator.
    pub heartbeat_ms: u64,
}

/// A node that is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Who it is.
    pub id: NodeId,
    /// For people.
    pub name: Option<NodeName>,
    /// Where its control plane listens, if it is to be dialled.
    pub control: Option<SocketAddr>,
    /// Where its mesh listens, as a multiaddress, if it is to be dialled.
    pub mesh: Option<String>,
    /// Whether it votes, or may come to: this node takes Raft from it, and believes what it says of a shard. Of all others it
    /// believes those who vote in a shard, as its own replica says or somebody whom it believes.
    pub voter: bool,
}

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) key: String,
    pub(crate) why: String,
}

/// Heartbeats that a silence must swallow before it is taken for a failure.
const FRAMES_PER_SILENCE: u64 = 4;
/// Longest period or patience that can be configured, in milliseconds: an hour.
const PERIOD_MS_MAX: u64 = 60 * 60 * 1_000;

fn invalid(key: &str, why: impl ToString) -> Invalid {
    Invalid { key: key.to_owned(), why: why.to_string() }
}

fn required<T: Clone>(key: &str, value: Option<&T>) -> Result<T, Invalid> {
    value.cloned().ok_or_else(|| invalid(key, "it is missing"))
}

fn address(key: &str, text: Option<&String>) -> Result<SocketAddr, Invalid> {
    let text = required(key, text)?;
    text.parse().map_err(|_| invalid(key, format!("{text:?} is not an address such as 127.0.0.1:7341")))
}

impl Config {
    /// Checks a merged configuration.
    pub(crate) fn check(raw: &RawConfig) -> Result<Self, Invalid> {
        let preset: Preset = raw.preset.as_deref().unwrap_or("lan").parse().map_err(|e| invalid("preset", e))?;
        let name = required("node.name", raw.node.name.as_ref())?;
        let site = required("node.site", raw.node.site.as_ref())?;
        let node = NodeConfig {
            name: NodeName::new(name).map_err(|e| invalid("node.name", e))?,
            site: SiteName::new(site).map_err(|e| invalid("node.site", e))?,
        };
        let peers = peers(raw)?;
        let control = control(raw, peers.clone(), node.clone())?;
        let mesh = MeshConfig {
            listen: address("mesh.listen", raw.mesh.listen.as_ref())?,
            mdns: required("mesh.mdns", raw.mesh.mdns.as_ref())?,
            site: node.site.clone(),
            peers,
        };
        let api = api(raw, &node)?;
        for (key, listen) in [("control.listen", control.listen), ("mesh.listen", mesh.listen)] {
            if !listen.ip().is_loopback() && control.peers.is_empty() {
                return Err(invalid(
                    key,
                    format!("{listen} is reachable from other machines; list the [[peers]] to admit, or use loopback"),
                ));
            }
        }
        // The mesh listens over UDP and TCP, the control plane over one of them, and the API over the other.
        for (key, listen) in [("control.listen", Some(control.listen)), ("api.listen", api.listen)] {
            if let Some(listen) = listen.filter(|listen| collide(*listen, mesh.listen)) {
                return Err(invalid(key, format!("{listen} is where mesh.listen is; each needs a port of its own")));
            }
        }
        let lease = LeaseTerms { ttl_ms: required("agents.lease_ttl_ms", raw.agents.lease_ttl_ms.as_ref())? };
        lease.check().map_err(|e| invalid("agents.lease_ttl_ms", e))?;
        let heartbeat_ms = required("agents.heartbeat_ms", raw.agents.heartbeat_ms.as_ref())?;
        if heartbeat_ms == 0 || heartbeat_ms > lease.ttl_ms / 2 {
            let why = format!("{heartbeat_ms} is not within 1 and half of agents.lease_ttl_ms ({})", lease.ttl_ms);
            return Err(invalid("agents.heartbeat_ms", why));
        }
        let engine = EngineConfig {
            no_quorum_after_ms: control.silence_ms_max * 2,
            retry_ms_min: (control.heartbeat_ms / 5).max(1),
            retry_ms_max: control.silence_ms_min,
            attempt_timeout_ms: control.rpc_timeout_ms,
            lease,
            heartbeat_ms,
        };
        let checks = checks(raw, &node)?;
        Ok(Self { preset, node, control, mesh, api, engine, checks })
    }
}

/// What stands for no address.
const OFF: &str = "off";

fn api(raw: &RawConfig, node: &NodeConfig) -> Result<ApiConfig, Invalid> {
    let key = "api.listen";
    let text = Some(required(key, raw.api.listen.as_ref())?).filter(|text| text != OFF);
    let listen: Option<SocketAddr> = text
        .map(|text| {
            let why = format!("{text:?} is neither an address such as 127.0.0.1:7342 nor \"{OFF}\"");
            text.parse().map_err(|_| invalid(key, why))
        })
        .transpose()?;
    if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) {
        return Err(invalid(key, format!("{listen} is not loopback; the API serves this machine only")));
    }
    Ok(ApiConfig { listen, site: node.site.clone() })
}

fn checks(raw: &RawConfig, node: &NodeConfig) -> Result<ChecksConfig, Invalid> {
    let path = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).map(PathBuf::from);
    let checks = ChecksConfig { history: path(&raw.node.history), cuts: path(&raw.testnet.cuts) };
    if checks.cuts.is_some() && node.site.to_string() != TESTNET_SITE {
        let why = format!("only a node of site {TESTNET_SITE:?} can be cut off; this one is of site {}", node.site);
        return Err(invalid("testnet.cuts", why));
    }
    Ok(checks)
}

impl ControlConfig {
    /// The peers that are marked as voters.
    pub fn marked_voters(&self) -> BTreeSet<NodeId> {
        self.peers.iter().filter(|peer| peer.voter).map(|peer| peer.id).collect()
    }
}

fn peers(raw: &RawConfig) -> Result<Vec<PeerConfig>, Invalid> {
    if raw.peers.len() > limits::PEERS_MAX {
        return Err(invalid("peers", format!("{} are too many; at most {}", raw.peers.len(), limits::PEERS_MAX)));
    }
    let mut seen = BTreeSet::new();
    let mut peers = Vec::new();
    for (at, peer) in raw.peers.iter().enumerate() {
        let key = |name: &str| format!("peers.{at}.{name}");
        let id: NodeId = peer.id.parse().map_err(|e| invalid(&key("id"), e))?;
        if !seen.insert(id) {
            return Err(invalid(&key("id"), "it is listed twice"));
        }
        let control = match &peer.control {
            Some(_) => Some(address(&key("control"), peer.control.as_ref())?),
            None => None,
        };
        if let Some(mesh) = peer.mesh.as_ref().filter(|mesh| !mesh.starts_with('/')) {
            return Err(invalid(&key("mesh"), format!("{mesh:?} is not a multiaddress such as /ip4/…/udp/…/quic-v1")));
        }
        let name = peer.name.as_ref().map(NodeName::new).transpose().map_err(|e| invalid(&key("name"), e))?;
        let voter = peer.voter.unwrap_or(false);
        peers.push(PeerConfig { id, name, control, mesh: peer.mesh.clone(), voter });
    }
    Ok(peers)
}

fn control(raw: &RawConfig, peers: Vec<PeerConfig>, node: NodeConfig) -> Result<ControlConfig, Invalid> {
    let section = &raw.control;
    let number = |key: &str, value: Option<u64>| {
        let key = format!("control.{key}");
        required(&key, value.as_ref()).and_then(|v| match v {
            0 => Err(invalid(&key, "it is zero")),
            v if v > PERIOD_MS_MAX && key.contains("_ms") => {
                Err(invalid(&key, format!("{v} ms are more than an hour")))
            }
            v => Ok(v),
        })
    };
    let config = ControlConfig {
        listen: address("control.listen", section.listen.as_ref())?,
        heartbeat_ms: number("heartbeat_ms", section.heartbeat_ms)?,
        silence_ms_min: number("silence_ms_min", section.silence_ms_min)?,
        silence_ms_max: number("silence_ms_max", section.silence_ms_max)?,
        rpc_timeout_ms: number("rpc_timeout_ms", section.rpc_timeout_ms)?,
        idle_timeout_ms: number("idle_timeout_ms", section.idle_timeout_ms)?,
        snapshot_every_entries: number("snapshot_every_entries", section.snapshot_every_entries)?,
        entries_kept: number("entries_kept", section.entries_kept)?,
        snapshot_bytes_per_s: number("snapshot_bytes_per_s", section.snapshot_bytes_per_s)?,
        policy: required("control.policy", section.policy.as_ref())?
            .parse()
            .map_err(|e| invalid("control.policy", e))?,
        peers,
        node,
        store: store(raw)?,
    };
    let in_order = [
        ("silence_ms_min", config.heartbeat_ms.saturating_mul(FRAMES_PER_SILENCE), config.silence_ms_min),
        ("silence_ms_max", config.silence_ms_min, config.silence_ms_max),
    ];
    for (key, below, value) in in_order {
        if value <= below {
            return Err(invalid(
                &format!("control.{key}"),
                format!("{value} is not above {below}; keep 4 heartbeats < silence min < silence max"),
            ));
        }
    }
    Ok(config)
}

fn store(raw: &RawConfig) -> Result<StoreConfig, Invalid> {
    let config = StoreConfig {
        low_water_bytes: required("store.low_water_bytes", raw.store.low_water_bytes.as_ref())?,
        segment_bytes: required("store.segment_bytes", raw.store.segment_bytes.as_ref())?,
        history_days: required("store.history_days", raw.store.history_days.as_ref())?,
        history_bytes: required("store.history_bytes", raw.store.history_bytes.as_ref())?,
    };
    if config.low_water_bytes == 0 {
        let why = "it is zero; give the free space, in bytes, below which new work is refused: without any, work is taken \
                   until the disk is full";
        return Err(invalid("store.low_water_bytes", why));
    }
    if !(4 * 1024 * 1024..=1024 * 1024 * 1024).contains(&config.segment_bytes) {
        return Err(invalid("store.segment_bytes", "give 4 MiB to 1 GiB"));
    }
    if !(1..=limits::HISTORY_DAYS_MAX).contains(&config.history_days) {
        return Err(invalid("store.history_days", format!("give 1 to {} days", limits::HISTORY_DAYS_MAX)));
    }
    if config.history_bytes < limits::HISTORY_BYTES_MIN {
        return Err(invalid("store.history_bytes", format!("give {} bytes or more", limits::HISTORY_BYTES_MIN)));
    }
    Ok(config)
}
