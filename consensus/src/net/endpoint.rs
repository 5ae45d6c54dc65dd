//! The QUIC endpoint: dialling, accepting, saying hello.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use skep_admission::SiteHandle;
use skep_config::{PeerConfig, cannot_listen};
use skep_protocol::frame::Hello;
use skep_protocol::ids::NodeId;
use tokio::time::{Instant, timeout, timeout_at};

use super::admit::{TRUST_PATIENCE, meet};
use super::attend::{HELLO_TIMEOUT, Shared, attend, check_hello, read_hello, send_hello};
use super::dial::dial_all;
use super::doors::Doors;
use super::drivers::{Drivers, Handshake, begin};
use super::gate::{Gate, Pass, TURNED_AWAY, Turned};
use super::join::{Newcomers, Registrar};
use super::link::Link;
use super::news::keep_judging;
use super::noise::Noise;
use super::peers::{Peer, Peers};
use super::serve::{ClassOf, Dispatch};
use super::tls::{self, Opens};
use crate::clock::Clocks;
use crate::identity::Identity;
use crate::threads::Threads;

/// Longest wait for a handshake; with the other side's hello, if that side dialled. Two round trips, and packets that are lost:
/// a link of some seconds is to come up too.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before it is known who votes, peers are dialled within so long for each of them: most need not be, once one has told.
const FIRST_DIAL_PER_PEER: Duration = Duration::from_millis(2);

/// Everything that a control plane starts from.
pub(crate) struct Setup {
    pub(crate) identity: Identity,
    pub(crate) hello: Hello,
    pub(crate) listen: SocketAddr,
    /// Who is let in where there is no site; at a site where to look for members.
    pub(crate) peers: Vec<PeerConfig>,
    /// What is known of the site, if certificates say who is let in.
    pub(crate) site: Option<SiteHandle>,
    pub(crate) idle_timeout: Duration,
    pub(crate) clocks: Clocks,
    pub(crate) threads: Threads,
    pub(crate) class_of: ClassOf,
}

/// The running endpoint.
pub(crate) struct ControlPlane {
    endpoint: quinn::Endpoint,
}

impl ControlPlane {
    /// The peers that will be served, before anything listens.
    pub(crate) fn peers(setup: &Setup) -> Peers {
        let gate = setup.site.clone().map(|site| Gate::new(site, setup.threads.clone()));
        Peers::new(setup.identity.node(), &setup.peers, setup.clocks.clone()).of_site(gate)
    }

    /// Binds, listens, and dials peers that have an address: which, and for how long, who votes decides.
    /// `registrar`: who makes members of machines that want to join, if this node is of a site.
    pub(crate) fn start(
        setup: Setup,
        peers: Peers,
        dispatch: Arc<dyn Dispatch>,
        registrar: Option<Arc<dyn Registrar>>,
    ) -> Result<Self, String> {
        let cannot_listen =
            |e: io::Error| cannot_listen("the control plane", &setup.listen, "QUIC", &e, "control.listen");
        let socket = UdpSocket::bind(setup.listen).map_err(cannot_listen)?;
        let opens = if setup.site.is_some() { Opens::FirstStream } else { Opens::Whole };
        let server = tls::server(&setup.identity, setup.idle_timeout, opens).map_err(|e| e.to_string())?;
        let drivers = Arc::new(Drivers::new(setup.threads.clone()));
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, drivers)
            .map_err(cannot_listen)?;
        let shared = Arc::new(Shared {
            identity: setup.identity,
            hello: setup.hello,
            peers,
            idle_timeout: setup.idle_timeout,
            opens,
            threads: setup.threads,
            dispatch,
            class_of: setup.class_of,
            doors: Doors::new(setup.peers.iter().filter_map(|peer| Some((peer.id, peer.control?.ip())))),
            newcomers: registrar.map(Newcomers::new),
            strangers: Noise::default(),
        });
        let work = shared.threads.work().clone();
        work.spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        let spread = FIRST_DIAL_PER_PEER * u32::try_from(setup.peers.len()).unwrap_or(u32::MAX);
        work.spawn(keep_judging(shared.peers.clone(), shared.threads.clone()));
        work.spawn(dial_all(endpoint.clone(), shared, spread));
        Ok(Self { endpoint })
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Closes all connections and waits a moment for peers to hear of it.
    pub(crate) async fn close(&self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"the node stops");
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
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
            let admitted = admit(connecting, handshake, &shared).await;
            drop(place);
            match admitted {
                Ok(guest) => {
                    shared.doors.remember(guest.node, from.ip());
                    welcome(guest, &shared).await;
                }
                Err(Denied::Said(why)) => shared.note_stranger(from, &why),
                Err(Denied::Told) => {}
            }
        });
        // The lock of the endpoint is not fair: whoever drives it has its turn before the next one.
        tokio::task::yield_now().await;
    }
}

/// A peer that was let in and said hello.
struct Guest {
    node: NodeId,
    hello: Hello,
    /// By what it was let in, at a site.
    pass: Option<Pass>,
    connection: quinn::Connection,
    send: quinn::SendStream,
}

/// Somebody was not let in.
enum Denied {
    /// For this reason, which is still to be told.
    Said(String),
    /// It was told.
    Told,
}

impl From<String> for Denied {
    fn from(why: String) -> Self {
        Self::Said(why)
    }
}

async fn admit(
    connecting: Result<quinn::Connecting, quinn::ConnectionError>,
    handshake: Handshake,
    shared: &Shared,
) -> Result<Guest, Denied> {
    let until = Instant::now() + HANDSHAKE_TIMEOUT;
    let late = |_| "it did not get through its handshake".to_owned();
    let connecting = connecting.map_err(|e| e.to_string())?;
    let connection = timeout_at(until, connecting).await.map_err(late)?.map_err(|e| e.to_string())?;
    drop(handshake);
    match &shared.peers.gate {
        None => timeout_at(until, admit_listed(connection, shared)).await.map_err(late)?.map_err(Denied::Said),
        Some(gate) if tls::wants_to_join(&connection) => Err(receive_newcomer(connection, shared, gate).await),
        Some(gate) => admit_member(connection, shared, gate).await,
    }
}

/// Serves a machine that wants to join. It keeps its place among strangers meanwhile, and this connection is over then:
/// as a member it dials anew.
async fn receive_newcomer(connection: quinn::Connection, shared: &Shared, gate: &Gate) -> Denied {
    match &shared.newcomers {
        Some(newcomers) => Box::pin(newcomers.receive(connection, gate)).await,
        None => connection.close(quinn::VarInt::from_u32(TURNED_AWAY), b""),
    }
    Denied::Told
}

/// Lets in who is listed and says hello.
async fn admit_listed(connection: quinn::Connection, shared: &Shared) -> Result<Guest, String> {
    let refuse = |why: String| {
        connection.close(quinn::VarInt::from_u32(TURNED_AWAY), why.as_bytes());
        why
    };
    let node = tls::authenticated(&connection).ok_or_else(|| refuse("it showed no node identity".to_owned()))?;
    if !shared.peers.admits(node) {
        return Err(refuse(format!("{node} is not in the peer list of this node; add it to [[peers]]")));
    }
    let (send, mut receive) = connection.accept_bi().await.map_err(|e| e.to_string())?;
    let hello = read_hello(&mut receive).await.map_err(refuse)?;
    check_hello(&hello, &shared.hello).map_err(refuse)?;
    Ok(Guest { node, hello, pass: None, connection, send })
}

/// Lets in who shows the certificate of a member, and says hello. Whoever does not hears nothing but that the connection is closed.
async fn admit_member(connection: quinn::Connection, shared: &Shared, gate: &Gate) -> Result<Guest, Denied> {
    let close = |why: String| {
        connection.close(quinn::VarInt::from_u32(TURNED_AWAY), b"");
        why
    };
    let node = tls::authenticated(&connection).ok_or_else(|| close("it showed no node identity".to_owned()))?;
    if node == shared.identity.node() || shared.peers.is_cut_off(node) {
        return Err(close(format!("{node} is this node itself, or cut off")).into());
    }
    // Its streams are there still when it is closed: one that is let go of says so.
    let turn_away = |turned: Turned| {
        let why = close(turned.to_string());
        gate.turned(node, &turned);
        if turned.kind().is_some() { Denied::Told } else { Denied::Said(why) }
    };
    let until = Instant::now() + TRUST_PATIENCE;
    let opened = timeout_at(until, connection.accept_bi()).await.map_err(|_| Turned::Late(TRUST_PATIENCE));
    let opened = opened.and_then(|opened| opened.map_err(|error| Turned::Lost(error.to_string())));
    let (mut send, mut receive) = opened.map_err(turn_away)?;
    let pass = meet(gate, node, (&mut send, &mut receive), until).await.map_err(turn_away)?;
    let hello = timeout(HELLO_TIMEOUT, read_hello(&mut receive)).await.map_err(|_| "it did not say hello".to_owned());
    // It is a member: it may hear what is wrong.
    let refuse = |why: String| {
        connection.close(quinn::VarInt::from_u32(TURNED_AWAY), why.as_bytes());
        why
    };
    let hello = hello.flatten().map_err(refuse)?;
    check_hello(&hello, &shared.hello).map_err(refuse)?;
    tls::open_up(&connection);
    Ok(Guest { node, hello, pass: Some(pass), connection, send })
}

/// Says hello to a peer that dialled, and serves the connection until it ends; unless another process under its identity is
/// connected and lives.
async fn welcome(guest: Guest, shared: &Arc<Shared>) {
    let Guest { node, hello, pass, connection, mut send } = guest;
    if let Err(why) = shared.peers.make_way(node, &hello, connection.remote_address()).await {
        return Peers::refuse_twin(&connection, &why);
    }
    let ours = shared.hello();
    let said = timeout(HANDSHAKE_TIMEOUT, send_hello(&mut send, &ours)).await;
    let said = said.unwrap_or_else(|_| Err("it does not read what it is told".to_owned()));
    drop(send);
    match said {
        Ok(()) => {
            let link = Link::quic(connection, shared.threads.clone());
            attend(Peer::new(node, hello, link, node).let_in_by(pass), ours.shards, shared).await;
        }
        Err(why) => tracing::warn!(%node, why, "a connection to the control plane ended before it began"),
    }
}
