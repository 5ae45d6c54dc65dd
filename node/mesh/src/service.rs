//! The task that owns the swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use skep_config::{MeshConfig, cannot_listen};
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::telemetry::{Envelope, Publication, TopicPath};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::behaviour::{Behaviour, Event};
use crate::dials::Dial;
use crate::envelopes::{Dropped, Envelopes, Job};
use crate::gossip;
use crate::links::{Dialled, Links};
use crate::noise::Noise;
use crate::transport;

/// Why the mesh did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MeshError(String);

impl MeshError {
    pub(crate) fn new(why: &(impl std::fmt::Display + ?Sized)) -> Self {
        Self(format!("the mesh cannot start: {why}"))
    }

    fn cannot_listen(config: &MeshConfig, over: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self(cannot_listen("the mesh", &config.listen, over, &reason(error), "mesh.listen"))
    }
}

/// What an error says, or the first one beneath it that says something.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    errors.map(ToString::to_string).find(|text| !text.is_empty()).unwrap_or_else(|| "no reason was given".to_owned())
}

/// What the task that owns the swarm is told.
pub(crate) enum Command {
    /// Send a signed envelope.
    Publish {
        /// On which topic.
        topic: TopicPath,
        /// The envelope.
        data: Vec<u8>,
    },
    /// An envelope was verified.
    Judged {
        /// Its id in gossip.
        id: MessageId,
        /// Who passed it on.
        from: PeerId,
        /// Whether it goes on.
        verdict: MessageAcceptance,
    },
}

/// What the mesh looks like now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// Connected peers.
    pub up: BTreeSet<NodeId>,
    /// Where this node listens, as multiaddresses.
    pub listening: Vec<String>,
    /// Why peers are not connected, as far as that is known.
    pub errors: BTreeMap<NodeId, String>,
    /// Connections made so far, to any peer.
    pub made: u64,
    /// Connections closed so far because another one to the same peer stays.
    pub replaced: u64,
    /// Peers under whose identity two processes run, and when both were last met.
    pub shared: BTreeMap<NodeId, Instant>,
}

/// Handle of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct MeshHandle {
    view: watch::Receiver<MeshView>,
    jobs: mpsc::Sender<Job>,
    topics: Arc<watch::Sender<BTreeSet<TopicPath>>>,
    cut_off: Arc<watch::Sender<BTreeSet<NodeId>>>,
    dropped: Arc<Dropped>,
}

impl MeshHandle {
    /// Follows what the mesh looks like.
    pub fn view(&self) -> watch::Receiver<MeshView> {
        self.view.clone()
    }

    /// Signs a publication and sends it to whoever subscribes. Best effort: it is dropped, and counted, if there is no
    /// room for it. This node does not hear it back.
    pub fn publish(&self, publication: Publication) {
        if self.jobs.try_send(Job::Sign(publication)).is_err() {
            self.dropped.overflow();
        }
    }

    /// Hears a topic from now on. Never refused: no flood of publications is in its way.
    pub fn subscribe(&self, topic: TopicPath) {
        self.topics.send_if_modified(|topics| topics.insert(topic));
    }

    /// Hears a topic no more.
    pub fn unsubscribe(&self, topic: &TopicPath) {
        self.topics.send_if_modified(|topics| topics.remove(topic));
    }

    /// Speaks with none of these nodes from now on, and with all others again: for testnets.
    pub fn cut_off(&self, nodes: BTreeSet<NodeId>) {
        self.cut_off.send_replace(nodes);
    }

    /// What had to be let go so far.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
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
    commands: mpsc::Receiver<Command>,
    /// What is to be heard, and what is.
    topics: watch::Receiver<BTreeSet<TopicPath>>,
    heard: BTreeSet<TopicPath>,
    cut_off: watch::Receiver<BTreeSet<NodeId>>,
    jobs: mpsc::Sender<Job>,
    dropped: Arc<Dropped>,
    /// The listed peers, and when each is dialled next unless it is up.
    dials: BTreeMap<PeerId, Dial>,
    links: Links,
    noise: Noise<Noisy>,
}

/// What happens however often somebody likes, and is one line of the log a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Noisy {
    /// Somebody wanted to connect and was refused, or did not finish.
    Stranger,
    /// Somebody said where a peer is.
    Told(PeerId),
}

/// What the service waited for.
enum Step {
    Swarm(Box<SwarmEvent<Event>>),
    Command(Command),
    Topics,
    Cuts,
    Dial,
    Stop,
}

impl Mesh {
    /// Binds QUIC and TCP, and dials every listed peer as soon as an address of it is known. `seed` is the node's secret
    /// key. Also returns what is received on topics that are subscribed to.
    ///
    /// # Errors
    /// [`MeshError`] if an address cannot be bound or understood.
    pub fn start(seed: [u8; 32], config: &MeshConfig) -> Result<(Self, mpsc::Receiver<Envelope>), MeshError> {
        let failed = |e: &dyn std::fmt::Display| MeshError::new(e);
        let key = Keypair::ed25519_from_bytes(seed).map_err(|e| failed(&e))?;
        let local = key.public().to_peer_id();
        let signing = key.clone();
        let process: u64 = rand::random();
        let mut swarm = transport::swarm(key, config, process)?;
        let mut dials = BTreeMap::new();
        for peer in &config.peers {
            let id = peer_id(peer.id).ok_or_else(|| failed(&format!("{} is not a key", peer.id)))?;
            if id == local {
                continue;
            }
            swarm.behaviour_mut().admitted.allow_peer(id);
            let address = peer.mesh.as_ref().map(|text| {
                let address = text.parse::<Multiaddr>();
                let address = address.map_err(|e| failed(&format!("{text:?} of peer {}: {e}", peer.id)))?;
                address.with_p2p(id).map_err(|at| failed(&format!("{at} is an address of another than {}", peer.id)))
            });
            swarm.behaviour_mut().discovery.list(id, address.transpose()?);
            dials.insert(id, Dial::new(peer.id, Instant::now()));
        }
        for (over, address) in transport::listen_addresses(config.listen) {
            swarm.listen_on(address).map_err(|error| MeshError::cannot_listen(config, over, &error))?;
        }
        let (view, seen) = watch::channel(MeshView::default());
        let (stop, stopped) = oneshot::channel();
        let (jobs, jobs_in) = mpsc::channel(limits::ENVELOPES_QUEUED_MAX);
        let (commands, commands_in) = mpsc::channel(limits::MESH_COMMANDS_QUEUED_MAX);
        let (received, received_in) = mpsc::channel(limits::MESH_RECEIVED_QUEUED_MAX);
        let dropped: Arc<Dropped> = Arc::default();
        let envelopes = Envelopes {
            key: signing,
            local: node_id(&local).ok_or_else(|| failed(&"the node's key is not of ed25519"))?,
            admitted: config.peers.iter().map(|peer| peer.id).collect(),
            process,
            commands,
            received,
            dropped: Arc::clone(&dropped),
        };
        let body = move || envelopes.run(jobs_in);
        std::thread::Builder::new().name("skep-envelopes".to_owned()).spawn(body).map_err(|e| failed(&e))?;
        let (topics, wanted) = watch::channel(BTreeSet::new());
        let topics = Arc::new(topics);
        let (cut_off, cuts) = watch::channel(BTreeSet::new());
        let (cut_off, dropped_too) = (Arc::new(cut_off), Arc::clone(&dropped));
        let handle = MeshHandle { view: seen, jobs: jobs.clone(), topics, cut_off, dropped: dropped_too };
        let (topics, heard, cut_off) = (wanted, BTreeSet::new(), cuts);
        let (commands, links) = (commands_in, Links::new(local));
        let noise = Noise::new();
        let service = Service { swarm, view, commands, topics, heard, cut_off, jobs, dropped, dials, links, noise };
        let task = tokio::spawn(service.run(stopped));
        Ok((Self { handle, stop: Some(stop), task }, received_in))
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
                Step::Command(command) => self.carry_out(command),
                Step::Topics => self.hear_what_is_wanted(),
                Step::Cuts => self.cut_and_join(),
                Step::Swarm(event) => self.apply(*event),
            }
        }
    }

    async fn select(&mut self, stopped: &mut oneshot::Receiver<()>) -> Step {
        let next = self.dials.values().filter_map(Dial::due).min();
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped => Step::Stop,
            event = self.swarm.select_next_some() => Step::Swarm(Box::new(event)),
            Some(command) = self.commands.recv() => Step::Command(command),
            Ok(()) = self.topics.changed() => Step::Topics,
            Ok(()) = self.cut_off.changed() => Step::Cuts,
            () = timer => Step::Dial,
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        for (id, dial) in &mut self.dials {
            if dial.due().is_none_or(|at| at > now) {
                continue;
            }
            dial.begin(now, jitter());
            let options = DialOpts::peer_id(*id).condition(PeerCondition::DisconnectedAndNotDialing).build();
            match self.swarm.dial(options) {
                Ok(()) if dial.is_missed() => self.swarm.behaviour_mut().discovery.ask(*id),
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
                // Somebody who is connected may know it: asking has it dialled.
                Err(DialError::NoAddresses) => self.swarm.behaviour_mut().discovery.ask(*id),
                Err(error) => {
                    let node = dial.node;
                    self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
                }
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match command {
            Command::Publish { topic, data } => match gossip.publish(gossip::hash(&topic), data) {
                // Nobody subscribes: nobody misses it.
                Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {}
                Err(error) => {
                    self.dropped.overflow();
                    tracing::debug!(%topic, %error, "a publication was not sent");
                }
            },
            Command::Judged { id, from, verdict } => {
                gossip.report_message_validation_result(&id, &from, verdict);
            }
        }
    }

    fn cut_and_join(&mut self) {
        let cut_off = self.cut_off.borrow_and_update().clone();
        for (id, dial) in &self.dials {
            if cut_off.contains(&dial.node) {
                self.swarm.behaviour_mut().admitted.disallow_peer(*id);
            } else {
                self.swarm.behaviour_mut().admitted.allow_peer(*id);
            }
        }
    }

    fn hear_what_is_wanted(&mut self) {
        let wanted = self.topics.borrow_and_update().clone();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let mut heard = wanted.clone();
        for topic in wanted.difference(&self.heard) {
            if let Err(error) = gossip.subscribe(&gossipsub::IdentTopic::new(topic.as_str())) {
                tracing::warn!(%topic, %error, "a topic cannot be subscribed to");
                heard.remove(topic);
            }
        }
        for topic in self.heard.difference(&wanted) {
            let _ = gossip.unsubscribe(&gossipsub::IdentTopic::new(topic.as_str()));
        }
        self.heard = heard;
    }

    /// Somebody says where a peer is.
    fn on_told(&mut self, peer: &PeerId, address: &Multiaddr) {
        let now = Instant::now();
        if let Some(dial) = self.dials.get_mut(peer) {
            dial.soon(now);
        }
        if let Some(times) = self.noise.heard(Noisy::Told(*peer), now) {
            tracing::info!(%peer, %address, times, "somebody says where this peer is");
        }
    }

    /// Somebody wanted to connect, and was refused or did not finish.
    fn on_refused(&mut self, from: &Multiaddr, error: &(dyn std::error::Error + 'static)) {
        if let Some(times) = self.noise.heard(Noisy::Stranger, Instant::now()) {
            tracing::warn!(%from, why = reason(error), times, "connections to the mesh were refused, or not finished");
        }
    }

    /// A peer answered on a connection, and perhaps said which process it is.
    fn on_answer(&mut self, peer: PeerId, connection: ConnectionId, process: Option<String>) {
        let now = Instant::now();
        for one_too_many in self.links.heard(peer, connection, process, now) {
            tracing::debug!(%peer, connection = %one_too_many, "another connection to this peer stays");
            self.swarm.close_connection(one_too_many);
            self.view.send_modify(|view| view.replaced += 1);
        }
        if let (Some(node), true) = (node_id(&peer), self.links.shared(&peer) == Some(now)) {
            self.view.send_modify(|view| {
                if view.shared.insert(node, now).is_none() {
                    tracing::error!(%peer, "two processes run under the identity of this peer; the first one stays");
                }
            });
        }
    }

    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        match result {
            Ok(_) => self.on_answer(peer, connection, None),
            Err(ping::Failure::Unsupported) => {}
            // The second in a row. QUIC finds out by itself that nobody is there; TCP waits for as long as nobody refuses.
            Err(error) => {
                tracing::info!(%peer, %error, "a connection is silent");
                self.swarm.close_connection(connection);
            }
        }
    }

    fn on_behaviour(&mut self, event: Event) {
        match event {
            Event::Gossip(gossipsub::Event::Message { propagation_source: from, message_id: id, message }) => {
                let topic = message.topic.into_string();
                if let Err(refused) = self.jobs.try_send(Job::Verify { id, from, topic, data: message.data }) {
                    self.dropped.overflow();
                    if let Job::Verify { id, from, .. } = refused.into_inner() {
                        let gossip = &mut self.swarm.behaviour_mut().gossip;
                        gossip.report_message_validation_result(&id, &from, MessageAcceptance::Ignore);
                    }
                }
            }
            Event::Gossip(gossipsub::Event::SlowPeer { peer_id, failed_messages }) => {
                tracing::debug!(peer = %peer_id, ?failed_messages, "a peer takes telemetry too slowly");
            }
            Event::Ping(event) => self.on_ping(event),
            Event::Identify(
                identify::Event::Received { connection_id, peer_id, info }
                | identify::Event::Pushed { connection_id, peer_id, info },
            ) => {
                self.on_answer(peer_id, connection_id, Some(info.agent_version));
                self.swarm.behaviour_mut().discovery.says(&peer_id, &info.listen_addrs);
            }
            Event::Discovery(heard) => {
                let new = self.swarm.behaviour_mut().discovery.note(heard);
                new.into_iter().for_each(|(peer, address)| self.on_told(&peer, &address));
            }
            _ => {}
        }
    }

    fn apply(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "the mesh listens");
                self.view.send_modify(|view| view.listening.push(address.to_string()));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let gone = address.to_string();
                self.view.send_modify(|view| view.listening.retain(|known| *known != gone));
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                let dialled = if endpoint.is_dialer() { Dialled::Here } else { Dialled::There };
                self.links.opened(peer_id, connection_id, dialled, Instant::now());
                self.view.send_modify(|view| view.made += 1);
                if num_established.get() == 1 {
                    self.note_up(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, endpoint, num_established, cause } => {
                self.links.closed(peer_id, connection_id);
                if num_established == 0 {
                    self.note_down(peer_id, cause.map_or("it was closed".to_owned(), |e| e.to_string()));
                } else {
                    gossip::announce(&mut self.swarm.behaviour_mut().gossip, peer_id, connection_id, &endpoint);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                if let Some(dial) = self.dials.get(&peer) {
                    let node = dial.node;
                    self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_refused(&send_back_addr, &error);
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
            dial.up(Instant::now());
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
            dial.down(Instant::now(), jitter());
        }
        tracing::info!(peer = %node, why, "mesh disconnected");
        self.view.send_modify(|view| {
            view.up.remove(&node);
            view.errors.insert(node, why);
        });
    }
}

/// Nobody dials in step with others.
fn jitter() -> f64 {
    rand::random_range(0.5..1.5)
}

fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.public_key()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

#[cfg(test)]
mod tests;
