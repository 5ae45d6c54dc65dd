//! What lies between nodes of a testnet: a relay that delays, reorders, doubles, loses and holds back what they send.
//!
//! **Contract.** The others see each node under an address of the relay's. What a node sends to such an address reaches
//! the node behind it, from the address under which the others see the sender, as the [`Law`] of that direction says,
//! whichever node dialled. The relay forwards only between nodes of its testnet, and ends with its handle.
//!
//! **Must not know** the content of what it forwards.

mod post;
#[cfg(test)]
mod tests;
mod way;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::error::{LaunchError, io_error};
use crate::site::hosts::Hosts;
use crate::site::ports::free_socket;
use post::Ways;
pub use way::{Counts, Law, Line};

/// The most nodes that one relay joins: there are two directions between each two of them.
pub const RELAY_NODES_MAX: usize = 64;
/// The file in a testnet's directory that keeps the relay's addresses: they are in the nodes' configurations.
const ADDRESSES: &str = "relay.json";

/// How a testnet's nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// The law of every direction at the start.
    pub law: Law,
    /// The seed of which datagrams are hit.
    pub seed: u64,
}

/// A running relay. Dropping it ends it.
pub struct Relay {
    addresses: Vec<SocketAddr>,
    ways: Arc<Ways>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Whether a testnet of this directory was made behind a relay.
pub(crate) fn is_in(dir: &Path) -> bool {
    dir.join(ADDRESSES).exists()
}

impl Relay {
    /// Joins nodes, given by their addresses, under the addresses that the relay had in this directory before, or under
    /// fresh ones. If the nodes have hosts of their own, the relay is where all of those reach it.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub(crate) fn start(
        dir: &Path,
        nodes: Vec<SocketAddr>,
        links: &Links,
        hosts: Option<&Hosts>,
    ) -> Result<Self, LaunchError> {
        if nodes.len() > RELAY_NODES_MAX {
            let output = format!("at most {RELAY_NODES_MAX} nodes");
            return Err(LaunchError::Command { command: format!("a relay between {}", nodes.len()), output });
        }
        let known = dir.join(ADDRESSES);
        let sockets = match hosts {
            None => bind(&known, nodes.len(), Ipv4Addr::LOCALHOST)?,
            Some(hosts) => hosts.between(|| bind(&known, nodes.len(), Hosts::BETWEEN))??,
        };
        Self::run(sockets, nodes, links).map_err(io_error("a relay"))
    }

    fn run(sockets: Vec<UdpSocket>, nodes: Vec<SocketAddr>, links: &Links) -> io::Result<Self> {
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
        let ways = Arc::new(Ways::new(nodes.len(), links));
        let (end, ended) = oneshot::channel();
        let (started, starting) = std::sync::mpsc::sync_channel(1);
        // The relay has a thread of its own: a test that waits for a process would delay what that process waits for.
        let thread = {
            let ways = Arc::clone(&ways);
            let thread = std::thread::Builder::new().name("relay".to_owned());
            thread.spawn(move || post::run(sockets, nodes, ways, ended, &started))?
        };
        let relay = Self { addresses, ways, end: Some(end), thread: Some(thread) };
        starting.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(relay)
    }

    /// The address under which the others see a node.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    /// The law from one node to another.
    pub fn law(&self, from: usize, to: usize) -> Law {
        self.ways.between(from, to).law()
    }

    /// Sets the law from one node to another.
    pub fn set(&self, from: usize, to: usize, law: Law) {
        self.ways.between(from, to).obey(law);
    }

    /// Sets the law between two nodes, in both directions.
    pub fn set_both(&self, one: usize, other: usize, law: Law) {
        self.set(one, other, law);
        self.set(other, one, law);
    }

    /// Sets the law between all nodes.
    pub fn set_all(&self, law: Law) {
        self.pairs().for_each(|(from, to)| self.set(from, to, law));
    }

    /// Sets the law between a node and all others, in both directions.
    pub fn set_around(&self, node: usize, law: Law) {
        (0..self.addresses.len()).filter(|other| *other != node).for_each(|other| self.set_both(node, other, law));
    }

    /// All directions: the sender and the receiver of each.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.addresses.len();
        (0..count).flat_map(move |from| (0..count).filter(move |to| *to != from).map(move |to| (from, to)))
    }

    /// What happened from one node to another so far.
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        self.ways.between(from, to).counts()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens the relay's sockets: under the addresses in this file, or under fresh ones at an address, which the file keeps
/// then.
fn bind(known: &Path, count: usize, at: Ipv4Addr) -> Result<Vec<UdpSocket>, LaunchError> {
    let what = || io_error(known.display().to_string());
    if known.exists() {
        let text = std::fs::read(known).map_err(what())?;
        let addresses: Vec<SocketAddr> = serde_json::from_slice(&text).map_err(|e| what()(e.into()))?;
        if addresses.len() != count {
            return Err(what()(io::Error::other(format!("it has {} addresses for {count} nodes", addresses.len()))));
        }
        let bind = |address: &SocketAddr| UdpSocket::bind(address).map_err(io_error(address.to_string()));
        return addresses.iter().map(bind).collect();
    }
    let sockets = (0..count).map(|_| free_socket(at)).collect::<io::Result<Vec<_>>>().map_err(what())?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>().map_err(what())?;
    let text = serde_json::to_vec_pretty(&addresses).map_err(|e| what()(e.into()))?;
    std::fs::write(known, text).map_err(what())?;
    Ok(sockets)
}
