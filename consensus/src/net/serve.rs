//! Answering the calls of peers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use skep_protocol::frame::{FrameKind, Header};
use skep_protocol::ids::{NodeId, RaftId, ShardId};
use skep_protocol::limits;
use tokio::sync::{Semaphore, mpsc};

use super::calls::{CallError, Class, frame, read_frame, write_frames};
use super::peers::{Peer, Peers};
use crate::threads::Threads;

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) node: NodeId,
    pub(crate) raft_id: RaftId,
}

/// The answer to a call, or the reason why there is none.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Answers calls. Implemented by the service that owns the shards.
pub(crate) trait Dispatch: Send + Sync + 'static {
    /// Answers a call. Snapshots come whole: their head and data in one body.
    fn call(&self, who: Who, header: Header, body: Bytes) -> Answer;
}

/// Accepts the streams of a connection until it ends; the reason why it did. To be called on the control thread: Raft's
/// streams stay there.
pub(super) async fn serve(peer: Arc<Peer>, peers: Peers, dispatch: Arc<dyn Dispatch>, threads: Threads) -> String {
    let Some(connection) = peer.link.connection().cloned() else { return "it accepts nothing".to_owned() };
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => {
                let (peer, dispatch) = (Arc::clone(&peer), Arc::clone(&dispatch));
                let served = Served { peer, peers: peers.clone(), dispatch, threads: threads.clone() };
                tokio::spawn(sort(served, send, receive));
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// What answers the calls of one stream.
struct Served {
    peer: Arc<Peer>,
    peers: Peers,
    dispatch: Arc<dyn Dispatch>,
    threads: Threads,
}

impl Served {
    /// The next frame; none at the end of the stream, and if it is malformed: then the connection is closed.
    async fn next(&self, receive: &mut quinn::RecvStream) -> Option<(Header, Bytes)> {
        match read_frame(receive).await {
            Ok(frame) => frame,
            Err(error) => {
                if self.peer.link.is_open() {
                    tracing::warn!(peer = %self.peer.node, %error, "a malformed frame; the connection is closed");
                    self.peer.link.close(2, error.as_bytes());
                }
                None
            }
        }
    }
}

/// Has a stream served where its class belongs, as its first frame says.
async fn sort(served: Served, send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let Some(first) = served.next(&mut receive).await else { return };
    let runtime = class_of(first.0.kind).runtime(&served.threads).clone();
    runtime.spawn(serve_stream(served, first, send, receive));
}

async fn serve_stream(served: Served, first: (Header, Bytes), send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let who = Who { node: served.peer.node, raft_id: served.peer.raft_id() };
    let (frames, queue) = mpsc::channel(limits::CALLS_IN_FLIGHT_MAX);
    let in_flight = Arc::new(Semaphore::new(limits::CALLS_IN_FLIGHT_MAX));
    // Answers are as urgent as their calls.
    let _ = send.set_priority(class_of(first.0.kind).priority());
    tokio::spawn(write_frames(send, queue));
    let mut next = Some(first);
    loop {
        let next = match next.take() {
            Some(first) => Some(first),
            None => served.next(&mut receive).await,
        };
        let Some((header, body)) = next else { return };
        let body = if header.kind == FrameKind::SnapshotHead {
            match read_snapshot(&mut receive, body).await {
                Ok(whole) => whole,
                Err(error) => {
                    tracing::warn!(peer = %who.node, %error, "a snapshot did not arrive whole");
                    return;
                }
            }
        } else {
            body
        };
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let (frames, dispatch, peers) = (frames.clone(), Arc::clone(&served.dispatch), served.peers.clone());
        // A frame on a stream of another class is answered where its own belongs.
        class_of(header.kind).runtime(&served.threads).spawn(async move {
            let (kind, answer) = match dispatch.call(who, header, body).await {
                Ok(answer) => (FrameKind::Reply, answer),
                Err(why) => (FrameKind::Refused, why.into_bytes()),
            };
            let clock = peers.clocks().known(header.shard).and_then(|clock| clock.for_frames());
            let _ = frames.send(frame(kind, header.shard, clock, header.call, &answer)).await;
            drop(permit);
        });
    }
}

fn class_of(kind: FrameKind) -> Class {
    match kind {
        FrameKind::Append => Class::Append,
        FrameKind::Heartbeat | FrameKind::Claims | FrameKind::Pull | FrameKind::Leads => Class::Agents,
        FrameKind::End => Class::End,
        FrameKind::Propose => Class::Propose,
        FrameKind::Query => Class::Query,
        FrameKind::SnapshotHead | FrameKind::SnapshotChunk => Class::Snapshot,
        FrameKind::Hello
        | FrameKind::Forgot
        | FrameKind::Clock
        | FrameKind::Beat
        | FrameKind::Vote
        | FrameKind::PreVote
        | FrameKind::TransferLeader
        | FrameKind::Reply
        | FrameKind::Refused => Class::Urgent,
    }
}

/// Collects the chunks behind a head: eight bytes of length, the head, and the data.
async fn read_snapshot(receive: &mut quinn::RecvStream, head: Bytes) -> Result<Bytes, String> {
    let (length, _) = head.split_first_chunk::<8>().ok_or("its head is too short")?;
    let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limits::SNAPSHOT_BYTES_MAX {
        return Err(format!("{length} bytes are too many; at most {}", limits::SNAPSHOT_BYTES_MAX));
    }
    let mut whole = BytesMut::with_capacity(head.len() + length.min(limits::SNAPSHOT_CHUNK_BYTES_MAX));
    whole.extend_from_slice(&(head.len() as u64 - 8).to_be_bytes());
    whole.extend_from_slice(&head[8..]);
    let end = whole.len() + length;
    while whole.len() < end {
        let Some((header, chunk)) = read_frame(receive).await? else { return Err("it was cut off".to_owned()) };
        if header.kind != FrameKind::SnapshotChunk || chunk.is_empty() || whole.len() + chunk.len() > end {
            return Err("a chunk is not what it should be".to_owned());
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Sends snapshots in chunks, no faster than a rate.
#[derive(Clone)]
pub(crate) struct SnapshotSender {
    peers: Peers,
    bytes_per_s: u64,
}

impl SnapshotSender {
    pub(crate) fn new(peers: Peers, bytes_per_s: u64) -> Self {
        Self { peers, bytes_per_s: bytes_per_s.max(1) }
    }

    /// Sends a snapshot and waits for what its receiver makes of it.
    pub(crate) async fn send(
        &self,
        node: NodeId,
        shard: ShardId,
        head: &[u8],
        data: &Bytes,
        chunk_deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let peer = self.peers.connected(node).ok_or_else(|| self.peers.not_connected(node))?;
        #[cfg(test)]
        if let super::link::Link::Memory(link) = &peer.link {
            return link.send_snapshot(shard, head, data).await;
        }
        let (mut send, mut receive) = peer.link.own_stream(Class::Snapshot).await?;
        let mut body = (data.len() as u64).to_be_bytes().to_vec();
        body.extend_from_slice(head);
        let lost = |e: io::Error| CallError::Lost(e.to_string());
        let write = async {
            write_within(&mut send, frame(FrameKind::SnapshotHead, shard, None, 1, &body), chunk_deadline).await?;
            for chunk in data.chunks(limits::SNAPSHOT_CHUNK_BYTES_MAX) {
                let pause = Duration::from_secs_f64(chunk.len() as f64 / self.bytes_per_s as f64);
                let pace = tokio::time::sleep(pause);
                write_within(&mut send, frame(FrameKind::SnapshotChunk, shard, None, 1, chunk), chunk_deadline).await?;
                pace.await;
            }
            send.finish().map_err(io::Error::other)
        };
        write.await.map_err(lost)?;
        // Decoding and saving takes the receiver as long as it takes; the connection's own idle timeout watches it.
        match read_frame(&mut receive).await {
            Ok(Some((header, body))) if header.kind == FrameKind::Reply => Ok(body),
            Ok(Some((_, body))) => Err(CallError::Refused(String::from_utf8_lossy(&body).into_owned())),
            Ok(None) => Err(CallError::Lost("the stream was closed".to_owned())),
            Err(e) => Err(CallError::Lost(e)),
        }
    }
}

async fn write_within(send: &mut quinn::SendStream, bytes: Vec<u8>, deadline: Duration) -> io::Result<()> {
    match tokio::time::timeout(deadline, send.write_all(&bytes)).await {
        Ok(written) => written.map_err(io::Error::other),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "a chunk of the snapshot was not taken in time")),
    }
}
