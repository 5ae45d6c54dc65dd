//! The QUIC endpoint: dialling, accepting, saying hello.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use skep_config::{PeerConfig, cannot_listen};
use skep_protocol::codec::Encoded;
use skep_protocol::frame::{FRAME_VERSION, FrameKind, Hello};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::recovery::Lineage;
use tokio::time::Instant;

use super::calls::{frame, read_frame};
use super::doors::Doors;
use super::drivers::{Drivers, Handshake, begin};
use super::link::Link;
use super::noise::Noise;
use super::peers::{Peer, Peers};
use super::roles::{NOT_NEEDED, Stance};
use super::serve::{ClassOf, Dispatch, serve};
use super::tls;
use crate::clock::Clocks;
use crate::identity::Identity;
use crate::threads::Threads;

/// Longest wait for a handshake; with the other side's hello, if that side dialled. Two round trips, and packets that are lost:
/// a link of some seconds is to come up too.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait of whoever dialled for the other side's hello: it may first have to find out whether an earlier process lives.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest wait between dials of one peer.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// How long a voter waits to be dialled by a peer that does not vote, before it dials itself: the peer may not have its
/// address.
const REDIAL_SELDOM: Duration = Duration::from_secs(30);
/// Before it is known who votes, peers are dialled within so long for each of them: most need not be, once one has told.
const FIRST_DIAL_PER_PEER: Duration = Duration::from_millis(2);

/// Everything that a control plane starts from.
pub(crate) struct Setup {
    pub(crate) identity: Identity,
    pub(crate) hello: Hello,
    pub(crate) listen: SocketAddr,
    pub(crate) peers: Vec<PeerConfig>,
    pub(crate) idle_timeout: Duration,
    pub(crate) clocks: Clocks,
    pub(crate) threads: Threads,
    pub(crate) class_of: ClassOf,
}

/// The running endpoint.
pub(crate) struct ControlPlane {
    endpoint: quinn::Endpoint,
}

struct Shared {
    identity: Identity,
    /// What this node says first, but for its shards.
    hello: Hello,
    peers: Peers,
    idle_timeout: Duration,
    threads: Threads,
    dispatch: Arc<dyn Dispatch>,
    class_of: ClassOf,
    doors: Doors,
    /// What strangers do, as it is told in the log.
    strangers: Noise,
}

impl ControlPlane {
    /// The peers that will be served, before anything listens.
    pub(crate) fn peers(setup: &Setup) -> Peers {
        Peers::new(setup.identity.node(), &setup.peers, setup.clocks.clone())
    }

    /// Binds, listens, and dials peers that have an address: which, and for how long, who votes decides.
    pub(crate) fn start(setup: Setup, peers: Peers, dispatch: Arc<dyn Dispatch>) -> Result<Self, String> {
        let cannot_listen =
            |e: io::Error| cannot_listen("the control plane", &setup.listen, "QUIC", &e, "control.listen");
        let socket = UdpSocket::bind(setup.listen).map_err(cannot_listen)?;
        let server = tls::server(&setup.identity, setup.idle_timeout).map_err(|e| e.to_string())?;
        let drivers = Arc::new(Drivers::new(setup.threads.clone()));
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, drivers)
            .map_err(cannot_listen)?;
        let shared = Arc::new(Shared {
            identity: setup.identity,
            hello: setup.hello,
            peers,
            idle_timeout: setup.idle_timeout,
            threads: setup.threads,
            dispatch,
            class_of: setup.class_of,
            doors: Doors::new(setup.peers.iter().filter_map(|peer| Some((peer.id, peer.control?.ip())))),
            strangers: Noise::default(),
        });
        let work = shared.threads.work();
        work.spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        let spread = FIRST_DIAL_PER_PEER * u32::try_from(setup.peers.len()).unwrap_or(u32::MAX);
        for peer in setup.peers {
            if let Some(address) = peer.control.filter(|_| peer.id != shared.identity.node()) {
                work.spawn(keep_connected(endpoint.clone(), Arc::clone(&shared), peer.id, address, spread));
            }
        }
        Ok(Self { endpoint })
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Closes all connections and waits a moment for peers to hear of it.
    pub(crate) async fn close(&self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"the node stops");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// Takes connections in. Of each the first part of its handshake is done here, one after the other: the endpoint, and with it
/// Raft, waits meanwhile.
async fn accept(endpoint: quinn::Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        // Nobody takes a place before showing that its address is its own.
        if !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let from = incoming.remote_address();
        let Some(place) = shared.doors.enter(from.ip()) else {
            incoming.refuse();
            shared.note_stranger(from, "too many shake hands, or too many from there");
            continue;
        };
        let (connecting, handshake) = begin(|| incoming.accept());
        let shared = Arc::clone(&shared);
        shared.threads.clone().work().spawn(async move {
            let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, admit(connecting, handshake, &shared)).await;
            drop(place);
            match accepted {
                Ok(Ok(guest)) => {
                    shared.doors.remember(guest.node, from.ip());
                    welcome(guest, &shared).await;
                }
                Ok(Err(why)) => shared.note_stranger(from, &why),
                Err(_) => shared.note_stranger(from, "it did not get through its handshake"),
            }
        });
        // The lock of the endpoint is not fair: whoever drives it has its turn before the next one.
        tokio::task::yield_now().await;
    }
}

impl Shared {
    /// What this node says first, as it is now.
    fn hello(&self) -> Hello {
        Hello { shards: self.peers.shards(), ..self.hello.clone() }
    }

    /// Somebody was not let in: one line a minute, whoever it is.
    fn note_stranger(&self, from: SocketAddr, why: &str) {
        if let Some(more) = self.strangers.happened() {
            tracing::warn!(%from, why, more, "a connection to the control plane was refused");
        }
    }
}

/// A peer that was let in and said hello.
struct Guest {
    node: NodeId,
    hello: Hello,
    connection: quinn::Connection,
    send: quinn::SendStream,
}

async fn admit(
    connecting: Result<quinn::Connecting, quinn::ConnectionError>,
    handshake: Handshake,
    shared: &Shared,
) -> Result<Guest, String> {
    let connection = connecting.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())?;
    drop(handshake);
    let refuse = |why: String| {
        connection.close(quinn::VarInt::from_u32(3), why.as_bytes());
        why
    };
    let node = tls::authenticated(&connection).ok_or_else(|| refuse("it showed no node identity".to_owned()))?;
    if !shared.peers.admits(node) {
        return Err(refuse(format!("{node} is not in the peer list of this node; add it to [[peers]]")));
    }
    let (send, mut receive) = connection.accept_bi().await.map_err(|e| e.to_string())?;
    let hello = read_hello(&mut receive).await.map_err(refuse)?;
    check_hello(&hello, &shared.hello).map_err(refuse)?;
    Ok(Guest { node, hello, connection, send })
}

/// Says hello to a peer that dialled, and serves the connection until it ends; unless another process under its identity is
/// connected and lives.
async fn welcome(guest: Guest, shared: &Arc<Shared>) {
    let Guest { node, hello, connection, mut send } = guest;
    if let Err(why) = shared.peers.make_way(node, &hello, connection.remote_address()).await {
        return Peers::refuse_twin(&connection, &why);
    }
    let ours = shared.hello();
    let said = tokio::time::timeout(HANDSHAKE_TIMEOUT, send_hello(&mut send, &ours)).await;
    let said = said.unwrap_or_else(|_| Err("it does not read what it is told".to_owned()));
    drop(send);
    match said {
        Ok(()) => {
            let peer = Peer::new(node, hello, Link::quic(connection, shared.threads.clone()), node);
            attend(peer, ours.shards, shared).await;
        }
        Err(why) => tracing::warn!(%node, why, "a connection to the control plane ended before it began"),
    }
}

/// Dials a peer whenever it is not connected and should be, with backoff and full jitter.
async fn keep_connected(
    endpoint: quinn::Endpoint,
    shared: Arc<Shared>,
    node: NodeId,
    address: SocketAddr,
    spread: Duration,
) {
    let client = match tls::client(&shared.identity, node, shared.idle_timeout) {
        Ok(client) => client,
        Err(error) => return shared.peers.failed(node, error.to_string()),
    };
    let (mut roles, mut changes) = (shared.peers.role_changes(), shared.peers.changes());
    if !roles.borrow_and_update().known {
        let first = tokio::time::sleep(spread.mul_f64(rand::random_range(0.0..1.0)));
        tokio::select! {
            () = first => {}
            Ok(()) = roles.changed() => {}
        }
    }
    let (mut wait, mut alone_since) = (REDIAL_MIN, Instant::now());
    loop {
        changes.borrow_and_update();
        if shared.peers.connected(node).is_none() {
            let dials = match shared.peers.stance(node) {
                Stance::Dial => true,
                Stance::Answer => alone_since.elapsed() >= REDIAL_SELDOM,
                Stance::Leave => {
                    shared.peers.failed(node, NOT_NEEDED.to_owned());
                    false
                }
            };
            if dials && !shared.peers.is_cut_off(node) {
                if connect(&endpoint, &client, &shared, node, address).await {
                    wait = REDIAL_MIN;
                }
                alone_since = Instant::now();
            }
        }
        if endpoint.local_addr().is_err() {
            return;
        }
        // The peer may have dialled.
        let is_connected = shared.peers.connected(node).is_some();
        let pause = if is_connected { REDIAL_MAX } else { wait.mul_f64(rand::random_range(0.5..1.5)) };
        tokio::select! {
            () = tokio::time::sleep(pause) => wait = (wait * 2).min(REDIAL_MAX),
            Ok(()) = roles.changed() => wait = REDIAL_MIN,
            Ok(()) = changes.changed(), if is_connected => {}
        }
        if is_connected {
            (wait, alone_since) = (REDIAL_MIN, Instant::now());
        }
    }
}

/// Dials a peer once, and serves the connection until it ends; whether there was one.
async fn connect(
    endpoint: &quinn::Endpoint,
    client: &quinn::ClientConfig,
    shared: &Arc<Shared>,
    node: NodeId,
    address: SocketAddr,
) -> bool {
    match dial(endpoint, client, shared, node, address).await {
        Ok((peer, said)) => {
            // What was known of who votes may have changed meanwhile.
            if shared.peers.stance(node) == Stance::Leave {
                peer.link.close(0, NOT_NEEDED.as_bytes());
            } else {
                attend(peer, said, shared).await;
            }
            true
        }
        Err(error) => {
            shared.peers.failed(node, error);
            false
        }
    }
}

/// Shakes hands with a peer: the connection, and which shards this node said that it has.
async fn dial(
    endpoint: &quinn::Endpoint,
    client: &quinn::ClientConfig,
    shared: &Shared,
    node: NodeId,
    address: SocketAddr,
) -> Result<(Peer, Vec<Lineage>), String> {
    // An address as the name sends no SNI; the identity is in the certificate.
    let (connecting, handshake) = begin(|| endpoint.connect_with(client.clone(), address, "0.0.0.0"));
    let connecting = connecting.map_err(|e| e.to_string())?;
    let silent = |_| format!("{address} does not answer");
    let connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(silent)?;
    let connection = connected.map_err(|e| e.to_string())?;
    drop(handshake);
    let ours = shared.hello();
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, greet(&connection, &ours)).await.map_err(silent)? {
        Ok(hello) => hello,
        Err(error) => {
            shared.peers.note_if_refused(&connection);
            return Err(connection.close_reason().map_or(error, |reason| reason.to_string()));
        }
    };
    check_hello(&hello, &shared.hello)?;
    if let Err(why) = shared.peers.make_way(node, &hello, connection.remote_address()).await {
        Peers::refuse_twin(&connection, &why);
        return Err(why);
    }
    let local = shared.identity.node();
    Ok((Peer::new(node, hello, Link::quic(connection, shared.threads.clone()), local), ours.shards))
}

/// Says hello first, and waits for the other side's.
async fn greet(connection: &quinn::Connection, ours: &Hello) -> Result<Hello, String> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
    send_hello(&mut send, ours).await?;
    read_hello(&mut receive).await
}

/// Has a connection served on the control thread, where Raft's streams are, until it ends. `said`: which shards this node said that
/// it has.
async fn attend(peer: Peer, said: Vec<Lineage>, shared: &Arc<Shared>) {
    let served = shared.threads.control().spawn(serve_until_closed(peer, said, Arc::clone(shared)));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection is served no more, since the node stops");
    }
}

async fn serve_until_closed(peer: Peer, said: Vec<Lineage>, shared: Arc<Shared>) {
    let peer = Arc::new(peer);
    shared.peers.note_shards(peer.node, &peer.hello.shards);
    if !shared.peers.connect(&peer) {
        peer.link.close(0, b"another connection is kept");
        return;
    }
    tracing::info!(peer = %peer.node, name = %peer.hello.name, "control plane connected");
    // What this node is may have become known since it said hello. What becomes known from here on is told to all that are connected.
    if shared.peers.shards() != said {
        let (peers, node) = (shared.peers.clone(), peer.node);
        shared.threads.work().spawn(async move { peers.ask_shards(node, HELLO_TIMEOUT).await });
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

async fn send_hello(send: &mut quinn::SendStream, hello: &Hello) -> Result<(), String> {
    let body = hello.encode().map_err(|e| e.to_string())?;
    send.write_all(&frame(FrameKind::Hello, ShardId(0), None, 0, &body)).await.map_err(|e| e.to_string())?;
    send.finish().map_err(|e| e.to_string())
}

async fn read_hello(receive: &mut quinn::RecvStream) -> Result<Hello, String> {
    match read_frame(receive).await? {
        Some((header, body)) if header.kind == FrameKind::Hello => Hello::decode(&body).map_err(|e| e.to_string()),
        Some(_) => Err("it did not say hello first".to_owned()),
        None => Err("it said nothing".to_owned()),
    }
}

fn check_hello(theirs: &Hello, ours: &Hello) -> Result<(), String> {
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
