//! What the swarm does on every connection.

use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::NetworkBehaviour;
use libp2p::{connection_limits, identify, identity, ping};
use skep_config::MeshConfig;
use skep_protocol::limits;

use crate::admit::{Door, DoorEvent, Members};
use crate::discovery::Discovery;
use crate::error::MeshError;
use crate::gate::Gate;
use crate::gossip::Gossip;

/// Name of the protocols that peers must share.
const PROTOCOL: &str = "/skep/1";
/// The most connections that may be shaking hands at a time, in each direction. The node refuses one more.
const PENDING_MAX: u32 = 64;
/// The most connections to one peer: both sides may dial at once, while a dead connection has not yet been noticed.
const PER_PEER_MAX: u32 = 3;
/// Interval between two pings on each connection, and how long an answer may take. Two pings in a row without an answer
/// end the connection: long enough for a slow link, and for a thin one with much to carry.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The guards come first: the first that refuses a connection wins, and those behind it never hear of it.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) door: Door<Protocols>,
}

/// The protocols that a node speaks with admitted peers.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    gossip: Gossip,
    discovery: Discovery,
}

impl Behaviour {
    /// `process` is another and higher number for each run of the program: peers see by it that a node was started
    /// again. `members`: the members of the site, if there is one; without it, the door admits the listed peers.
    pub(crate) fn new(
        key: &identity::Keypair,
        config: &MeshConfig,
        process: u64,
        gate: Arc<Gate>,
        members: Option<Members>,
    ) -> Result<Self, MeshError> {
        let strangers_max = if members.is_some() { 2 * limits::MESH_STRANGERS_MAX } else { 0 };
        let peers_max = if members.is_some() { limits::MESH_MEMBERS_MAX } else { config.peers.len() };
        let connections_max = peers_max.max(1).saturating_mul(PER_PEER_MAX as usize).saturating_add(strangers_max);
        let bounds = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_pending_outgoing(Some(PENDING_MAX))
            .with_max_established(Some(u32::try_from(connections_max).unwrap_or(u32::MAX)))
            .with_max_established_per_peer(Some(PER_PEER_MAX));
        let about = identify::Config::new(PROTOCOL.to_owned(), key.public())
            .with_agent_version(agent_of(process))
            .with_push_listen_addr_updates(true)
            // Our own table keeps what peers say of themselves.
            .with_cache_size(0);
        let local = key.public().to_peer_id();
        let on_loopback = config.listen.ip().is_loopback();
        let protocols = Protocols {
            identify: identify::Behaviour::new(about),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT)),
            gossip: Gossip::new(&config.site, gate)?,
            discovery: Discovery::new(local, &config.site, config.mdns, on_loopback)?,
        };
        let door = match members {
            Some(members) => Door::of_site(protocols, members).map_err(|e| MeshError::new(&e))?,
            None => Door::of_list(protocols),
        };
        Ok(Self { limits: connection_limits::Behaviour::new(bounds), door })
    }

    pub(crate) fn gossip(&mut self) -> &mut Gossip {
        &mut self.door.inner_mut().gossip
    }

    pub(crate) fn discovery(&mut self) -> &mut Discovery {
        &mut self.door.inner_mut().discovery
    }
}

/// The name of this program and process among peers.
fn agent_of(process: u64) -> String {
    format!("skep/{} {process:016x}", env!("CARGO_PKG_VERSION"))
}

/// The number of the process, from a peer's name for itself.
pub(crate) fn process_of(agent: &str) -> Option<u64> {
    let (_, process) = agent.strip_prefix("skep/")?.split_once(' ')?;
    u64::from_str_radix(process, 16).ok()
}

/// The events of the swarm to which the service reacts.
pub(crate) type Event = BehaviourEvent;
/// The events of the door.
pub(crate) type AtDoor = DoorEvent<ProtocolsEvent>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_the_process_and_understand_it() {
        for process in [0, (1 << 32) + 7, u64::MAX] {
            assert_eq!(process_of(&agent_of(process)), Some(process));
        }
        for bad in ["", "skep/1", "skep/1 x", "other/1 7", "skep/1 10000000000000000"] {
            assert_eq!(process_of(bad), None, "{bad:?}");
        }
    }
}
