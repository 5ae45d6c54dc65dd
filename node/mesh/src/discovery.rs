//! Finds the peers that are listed, or known to be members: by the addresses that nodes know of each other, and by
//! multicast on the same network.
//!
//! Both sources only say what they hear. Our own table of hints decides what the node keeps of that, and what it dials:
//! the tables of both libraries take whatever they are told, without a limit. The handshake proves which node is there,
//! and this node dials listed peers only.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad, mdns};
use skep_protocol::text::SiteName;
use tokio::time::Instant;

use crate::error::MeshError;
use crate::hints::{HINTS_PER_PEER_MAX, Hints, Word};

/// The number of peers that a lookup asks at a time.
const PARALLELISM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
/// The most peers that the node keeps at each of the 256 distances, as in BitTorrent's table (BEP 5). A node allocates
/// their places at its start, 176 bytes each: with libp2p's default of 20, an idle node had 0.9 MiB.
const PEERS_PER_DISTANCE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// The most questions where a peer is that may be under way at a time.
const QUESTIONS_MAX: usize = 16;

/// The most addresses of a peer that the node reads in one answer. It ignores the others: an honest node tells no more
/// than it keeps.
const TOLD_AT_ONCE_MAX: usize = 4 * HINTS_PER_PEER_MAX;

/// Kademlia as Skep runs it: for the addresses of peers, and for nothing else.
type Dht = kad::Behaviour<MemoryStore>;

/// The name of the site's own Kademlia: the node does not speak with that of another site.
fn protocol(site: &SiteName) -> Result<StreamProtocol, MeshError> {
    StreamProtocol::try_from_owned(format!("/skep/{site}/kad/1")).map_err(|e| MeshError::new(&e))
}

/// Kademlia for a site.
fn dht(local: PeerId, site: &SiteName) -> Result<Dht, MeshError> {
    let mut config = kad::Config::new(protocol(site)?);
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // The table takes only addresses that identify told, and that are usable from here.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_parallelism(PARALLELISM)
        .set_kbucket_size(PEERS_PER_DISTANCE)
        .set_periodic_bootstrap_interval(Some(Duration::from_secs(60)))
        // A query asks several peers in turn, each over a slow link.
        .set_query_timeout(Duration::from_secs(30));
    let nothing =
        MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_provided_keys: 0, max_providers_per_key: 0 };
    let store = MemoryStore::with_config(local, nothing);
    let mut dht = kad::Behaviour::with_config(local, store, config);
    dht.set_mode(Some(kad::Mode::Server));
    Ok(dht)
}

/// What one of the two sources heard. The caller hands it to [`Discovery::note`].
#[derive(Debug)]
pub(crate) enum Heard {
    /// Kademlia.
    Dht(Box<kad::Event>),
    /// Multicast.
    Lan(mdns::Event),
}

/// Kademlia of the site, multicast on the same network if it is wanted, and the table of what they hear.
pub(crate) struct Discovery {
    dht: Dht,
    lan: Option<mdns::tokio::Behaviour>,
    hints: Hints,
}

impl Discovery {
    /// `multicast`: whether the node looks for peers on the same network. `on_loopback`: whether this node listens on
    /// loopback.
    pub(crate) fn new(local: PeerId, site: &SiteName, multicast: bool, on_loopback: bool) -> Result<Self, MeshError> {
        let lan = multicast.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local)).transpose();
        let lan = lan.map_err(|e| MeshError::new(&format!("multicast DNS: {e}")))?;
        Ok(Self { dht: dht(local, site)?, lan, hints: Hints::new(on_loopback, Instant::now()) })
    }

    /// Adds a listed peer, with its address if that is configured.
    pub(crate) fn list(&mut self, peer: PeerId, configured: Option<Multiaddr>) {
        self.hints.list(peer, configured.clone());
        if let Some(address) = configured {
            self.dht.add_address(&peer, address);
        }
    }

    /// Stops looking for a peer.
    pub(crate) fn unlist(&mut self, peer: &PeerId) {
        self.hints.unlist(peer);
        self.dht.remove_peer(peer);
    }

    /// Takes an address of a listed peer from a source that need not know it. Returns whether it is news.
    pub(crate) fn hint(&mut self, peer: PeerId, address: Multiaddr) -> bool {
        !self.hear(vec![(peer, address)], Word::Other).is_empty()
    }

    /// Takes the addresses at which a connected peer says that it listens.
    pub(crate) fn says(&mut self, peer: &PeerId, listens: &[Multiaddr]) {
        let usable = listens.iter().filter(|address| self.hints.is_usable(peer, address));
        let usable: Vec<&Multiaddr> = usable.take(HINTS_PER_PEER_MAX).collect();
        for address in usable {
            self.hints.hear(peer, address, Word::Own);
            self.tell_others(peer, address);
        }
        self.forget();
    }

    /// Asks others where a peer is. They may know, and then this node dials it. Returns whether they were asked: while
    /// many questions are under way the node leaves it for another time, since each goes through a part of the site.
    pub(crate) fn ask(&mut self, peer: PeerId) -> bool {
        let has_room = self.dht.iter_queries().count() < QUESTIONS_MAX;
        if has_room {
            self.dht.get_closest_peers(peer);
        }
        has_room
    }

    /// Whether there is a hint of a peer that no attempt has tried since the node heard it.
    pub(crate) fn has_untried(&self, peer: &PeerId) -> bool {
        self.hints.has_untried(peer)
    }

    /// Takes note of what a source heard. Returns the peers that may be reachable by now, each with an address that was
    /// not known.
    pub(crate) fn note(&mut self, heard: Heard) -> Vec<(PeerId, Multiaddr)> {
        let told: Vec<(PeerId, Multiaddr)> = match heard {
            Heard::Dht(event) => match *event {
                kad::Event::OutboundQueryProgressed {
                    result: kad::QueryResult::GetClosestPeers(Ok(found)), ..
                } => {
                    let of = |peer: kad::PeerInfo| {
                        let addresses = peer.addrs.into_iter().take(TOLD_AT_ONCE_MAX);
                        addresses.map(move |address| (peer.peer_id, address)).collect::<Vec<_>>()
                    };
                    found.peers.into_iter().flat_map(of).collect()
                }
                // Kademlia itself adds the address at which a peer was reached.
                kad::Event::RoutingUpdated { peer, addresses, .. } => {
                    addresses.iter().for_each(|address| self.tell_others(&peer, address));
                    Vec::new()
                }
                _ => Vec::new(),
            },
            Heard::Lan(mdns::Event::Discovered(found)) => {
                self.let_go(&found);
                return self.hear(found, Word::Lan);
            }
            Heard::Lan(mdns::Event::Expired(_)) => Vec::new(),
        };
        self.hear(told, Word::Other)
    }

    fn hear(&mut self, told: Vec<(PeerId, Multiaddr)>, word: Word) -> Vec<(PeerId, Multiaddr)> {
        let new = told.into_iter().filter(|(peer, address)| self.hints.hear(peer, address, word)).collect();
        self.forget();
        new
    }

    /// Makes multicast forget what it found: its own table has no limit, and it reports again what it hears again.
    #[allow(deprecated, reason = "there is no other way to make it forget before the time that the sender chose")]
    fn let_go(&mut self, found: &[(PeerId, Multiaddr)]) {
        let Some(lan) = &mut self.lan else { return };
        let mut peers: Vec<PeerId> = found.iter().map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.iter().for_each(|peer| lan.expire_node(peer));
    }

    /// Lets the node tell others an address that is known well enough, and stops it from telling one that is not.
    fn tell_others(&mut self, peer: &PeerId, address: &Multiaddr) {
        if self.hints.is_for_others(peer, address) {
            self.dht.add_address(peer, address.clone());
        } else {
            self.dht.remove_address(peer, address);
        }
    }

    /// Stops the node from telling others what the table forgot.
    fn forget(&mut self) {
        for (peer, address) in self.hints.take_forgotten() {
            self.dht.remove_address(&peer, &address);
        }
    }

    fn on_failures(&mut self, peer: &PeerId, error: &DialError) {
        match error {
            DialError::Transport(failed) => failed.iter().for_each(|(address, _)| self.hints.failed(peer, address)),
            DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
                self.hints.wrong(peer, address);
            }
            DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted
            | DialError::Denied { .. } => {}
        }
    }
}

/// Kademlia's part of a connection. Every address that is dialled comes from our table.
impl NetworkBehaviour for Discovery {
    type ConnectionHandler = THandler<Dht>;
    type ToSwarm = Heard;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.dht.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // While it asks around, Kademlia dials every node that it is told of: what it is told is a hint like any other.
        let told = self.dht.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        let Some(peer) = peer else { return Ok(Vec::new()) };
        let told = told.into_iter().take(TOLD_AT_ONCE_MAX).map(|address| (peer, address)).collect();
        self.hear(told, Word::Other);
        Ok(self.hints.next_dials(&peer, Instant::now()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.dht.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                made.failed_addresses.iter().for_each(|address| self.hints.failed(&made.peer_id, address));
                if made.endpoint.is_dialer() {
                    let address = made.endpoint.get_remote_address();
                    self.hints.reached(&made.peer_id, address);
                    self.tell_others(&made.peer_id, address);
                }
            }
            FromSwarm::DialFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.on_failures(&peer, failure.error);
                }
            }
            _ => {}
        }
        self.forget();
        self.dht.on_swarm_event(event);
        if let Some(lan) = &mut self.lan {
            lan.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.dht.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Heard, THandlerInEvent<Self>>> {
        loop {
            match self.dht.poll(cx) {
                // Kademlia would have other behaviours remember the address.
                Poll::Ready(ToSwarm::NewExternalAddrOfPeer { .. }) => continue,
                Poll::Ready(wish) => return Poll::Ready(wish.map_out(|event| Heard::Dht(Box::new(event)))),
                Poll::Pending => {}
            }
            let Some(lan) = &mut self.lan else { return Poll::Pending };
            match lan.poll(cx) {
                Poll::Ready(ToSwarm::NewExternalAddrOfPeer { .. }) => {}
                Poll::Ready(wish) => {
                    return Poll::Ready(wish.map_out(Heard::Lan).map_in(|never: Infallible| match never {}));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    fn peer(n: u8) -> PeerId {
        Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id()
    }

    fn tcp(host: u8, port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.{host}/tcp/{port}").parse().unwrap()
    }

    fn discovery() -> (Discovery, PeerId) {
        let mut discovery = Discovery::new(peer(1), &SiteName::new("s").unwrap(), false, false).unwrap();
        discovery.list(peer(2), None);
        (discovery, peer(2))
    }

    fn told_to_others(discovery: &mut Discovery, of: PeerId) -> Vec<Multiaddr> {
        let bucket = discovery.dht.kbucket(of).unwrap();
        let entries = bucket.iter().filter(|entry| *entry.node.key.preimage() == of);
        entries.flat_map(|entry| entry.node.value.iter().cloned().collect::<Vec<_>>()).collect()
    }

    fn dialled(discovery: &mut Discovery, of: PeerId) -> Vec<Multiaddr> {
        let id = ConnectionId::new_unchecked(1);
        discovery.handle_pending_outbound_connection(id, Some(of), &[], Endpoint::Dialer).unwrap()
    }

    #[test]
    fn what_anybody_tells_is_not_told_to_others_and_little_of_it_is_dialled() {
        let (mut discovery, of) = discovery();
        let lies: Vec<(PeerId, Multiaddr)> = (1..60_000).map(|n| (of, tcp((n / 256) as u8, n))).collect();
        let new = discovery.note(Heard::Lan(mdns::Event::Discovered(lies)));
        assert!(new.iter().all(|(peer, _)| *peer == of));
        assert!(told_to_others(&mut discovery, of).is_empty());
        for _ in 0..100 {
            assert!(dialled(&mut discovery, of).len() <= HINTS_PER_PEER_MAX);
        }
        let stranger = vec![(peer(3), tcp(1, 1))];
        assert!(discovery.note(Heard::Lan(mdns::Event::Discovered(stranger))).is_empty());
    }

    #[test]
    fn a_peer_that_is_not_to_be_found_any_more_is_neither_dialled_nor_told_of() {
        let (mut discovery, of) = discovery();
        discovery.says(&of, &[tcp(1, 1)]);
        assert!(discovery.hint(of, tcp(2, 1)) && !discovery.hint(of, tcp(2, 1)), "it is news once");
        assert!(!told_to_others(&mut discovery, of).is_empty());
        discovery.unlist(&of);
        assert!(dialled(&mut discovery, of).is_empty() && told_to_others(&mut discovery, of).is_empty());
        assert!(!discovery.hint(of, tcp(3, 1)));
    }

    #[test]
    fn whoever_asks_while_many_questions_are_under_way_is_told_that_nobody_was_asked() {
        let (mut discovery, of) = discovery();
        assert!((0..QUESTIONS_MAX).all(|_| discovery.ask(of)));
        assert!(!discovery.ask(of));
        assert_eq!(discovery.dht.iter_queries().count(), QUESTIONS_MAX);
    }

    #[test]
    fn what_a_peer_says_of_itself_is_told_to_others_until_it_has_moved() {
        let (mut discovery, of) = discovery();
        let of_loopback: Vec<Multiaddr> = (1..30).map(|n| format!("/ip4/127.0.0.1/tcp/{n}").parse().unwrap()).collect();
        discovery.says(&of, &[of_loopback, vec![tcp(1, 1), tcp(2, 1)]].concat());
        let with_peer = |address: Multiaddr| address.with_p2p(of).unwrap();
        assert_eq!(told_to_others(&mut discovery, of), [with_peer(tcp(1, 1)), with_peer(tcp(2, 1))]);
        for host in 11..11 + HINTS_PER_PEER_MAX as u8 {
            discovery.says(&of, &[tcp(host, 1)]);
        }
        let told = told_to_others(&mut discovery, of);
        assert_eq!(told.len(), HINTS_PER_PEER_MAX);
        assert!(!told.contains(&with_peer(tcp(1, 1))) && !told.contains(&with_peer(tcp(2, 1))));
    }
}
