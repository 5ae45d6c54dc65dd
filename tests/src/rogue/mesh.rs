//! The bad robot in the mesh: it says what it likes on any topic, repeats old envelopes, makes envelopes in the names
//! of others, and lies about the addresses of peers.

use std::collections::VecDeque;
use std::error::Error;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::gossipsub::{self, ConfigBuilder, IdentTopic, MessageAuthenticity, MessageId, TopicHash, ValidationMode};
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, kad};
use libp2p_identity::Keypair;
use skep_protocol::codec::Encoded as _;
use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{Envelope, Publication, SignedEnvelope, TopicPath};
use skep_protocol::text::{AgentId, ContentType};
use tokio::sync::{mpsc, oneshot};

use super::{SITE, key, node_of, peer_of, text};

/// How often it dials the peers with which it is not connected.
const DIAL_EVERY: Duration = Duration::from_millis(500);
/// The most messages that wait to be said.
const QUEUED_MAX: usize = 256;
/// The most envelopes of others that it keeps, the latest ones.
const HEARD_MAX: usize = 256;
/// How many addresses it claims for itself: as many as go into one message.
const OWN_LIES: u32 = 100;
/// How many addresses it claims for each other peer.
const LIES_PER_PEER: u32 = 300;
/// The largest message of gossip, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour,
    dht: kad::Behaviour<MemoryStore>,
}

/// A message to be said, and where to tell whether it went out.
struct Say {
    topic: String,
    data: Vec<u8>,
    said: oneshot::Sender<bool>,
}

/// What it heard on its topics: the topic, and the bytes.
type Heard = Arc<Mutex<VecDeque<(String, Vec<u8>)>>>;

/// A listed peer in the mesh. Dropping it ends it.
pub struct MeshRogue {
    key: Keypair,
    /// Its PeerId.
    pub node: NodeId,
    process: u64,
    sequence: AtomicU64,
    orders: mpsc::Sender<Say>,
    heard: Heard,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for MeshRogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address at which no node listens: near a node, so that this node may believe it, and far from every other node.
fn nowhere(near: IpAddr, n: u32) -> Option<Multiaddr> {
    let [_, _, high, low] = n.to_be_bytes();
    let port = 1_024 + n % 60_000;
    let host = if near.is_loopback() { format!("127.66.{high}.{low}") } else { format!("10.77.200.{low}") };
    let transport = if n.is_multiple_of(2) { format!("udp/{port}/quic-v1") } else { format!("tcp/{port}") };
    format!("/ip4/{host}/{transport}").parse().ok()
}

fn gossip() -> Result<gossipsub::Behaviour, String> {
    // Each message has an id of its own, whatever its content: so the same content can be said again.
    let ids = AtomicU64::new(0);
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        // It passes on nothing for others.
        .validate_messages()
        .message_id_fn(move |_| MessageId::new(&ids.fetch_add(1, Ordering::Relaxed).to_be_bytes()))
        .max_transmit_size(MESSAGE_BYTES_MAX)
        .build()
        .map_err(text)?;
    gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).map_err(text)
}

fn dht(local: PeerId, near: IpAddr, others: &[PeerId]) -> Result<kad::Behaviour<MemoryStore>, String> {
    let name = StreamProtocol::try_from_owned(format!("/skep/{SITE}/kad/1")).map_err(text)?;
    let mut config = kad::Config::new(name);
    // It does not try itself what it tells others.
    config.set_periodic_bootstrap_interval(None).set_kbucket_inserts(kad::BucketInserts::Manual);
    let mut dht = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
    dht.set_mode(Some(kad::Mode::Server));
    for (peer, from) in others.iter().zip((0..).step_by(LIES_PER_PEER as usize)) {
        for address in (from..from + LIES_PER_PEER).filter_map(|n| nowhere(near, n)) {
            dht.add_address(peer, address);
        }
    }
    Ok(dht)
}

fn swarm(key: &Keypair, process: u64, near: IpAddr, others: &[PeerId]) -> Result<Swarm<Behaviour>, String> {
    let (gossip, dht) = (gossip()?, dht(key.public().to_peer_id(), near, others)?);
    let about = identify::Config::new("/skep/1".to_owned(), key.public())
        .with_agent_version(format!("skep/0.1.0 {process:016x}"))
        .with_push_listen_addr_updates(true);
    let behaviour = Behaviour { identify: identify::Behaviour::new(about), gossip, dht };
    let built = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_quic()
        .with_behaviour(|_| Ok::<_, Box<dyn Error + Send + Sync>>(behaviour))
        .map_err(text)?;
    let mut swarm = built.with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX)).build();
    (0..OWN_LIES).filter_map(|n| nowhere(near, n)).for_each(|address| swarm.add_external_address(address));
    Ok(swarm)
}

/// What the task of the mesh runs on.
struct Running {
    swarm: Swarm<Behaviour>,
    peers: Vec<(PeerId, Multiaddr)>,
    orders: mpsc::Receiver<Say>,
    heard: Heard,
}

impl Running {
    async fn run(mut self) {
        let mut dials = tokio::time::interval(DIAL_EVERY);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                said = self.orders.recv() => match said {
                    Some(say) => self.say(say),
                    None => return,
                },
                _ = dials.tick() => self.dial(),
            }
        }
    }

    fn dial(&mut self) {
        for (peer, address) in &self.peers {
            let to = DialOpts::peer_id(*peer).condition(PeerCondition::DisconnectedAndNotDialing);
            let _ = self.swarm.dial(to.addresses(vec![address.clone()]).build());
        }
    }

    fn say(&mut self, Say { topic, data, said }: Say) {
        let went_out = self.swarm.behaviour_mut().gossip.publish(TopicHash::from_raw(topic), data).is_ok();
        let _ = said.send(went_out);
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message { message, .. })) => {
                let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() == HEARD_MAX {
                    heard.pop_front();
                }
                heard.push_back((message.topic.into_string(), message.data));
            }
            // It ignores what others say of themselves, and of each other.
            SwarmEvent::Behaviour(BehaviourEvent::Identify(said)) => drop(said),
            SwarmEvent::Behaviour(BehaviourEvent::Dht(said)) => drop(said),
            _ => {}
        }
    }
}

impl MeshRogue {
    /// Connects to nodes, each at its address in the mesh, and hears these topics. It tells all of them lies about its
    /// own address and the others': addresses `near` them at which no node listens.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub fn start(seed: u64, near: IpAddr, nodes: &[(NodeId, String)], topics: &[&str]) -> Result<Self, String> {
        let key = key(seed)?;
        let peers: Vec<(PeerId, Multiaddr)> = nodes
            .iter()
            .map(|(node, address)| Ok((peer_of(*node)?, address.parse::<Multiaddr>().map_err(text)?)))
            .collect::<Result<_, String>>()?;
        let others: Vec<PeerId> = peers.iter().map(|(peer, _)| *peer).collect();
        // Those of a node that was started once.
        let process = 1 << u32::BITS;
        let mut swarm = swarm(&key, process, near, &others)?;
        for topic in topics {
            swarm.behaviour_mut().gossip.subscribe(&IdentTopic::new(*topic)).map_err(text)?;
        }
        let (orders, queue) = mpsc::channel(QUEUED_MAX);
        let heard = Heard::default();
        let running = Running { swarm, peers, orders: queue, heard: Arc::clone(&heard) };
        let (node, task) = (node_of(&key)?, tokio::spawn(running.run()));
        Ok(Self { key, node, process, sequence: AtomicU64::new(0), orders, heard, task })
    }

    /// Says something on a topic; returns whether it went out to a peer.
    pub async fn say(&self, topic: &str, data: Vec<u8>) -> bool {
        let (said, went_out) = oneshot::channel();
        let say = Say { topic: topic.to_owned(), data, said };
        self.orders.send(say).await.is_ok() && went_out.await.unwrap_or(false)
    }

    /// What it heard lately, oldest first.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, Vec<u8>)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Makes an envelope that it signs, in the name of a node, about an agent; both may be another's.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn envelope(&self, sender: NodeId, topic: &str, source: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        let publication = Publication {
            topic: TopicPath::new(topic).map_err(text)?,
            source: AgentId::new(source).map_err(text)?,
            content_type: ContentType::default(),
            payload: payload.to_vec(),
        };
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let envelope = Envelope { sender, process: self.process, sequence, publication }.encode().map_err(text)?;
        let signature = self.key.sign(&SignedEnvelope::signed_bytes(&envelope)).map_err(text)?;
        SignedEnvelope { envelope, signature }.encode().map_err(text)
    }
}
