//! The configuration after the check: one section for each part of the node.

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
    /// The node's names.
    pub node: NodeConfig,
    /// The section of the control plane.
    pub control: ControlConfig,
    /// The section of the mesh.
    pub mesh: MeshConfig,
    /// The section of the API.
    pub api: ApiConfig,
    /// The section of the engine.
    pub engine: EngineConfig,
    /// The section of the checks.
    pub checks: ChecksConfig,
}

/// What the checkers of a run ask of a node. Relative paths are in the node's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChecksConfig {
    /// The file of the history of what the node does, one JSON object a line; none if it keeps none.
    pub history: Option<PathBuf>,
    /// A file that names the peers with which the node does not speak, one a line. Only a node of a testnet has one.
    pub cuts: Option<PathBuf>,
}

/// The only site whose nodes can be cut off from peers.
pub const TESTNET_SITE: &str = "testnet";

/// The node's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name for people.
    pub name: NodeName,
    /// The node's site, which is its trust domain.
    pub site: SiteName,
}

/// How the orchestrator chooses the agent of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Agents get tasks in turns.
    RoundRobin,
    /// The agent that is nearest to where the task begins gets it.
    Nearest,
}

impl std::str::FromStr for Policy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "round-robin" => Ok(Self::RoundRobin),
            "nearest" => Ok(Self::Nearest),
            other => Err(format!("{other:?} is not a policy; use round-robin or nearest")),
        }
    }
}

/// The durable store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The free space below which the node refuses new work, in bytes. Not zero.
    pub low_water_bytes: u64,
    /// The size of a log segment, in bytes.
    pub segment_bytes: u64,
    /// How long the node keeps the history, in days of the shard's clock.
    pub history_days: u64,
    /// How many bytes of history, of all shards, the node keeps; the oldest part goes first.
    pub history_bytes: u64,
}

/// The control plane and the Raft groups on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The UDP address.
    pub listen: SocketAddr,
    /// The interval between a leader's heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// The shortest silence of a leader that counts as a failure, in milliseconds. On slow links and disks it is
    /// longer, as measured.
    pub silence_ms_min: u64,
    /// The longest time that a voter waits before it asks for votes while no node leads, in milliseconds. On slow links
    /// it is longer, as measured.
    pub silence_ms_max: u64,
    /// How long the node waits for a call, in milliseconds. On slow links it is longer, as measured.
    pub rpc_timeout_ms: u64,
    /// The silence after which the node gives up a connection, in milliseconds.
    pub idle_timeout_ms: u64,
    /// The least number of entries between two snapshots: a large state waits for more.
    pub snapshot_every_entries: u64,
    /// The number of entries that a leader keeps behind a snapshot for followers that lag.
    pub entries_kept: u64,
    /// The rate at which a node sends a snapshot, in bytes a second.
    pub snapshot_bytes_per_s: u64,
    /// The policy of this node while it is the orchestrator.
    pub policy: Policy,
    /// The nodes that this node admits.
    pub peers: Vec<PeerConfig>,
    /// The node's names.
    pub node: NodeConfig,
    /// The durable store.
    pub store: StoreConfig,
}

/// The data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// The address for UDP and TCP.
    pub listen: SocketAddr,
    /// Whether the node looks for peers on its network with multicast DNS.
    pub mdns: bool,
    /// The node's site: the node hears no topics and no discovery of another site.
    pub site: SiteName,
    /// The nodes that this node admits.
    pub peers: Vec<PeerConfig>,
}

/// The local API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// The loopback TCP address; none if the node serves its Unix socket only.
    pub listen: Option<SocketAddr>,
    /// The node's site.
    pub site: SiteName,
}

/// The engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// How long a shard is without a leader until the node calls itself without a quorum, in milliseconds.
    pub no_quorum_after_ms: u64,
    /// The shortest wait before the next attempt of a request, in milliseconds.
    pub retry_ms_min: u64,
    /// The longest wait between two attempts of a request, in milliseconds.
    pub retry_ms_max: u64,
    /// How long an attempt may stay without an answer until the node repeats it under the same id, in milliseconds.
    pub attempt_timeout_ms: u64,
    /// The lease of an agent that asks for none of its own.
    pub lease: LeaseTerms,
    /// The interval between heartbeats to the orchestrator, in milliseconds.
    pub heartbeat_ms: u64,
}

/// A node that this node admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The node's id.
    pub id: NodeId,
    /// The node's name for people.
    pub name: Option<NodeName>,
    /// The address of the node's control plane; none if this node does not dial it.
    pub control: Option<SocketAddr>,
    /// The multiaddress of the node's mesh; none if this node does not dial it.
    pub mesh: Option<String>,
    /// Whether the node votes, or may come to: this node takes Raft from it, and believes what it says of a shard. Of
    /// other nodes this node believes those that vote in a shard, as its own replica or a believed node says.
    pub voter: bool,
}

/// Whom a node lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admits {
    /// The peers that its configuration lists.
    Listed,
    /// The members of its site.
    Members,
}

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) key: String,
    pub(crate) why: String,
}

/// How many heartbeats a silence must cover before it counts as a failure.
const FRAMES_PER_SILENCE: u64 = 4;
/// The longest period or patience that can be configured, in milliseconds: an hour.
const PERIOD_MS_MAX: u64 = 60 * 60 * 1_000;

fn invalid(key: &str, why: impl ToString) -> Invalid {
    Invalid { key: key.to_owned(), why: why.to_string() }
}

fn required<T: Clone>(key: &str, value: Option<&T>) -> Result<T, Invalid> {
    value.cloned().ok_or_else(|| invalid(key, "the value is missing"))
}

fn address(key: &str, text: Option<&String>) -> Result<SocketAddr, Invalid> {
    let text = required(key, text)?;
    text.parse().map_err(|_| invalid(key, format!("{text:?} is not an address such as 127.0.0.1:7341")))
}

impl Config {
    /// Checks a merged configuration.
    pub(crate) fn check(raw: &RawConfig, admits: Admits) -> Result<Self, Invalid> {
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
        if admits == Admits::Listed && control.peers.is_empty() {
            check_loopback(&[("control.listen", control.listen), ("mesh.listen", mesh.listen)])?;
        }
        // The mesh listens over UDP and TCP, the control plane over UDP alone, and the API over TCP alone.
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

/// Refuses addresses that other machines reach: the configuration lists no peer that the node could admit there.
fn check_loopback(listeners: &[(&str, SocketAddr)]) -> Result<(), Invalid> {
    match listeners.iter().find(|(_, listen)| !listen.ip().is_loopback()) {
        None => Ok(()),
        Some((key, listen)) => Err(invalid(
            key,
            format!("{listen} is reachable from other machines; list the [[peers]] to admit, or use loopback"),
        )),
    }
}

/// The text in place of an address that turns a listener off.
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
        return Err(invalid(
            "peers",
            format!("{} peers are too many; list at most {}", raw.peers.len(), limits::PEERS_MAX),
        ));
    }
    let mut seen = BTreeSet::new();
    let mut peers = Vec::new();
    for (at, peer) in raw.peers.iter().enumerate() {
        let key = |name: &str| format!("peers.{at}.{name}");
        let id: NodeId = peer.id.parse().map_err(|e| invalid(&key("id"), e))?;
        if !seen.insert(id) {
            return Err(invalid(&key("id"), "the peer is listed twice"));
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
            0 => Err(invalid(&key, "the value is zero")),
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
        let why = "the value is zero; give the free space, in bytes, below which the node refuses new work: without a \
                   limit the node takes work until the disk is full";
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
