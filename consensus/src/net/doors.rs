//! Who may shake hands, and how many at a time.
//!
//! Whoever is not known yet costs a signature, some memory and time. So there are places for them, few for each address, and half of
//! all are kept for addresses at which listed peers are, or were: a stranger with one address, or a few, keeps nobody out. Nor does
//! a listed peer, which has no more than half of them.
//!
//! An address that is configured is known for as long as the node runs. Of those from which a listed peer was let in
//! the last few are: it pushes out its own, and nobody else's. All of one peer's together have as many places as one of
//! them, so that whoever has many keeps nobody out; where so many have been that nobody could list them, the first of them are
//! forgotten; and some places are for addresses that are configured alone. Beside
//! all of these each address that is configured has a place of its own, so that strangers and a listed peer together
//! keep no other peer out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::ids::NodeId;
use skep_protocol::limits;

#[derive(Debug, Default)]
struct State {
    /// Where listed peers are, as configured.
    configured: BTreeMap<IpAddr, BTreeSet<NodeId>>,
    /// Where each was when it was let in, the last time at the end.
    met: BTreeMap<NodeId, Vec<IpAddr>>,
    /// Those of whom that is known, in the order in which they came first.
    came: VecDeque<NodeId>,
    /// Handshakes by the address that they come from.
    inside: BTreeMap<IpAddr, usize>,
    /// The same by the listed peer for which they count.
    of_peers: BTreeMap<NodeId, usize>,
    /// Those from addresses that were not known.
    strangers: usize,
    /// Those from addresses that are not configured.
    elsewhere: usize,
}

/// The places of those who shake hands. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors(Arc<Mutex<State>>);

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    doors: Doors,
    from: IpAddr,
    /// The listed peer for which it counts; none for a stranger.
    of: Option<NodeId>,
    is_configured: bool,
}

/// What counts as one source: whoever has an address of IPv6 has all of its network.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

impl State {
    /// The listed peers that are there, or were, and how many handshakes count for each. Several may be behind one address.
    fn peers_at(&self, from: IpAddr) -> impl Iterator<Item = (usize, NodeId)> + '_ {
        let configured = self.configured.get(&from).into_iter().flatten();
        let met = self.met.iter().filter(move |(_, met)| met.contains(&from)).map(|(node, _)| node);
        configured.chain(met).map(move |node| (self.of_peers.get(node).copied().unwrap_or(0), *node))
    }

    /// Places of an address that no other address has.
    fn own_places(&self, from: &IpAddr) -> usize {
        if self.configured.contains_key(from) { limits::HANDSHAKES_KEPT_PER_CONFIGURED } else { 0 }
    }

    /// Whether there is no place for one from there, if the place is none of its own.
    fn is_full(&self, of_source: usize, of: Option<(usize, NodeId)>, is_configured: bool) -> bool {
        let inside: usize = self.inside.iter().map(|(from, count)| count.saturating_sub(self.own_places(from))).sum();
        let of_who = match of {
            Some((of_peer, _)) => of_source.max(of_peer) >= limits::HANDSHAKES_PER_KNOWN_SOURCE_MAX,
            None => of_source >= limits::HANDSHAKES_PER_SOURCE_MAX || self.strangers >= limits::HANDSHAKES_MAX / 2,
        };
        let most_elsewhere = limits::HANDSHAKES_MAX - limits::HANDSHAKES_KEPT_FOR_CONFIGURED;
        of_who || inside >= limits::HANDSHAKES_MAX || (!is_configured && self.elsewhere >= most_elsewhere)
    }
}

/// One more.
fn count<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    *counts.entry(key).or_default() += 1;
}

/// One fewer.
fn uncount<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

impl Doors {
    pub(super) fn new(configured: impl Iterator<Item = (NodeId, IpAddr)>) -> Self {
        let mut state = State::default();
        for (node, address) in configured {
            state.configured.entry(source(address)).or_default().insert(node);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for whoever comes from there; none if there is none for it now.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Place> {
        let (from, mut state) = (source(from), self.state());
        let of_source = state.inside.get(&from).copied().unwrap_or(0);
        // Who it is shows later. Of those behind one address it counts for the one that has fewest.
        let of = state.peers_at(from).min();
        let is_configured = state.configured.contains_key(&from);
        if of_source >= state.own_places(&from) && state.is_full(of_source, of, is_configured) {
            return None;
        }
        let of = of.map(|(_, node)| node);
        count(&mut state.inside, from);
        match of {
            Some(node) => count(&mut state.of_peers, node),
            None => state.strangers += 1,
        }
        state.elsewhere += usize::from(!is_configured);
        drop(state);
        Some(Place { doors: self.clone(), from, of, is_configured })
    }

    /// A listed peer was let in from there.
    pub(super) fn remember(&self, node: NodeId, from: IpAddr) {
        let (from, mut state) = (source(from), self.state());
        if state.configured.contains_key(&from) {
            return;
        }
        if !state.met.contains_key(&node) {
            state.came.push_back(node);
            let is_full = state.came.len() > limits::MEMBERS_KNOWN_MAX;
            if let Some(first) = is_full.then(|| state.came.pop_front()).flatten() {
                state.met.remove(&first);
            }
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
        uncount(&mut state.inside, &self.from);
        match &self.of {
            Some(node) => uncount(&mut state.of_peers, node),
            None => state.strangers = state.strangers.saturating_sub(1),
        }
        state.elsewhere = state.elsewhere.saturating_sub(usize::from(!self.is_configured));
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
        let doors = Doors::new([(node(1), v4(1))].into_iter());
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
        doors.remember(node(2), v4(9));
        let peers: Vec<Place> = std::iter::from_fn(|| doors.enter(v4(9))).collect();
        assert_eq!(peers.len(), limits::HANDSHAKES_PER_KNOWN_SOURCE_MAX, "a peer was let in from there");
        let others: Vec<Place> = std::iter::from_fn(|| doors.enter(v4(1))).collect();
        assert_eq!(others.len(), limits::HANDSHAKES_MAX - peers.len(), "and it keeps no other one out");
        drop((peers, others));
        assert!(is_empty(&doors));
    }

    fn is_empty(doors: &Doors) -> bool {
        let state = doors.state();
        state.inside.is_empty() && state.of_peers.is_empty() && state.strangers + state.elsewhere == 0
    }

    #[test]
    fn a_peer_has_no_more_places_at_several_addresses_than_at_one() {
        let (doors, most) = (Doors::new([(node(1), v4(1))].into_iter()), limits::HANDSHAKES_PER_KNOWN_SOURCE_MAX);
        let all = |from: u8| -> Vec<Place> { std::iter::from_fn(|| doors.enter(v4(from))).collect() };
        for from in [2, 3] {
            doors.remember(node(9), v4(from));
        }
        let inside = [all(2), all(3)];
        assert_eq!(inside.each_ref().map(Vec::len), [most, 0]);
        drop(inside);
        // Nor at that which is configured and another one, but for the place that is kept for the former.
        doors.remember(node(1), v4(4));
        let inside = [all(4), all(1)];
        assert_eq!(inside.each_ref().map(Vec::len), [most, limits::HANDSHAKES_KEPT_PER_CONFIGURED]);
        drop(inside);
        // One that was behind the same address has places elsewhere, though the other one takes all there.
        doors.remember(node(8), v4(2));
        doors.remember(node(8), v4(5));
        let shared = all(2);
        assert_eq!((shared.len(), all(5).is_empty()), (most, false));
        drop(shared);
        assert!(is_empty(&doors));
    }

    #[test]
    fn some_places_are_for_addresses_that_are_configured_alone() {
        let doors = Doors::new([(node(1), v4(1))].into_iter());
        let all = |from: u8| -> Vec<Place> { std::iter::from_fn(|| doors.enter(v4(from))).collect() };
        for n in 2..=10 {
            doors.remember(node(n), v4(n));
        }
        let inside: Vec<Place> = (2..=255).flat_map(all).collect();
        assert_eq!(inside.len(), limits::HANDSHAKES_MAX - limits::HANDSHAKES_KEPT_FOR_CONFIGURED);
        let of_its_own = limits::HANDSHAKES_KEPT_PER_CONFIGURED;
        assert_eq!(all(1).len(), limits::HANDSHAKES_KEPT_FOR_CONFIGURED + of_its_own);
        drop(inside);
        assert!(is_empty(&doors));
    }

    #[test]
    fn each_configured_address_has_a_place_though_strangers_and_a_peer_fill_all_others() {
        let configured = [1, 2, 3].map(|n| (node(n), v4(n)));
        let doors = Doors::new(configured.into_iter());
        let all = |from: u8| -> Vec<Place> { std::iter::from_fn(|| doors.enter(v4(from))).collect() };
        let (strangers, of_one): (Vec<Place>, _) = ((10..=255).flat_map(all).collect(), all(1));
        let half = limits::HANDSHAKES_MAX / 2;
        assert_eq!([strangers.len(), of_one.len()], [half, half]);
        // One place of the peer that takes all it can is its own, so that one of all is left.
        let (second, third) = (all(2), all(3));
        assert_eq!([second.len(), third.len()], [2, 1]);
        drop(second);
        let again = [all(3).len(), all(2).len()];
        assert_eq!(again, [1, 1], "what is left goes to one, and the other has its own");
        drop((strangers, of_one, third));
        assert!(is_empty(&doors));
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    #[test]
    fn a_peer_that_comes_from_anywhere_pushes_out_its_own_addresses_and_the_one_of_longest_ago_first() {
        let doors = Doors::new([(node(1), v4(1))].into_iter());
        let known = |n| doors.state().peers_at(v4(n)).next().is_some();
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
    fn of_more_members_than_a_node_knows_the_first_are_forgotten() {
        let doors = Doors::default();
        let most = limits::MEMBERS_KNOWN_MAX;
        let member = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            NodeId::from_public_key(key)
        };
        (0..most + 2).for_each(|n| doors.remember(member(n), v4(1)));
        let state = doors.state();
        assert_eq!((state.met.len(), state.came.len()), (most, most));
        assert!(!state.met.contains_key(&member(1)) && state.met.contains_key(&member(2)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_the_one_that_it_maps() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!(source(address("2001:db8::1")), source(address("2001:db8::ffff:1")));
        assert_ne!(source(address("2001:db8:0:1::1")), source(address("2001:db8::1")));
        assert_eq!(source(address("::ffff:192.0.2.1")), v4(1));
    }
}
