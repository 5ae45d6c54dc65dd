//! Connections on which nothing comes: handshakes that are never finished, and those that never begin.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_protocol::ids::NodeId;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use super::{Rogue, TAKEN, text};

/// How many datagrams make a node take them for a handshake: the node checks the address of the caller, and gets an
/// answer.
const DATAGRAMS_SENT: usize = 2;
/// No datagram is larger.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A handshake that was begun and does not go on. Dropping it ends it silently.
pub struct Unfinished {
    rogue: Rogue,
    way: JoinHandle<()>,
    handshake: JoinHandle<()>,
    answered: Arc<AtomicBool>,
}

impl Unfinished {
    /// Whether the node has answered it.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.way.abort();
        self.handshake.abort();
        // Nothing passes any longer, so that the node does not hear of it.
        self.rogue.endpoint.close(quinn::VarInt::from_u32(0), b"");
    }
}

/// Begins a handshake with a node, from an address of this machine, and leaves it there.
///
/// # Errors
/// Why it could not be begun.
pub async fn unfinished(seed: u64, from: IpAddr, node: NodeId, to: SocketAddr) -> Result<Unfinished, String> {
    let rogue = Rogue::new(seed, from)?;
    let way = UdpSocket::bind(SocketAddr::new(from, 0)).await.map_err(text)?;
    let connecting = rogue.dialling(node, way.local_addr().map_err(text)?)?;
    let answered = Arc::<AtomicBool>::default();
    let way = tokio::spawn(pass_some(way, to, Arc::clone(&answered)));
    let handshake = tokio::spawn(async move { drop(connecting.await) });
    Ok(Unfinished { rogue, way, handshake, answered })
}

/// Passes everything on to the side that dials, and to the node only as much as begins a handshake.
async fn pass_some(way: UdpSocket, to: SocketAddr, answered: Arc<AtomicBool>) {
    let (mut datagram, mut dials, mut sent) = (vec![0; DATAGRAM_BYTES_MAX], None, 0);
    while let Ok((bytes, from)) = way.recv_from(&mut datagram).await {
        let Some(datagram) = datagram.get(..bytes) else { return };
        if from == to {
            answered.store(true, Ordering::Relaxed);
            if let Some(dials) = dials {
                let _ = way.send_to(datagram, dials).await;
            }
            continue;
        }
        dials = Some(from);
        if sent < DATAGRAMS_SENT {
            sent += 1;
            let _ = way.send_to(datagram, to).await;
        }
    }
}

/// Opens this many TCP connections to a node, and says nothing on any. Returns as many as the node took.
pub async fn silent_connections(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        match tokio::time::timeout(TAKEN, TcpStream::connect(to)).await {
            Ok(Ok(stream)) => open.push(stream),
            Ok(Err(_)) => {}
            // The node accepts no more.
            Err(_) => break,
        }
    }
    open
}
