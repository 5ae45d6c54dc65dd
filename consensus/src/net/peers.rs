//! The nodes that are admitted and the connections to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use skep_config::PeerConfig;
use skep_protocol::frame::{FrameKind, Hello};
use skep_protocol::ids::{Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::text::NodeName;
use tokio::sync::watch;

use super::calls::{CallError, Class};
use super::link::{Link, Outgoing};
use crate::clock::Clocks;

/// A peer as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who it is.
    pub node: NodeId,
    /// Its name, as it says itself or as it is configured.
    pub name: Option<NodeName>,
    /// Whether it is connected.
    pub up: bool,
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// The incarnation that it last showed.
    pub incarnation: Option<Incarnation>,
    /// Why it is not connected, if that is known.
    pub last_error: Option<String>,
    /// The round trip to it, in milliseconds. None while nobody measures it.
    pub rtt_ms: Option<u64>,
    /// How many of a thousand packets to it are lost. None while nobody counts them.
    pub lost_permille: Option<u32>,
    /// What the link to it carries, in bytes a second. None while nobody measures it.
    pub bytes_per_s: Option<u64>,
}

/// An established connection to a peer.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) hello: Hello,
    pub(super) link: Link,
    /// Who dialled it.
    pub(super) dialled_by: NodeId,
}

impl Peer {
    pub(crate) fn new(node: NodeId, hello: Hello, link: Link, dialled_by: NodeId) -> Self {
        Self { node, hello, link, dialled_by }
    }

    /// The Raft id of the incarnation on the other side.
    pub(crate) fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.hello.incarnation)
    }
}

struct Entry {
    config: PeerConfig,
    peer: Option<Arc<Peer>>,
    /// What it last said of itself.
    hello: Option<Hello>,
    last_error: Option<String>,
}

/// All admitted peers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    local: NodeId,
    clocks: Clocks,
    entries: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
    changed: watch::Sender<u64>,
    /// Peers with whom nothing is spoken, as a testnet wishes.
    cut_off: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Peers {
    pub(crate) fn new(local: NodeId, configs: &[PeerConfig], clocks: Clocks) -> Self {
        let entry = |config: &PeerConfig| Entry { config: config.clone(), peer: None, hello: None, last_error: None };
        let others = configs.iter().filter(|config| config.id != local);
        let entries = others.map(|config| (config.id, entry(config))).collect();
        Self {
            local,
            clocks,
            entries: Arc::new(Mutex::new(entries)),
            changed: watch::channel(0).0,
            cut_off: Arc::default(),
        }
    }

    /// Speaks with none of these from now on, and with all others again.
    pub(crate) fn cut_off(&self, nodes: BTreeSet<NodeId>) {
        *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner) = nodes.clone();
        for peer in nodes.into_iter().filter_map(|node| self.connected(node)) {
            peer.link.close(0, b"cut off");
        }
    }

    pub(super) fn is_cut_off(&self, node: NodeId) -> bool {
        self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    pub(super) fn admits(&self, node: NodeId) -> bool {
        self.entries().contains_key(&node) && !self.is_cut_off(node)
    }

    /// The connection to a peer, if there is one.
    pub(crate) fn connected(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.entries().get(&node)?.peer.clone()
    }

    /// Follows connects and disconnects.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All peers as they are now.
    pub(crate) fn views(&self) -> Vec<PeerView> {
        let view = |(node, entry): (&NodeId, &Entry)| PeerView {
            node: *node,
            name: entry.hello.as_ref().map(|h| h.name.clone()).or_else(|| entry.config.name.clone()),
            up: entry.peer.is_some(),
            address: entry.config.control,
            incarnation: entry.hello.as_ref().map(|h| h.incarnation),
            last_error: entry.last_error.clone(),
            rtt_ms: None,
            lost_permille: None,
            bytes_per_s: None,
        };
        self.entries().iter().map(view).collect()
    }

    pub(super) fn failed(&self, node: NodeId, error: String) {
        if let Some(entry) = self.entries().get_mut(&node) {
            entry.last_error = Some(error);
        }
    }

    /// Takes over a connection whose peer has said hello. False if another one is kept instead.
    pub(crate) fn connect(&self, peer: &Arc<Peer>) -> bool {
        if self.is_cut_off(peer.node) {
            return false;
        }
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&peer.node) else { return false };
        if let Some(known) = &entry.peer {
            let same_process = known.hello.process == peer.hello.process;
            let preferred = self.local.min(peer.node);
            let alive = known.link.is_open();
            if same_process && alive && known.dialled_by == preferred && peer.dialled_by != preferred {
                return false;
            }
            known.link.close(0, b"replaced by a newer connection");
        }
        entry.hello = Some(peer.hello.clone());
        entry.last_error = None;
        entry.peer = Some(Arc::clone(peer));
        drop(entries);
        self.changed.send_modify(|count| *count += 1);
        true
    }

    /// Lets go of a connection that ended.
    pub(crate) fn disconnect(&self, peer: &Arc<Peer>, why: String) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&peer.node)
            && entry.peer.as_ref().is_some_and(|known| Arc::ptr_eq(known, peer))
        {
            entry.peer = None;
            entry.last_error = Some(why);
            drop(entries);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Calls a peer and waits for its answer. A call that misses its deadline ends the connection.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        class: Class,
        kind: FrameKind,
        shard: ShardId,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let Some(peer) = self.connected(node) else { return Err(self.not_connected(node)) };
        let clock = self.clocks.known(shard).and_then(|clock| clock.for_frames());
        let call = Outgoing { class, kind, shard, clock, body, deadline };
        let result = match tokio::time::timeout(deadline + deadline / 4, peer.link.call(call)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(deadline)),
        };
        // A late answer to a query or proposal says nothing of the path: only Raft's own calls do.
        let of_raft = matches!(class, Class::Urgent | Class::Append) && kind != FrameKind::Clock;
        if let Err(CallError::Timeout(_)) = &result
            && of_raft
        {
            peer.link.close(1, b"a call missed its deadline");
        }
        result
    }

    pub(crate) fn not_connected(&self, node: NodeId) -> CallError {
        let entries = self.entries();
        CallError::NotSent(match entries.get(&node) {
            None => format!("{node} is not in the peer list; add it to [[peers]]"),
            Some(Entry { last_error: Some(error), .. }) => format!("{node} is not connected: {error}"),
            Some(_) => format!("{node} is not connected"),
        })
    }
}
