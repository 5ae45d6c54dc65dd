//! Dialling peers: which of them, and how often, who votes decides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::frame::Hello;
use skep_protocol::ids::NodeId;
use skep_protocol::recovery::Lineage;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admit::show;
use super::attend::{HELLO_TIMEOUT, Shared, attend, check_hello, read_hello, send_hello};
use super::drivers::begin;
use super::gate::{Pass, TURNED_AWAY, Turned};
use super::link::Link;
use super::peers::{Peer, Peers};
use super::roles::{NOT_NEEDED, Stance};
use super::tls;

/// Longest wait for a handshake: two round trips, and packets that are lost. A link of some seconds is to come up too.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest wait between dials of one peer.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// How long a voter waits to be dialled by a peer that does not vote, before it dials itself: the peer may not have its
/// address.
const REDIAL_SELDOM: Duration = Duration::from_secs(30);

/// Keeps connections with all peers whose address is known, also of those who come to be known later. Those of now are
/// dialled within some time, before it is known who votes.
pub(super) async fn dial_all(endpoint: quinn::Endpoint, shared: Arc<Shared>, spread: Duration) {
    let (mut changes, mut roles) = (shared.peers.changes(), shared.peers.role_changes());
    let (mut dialled, mut dialling, mut spread) = (BTreeSet::new(), JoinSet::new(), spread);
    loop {
        changes.borrow_and_update();
        for node in shared.peers.with_places() {
            if dialled.insert(node) {
                let (endpoint, shared) = (endpoint.clone(), Arc::clone(&shared));
                dialling.spawn(async move {
                    keep_connected(endpoint, &shared, node, spread).await;
                    node
                });
            }
        }
        spread = Duration::ZERO;
        tokio::select! {
            Ok(()) = changes.changed() => {}
            Ok(()) = roles.changed() => {
                if shared.peers.misses_a_voter() {
                    shared.threads.work().spawn(shared.peers.clone().ask_where_voters_are());
                }
            }
            // Of one that was forgotten, and may come to be known again.
            Some(Ok(node)) = dialling.join_next() => {
                dialled.remove(&node);
            }
        }
    }
}

/// Dials a peer whenever it is not connected and should be, with backoff and full jitter, for as long as it is known
/// where it is.
async fn keep_connected(endpoint: quinn::Endpoint, shared: &Arc<Shared>, node: NodeId, spread: Duration) {
    let client = match tls::client(&shared.identity, node, shared.idle_timeout, shared.opens) {
        Ok(client) => client,
        Err(error) => {
            shared.peers.failed(node, error.to_string());
            return std::future::pending().await;
        }
    };
    let (mut roles, mut changes) = (shared.peers.role_changes(), shared.peers.changes());
    if !roles.borrow_and_update().known {
        let first = tokio::time::sleep(spread.mul_f64(rand::random_range(0.0..1.0)));
        tokio::select! {
            () = first => {}
            Ok(()) = roles.changed() => {}
        }
    }
    let (mut wait, mut alone_since, mut tries) = (REDIAL_MIN, Instant::now(), 0);
    while let Some(address) = shared.peers.place(node, tries) {
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
                if connect(&endpoint, &client, shared, node, address).await {
                    (wait, tries) = (REDIAL_MIN, 0);
                } else {
                    tries = tries.wrapping_add(1);
                }
                alone_since = Instant::now();
            }
        }
        if endpoint.local_addr().is_err() {
            return std::future::pending().await;
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
    let ended = |error: String| {
        shared.peers.note_if_refused(&connection);
        why_closed(&connection, error)
    };
    let opened = tokio::time::timeout(HELLO_TIMEOUT, connection.open_bi()).await.map_err(silent)?;
    let (mut send, mut receive) = opened.map_err(|e| ended(e.to_string()))?;
    let pass = trust(&connection, shared, node, (&mut send, &mut receive)).await?;
    let ours = shared.hello();
    let greeted = tokio::time::timeout(HELLO_TIMEOUT, greet(&ours, &mut send, &mut receive)).await;
    let hello = greeted.map_err(silent)?.map_err(ended)?;
    check_hello(&hello, &shared.hello)?;
    if let Err(why) = shared.peers.make_way(node, &hello, connection.remote_address()).await {
        Peers::refuse_twin(&connection, &why);
        return Err(why);
    }
    let local = shared.identity.node();
    let link = Link::quic(connection, shared.threads.clone());
    Ok((Peer::new(node, hello, link, local).let_in_by(pass), ours.shards))
}

/// Shows who this node is, and judges who was dialled; nothing of it where there is no site.
async fn trust(
    connection: &quinn::Connection,
    shared: &Shared,
    node: NodeId,
    (send, receive): (&mut quinn::SendStream, &mut quinn::RecvStream),
) -> Result<Option<Pass>, String> {
    let Some(gate) = &shared.peers.gate else { return Ok(None) };
    match show(gate, node, (send, receive)).await {
        Ok(pass) => {
            tls::open_up(connection);
            Ok(Some(pass))
        }
        Err(turned) => {
            // One that is slow to answer was refused by nobody.
            if matches!(turned, Turned::Refused(_) | Turned::Malformed(_)) {
                connection.close(quinn::VarInt::from_u32(TURNED_AWAY), b"");
                gate.turned(node, &turned);
            }
            Err(why_closed(connection, turned.to_string()))
        }
    }
}

/// Why a connection ended, as far as the other side said so.
fn why_closed(connection: &quinn::Connection, error: String) -> String {
    match connection.close_reason() {
        Some(quinn::ConnectionError::ApplicationClosed(close))
            if close.error_code == quinn::VarInt::from_u32(TURNED_AWAY) && close.reason.is_empty() =>
        {
            "it does not let this node in: this node's certificate has ended, was revoked, or is of another site"
                .to_owned()
        }
        Some(quinn::ConnectionError::LocallyClosed) | None => error,
        Some(reason) => reason.to_string(),
    }
}

/// Says hello first, and waits for the other side's.
async fn greet(ours: &Hello, send: &mut quinn::SendStream, receive: &mut quinn::RecvStream) -> Result<Hello, String> {
    send_hello(send, ours).await?;
    read_hello(receive).await
}
