//! The task that owns the swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use skep_config::MeshConfig;
use skep_protocol::ids::NodeId;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::behaviour::Behaviour;

/// Shortest and longest wait between dials of one peer.
const REDIAL_MIN: Duration = Duration::from_millis(200);
const REDIAL_MAX: Duration = Duration::from_secs(30);

/// Why the mesh did not start.
#[derive(Debug, thiserror::Error)]
#[error("the mesh cannot start: {0}")]
pub struct MeshError(String);

/// What the mesh looks like now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// Connected peers.
    pub up: BTreeSet<NodeId>,
    /// Where this node listens, as multiaddresses.
    pub listening: Vec<String>,
    /// Why peers are not connected, as far as that is known.
    pub errors: BTreeMap<NodeId, String>,
}

/// Handle of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct MeshHandle {
    view: watch::Receiver<MeshView>,
}

impl MeshHandle {
    /// Follows what the mesh looks like.
    pub fn view(&self) -> watch::Receiver<MeshView> {
        self.view.clone()
    }
}

/// The running mesh. Dropping it stops the task.
pub struct Mesh {
    handle: MeshHandle,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

struct Service {
    swarm: Swarm<Behaviour>,
    view: watch::Sender<MeshView>,
    /// Peers with an address, and when each is dialled next unless it is up.
    dials: BTreeMap<PeerId, Dial>,
}

struct Dial {
    node: NodeId,
    address: Multiaddr,
    at: Instant,
    wait: Duration,
}

/// What the service waited for.
enum Step {
    Swarm(Box<SwarmEvent<crate::behaviour::BehaviourEvent>>),
    Dial,
    Stop,
}

impl Mesh {
    /// Binds QUIC and TCP, and dials every peer that has an address. `seed` is the node's secret key.
    ///
    /// # Errors
    /// [`MeshError`] if an address cannot be bound or understood.
    pub fn start(seed: [u8; 32], config: &MeshConfig) -> Result<Self, MeshError> {
        let failed = |e: &dyn std::fmt::Display| MeshError(e.to_string());
        let key = Keypair::ed25519_from_bytes(seed).map_err(|e| failed(&e))?;
        let local = key.public().to_peer_id();
        let peers_max = u32::try_from(config.peers.len()).unwrap_or(u32::MAX);
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .map_err(|e| failed(&e))?
            .with_quic()
            .with_behaviour(|key| Behaviour::new(key, peers_max))
            .map_err(|e| failed(&e))?
            // Static peers stay connected for as long as both are there.
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX))
            .build();
        let mut dials = BTreeMap::new();
        for peer in &config.peers {
            let id = peer_id(peer.id).ok_or_else(|| failed(&format!("{} is not a key", peer.id)))?;
            if id == local {
                continue;
            }
            swarm.behaviour_mut().admitted.allow_peer(id);
            if let Some(text) = &peer.mesh {
                let address = text.parse().map_err(|e| failed(&format!("{text:?} of peer {}: {e}", peer.id)))?;
                let dial = Dial { node: peer.id, address, at: Instant::now(), wait: REDIAL_MIN };
                dials.insert(id, dial);
            }
        }
        for address in listen_addresses(config.listen) {
            swarm.listen_on(address).map_err(|e| failed(&format!("{}: {e}", config.listen)))?;
        }
        let (view, seen) = watch::channel(MeshView::default());
        let (stop, stopped) = oneshot::channel();
        let service = Service { swarm, view, dials };
        let task = tokio::spawn(service.run(stopped));
        Ok(Self { handle: MeshHandle { view: seen }, stop: Some(stop), task })
    }

    /// The handle.
    pub fn handle(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// Closes all connections and stops.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.task).await;
    }
}

impl Service {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            match self.select(&mut stopped).await {
                Step::Stop => return,
                Step::Dial => self.dial_due(),
                Step::Swarm(event) => self.apply(*event),
            }
        }
    }

    async fn select(&mut self, stopped: &mut oneshot::Receiver<()>) -> Step {
        let next = self.dials.values().filter(|dial| !self.view.borrow().up.contains(&dial.node)).map(|d| d.at).min();
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped => Step::Stop,
            event = self.swarm.select_next_some() => Step::Swarm(Box::new(event)),
            () = timer => Step::Dial,
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        let up = self.view.borrow().up.clone();
        for (id, dial) in &mut self.dials {
            if dial.at > now || up.contains(&dial.node) {
                continue;
            }
            let jitter = rand::random_range(0.5..1.5);
            dial.at = now + dial.wait.mul_f64(jitter);
            dial.wait = (dial.wait * 2).min(REDIAL_MAX);
            let options = DialOpts::peer_id(*id)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(vec![dial.address.clone()])
                .build();
            match self.swarm.dial(options) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
                Err(error) => {
                    let node = dial.node;
                    self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
                }
            }
        }
    }

    fn apply(&mut self, event: SwarmEvent<crate::behaviour::BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "the mesh listens");
                self.view.send_modify(|view| view.listening.push(address.to_string()));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let gone = address.to_string();
                self.view.send_modify(|view| view.listening.retain(|known| *known != gone));
            }
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } if num_established.get() == 1 => {
                self.note_up(peer_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.note_down(peer_id, cause.map_or("it was closed".to_owned(), |e| e.to_string()));
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                if let Some(dial) = self.dials.get(&peer) {
                    let node = dial.node;
                    self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
                }
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                tracing::error!(%error, "the mesh does not listen any more");
            }
            _ => {}
        }
    }

    fn note_up(&mut self, peer: PeerId) {
        let Some(node) = node_id(&peer) else { return };
        if let Some(dial) = self.dials.get_mut(&peer) {
            dial.wait = REDIAL_MIN;
        }
        tracing::info!(peer = %node, "mesh connected");
        self.view.send_modify(|view| {
            view.up.insert(node);
            view.errors.remove(&node);
        });
    }

    fn note_down(&mut self, peer: PeerId, why: String) {
        let Some(node) = node_id(&peer) else { return };
        if let Some(dial) = self.dials.get_mut(&peer) {
            dial.at = Instant::now() + dial.wait.mul_f64(rand::random_range(0.0..1.0));
        }
        tracing::info!(peer = %node, why, "mesh disconnected");
        self.view.send_modify(|view| {
            view.up.remove(&node);
            view.errors.insert(node, why);
        });
    }
}

fn listen_addresses(listen: SocketAddr) -> [Multiaddr; 2] {
    let ip: Multiaddr = match listen.ip() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => ip.into(),
    };
    use libp2p::multiaddr::Protocol;
    let quic = ip.clone().with(Protocol::Udp(listen.port())).with(Protocol::QuicV1);
    [quic, ip.with(Protocol::Tcp(listen.port()))]
}

fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.public_key()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_config::PeerConfig;

    fn identity(seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        node_id(&key.public().to_peer_id()).unwrap()
    }

    fn peer(id: NodeId, mesh: Option<String>) -> PeerConfig {
        PeerConfig { id, name: None, control: None, mesh }
    }

    fn start(seed: u8, peers: Vec<PeerConfig>) -> Mesh {
        let config = MeshConfig { listen: "127.0.0.1:0".parse().unwrap(), peers };
        Mesh::start([seed; 32], &config).unwrap()
    }

    /// The addresses of a mesh, once both transports listen.
    async fn addresses(mesh: &Mesh) -> Vec<String> {
        let mut view = mesh.handle().view();
        view.wait_for(|view| view.listening.len() == 2).await.unwrap().listening.clone()
    }

    async fn until_up(mesh: &Mesh, node: NodeId) {
        mesh.handle().view().wait_for(|view| view.up.contains(&node)).await.unwrap();
    }

    #[test]
    fn node_id_text_is_libp2p_peer_id_text() {
        // RFC 8032, section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&seed[2 * i..2 * i + 2], 16).unwrap()).collect();
        let key = Keypair::ed25519_from_bytes(seed).unwrap();
        let peer = key.public().to_peer_id();
        let node = node_id(&peer).unwrap();
        assert_eq!(node.to_string(), "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV");
        assert_eq!(node.to_string(), peer.to_base58());
        assert_eq!(peer_id(node), Some(peer));
    }

    #[tokio::test]
    async fn listed_peers_connect_over_quic_and_tcp_and_reconnect() {
        for transport in ["quic-v1", "tcp"] {
            let (a, b) = (identity(1), identity(2));
            let first = start(1, vec![peer(b, None)]);
            let address = addresses(&first).await.into_iter().find(|at| at.contains(transport)).unwrap();
            let second = start(2, vec![peer(a, Some(address.clone()))]);
            until_up(&second, a).await;
            until_up(&first, b).await;
            second.stop().await;
            first.handle().view().wait_for(|view| view.up.is_empty()).await.unwrap();
            let second = start(2, vec![peer(a, Some(address))]);
            until_up(&first, b).await;
            second.stop().await;
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_not_listed_is_not_connected() {
        let (a, listed) = (identity(1), identity(2));
        let first = start(1, vec![peer(listed, None)]);
        let address = addresses(&first).await.remove(0);
        let stranger = start(3, vec![peer(a, Some(address.clone()))]);
        let friend = start(2, vec![peer(a, Some(address))]);
        until_up(&first, listed).await;
        // The stranger has dialled before or beside the friend, and is told so.
        let mut view = stranger.handle().view();
        view.wait_for(|view| view.errors.contains_key(&a)).await.unwrap();
        assert!(!first.handle().view().borrow().up.contains(&identity(3)));
        friend.stop().await;
    }
}
