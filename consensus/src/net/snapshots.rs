//! Snapshots on their way to a node: in chunks, from where the last attempt ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skep_protocol::frame::{FrameKind, SnapshotId};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use super::calls::{CallError, Class};
use super::peers::Peers;
use crate::threads::{Errand, Threads};

/// How long the answer to the last call is waited for, beside the time that the slowest receiver takes to decode and save so
/// many bytes: to ask again is of no use, and does no harm.
const INSTALL_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that the slowest receiver decodes and saves in a second.
const INSTALL_BYTES_PER_S: u64 = 1024 * 1024;
/// How long a receiver that is not connected is waited for.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Which nodes a shard's snapshot is on its way to. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sending(Arc<Mutex<BTreeMap<NodeId, Instant>>>);

impl Sending {
    fn moved(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Instant::now());
    }

    fn ended(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Whether one is on its way of which a part was taken a moment ago.
    pub(crate) fn is_under_way(&self) -> bool {
        let held = Duration::from_millis(limits::SNAPSHOT_HELD_MS);
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, moved| moved.elapsed() < held);
        !nodes.is_empty()
    }
}

/// Sends the snapshots of one shard, no faster than a rate.
#[derive(Clone)]
pub(crate) struct SnapshotSender {
    peers: Peers,
    shard: ShardId,
    bytes_per_s: u64,
    /// Shortest patience with a call.
    least: Duration,
    sending: Sending,
    threads: Threads,
}

impl SnapshotSender {
    /// Sends no more than so many bytes a second, and waits for answers for no less than `least`.
    pub(crate) fn new(
        (peers, threads): (Peers, Threads),
        shard: ShardId,
        bytes_per_s: u64,
        least: Duration,
        sending: Sending,
    ) -> Self {
        Self { peers, shard, bytes_per_s: bytes_per_s.max(1), least, sending, threads }
    }

    /// Waits for a while until a node is connected. An error if it is not then.
    pub(crate) async fn reach(&self, node: NodeId) -> Result<(), CallError> {
        self.wait_for(node, CONNECT_PATIENCE).await;
        self.peers.connected(node).map(drop).ok_or_else(|| self.peers.not_connected(node))
    }

    /// Waits between two attempts to send to a node: no longer than until it is connected, if it is not.
    pub(crate) async fn pause(&self, node: NodeId, pause: Duration) {
        if self.peers.connected(node).is_some() {
            tokio::time::sleep(pause).await;
        } else {
            self.wait_for(node, pause).await;
        }
    }

    async fn wait_for(&self, node: NodeId, patience: Duration) {
        let mut changes = self.peers.changes();
        let connected = async { while self.peers.connected(node).is_none() && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(patience, connected).await;
    }

    /// Which snapshot these bytes are.
    pub(crate) async fn name(&self, data: &Bytes) -> Result<SnapshotId, CallError> {
        let (whole, bytes) = (data.clone(), data.len() as u64);
        let digest = self.threads.offload(Errand::Snapshots, move || xxh3_128(&whole)).await;
        Ok(SnapshotId { bytes, digest: digest.map_err(|e| CallError::NotSent(e.to_string()))? })
    }

    /// Says which snapshot comes; how much of it the node has already. Nothing is read for that from the disk.
    pub(crate) async fn offer(&self, node: NodeId, offer: &Offer) -> Result<usize, CallError> {
        let call =
            self.peers.call(node, Class::Snapshot, FrameKind::SnapshotHead, self.shard, &offer.named, self.least);
        let there = offer.there(&call.await?)?;
        self.sending.moved(node);
        Ok(there)
    }

    /// Sends what a node lacks of a snapshot that it was offered, and waits for what it makes of it. `there` says how much it
    /// has, also once this has failed.
    pub(crate) async fn send(
        &self,
        node: NodeId,
        offer: &Offer,
        data: &Bytes,
        there: &mut usize,
    ) -> Result<Bytes, CallError> {
        let transfer = Transfer { sender: self, node, offer, data };
        while *there < data.len() {
            let before = *there;
            transfer.send_from(there).await?;
            if *there <= before {
                return Err(CallError::Refused("it takes nothing of the snapshot".to_owned()));
            }
        }
        let least = INSTALL_PATIENCE + Duration::from_secs(offer.id.bytes / INSTALL_BYTES_PER_S);
        let (shard, named) = (self.shard, &offer.named);
        let call = self.peers.call(node, Class::Snapshot, FrameKind::SnapshotInstall, shard, named, least);
        let answer = call.await?;
        self.sending.ended(node);
        Ok(answer)
    }
}

/// A snapshot that is offered.
pub(crate) struct Offer {
    id: SnapshotId,
    /// The body of the calls that name it.
    named: Vec<u8>,
}

impl Offer {
    /// What the head says is for the receiver.
    pub(crate) fn new(id: SnapshotId, head: &[u8]) -> Self {
        let mut named = Vec::with_capacity(SnapshotId::BYTES + head.len());
        id.write(&mut named);
        named.extend_from_slice(head);
        Self { id, named }
    }

    fn there(&self, answer: &[u8]) -> Result<usize, CallError> {
        let there = <[u8; 8]>::try_from(answer).ok().map(u64::from_be_bytes).filter(|there| *there <= self.id.bytes);
        let there = there.and_then(|there| usize::try_from(there).ok());
        there.ok_or_else(|| CallError::Refused("it does not say how much of the snapshot it has".to_owned()))
    }
}

/// A snapshot on its way to one node.
struct Transfer<'a> {
    sender: &'a SnapshotSender,
    node: NodeId,
    offer: &'a Offer,
    data: &'a Bytes,
}

/// How a chunk fared.
struct Sent {
    bytes: usize,
    took: Duration,
    /// How much is there without a gap.
    there: Result<usize, CallError>,
}

impl Transfer<'_> {
    async fn chunk(&self, from: usize, bytes: usize) -> Sent {
        let SnapshotSender { peers, shard, least, .. } = self.sender;
        let chunk = self.data.slice(from..from + bytes);
        let mut body = Vec::with_capacity(SnapshotId::BYTES + 8 + bytes);
        self.offer.id.write(&mut body);
        body.extend_from_slice(&(from as u64).to_be_bytes());
        body.extend_from_slice(&chunk);
        let begun = Instant::now();
        let call = peers.call(self.node, Class::Snapshot, FrameKind::SnapshotChunk, *shard, &body, *least);
        let there = match call.await {
            Ok(answer) => self.offer.there(&answer),
            Err(error) => Err(error),
        };
        Sent { bytes, took: begun.elapsed(), there }
    }

    /// Sends everything behind what is there without a gap, and says how much that is as it grows. Whatever goes wrong ends the
    /// attempt: the next one asks how much is there.
    async fn send_from(&self, there: &mut usize) -> Result<(), CallError> {
        let mut under_way = FuturesUnordered::new();
        let (mut at, mut bytes_under_way, mut due) = (*there, 0, Instant::now());
        loop {
            let (most, chunk) = self.budget()?;
            let may = at < self.data.len()
                && bytes_under_way < most
                && under_way.len() < limits::SNAPSHOT_CHUNKS_UNDER_WAY_MAX;
            tokio::select! {
                // In order, and not by chance: a simulated run is the same every time.
                biased;
                Some(sent) = under_way.next() => {
                    let sent: Sent = sent;
                    let (bytes, were) = (sent.bytes, bytes_under_way);
                    *there = (*there).max(self.note(sent, were)?);
                    bytes_under_way = were.saturating_sub(bytes);
                }
                () = tokio::time::sleep_until(due), if may => {
                    let bytes = chunk.min(self.data.len() - at);
                    under_way.push(self.chunk(at, bytes));
                    (at, bytes_under_way) = (at + bytes, bytes_under_way + bytes);
                    let pause = Duration::from_secs_f64(bytes as f64 / self.sender.bytes_per_s as f64);
                    due = due.max(Instant::now()) + pause;
                }
                else => return Ok(()),
            }
        }
    }

    /// How many bytes may be under way, and how many go into one chunk.
    fn budget(&self) -> Result<(usize, usize), CallError> {
        let peers = &self.sender.peers;
        let peer = peers.connected(self.node).ok_or_else(|| peers.not_connected(self.node))?;
        Ok(peer.snapshot_bytes())
    }

    /// Takes note of how a chunk fared, while so many bytes were under way; how much is there.
    fn note(&self, sent: Sent, under_way: usize) -> Result<usize, CallError> {
        let peer = self.sender.peers.connected(self.node);
        match (&sent.there, peer) {
            (Ok(_), Some(peer)) => peer.chunk_answered(sent.bytes, sent.took, under_way),
            (Err(CallError::Timeout(_)), Some(peer)) => peer.chunk_missed(),
            _ => {}
        }
        if sent.there.is_ok() {
            self.sender.sending.moved(self.node);
        }
        sent.there
    }
}
