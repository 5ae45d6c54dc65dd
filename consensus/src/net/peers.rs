//! The nodes that are admitted and the connections to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use skep_config::PeerConfig;
use skep_protocol::frame::{FrameKind, Hello};
use skep_protocol::ids::{Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::text::NodeName;
use tokio::sync::watch;

use super::calls::{CallError, CallStream, Class};
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
}

/// An established connection to a peer.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) hello: Hello,
    pub(super) connection: quinn::Connection,
    /// Who dialled it.
    pub(super) dialled_by: NodeId,
    streams: tokio::sync::Mutex<BTreeMap<Class, CallStream>>,
}

impl Peer {
    pub(super) fn new(node: NodeId, hello: Hello, connection: quinn::Connection, dialled_by: NodeId) -> Self {
        Self { node, hello, connection, dialled_by, streams: tokio::sync::Mutex::default() }
    }

    /// The Raft id of the incarnation on the other side.
    pub(crate) fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.hello.incarnation)
    }

    async fn stream(&self, class: Class) -> Result<CallStream, CallError> {
        let mut streams = self.streams.lock().await;
        if let Some(stream) = streams.get(&class).filter(|stream| stream.is_open()) {
            return Ok(stream.clone());
        }
        let (send, receive) = self.connection.open_bi().await.map_err(|e| CallError::NotSent(e.to_string()))?;
        let _ = send.set_priority(class.priority());
        let stream = CallStream::new(send, receive);
        streams.insert(class, stream.clone());
        Ok(stream)
    }

    /// A stream of its own, for a snapshot.
    pub(super) async fn own_stream(&self, class: Class) -> Result<(quinn::SendStream, quinn::RecvStream), CallError> {
        let (send, receive) = self.connection.open_bi().await.map_err(|e| CallError::NotSent(e.to_string()))?;
        let _ = send.set_priority(class.priority());
        Ok((send, receive))
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
}

impl Peers {
    pub(super) fn new(local: NodeId, configs: &[PeerConfig], clocks: Clocks) -> Self {
        let entry = |config: &PeerConfig| Entry { config: config.clone(), peer: None, hello: None, last_error: None };
        let others = configs.iter().filter(|config| config.id != local);
        let entries = others.map(|config| (config.id, entry(config))).collect();
        Self { local, clocks, entries: Arc::new(Mutex::new(entries)), changed: watch::channel(0).0 }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    pub(super) fn admits(&self, node: NodeId) -> bool {
        self.entries().contains_key(&node)
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
        };
        self.entries().iter().map(view).collect()
    }

    pub(super) fn failed(&self, node: NodeId, error: String) {
        if let Some(entry) = self.entries().get_mut(&node) {
            entry.last_error = Some(error);
        }
    }

    /// Takes over a connection whose peer has said hello. False if another one is kept instead.
    pub(super) fn connect(&self, peer: &Arc<Peer>) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&peer.node) else { return false };
        if let Some(known) = &entry.peer {
            let same_process = known.hello.process == peer.hello.process;
            let preferred = self.local.min(peer.node);
            let alive = known.connection.close_reason().is_none();
            if same_process && alive && known.dialled_by == preferred && peer.dialled_by != preferred {
                return false;
            }
            known.connection.close(quinn::VarInt::from_u32(0), b"replaced by a newer connection");
        }
        entry.hello = Some(peer.hello.clone());
        entry.last_error = None;
        entry.peer = Some(Arc::clone(peer));
        drop(entries);
        self.changed.send_modify(|count| *count += 1);
        true
    }

    /// Lets go of a connection that ended.
    pub(super) fn disconnect(&self, peer: &Arc<Peer>, why: String) {
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
        let clock = self.clocks.known(shard).and_then(|clock| clock.to_send());
        let call = async { peer.stream(class).await?.call(kind, shard, clock, body, deadline).await };
        let result = match tokio::time::timeout(deadline + deadline / 4, call).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(deadline)),
        };
        // A late answer to a query or proposal says nothing of the path: only Raft's own calls do.
        if let (Err(CallError::Timeout(_)), Class::Urgent | Class::Append) = (&result, class) {
            peer.connection.close(quinn::VarInt::from_u32(1), b"a call missed its deadline");
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
