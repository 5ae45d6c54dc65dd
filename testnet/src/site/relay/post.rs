//! The relay's sockets: one for each node, under whose address the others see the node.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Links;
use super::way::Way;

/// The largest datagram of UDP.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// How many datagrams are taken from a socket before those that have arrived meanwhile are delivered.
const BATCH: usize = 64;
/// The pause after a socket could not be read.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// All directions between nodes.
#[derive(Debug)]
pub(super) struct Ways {
    nodes: usize,
    all: Vec<Mutex<Way>>,
}

impl Ways {
    pub(super) fn new(nodes: usize, links: &Links) -> Self {
        // Each direction has a random sequence of its own, whatever the others carry.
        let way = |at: usize| Mutex::new(Way::new(links.law, links.seed.wrapping_add(at as u64)));
        Self { nodes, all: (0..nodes * nodes).map(way).collect() }
    }

    pub(super) fn between(&self, from: usize, to: usize) -> MutexGuard<'_, Way> {
        assert!(from < self.nodes && to < self.nodes, "no way from {from} to {to} between {} nodes", self.nodes);
        self.all[from * self.nodes + to].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Post {
    sockets: Vec<UdpSocket>,
    /// The addresses at which nodes listen, and from which they send.
    nodes: Vec<SocketAddr>,
    ways: Arc<Ways>,
    begun: Instant,
}

/// Serves until the other end of `ended` is gone. Says first whether it can.
pub(super) fn run(
    sockets: Vec<std::net::UdpSocket>,
    nodes: Vec<SocketAddr>,
    ways: Arc<Ways>,
    ended: oneshot::Receiver<()>,
    started: &std::sync::mpsc::SyncSender<io::Result<()>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let own = |socket: std::net::UdpSocket| {
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        let sockets = match sockets.into_iter().map(own).collect::<io::Result<Vec<_>>>() {
            Ok(sockets) => sockets,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(()));
        let post = Arc::new(Post { sockets, nodes, ways, begun: Instant::now() });
        let mut tasks = JoinSet::new();
        for to in 0..post.nodes.len() {
            tasks.spawn(Arc::clone(&post).serve(to));
        }
        let _ = ended.await;
    });
}

impl Post {
    /// Takes what the others send to a node, and delivers it when it is due.
    async fn serve(self: Arc<Self>, to: usize) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            self.deliver(to).await;
            let next = self.next(to);
            tokio::select! {
                received = self.sockets[to].recv_from(&mut buffer) => match received {
                    Ok((bytes, from)) => self.take(to, from, &buffer[..bytes]),
                    Err(_) => tokio::time::sleep(AFTER_ERROR).await,
                },
                () = until(next) => continue,
            }
            for _ in 1..BATCH {
                let Ok((bytes, from)) = self.sockets[to].try_recv_from(&mut buffer) else { break };
                self.take(to, from, &buffer[..bytes]);
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes a datagram; those that no node sent are dropped.
    fn take(&self, to: usize, from: SocketAddr, datagram: &[u8]) {
        if let Some(from) = self.nodes.iter().position(|node| *node == from).filter(|from| *from != to) {
            self.ways.between(from, to).enter(datagram, self.now_us());
        }
    }

    /// When the next datagram arrives at a node.
    fn next(&self, to: usize) -> Option<Instant> {
        let next = (0..self.nodes.len()).filter_map(|from| self.ways.between(from, to).next_us()).min();
        next.map(|us| self.begun + Duration::from_micros(us))
    }

    /// Sends a node what has arrived for it, in the order of arrival.
    async fn deliver(&self, to: usize) {
        let now_us = self.now_us();
        while let Some((from, datagram)) = self.arrived(to, now_us) {
            // A datagram to a node that does not run is lost, as it would be without a relay.
            let _ = self.sockets[from].send_to(&datagram, self.nodes[to]).await;
        }
    }

    fn arrived(&self, to: usize, now_us: u64) -> Option<(usize, Vec<u8>)> {
        let due = |from: usize| Some((self.ways.between(from, to).next_us()?, from));
        let (_, from) = (0..self.nodes.len()).filter_map(due).min()?;
        let datagram = self.ways.between(from, to).leave(now_us)?;
        Some((from, datagram))
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
