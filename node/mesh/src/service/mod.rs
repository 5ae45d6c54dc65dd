//! The task that owns the swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use skep_config::MeshConfig;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::telemetry::{Envelope, TopicPath};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::behaviour::{Behaviour, Event, process_of};
use crate::dials::Dial;
use crate::envelopes::{DroppedEnvelopes, Judged, Outgoing, Signer, Verifier};
use crate::error::{MeshError, reason};
use crate::gate::Gate;
use crate::handle::{MeshHandle, MeshView};
use crate::keeper::Keeper;
use crate::kept::{Kept, SharedFloors};
use crate::links::{Dialled, Links};
use crate::noise::Noise;
use crate::peer::{node_id, peer_id};
use crate::threads::on_thread;
use crate::transport;

/// The running mesh. Dropping it stops the task.
pub struct Mesh {
    handle: MeshHandle,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    keeper: Option<Keeper>,
}

struct Service {
    swarm: Swarm<Behaviour>,
    view: watch::Sender<MeshView>,
    outgoing: mpsc::Receiver<Outgoing>,
    judged: mpsc::Receiver<Judged>,
    /// What is to be heard, and what is.
    topics: watch::Receiver<BTreeSet<TopicPath>>,
    heard: BTreeSet<TopicPath>,
    cut_off: watch::Receiver<BTreeSet<NodeId>>,
    gate: Arc<Gate>,
    floors: SharedFloors,
    dropped: Arc<DroppedEnvelopes>,
    /// The listed peers, and when each is dialled next unless it is up.
    dials: BTreeMap<PeerId, Dial>,
    links: Links,
    /// Of those who wanted to connect and were refused, or did not finish.
    strangers: Noise<()>,
    /// Of listed peers of which somebody said where they are. Apart from strangers: however many these are, they hide none of those.
    told: Noise<PeerId>,
}

/// What the service waited for.
enum Step {
    Swarm(Box<SwarmEvent<Event>>),
    Outgoing(Outgoing),
    Judged(Judged),
    Topics,
    Cuts,
    Dial,
    Stop,
}

impl Mesh {
    /// Binds QUIC and TCP, and dials every listed peer as soon as an address of it is known. `seed` is the node's secret
    /// key. `keeps`: the directory for what is to outlive this process; without it, each start is the first. Also returns what
    /// is received on topics that are subscribed to.
    ///
    /// # Errors
    /// [`MeshError`] if an address cannot be bound or understood. A disk that keeps nothing is logged.
    pub fn start(
        seed: [u8; 32],
        config: &MeshConfig,
        keeps: Option<&Path>,
    ) -> Result<(Self, mpsc::Receiver<Envelope>), MeshError> {
        let failed = |e: &dyn std::fmt::Display| MeshError::new(e);
        let key = Keypair::ed25519_from_bytes(seed).map_err(|e| failed(&e))?;
        let local = key.public().to_peer_id();
        let signing = key.clone();
        let kept = keeps.map(Kept::of);
        // Higher with each start, and another number in each of two copies of a directory.
        let process = (u64::from(kept.as_ref().map_or(1, Kept::start)) << u32::BITS) | u64::from(rand::random::<u32>());
        let dropped: Arc<DroppedEnvelopes> = Arc::default();
        let (arrived, arrived_in) = mpsc::channel(limits::ENVELOPES_QUEUED_MAX);
        let gate = Arc::new(Gate::new(arrived, Arc::clone(&dropped)));
        let mut swarm = transport::swarm(key, config, process, Arc::clone(&gate))?;
        let dials = list(&mut swarm, config)?;
        for (over, address) in transport::listen_addresses(config.listen) {
            swarm.listen_on(address).map_err(|error| MeshError::cannot_listen(config, over, &error))?;
        }
        let (view, seen) = watch::channel(MeshView::default());
        let (stop, stopped) = oneshot::channel();
        let (publications, publications_in) = mpsc::channel(limits::ENVELOPES_QUEUED_MAX);
        let (outgoing, outgoing_in) = mpsc::channel(limits::MESH_COMMANDS_QUEUED_MAX);
        let (judged, judged_in) = mpsc::channel(limits::MESH_COMMANDS_QUEUED_MAX);
        let (received, received_in) = mpsc::channel(limits::MESH_RECEIVED_QUEUED_MAX);
        let own = node_id(&local).ok_or_else(|| failed(&"the node's key is not of ed25519"))?;
        let signer = Signer { key: signing, local: own, process, outgoing, dropped: Arc::clone(&dropped) };
        on_thread("skep-signing", move || signer.run(publications_in))?;
        let admitted: BTreeSet<NodeId> = config.peers.iter().map(|peer| peer.id).filter(|id| *id != own).collect();
        let floors = kept.as_ref().map_or_else(SharedFloors::default, |kept| kept.read_floors(&admitted).into());
        let keeper = kept.map(|kept| Keeper::start(kept, floors.clone())).transpose()?;
        let verifier = Verifier::new(admitted, floors.clone(), judged, received, Arc::clone(&dropped));
        on_thread("skep-verifying", move || verifier.run(arrived_in))?;
        let (topics, wanted) = watch::channel(BTreeSet::new());
        let (cut_off, cuts) = watch::channel(BTreeSet::new());
        let (topics, cut_off) = (Arc::new(topics), Arc::new(cut_off));
        let (liars, dropped_too) = (Arc::new(Mutex::new(Noise::new())), Arc::clone(&dropped));
        let handle = MeshHandle { view: seen, publications, topics, cut_off, dropped: dropped_too, liars };
        let service = Service {
            swarm,
            view,
            outgoing: outgoing_in,
            judged: judged_in,
            topics: wanted,
            heard: BTreeSet::new(),
            cut_off: cuts,
            gate,
            floors,
            dropped,
            dials,
            links: Links::new(local),
            strangers: Noise::new(),
            told: Noise::new(),
        };
        let task = tokio::spawn(service.run(stopped));
        Ok((Self { handle, stop: Some(stop), task, keeper }, received_in))
    }

    /// The handle.
    pub fn handle(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// Closes all connections and stops.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.task).await;
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
    }
}

impl Service {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            match self.select(&mut stopped).await {
                Step::Stop => return,
                Step::Dial => self.dial_due(),
                Step::Outgoing(outgoing) => self.send(outgoing),
                Step::Judged(judged) => self.on_judged(judged),
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
            Some(outgoing) = self.outgoing.recv() => Step::Outgoing(outgoing),
            Some(judged) = self.judged.recv() => Step::Judged(judged),
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
            let has_address = match self.swarm.dial(options) {
                Ok(()) => true,
                // Somebody who is connected may know it: asking has it dialled.
                Err(DialError::NoAddresses) => false,
                Err(DialError::DialPeerConditionFalse(_)) => continue,
                Err(error) => {
                    let node = dial.node;
                    self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
                    continue;
                }
            };
            if dial.is_missed(has_address) && self.swarm.behaviour_mut().discovery.ask(*id) {
                dial.asked_for();
            }
        }
    }

    fn send(&mut self, Outgoing { topic, data }: Outgoing) {
        match self.swarm.behaviour_mut().gossip.publish(&topic, data) {
            // Nobody subscribes: nobody misses it.
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {}
            Err(error) => {
                self.dropped.overflow();
                tracing::debug!(%topic, %error, "a publication was not sent");
            }
        }
    }

    fn on_judged(&mut self, Judged { id, from, verdict }: Judged) {
        if matches!(verdict, MessageAcceptance::Reject) {
            self.gate.rubbish(from, Instant::now());
        }
        self.swarm.behaviour_mut().gossip.judged(&id, &from, verdict);
    }

    /// A message came in. It is verified elsewhere.
    fn on_message(&mut self, id: MessageId, from: PeerId, message: gossipsub::Message) {
        if !self.gate.hand_over(id.clone(), from, message.topic.into_string(), message.data) {
            self.dropped.overflow();
            self.swarm.behaviour_mut().gossip.judged(&id, &from, MessageAcceptance::Ignore);
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
            if let Err(error) = gossip.subscribe(topic) {
                tracing::warn!(%topic, %error, "a topic cannot be subscribed to");
                heard.remove(topic);
            }
        }
        for topic in self.heard.difference(&wanted) {
            gossip.unsubscribe(topic);
        }
        self.heard = heard;
    }

    /// Somebody says where a peer is.
    fn on_told(&mut self, peer: &PeerId, address: &Multiaddr) {
        let now = Instant::now();
        if let Some(dial) = self.dials.get_mut(peer) {
            dial.soon(now);
        }
        if let Some(times) = self.told.heard(*peer, now) {
            tracing::info!(%peer, %address, times, "somebody says where this peer is");
        }
    }

    /// A peer was not reached. Somebody may have said where it is while it was dialled, or the attempt left hints out: then it is
    /// dialled again soon.
    fn on_unreached(&mut self, peer: PeerId, error: &DialError) {
        let has_untried = self.swarm.behaviour().discovery.has_untried(&peer);
        let Some(dial) = self.dials.get_mut(&peer) else { return };
        if has_untried {
            dial.soon(Instant::now());
        }
        let node = dial.node;
        self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
    }

    /// Somebody wanted to connect, and was refused or did not finish.
    fn on_refused(&mut self, from: &Multiaddr, error: &(dyn std::error::Error + 'static)) {
        if let Some(times) = self.strangers.heard((), Instant::now()) {
            tracing::warn!(%from, why = reason(error), times, "connections to the mesh were refused, or not finished");
        }
    }

    /// A peer answered on a connection, and perhaps said which process it is. Whether the connection stays.
    fn on_answer(&mut self, peer: PeerId, connection: ConnectionId, process: Option<String>) -> bool {
        let now = Instant::now();
        let mut stays = true;
        for one_too_many in self.links.heard(peer, connection, process, now) {
            stays &= one_too_many != connection;
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
        stays
    }

    /// A peer says on a connection who it is, and where it listens.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let process = process_of(&info.agent_version);
        let stays = self.on_answer(peer, connection, Some(info.agent_version));
        if let (true, Some(node), Some(process)) = (stays, node_id(&peer), process) {
            self.floors.lock().lives(node, process);
        }
        self.swarm.behaviour_mut().discovery.says(&peer, &info.listen_addrs);
    }

    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        match result {
            Ok(_) => _ = self.on_answer(peer, connection, None),
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
                self.on_message(id, from, message);
            }
            Event::Gossip(gossipsub::Event::SlowPeer { peer_id, failed_messages }) => {
                tracing::debug!(peer = %peer_id, ?failed_messages, "a peer takes telemetry too slowly");
            }
            Event::Ping(event) => self.on_ping(event),
            Event::Identify(
                identify::Event::Received { connection_id, peer_id, info }
                | identify::Event::Pushed { connection_id, peer_id, info },
            ) => {
                self.on_identified(peer_id, connection_id, info);
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
                    self.swarm.behaviour_mut().gossip.announce(peer_id, connection_id, &endpoint);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.on_unreached(peer, &error);
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

/// Lets the listed peers in, and plans to dial them.
fn list(swarm: &mut Swarm<Behaviour>, config: &MeshConfig) -> Result<BTreeMap<PeerId, Dial>, MeshError> {
    let failed = |why: String| MeshError::new(&why);
    let mut dials = BTreeMap::new();
    for peer in &config.peers {
        let id = peer_id(peer.id).ok_or_else(|| failed(format!("{} is not a key", peer.id)))?;
        if id == *swarm.local_peer_id() {
            continue;
        }
        swarm.behaviour_mut().admitted.allow_peer(id);
        let address = peer.mesh.as_ref().map(|text| {
            let address = text.parse::<Multiaddr>();
            let address = address.map_err(|e| failed(format!("{text:?} of peer {}: {e}", peer.id)))?;
            address.with_p2p(id).map_err(|at| failed(format!("{at} is an address of another than {}", peer.id)))
        });
        swarm.behaviour_mut().discovery.list(id, address.transpose()?);
        dials.insert(id, Dial::new(peer.id, Instant::now()));
    }
    Ok(dials)
}

/// Nobody dials in step with others.
fn jitter() -> f64 {
    rand::random_range(0.5..1.5)
}

#[cfg(test)]
mod tests;
