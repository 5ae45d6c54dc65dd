//! Who may shake hands, and how many at a time.
//!
//! Whoever is not known yet costs a signature, some memory and time. So there are places for them, few for each address, and half of
//! all are kept for addresses at which listed peers are, or were: a stranger with one address, or a few, keeps nobody out. Nor does
//! a listed peer, which has no more than half of them.
//!
//! An address that is configured is known for as long as the node runs. Of those from which a listed peer was let in the last few
//! are: it pushes out its own, and nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::ids::NodeId;
use skep_protocol::limits;

#[derive(Debug, Default)]
struct State {
    /// Where listed peers are, as configured.
    configured: BTreeSet<IpAddr>,
    /// Where each was when it was let in, the last time at the end.
    met: BTreeMap<NodeId, Vec<IpAddr>>,
    /// Handshakes by the address that they come from.
    inside: BTreeMap<IpAddr, usize>,
    /// Of them, those from addresses that were not known.
    strangers: usize,
}

/// The places of those who shake hands. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors(Arc<Mutex<State>>);

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    doors: Doors,
    from: IpAddr,
    is_stranger: bool,
}

/// What counts as one source: whoever has an address of IPv6 has all of its network.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

impl State {
    fn is_known(&self, from: IpAddr) -> bool {
        self.configured.contains(&from) || self.met.values().any(|met| met.contains(&from))
    }
}

impl Doors {
    pub(super) fn new(configured: impl Iterator<Item = IpAddr>) -> Self {
        let state = State { configured: configured.map(source).collect(), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for whoever comes from there; none if there is none for it now.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Place> {
        let (from, mut state) = (source(from), self.state());
        let is_stranger = !state.is_known(from);
        let of_source = state.inside.get(&from).copied().unwrap_or(0);
        let most = match is_stranger {
            true => limits::HANDSHAKES_PER_SOURCE_MAX,
            false => limits::HANDSHAKES_PER_KNOWN_SOURCE_MAX,
        };
        let inside: usize = state.inside.values().sum();
        let no_stranger = is_stranger && state.strangers >= limits::HANDSHAKES_MAX / 2;
        if inside >= limits::HANDSHAKES_MAX || of_source >= most || no_stranger {
            return None;
        }
        state.inside.insert(from, of_source + 1);
        state.strangers += usize::from(is_stranger);
        drop(state);
        Some(Place { doors: self.clone(), from, is_stranger })
    }

    /// A listed peer was let in from there.
    pub(super) fn remember(&self, node: NodeId, from: IpAddr) {
        let (from, mut state) = (source(from), self.state());
        if state.configured.contains(&from) {
            return;
        }
        let met = state.met.entry(node).or_default();
        met.retain(|known| *known != from);
        if met.len() >= limits::SOURCES_PER_PEER_MAX {
            met.remove(0);
        }
        met.push(from);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.doors.state();
        state.strangers = state.strangers.saturating_sub(usize::from(self.is_stranger));
        let left = state.inside.get(&self.from).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            state.inside.remove(&self.from);
        } else {
            state.inside.insert(self.from, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn strangers_keep_neither_each_other_nor_listed_peers_out() {
        let doors = Doors::new([v4(1)].into_iter());
        let mut inside = Vec::new();
        for _ in 0..100 {
            inside.extend(doors.enter(v4(9)));
        }
        assert_eq!(inside.len(), limits::HANDSHAKES_PER_SOURCE_MAX);
        assert!(doors.enter(v4(8)).is_some(), "one address has not all places of strangers");
        for n in 10..=255 {
            inside.extend(doors.enter(v4(n)));
        }
        assert_eq!(inside.len(), limits::HANDSHAKES_MAX / 2);
        let peers: Vec<Place> = std::iter::from_fn(|| doors.enter(v4(1))).collect();
        assert_eq!(peers.len(), limits::HANDSHAKES_MAX / 2, "half is kept for those who are known");
        drop(inside);
        assert!(doors.enter(v4(9)).is_some(), "what was given back is given again");
        drop(peers);
        doors.remember(node(1), v4(9));
        let peers: Vec<Place> = std::iter::from_fn(|| doors.enter(v4(9))).collect();
        assert_eq!(peers.len(), limits::HANDSHAKES_PER_KNOWN_SOURCE_MAX, "a peer was let in from there");
        let others: Vec<Place> = std::iter::from_fn(|| doors.enter(v4(1))).collect();
        assert_eq!(others.len(), limits::HANDSHAKES_MAX - peers.len(), "and it keeps no other one out");
        drop((peers, others));
        assert!(doors.state().inside.is_empty());
        assert_eq!(doors.state().strangers, 0);
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    #[test]
    fn a_peer_that_comes_from_anywhere_pushes_out_its_own_addresses_and_the_one_of_longest_ago_first() {
        let doors = Doors::new([v4(1)].into_iter());
        let known = |n| doors.state().is_known(v4(n));
        doors.remember(node(2), v4(2));
        doors.remember(node(9), v4(1));
        let sources = limits::SOURCES_PER_PEER_MAX as u8;
        let first = 100;
        for n in first..first + sources {
            doors.remember(node(9), v4(n));
        }
        // It was there again, so that another one goes.
        doors.remember(node(9), v4(first));
        doors.remember(node(9), v4(first + sources));
        assert!(known(first) && known(first + sources) && !known(first + 1));
        (0..=255).for_each(|n| doors.remember(node(9), IpAddr::from([10, 0, 0, n])));
        assert!(known(1) && known(2), "neither what is configured goes nor what is another's");
        let most = usize::from(sources);
        assert_eq!(doors.state().met.values().map(Vec::len).collect::<Vec<_>>(), [1, most]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_the_one_that_it_maps() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!(source(address("2001:db8::1")), source(address("2001:db8::ffff:1")));
        assert_ne!(source(address("2001:db8:0:1::1")), source(address("2001:db8::1")));
        assert_eq!(source(address("::ffff:192.0.2.1")), v4(1));
    }
}
