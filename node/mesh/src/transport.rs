//! The swarm and its transports: QUIC and TCP, for links of any delay.
//!
//! A node soon notices that a peer is gone, and does not take a distant peer for one that is gone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, quic, tcp, yamux};
use skep_config::MeshConfig;
use skep_protocol::limits;

use crate::admit::Members;
use crate::behaviour::Behaviour;
use crate::error::MeshError;
use crate::gate::Gate;

/// How long a peer may be silent on QUIC, in milliseconds: longer where three round trips, with their losses, take
/// longer.
const SILENT_MAX_MS: u32 = 10_000;
/// Interval at which a node asks a silent peer on QUIC for a sign of life: one or two lost packets end no connection.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(3);
/// The longest that a QUIC handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The longest that any transport may take to connect: on TCP that is about five round trips.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// The swarm of a node. `process` is another number for each run of the program; `gate` is the gate for all that comes
/// in. `members`: the members of the site, if there is one.
pub(crate) fn swarm(
    key: Keypair,
    config: &MeshConfig,
    process: u64,
    gate: Arc<Gate>,
    members: Option<Members>,
) -> Result<Swarm<Behaviour>, MeshError> {
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|e| MeshError::new(&e))?
        .with_quic_config(patient)
        .with_behaviour(|key| Behaviour::new(key, config, process, gate, members).map_err(Into::into))
        .map_err(|e| MeshError::new(&e))?
        // Listed peers stay connected for as long as both are there.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX))
        .with_connection_timeout(CONNECT_MAX)
        .build();
    Ok(swarm)
}

fn patient(mut config: quic::Config) -> quic::Config {
    config.max_idle_timeout = SILENT_MAX_MS;
    config.keep_alive_interval = KEEP_ALIVE_EVERY;
    config.handshake_timeout = HANDSHAKE_MAX;
    config.max_stream_data = limits::MESH_STREAM_BYTES_MAX;
    config.max_connection_data = limits::MESH_CONNECTION_BYTES_MAX;
    config
}

/// The addresses on which a node listens, with their protocols. On a UDP port the node listens alone or not at all. On
/// a TCP port another node of the same user could listen beside it, and so TCP comes second.
pub(crate) fn listen_addresses(listen: SocketAddr) -> [(&'static str, Multiaddr); 2] {
    let ip: Multiaddr = match listen.ip() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => ip.into(),
    };
    let quic = ip.clone().with(Protocol::Udp(listen.port())).with(Protocol::QuicV1);
    [("QUIC", quic), ("TCP", ip.with(Protocol::Tcp(listen.port())))]
}
