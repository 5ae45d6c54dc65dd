//! What the swarm does on every connection.

use libp2p::swarm::NetworkBehaviour;
use libp2p::{allow_block_list, connection_limits, identify, identity, ping};

/// Name of the protocols that peers must share.
const PROTOCOL: &str = "/skep/1";
/// Connections that may be shaking hands at a time, each way. One more is refused.
const PENDING_MAX: u32 = 64;
/// Connections to one peer: both sides may dial at once.
const PER_PEER_MAX: u32 = 2;

/// The guards come first: the first that refuses a connection wins.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) admitted: allow_block_list::Behaviour<allow_block_list::AllowedPeers>,
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(key: &identity::Keypair, peers_max: u32) -> Self {
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_pending_outgoing(Some(PENDING_MAX))
            .with_max_established(Some(PER_PEER_MAX.saturating_mul(peers_max.max(1))))
            .with_max_established_per_peer(Some(PER_PEER_MAX));
        let about = identify::Config::new(PROTOCOL.to_owned(), key.public())
            .with_agent_version(format!("skep/{}", env!("CARGO_PKG_VERSION")));
        Self {
            admitted: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(limits),
            identify: identify::Behaviour::new(about),
            ping: ping::Behaviour::new(ping::Config::new()),
        }
    }
}
