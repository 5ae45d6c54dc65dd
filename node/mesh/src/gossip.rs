//! Gossip: fan-out of envelopes to those who subscribe.
//!
//! gossipsub runs unsigned with ids made of the content. The envelope inside is signed by whoever sent it, and
//! verified once, after duplicates are out and off the swarm's task: gossipsub's own signing verifies every copy.

use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{
    Behaviour, CallbackSubscriptionFilter, ConfigBuilder, IdentityTransform, MaxCountSubscriptionFilter, Message,
    MessageAuthenticity, MessageId, TopicHash, ValidationMode,
};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{ConnectionId, FromSwarm, NetworkBehaviour as _};
use sha2::{Digest as _, Sha256};
use skep_protocol::codec::Encoded as _;
use skep_protocol::limits;
use skep_protocol::telemetry::{SignedEnvelope, TopicPath};
use skep_protocol::text::SiteName;

use crate::service::MeshError;

/// The reader checks a whole buffer against the limit, which may hold the beginning of the next message.
const READ_SLACK: usize = 8 * 1024;
/// Length of a message id in bytes: with longer ones a list of recent ids could outgrow a control message.
const ID_BYTES: usize = 20;
/// Ids in one list of recent messages.
const IDS_ANNOUNCED_MAX: usize = 600;
/// How long a message is known to have been seen.
const SEEN_FOR: Duration = Duration::from_secs(120);
/// How long a peer is left alone after one of both went out of the other's mesh, and after one of both unsubscribed. Short:
/// a site is small, and whoever comes again is to be told things soon.
const PRUNED_FOR: Duration = Duration::from_secs(10);
const UNSUBSCRIBED_FOR: Duration = Duration::from_secs(2);
/// Messages waiting for one connection. More are dropped: telemetry is the lowest class.
const QUEUED_PER_CONNECTION_MAX: usize = 512;

/// Only topics of the own site, and not too many.
type Filter = MaxCountSubscriptionFilter<CallbackSubscriptionFilter<OfSite>>;
type OfSite = Box<dyn FnMut(&TopicHash) -> bool + Send>;
/// gossipsub as Skep runs it.
pub(crate) type Gossip = Behaviour<IdentityTransform, Filter>;

/// A message's id: its topic and all of its bytes, so that nobody can make two messages with one id.
fn id(message: &Message) -> MessageId {
    let topic = message.topic.as_str();
    let mut hash = Sha256::new();
    hash.update((topic.len() as u64).to_be_bytes());
    hash.update(topic);
    hash.update(&message.data);
    MessageId::new(&hash.finalize()[..ID_BYTES])
}

/// gossipsub for a site's topics.
pub(crate) fn behaviour(site: &SiteName) -> Result<Gossip, MeshError> {
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
    Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .map_err(|e| MeshError::new(&e))
}

/// Says again to a peer what is subscribed to. What one of its connections had taken was lost with it, and gossipsub says
/// it on the first connection only.
pub(crate) fn announce(gossip: &mut Gossip, peer_id: PeerId, connection_id: ConnectionId, endpoint: &ConnectedPoint) {
    gossip.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id,
        connection_id,
        endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
}

/// A topic as gossipsub names it.
pub(crate) fn hash(topic: &TopicPath) -> TopicHash {
    TopicHash::from_raw(topic.as_str())
}
