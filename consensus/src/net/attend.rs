//! Connections that are established: the hellos of both sides, and serving a peer until its connection ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::{FRAME_VERSION, FrameKind, Hello};
use skep_protocol::ids::ShardId;
use skep_protocol::recovery::Lineage;

use super::calls::{frame, read_frame};
use super::doors::Doors;
use super::join::Newcomers;
use super::noise::Noise;
use super::peers::{Peer, Peers};
use super::serve::{ClassOf, Dispatch, serve};
use super::tls::Opens;
use crate::identity::Identity;
use crate::threads::Threads;

/// Longest wait of whoever dialled for the other side's hello: it may first have to find out whether an earlier process
/// lives.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections of an endpoint share.
pub(super) struct Shared {
    pub(super) identity: Identity,
    /// What this node says first, but for its shards.
    pub(super) hello: Hello,
    pub(super) peers: Peers,
    pub(super) idle_timeout: Duration,
    /// Who may speak on a connection as soon as it is established.
    pub(super) opens: Opens,
    pub(super) threads: Threads,
    pub(super) dispatch: Arc<dyn Dispatch>,
    pub(super) class_of: ClassOf,
    pub(super) doors: Doors,
    /// What is done with machines that want to join; none if this node is of no site.
    pub(super) newcomers: Option<Newcomers>,
    /// What strangers do, as it is told in the log.
    pub(super) strangers: Noise,
}

impl Shared {
    /// What this node says first, as it is now.
    pub(super) fn hello(&self) -> Hello {
        Hello { shards: self.peers.shards(), ..self.hello.clone() }
    }

    /// Somebody was not let in: one line a minute, whoever it is.
    pub(super) fn note_stranger(&self, from: SocketAddr, why: &str) {
        if let Some(more) = self.strangers.happened() {
            tracing::warn!(%from, why, more, "a connection to the control plane was refused");
        }
    }
}

/// Has a connection served on the control thread, where Raft's streams are, until it ends. `said`: which shards this
/// node said that it has.
pub(super) async fn attend(peer: Peer, said: Vec<Lineage>, shared: &Arc<Shared>) {
    let served = shared.threads.control().spawn(serve_until_closed(peer, said, Arc::clone(shared)));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection is served no more, since the node stops");
    }
}

async fn serve_until_closed(peer: Peer, said: Vec<Lineage>, shared: Arc<Shared>) {
    let peer = Arc::new(peer);
    if !shared.peers.has_place(peer.node) {
        peer.link.close(0, b"this node is connected with as many members as it can be");
        return;
    }
    shared.peers.note_shards(peer.node, &peer.hello.shards);
    if !shared.peers.connect(&peer) {
        peer.link.close(0, b"another connection is kept");
        return;
    }
    tracing::info!(peer = %peer.node, name = %peer.hello.name, "control plane connected");
    let work = shared.threads.work();
    // What this node is may have become known since it said hello. What becomes known from here on is told to all that
    // are connected.
    if shared.peers.shards() != said {
        let (peers, node) = (shared.peers.clone(), peer.node);
        work.spawn(async move { peers.ask_shards(node, HELLO_TIMEOUT).await });
    }
    if shared.peers.is_of_site() {
        let (peers, peer) = (shared.peers.clone(), Arc::clone(&peer));
        work.spawn(async move {
            // Somebody may have been revoked since it was let in.
            peers.judge_again(&peer).await;
            peers.tell_since_hello(&peer).await;
            peers.ask_addresses(peer.node, HELLO_TIMEOUT).await;
        });
    }
    let (threads, answers) = (shared.threads.clone(), (Arc::clone(&shared.dispatch), shared.class_of));
    let why = serve(Arc::clone(&peer), shared.peers.clone(), answers, threads).await;
    tracing::info!(peer = %peer.node, name = %peer.hello.name, why, "control plane disconnected");
    if let Some(connection) = peer.link.connection() {
        shared.peers.note_if_refused(connection);
    }
    shared.peers.note_left(peer.node);
    shared.peers.disconnect(&peer, why);
}

pub(super) async fn send_hello(send: &mut quinn::SendStream, hello: &Hello) -> Result<(), String> {
    let body = hello.encode().map_err(|e| e.to_string())?;
    send.write_all(&frame(FrameKind::Hello, ShardId(0), None, 0, &body)).await.map_err(|e| e.to_string())?;
    send.finish().map_err(|e| e.to_string())
}

pub(super) async fn read_hello(receive: &mut quinn::RecvStream) -> Result<Hello, String> {
    match read_frame(receive).await? {
        Some((header, body)) if header.kind == FrameKind::Hello => Hello::decode(&body).map_err(|e| e.to_string()),
        Some(_) => Err("it did not say hello first".to_owned()),
        None => Err("it said nothing".to_owned()),
    }
}

pub(super) fn check_hello(theirs: &Hello, ours: &Hello) -> Result<(), String> {
    if theirs.site != ours.site {
        return Err(format!("it is of site {}, and this node is of site {}", theirs.site, ours.site));
    }
    if theirs.frame_version_min > FRAME_VERSION || theirs.frame_version_max < FRAME_VERSION {
        return Err(format!(
            "it speaks frame versions {} to {}, and this node speaks {FRAME_VERSION}",
            theirs.frame_version_min, theirs.frame_version_max
        ));
    }
    Ok(())
}
