//! Answering the calls of peers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::frame::{FrameKind, Header};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::limits;
use tokio::sync::{Semaphore, mpsc};

use super::calls::{Class, frame, read_frame, write_frames};
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
    /// Answers a call.
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
        FrameKind::SnapshotHead | FrameKind::SnapshotChunk | FrameKind::SnapshotInstall => Class::Snapshot,
        FrameKind::Hello
        | FrameKind::Forgot
        | FrameKind::Clock
        | FrameKind::Twin
        | FrameKind::Beat
        | FrameKind::Vote
        | FrameKind::PreVote
        | FrameKind::TransferLeader
        | FrameKind::Reply
        | FrameKind::Refused => Class::Urgent,
    }
}
