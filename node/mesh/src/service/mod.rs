//! The task that owns the swarm.

mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use skep_admission::SiteHandle;
use skep_config::MeshConfig;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::telemetry::{Envelope, TopicPath};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::admit::{DoorEvent, Left};
use crate::behaviour::{AtDoor, Behaviour, Event, ProtocolsEvent, process_of};
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
use crate::speakers::Speakers;
use crate::threads::on_thread;
use crate::transport;
use site::Site;

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
    /// The topics that are to be heard, and those that are.
    topics: watch::Receiver<BTreeSet<TopicPath>>,
    heard: BTreeSet<TopicPath>,
    cut_off: watch::Receiver<BTreeSet<NodeId>>,
    site: Option<Site>,
    gate: Arc<Gate>,
    floors: SharedFloors,
    dropped: Arc<DroppedEnvelopes>,
    /// The listed peers, or members of the site, and when the node dials each, unless it is connected.
    dials: BTreeMap<PeerId, Dial>,
    links: Links,
    /// Lines about strangers that wanted to connect, and were refused or did not finish.
    strangers: Noise<()>,
    /// Lines about listed peers of which another node said where they are. Apart from strangers: many strangers hide
    /// none of these.
    told: Noise<PeerId>,
}

/// What the service waited for.
enum Step {
    Swarm(Box<SwarmEvent<Event>>),
    Outgoing(Outgoing),
    Judged(Judged),
    Topics,
    Cuts,
    Members,
    JudgeAnew,
    Dial,
    Stop,
}

impl Mesh {
    /// Binds QUIC and TCP, and dials every listed peer as soon as an address of it is known. `seed` is the node's
    /// secret key. `keeps`: the directory for what is to outlive this process; without it, each start is the first.
    /// Also returns what the node receives on subscribed topics.
    ///
    /// # Errors
    /// [`MeshError`] if an address cannot be bound or understood. A disk that keeps nothing is logged.
    pub fn start(
        seed: [u8; 32],
        config: &MeshConfig,
        keeps: Option<&Path>,
    ) -> Result<(Self, mpsc::Receiver<Envelope>), MeshError> {
        Self::start_in(None, seed, config, keeps)
    }

    /// The same in a site: the node admits its members, and no other peer. The peers of the configuration are members
    /// that the node dials, with addresses at which they may be; the caller names [others](MeshHandle::know_members)
    /// later. Without a site, the node admits the listed peers.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_in(
        site: Option<SiteHandle>,
        seed: [u8; 32],
        config: &MeshConfig,
        keeps: Option<&Path>,
    ) -> Result<(Self, mpsc::Receiver<Envelope>), MeshError> {
        let key = Keypair::ed25519_from_bytes(seed).map_err(|e| MeshError::new(&e))?;
        let local = key.public().to_peer_id();
        let signing = key.clone();
        let kept = keeps.map(Kept::of);
        // The number is higher with each start, and differs between two copies of a directory.
        let process = (u64::from(kept.as_ref().map_or(1, Kept::start)) << u32::BITS) | u64::from(rand::random::<u32>());
        let dropped: Arc<DroppedEnvelopes> = Arc::default();
        let (arrived, arrived_in) = mpsc::channel(limits::ENVELOPES_QUEUED_MAX);
        let gate = Arc::new(Gate::new(arrived, Arc::clone(&dropped)));
        let site = site.map(|site| Site::new(site, config));
        let mut swarm = transport::swarm(key, config, process, Arc::clone(&gate), site.as_ref().map(Site::members))?;
        let dials = list(&mut swarm, config)?;
        listen(&mut swarm, config)?;
        let (view, seen) = watch::channel(MeshView::default());
        let (stop, stopped) = oneshot::channel();
        let (publications, publications_in) = mpsc::channel(limits::ENVELOPES_QUEUED_MAX);
        let (outgoing, outgoing_in) = mpsc::channel(limits::MESH_COMMANDS_QUEUED_MAX);
        let (judged, judged_in) = mpsc::channel(limits::MESH_COMMANDS_QUEUED_MAX);
        let (received, received_in) = mpsc::channel(limits::MESH_RECEIVED_QUEUED_MAX);
        let own = node_id(&local).ok_or_else(|| MeshError::new("the node's key is not of ed25519"))?;
        let signer = Signer { key: signing, local: own, process, outgoing, dropped: Arc::clone(&dropped) };
        on_thread("skep-signing", move || signer.run(publications_in))?;
        let speakers = site.as_ref().map_or_else(|| listed(config, own), Site::speakers);
        let floors = kept.as_ref().map_or_else(SharedFloors::default, |kept| kept.read_floors(&speakers).into());
        let keeper = kept.map(|kept| Keeper::start(kept, floors.clone())).transpose()?;
        let verifier = Verifier::new(speakers, floors.clone(), judged, received, Arc::clone(&dropped));
        on_thread("skep-verifying", move || verifier.run(arrived_in))?;
        let (topics, wanted) = watch::channel(BTreeSet::new());
        let (cut_off, cuts) = watch::channel(BTreeSet::new());
        let (topics, cut_off) = (Arc::new(topics), Arc::new(cut_off));
        let members = site.as_ref().map(Site::told);
        let (liars, dropped_too) = (Arc::new(Mutex::new(Noise::new())), Arc::clone(&dropped));
        let handle = MeshHandle { view: seen, publications, topics, cut_off, members, dropped: dropped_too, liars };
        let service = Service {
            swarm,
            view,
            outgoing: outgoing_in,
            judged: judged_in,
            topics: wanted,
            heard: BTreeSet::new(),
            cut_off: cuts,
            site,
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

    /// The handle of the mesh.
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
                Step::Members => self.know_members(),
                Step::JudgeAnew => self.judge_anew(),
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
        let site = &mut self.site;
        let of_site = async {
            match site {
                Some(site) => site.next().await,
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
            news = of_site => news,
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
                // A connected peer may know an address: the node asks, and dials after the answer.
                Err(DialError::NoAddresses) => false,
                Err(DialError::DialPeerConditionFalse(_)) => continue,
                Err(error) => {
                    let node = dial.node;
                    self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
                    continue;
                }
            };
            if dial.is_missed(has_address) && self.swarm.behaviour_mut().discovery().ask(*id) {
                dial.asked_for();
            }
        }
    }

    fn send(&mut self, Outgoing { topic, data }: Outgoing) {
        match self.swarm.behaviour_mut().gossip().publish(&topic, data) {
            // No node subscribes, so no node misses it.
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
        self.swarm.behaviour_mut().gossip().judged(&id, &from, verdict);
    }

    /// Hands an incoming message over for verification.
    fn on_message(&mut self, id: MessageId, from: PeerId, message: gossipsub::Message) {
        if !self.gate.hand_over(id.clone(), from, message.topic.into_string(), message.data) {
            self.dropped.overflow();
            self.swarm.behaviour_mut().gossip().judged(&id, &from, MessageAcceptance::Ignore);
        }
    }

    fn cut_and_join(&mut self) {
        let cut_off: BTreeSet<PeerId> = self.cut_off.borrow_and_update().iter().copied().filter_map(peer_id).collect();
        self.swarm.behaviour_mut().door.cut_off(cut_off);
    }

    fn hear_what_is_wanted(&mut self) {
        let wanted = self.topics.borrow_and_update().clone();
        let gossip = self.swarm.behaviour_mut().gossip();
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

    /// Notes an address of a peer that another node told.
    fn on_told(&mut self, peer: &PeerId, address: &Multiaddr) {
        let now = Instant::now();
        if let Some(dial) = self.dials.get_mut(peer) {
            dial.soon(now);
        }
        if let Some(times) = self.told.heard(*peer, now) {
            tracing::info!(%peer, %address, times, "another node says where this peer is");
        }
    }

    /// Notes that a peer was not reached. If a hint came while the node dialled it, or the attempt left hints out, the
    /// node dials it again soon.
    fn on_unreached(&mut self, peer: PeerId, error: &DialError) {
        let has_untried = self.swarm.behaviour_mut().discovery().has_untried(&peer);
        let Some(dial) = self.dials.get_mut(&peer) else { return };
        if has_untried {
            dial.soon(Instant::now());
        }
        let node = dial.node;
        self.view.send_modify(|view| drop(view.errors.insert(node, error.to_string())));
    }

    /// Notes that a node wanted to connect, and was refused or did not finish.
    fn on_refused(&mut self, from: &Multiaddr, error: &(dyn std::error::Error + 'static)) {
        if let Some(times) = self.strangers.heard((), Instant::now()) {
            tracing::warn!(%from, why = reason(error), times, "connections to the mesh were refused, or not finished");
        }
    }

    /// Notes that a peer answered on a connection, and perhaps said which process it is. Returns whether the connection
    /// stays.
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

    /// Takes what a peer says on a connection of itself, and where it listens.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let process = process_of(&info.agent_version);
        let stays = self.on_answer(peer, connection, Some(info.agent_version));
        if let (true, Some(node), Some(process)) = (stays, node_id(&peer), process) {
            self.floors.lock().lives(node, process);
        }
        self.swarm.behaviour_mut().discovery().says(&peer, &info.listen_addrs);
    }

    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        match result {
            Ok(_) => _ = self.on_answer(peer, connection, None),
            Err(ping::Failure::Unsupported) => {}
            // This is the second failure in a row. QUIC finds out by itself that the peer is gone; TCP waits for as
            // long as the other side does not refuse.
            Err(error) => {
                tracing::info!(%peer, %error, "a connection is silent");
                self.swarm.close_connection(connection);
            }
        }
    }

    fn on_protocols(&mut self, event: ProtocolsEvent) {
        match event {
            ProtocolsEvent::Gossip(gossipsub::Event::Message { propagation_source: from, message_id: id, message }) => {
                self.on_message(id, from, message);
            }
            ProtocolsEvent::Gossip(gossipsub::Event::SlowPeer { peer_id, failed_messages }) => {
                tracing::debug!(peer = %peer_id, ?failed_messages, "a peer takes telemetry too slowly");
            }
            ProtocolsEvent::Ping(event) => self.on_ping(event),
            ProtocolsEvent::Identify(
                identify::Event::Received { connection_id, peer_id, info }
                | identify::Event::Pushed { connection_id, peer_id, info },
            ) => {
                self.on_identified(peer_id, connection_id, info);
            }
            ProtocolsEvent::Discovery(heard) => {
                let new = self.swarm.behaviour_mut().discovery().note(heard);
                new.into_iter().for_each(|(peer, address)| self.on_told(&peer, &address));
            }
            _ => {}
        }
    }

    /// Notes that a peer is admitted on a connection, and how many others it has.
    fn on_in(&mut self, peer: PeerId, connection: ConnectionId, is_dialler: bool, others: usize) {
        let dialled = if is_dialler { Dialled::Here } else { Dialled::There };
        self.links.opened(peer, connection, dialled, Instant::now());
        self.view.send_modify(|view| view.made += 1);
        if others == 0 {
            self.note_up(peer);
        }
    }

    /// Notes that an admitted peer's connection has ended.
    fn on_left(&mut self, Left { peer, connection, endpoint, remaining, why }: Left) {
        self.links.closed(peer, connection);
        if remaining == 0 {
            self.note_down(peer, why);
        } else {
            self.swarm.behaviour_mut().gossip().announce(peer, connection, &endpoint);
        }
    }

    fn on_door(&mut self, event: AtDoor) {
        match event {
            DoorEvent::In { peer, connection, endpoint, others } => {
                self.expect(peer);
                self.on_in(peer, connection, endpoint.is_dialer(), others);
            }
            DoorEvent::Left(left) => self.on_left(left),
            DoorEvent::Refused { peer, dialled, why } => self.on_not_admitted(peer, dialled, &why),
            DoorEvent::Inner(event) => self.on_protocols(event),
        }
    }

    fn apply(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Door(event)) => self.on_door(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "the mesh listens");
                self.view.send_modify(|view| view.listening.push(address.to_string()));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let gone = address.to_string();
                self.view.send_modify(|view| view.listening.retain(|known| *known != gone));
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.on_unreached(peer, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_refused(&send_back_addr, &error);
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                tracing::error!(%error, "the mesh has stopped listening");
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
        let dial = self.dials.get_mut(&peer);
        let is_dialled = dial.is_some();
        if let Some(dial) = dial {
            dial.down(Instant::now(), jitter());
        }
        tracing::info!(peer = %node, why, "mesh disconnected");
        self.view.send_modify(|view| {
            view.up.remove(&node);
            // The node keeps nothing of members that it does not dial.
            if is_dialled {
                view.errors.insert(node, why);
            } else {
                view.shared.remove(&node);
            }
        });
    }
}

/// Lets the listed peers in, or those of them that prove to be members, and plans to dial them.
fn list(swarm: &mut Swarm<Behaviour>, config: &MeshConfig) -> Result<BTreeMap<PeerId, Dial>, MeshError> {
    let failed = |why: String| MeshError::new(&why);
    let mut dials = BTreeMap::new();
    for peer in &config.peers {
        let id = peer_id(peer.id).ok_or_else(|| failed(format!("{} is not a key", peer.id)))?;
        if id == *swarm.local_peer_id() {
            continue;
        }
        let address = peer.mesh.as_ref().map(|text| {
            let address = text.parse::<Multiaddr>();
            let address = address.map_err(|e| failed(format!("{text:?} of peer {}: {e}", peer.id)))?;
            address.with_p2p(id).map_err(|at| failed(format!("{at} is an address of another than {}", peer.id)))
        });
        let address = address.transpose()?;
        swarm.behaviour_mut().door.know(id, address.as_ref());
        swarm.behaviour_mut().discovery().list(id, address);
        dials.insert(id, Dial::new(peer.id, Instant::now()));
    }
    Ok(dials)
}

/// The listed peers, whose envelopes count where there is no site.
fn listed(config: &MeshConfig, own: NodeId) -> Speakers {
    Speakers::Listed(config.peers.iter().map(|peer| peer.id).filter(|id| *id != own).collect())
}

/// Binds the addresses of the configuration.
fn listen(swarm: &mut Swarm<Behaviour>, config: &MeshConfig) -> Result<(), MeshError> {
    for (over, address) in transport::listen_addresses(config.listen) {
        swarm.listen_on(address).map_err(|error| MeshError::cannot_listen(config, over, &error))?;
    }
    Ok(())
}

/// A random factor around 1, so that nodes do not dial in step.
fn jitter() -> f64 {
    rand::random_range(0.5..1.5)
}

#[cfg(test)]
mod tests;
