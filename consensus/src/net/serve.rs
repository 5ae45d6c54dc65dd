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

/// Accepts the streams of a connection until it ends; the reason why it did.
pub(super) async fn serve(peer: Arc<Peer>, peers: Peers, dispatch: Arc<dyn Dispatch>) -> String {
    let Some(connection) = peer.link.connection().cloned() else { return "it accepts nothing".to_owned() };
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => {
                tokio::spawn(serve_stream(Arc::clone(&peer), peers.clone(), Arc::clone(&dispatch), send, receive));
            }
            Err(error) => return error.to_string(),
        }
    }
}

async fn serve_stream(
    peer: Arc<Peer>,
    peers: Peers,
    dispatch: Arc<dyn Dispatch>,
    send: quinn::SendStream,
    mut receive: quinn::RecvStream,
) {
    let who = Who { node: peer.node, raft_id: peer.raft_id() };
    let (frames, queue) = mpsc::channel(limits::CALLS_IN_FLIGHT_MAX);
    let in_flight = Arc::new(Semaphore::new(limits::CALLS_IN_FLIGHT_MAX));
    let mut send = Some((send, queue));
    loop {
        let (header, body) = match read_frame(&mut receive).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                if peer.link.is_open() {
                    tracing::warn!(peer = %who.node, %error, "a malformed frame; the connection is closed");
                    peer.link.close(2, error.as_bytes());
                }
                return;
            }
        };
        if let Some((send, queue)) = send.take() {
            // Answers are as urgent as their calls.
            let _ = send.set_priority(class_of(header.kind).priority());
            tokio::spawn(write_frames(send, queue));
        }
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let (frames, dispatch, peers) = (frames.clone(), Arc::clone(&dispatch), peers.clone());
        tokio::spawn(async move {
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
        | FrameKind::Beat
        | FrameKind::Vote
        | FrameKind::PreVote
        | FrameKind::TransferLeader
        | FrameKind::Reply
        | FrameKind::Refused => Class::Urgent,
    }
}
