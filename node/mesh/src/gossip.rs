//! Gossip: fan-out of envelopes to the nodes that subscribe.
//!
//! gossipsub runs unsigned, with ids made of the content. The sender of an envelope signs it, and each receiver
//! verifies it once, after duplicates are out and off the swarm's task: gossipsub's own signing would verify every
//! copy.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::gossipsub::{
    Behaviour, CallbackSubscriptionFilter, ConfigBuilder, Event, IdentTopic, MaxCountSubscriptionFilter, Message,
    MessageAcceptance, MessageAuthenticity, MessageId, PublishError, SubscriptionError, TopicHash, ValidationMode,
};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use sha2::{Digest as _, Sha256};
use skep_protocol::codec::Encoded as _;
use skep_protocol::limits;
use skep_protocol::telemetry::{SignedEnvelope, TopicPath};
use skep_protocol::text::SiteName;

use crate::error::MeshError;
use crate::gate::{Gate, Gated};

/// Bytes beside a message in the reader's buffer: the reader checks the whole buffer, which may hold the beginning of
/// the next message, against the limit.
const READ_SLACK: usize = 8 * 1024;
/// Length of a message id in bytes: with longer ones a list of recent ids could outgrow a control message.
const ID_BYTES: usize = 20;
/// The most ids in one list of recent messages.
const IDS_ANNOUNCED_MAX: usize = 600;
/// How long gossipsub remembers that it has seen a message.
const SEEN_FOR: Duration = Duration::from_secs(120);
/// How long a node leaves a peer alone after either left the other's mesh, and after either unsubscribed. The time is
/// short: a site is small, and a peer that comes again is to hear things soon.
const PRUNED_FOR: Duration = Duration::from_secs(10);
const UNSUBSCRIBED_FOR: Duration = Duration::from_secs(2);
/// The most messages that wait for one connection. More are dropped: telemetry is the lowest class.
const QUEUED_PER_CONNECTION_MAX: usize = 512;

/// Lets a peer subscribe only to topics of the own site, and not to too many.
type Filter = MaxCountSubscriptionFilter<CallbackSubscriptionFilter<OfSite>>;
type OfSite = Box<dyn FnMut(&TopicHash) -> bool + Send>;
/// gossipsub as Skep runs it.
type Inner = Behaviour<Gated, Filter>;

/// gossipsub behind a gate. The gate is told which neighbour passes on what comes in.
pub(crate) struct Gossip {
    inner: Inner,
    gate: Arc<Gate>,
}

/// A message's id: its topic and all of its bytes, so that no node can make two messages with one id.
fn id(message: &Message) -> MessageId {
    let topic = message.topic.as_str();
    let mut hash = Sha256::new();
    hash.update((topic.len() as u64).to_be_bytes());
    hash.update(topic);
    hash.update(&message.data);
    MessageId::new(&hash.finalize()[..ID_BYTES])
}

fn inner(site: &SiteName, gate: &Arc<Gate>) -> Result<Inner, MeshError> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(id)
        .max_transmit_size(SignedEnvelope::BYTES_MAX + limits::TOPIC_BYTES_MAX + READ_SLACK)
        .max_control_messages_sent(IDS_ANNOUNCED_MAX)
        .duplicate_cache_time(SEEN_FOR)
        .prune_backoff(PRUNED_FOR)
        .unsubscribe_backoff(UNSUBSCRIBED_FOR)
        .heartbeat_initial_delay(Duration::from_secs(1))
        .connection_handler_queue_len(QUEUED_PER_CONNECTION_MAX)
        .build()
        .map_err(|e| MeshError::new(&e))?;
    let site = site.clone();
    let of_site: OfSite = Box::new(move |topic| TopicPath::new(topic.as_str()).is_ok_and(|topic| topic.is_of(&site)));
    let filter = MaxCountSubscriptionFilter {
        filter: CallbackSubscriptionFilter(of_site),
        max_subscribed_topics: limits::TOPICS_PER_NODE_MAX,
        max_subscriptions_per_request: 2 * limits::TOPICS_PER_NODE_MAX,
    };
    let gated = Gated(Arc::clone(gate));
    Behaviour::new_with_subscription_filter_and_transform(MessageAuthenticity::Anonymous, config, filter, gated)
        .map_err(|e| MeshError::new(&e))
}

impl Gossip {
    /// gossipsub for a site's topics.
    pub(crate) fn new(site: &SiteName, gate: Arc<Gate>) -> Result<Self, MeshError> {
        Ok(Self { inner: inner(site, &gate)?, gate })
    }

    /// Sends a signed envelope to the nodes that subscribe.
    pub(crate) fn publish(&mut self, topic: &TopicPath, data: Vec<u8>) -> Result<MessageId, PublishError> {
        self.inner.publish(TopicHash::from_raw(topic.as_str()), data)
    }

    /// Begins to hear a topic.
    pub(crate) fn subscribe(&mut self, topic: &TopicPath) -> Result<(), SubscriptionError> {
        self.inner.subscribe(&IdentTopic::new(topic.as_str()))?;
        self.gate.hears(topic);
        Ok(())
    }

    /// Stops hearing a topic.
    pub(crate) fn unsubscribe(&mut self, topic: &TopicPath) {
        self.gate.leaves(topic);
        let _ = self.inner.unsubscribe(&IdentTopic::new(topic.as_str()));
    }

    /// Tells gossipsub what the verifier says of a message from a neighbour.
    pub(crate) fn judged(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        self.inner.report_message_validation_result(id, from, verdict);
    }

    /// Tells a peer again which topics this node subscribes to. What one of the peer's connections had taken was lost
    /// with that connection, and gossipsub says it on the first connection only.
    pub(crate) fn announce(&mut self, peer_id: PeerId, connection_id: ConnectionId, endpoint: &ConnectedPoint) {
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }
}

impl NetworkBehaviour for Gossip {
    type ConnectionHandler = THandler<Inner>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.gate.comes_from(Some(peer));
        self.inner.on_connection_handler_event(peer, connection, event);
        self.gate.comes_from(None);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let polled = self.inner.poll(cx);
        if polled.is_pending() {
            // gossipsub has returned each message that was new, and the service handed it over before this poll.
            self.gate.all_handed_over();
        }
        polled
    }
}
