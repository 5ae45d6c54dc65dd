//! What the rest of a node has of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{Publication, TopicPath};
use skep_protocol::text::AgentId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::envelopes::DroppedEnvelopes;
use crate::noise::Noise;

/// The state of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// The connected peers.
    pub up: BTreeSet<NodeId>,
    /// The addresses on which this node listens, as multiaddresses.
    pub listening: Vec<String>,
    /// Why peers are not connected, as far as that is known.
    pub errors: BTreeMap<NodeId, String>,
    /// Number of connections made so far, to any peer.
    pub made: u64,
    /// Number of connections closed so far because another one to the same peer stays.
    pub replaced: u64,
    /// Peers under whose identity two processes run, and when this node last met both.
    pub shared: BTreeMap<NodeId, Instant>,
    /// Numbers of connections that this node did not admit so far, or cut off later, by kind of reason. Empty without a
    /// site: then the node connects only to listed peers.
    pub refused: BTreeMap<&'static str, u64>,
}

/// Members of the site, each with an address of its mesh as a multiaddress, if one is known.
pub type KnownMembers = BTreeMap<NodeId, Option<String>>;

/// Handle of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct MeshHandle {
    pub(crate) view: watch::Receiver<MeshView>,
    pub(crate) publications: mpsc::Sender<Publication>,
    pub(crate) topics: Arc<watch::Sender<BTreeSet<TopicPath>>>,
    pub(crate) cut_off: Arc<watch::Sender<BTreeSet<NodeId>>>,
    /// None without a site.
    pub(crate) members: Option<Arc<watch::Sender<KnownMembers>>>,
    pub(crate) dropped: Arc<DroppedEnvelopes>,
    pub(crate) liars: Arc<Mutex<Noise<NodeId>>>,
}

impl MeshHandle {
    /// Follows the state of the mesh.
    pub fn view(&self) -> watch::Receiver<MeshView> {
        self.view.clone()
    }

    /// Signs a publication and sends it to the nodes that subscribe. Best effort: if there is no room for the
    /// publication, this drops and counts it. This node does not hear it back.
    pub fn publish(&self, publication: Publication) {
        if self.publications.try_send(publication).is_err() {
            self.dropped.overflow();
        }
    }

    /// Begins to hear a topic. This always succeeds: no flood of publications is in its way.
    pub fn subscribe(&self, topic: TopicPath) {
        self.topics.send_if_modified(|topics| topics.insert(topic));
    }

    /// Stops hearing a topic.
    pub fn unsubscribe(&self, topic: &TopicPath) {
        self.topics.send_if_modified(|topics| topics.remove(topic));
    }

    /// Speaks with none of these nodes from then on, and with all others again: for testnets.
    pub fn cut_off(&self, nodes: BTreeSet<NodeId>) {
        self.cut_off.send_replace(nodes);
    }

    /// Dials these members of the site from then on, beside those of the configuration, and no others. An address is a
    /// hint: the handshake proves the member's key, and the certificate that it is a member. Without a site this does
    /// nothing: the list says which peers the node dials.
    pub fn know_members(&self, members: KnownMembers) {
        if let Some(known) = &self.members {
            known.send_replace(members);
        }
    }

    /// Notes that a node spoke for an agent that another node serves. This counts as an envelope that was not accepted.
    pub fn not_its(&self, sender: NodeId, source: &AgentId) {
        self.dropped.invalid();
        let said = self.liars.lock().unwrap_or_else(PoisonError::into_inner).heard(sender, Instant::now());
        if let Some(times) = said {
            tracing::warn!(peer = %sender, %source, times, "a node speaks for an agent that another node serves");
        }
    }

    /// Counts of what the mesh had to drop so far.
    pub fn dropped(&self) -> &DroppedEnvelopes {
        &self.dropped
    }
}
