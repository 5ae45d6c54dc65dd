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
    pub(crate) view: watch::Receiver<MeshView>,
    pub(crate) publications: mpsc::Sender<Publication>,
    pub(crate) topics: Arc<watch::Sender<BTreeSet<TopicPath>>>,
    pub(crate) cut_off: Arc<watch::Sender<BTreeSet<NodeId>>>,
    pub(crate) dropped: Arc<DroppedEnvelopes>,
    pub(crate) liars: Arc<Mutex<Noise<NodeId>>>,
}

impl MeshHandle {
    /// Follows what the mesh looks like.
    pub fn view(&self) -> watch::Receiver<MeshView> {
        self.view.clone()
    }

    /// Signs a publication and sends it to whoever subscribes. Best effort: it is dropped, and counted, if there is no
    /// room for it. This node does not hear it back.
    pub fn publish(&self, publication: Publication) {
        if self.publications.try_send(publication).is_err() {
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

    /// A node said something of an agent that another node serves. It is counted among what is not accepted.
    pub fn not_its(&self, sender: NodeId, source: &AgentId) {
        self.dropped.invalid();
        let said = self.liars.lock().unwrap_or_else(PoisonError::into_inner).heard(sender, Instant::now());
        if let Some(times) = said {
            tracing::warn!(peer = %sender, %source, times, "a node speaks for an agent that another node serves");
        }
    }

    /// What had to be let go so far.
    pub fn dropped(&self) -> &DroppedEnvelopes {
        &self.dropped
    }
}
