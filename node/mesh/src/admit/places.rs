//! Places of incoming connections whose peers are not yet admitted.
//!
//! A peer shows its key in the handshake, and its chain after that. Until then its connection has a place, and places
//! are few. No address gets all of them, and addresses of members, present or earlier, have places of their own. A peer
//! that proves to have the key of a member gives its place back at once: strangers keep no known member out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use skep_protocol::limits;

/// A place that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    source: Option<IpAddr>,
    /// Whether members are known to be, or to have been, at that address.
    is_known: bool,
}

/// The places that are taken.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: BTreeMap<ConnectionId, Place>,
}

impl Places {
    /// Takes a place for an incoming connection; false if there is none. The connection has the place until it is given
    /// back.
    pub(crate) fn take(&mut self, connection: ConnectionId, from: &Multiaddr, is_known: bool) -> bool {
        let place = Place { source: host(from), is_known };
        let same = |other: &&Place| other.is_known == is_known;
        let all = self.taken.values().filter(same).count();
        let of_source = self.taken.values().filter(same).filter(|other| other.source == place.source).count();
        let of_source_max = if is_known { limits::MESH_STRANGERS_MAX } else { limits::MESH_STRANGERS_PER_SOURCE_MAX };
        let has_room = all < limits::MESH_STRANGERS_MAX && of_source < of_source_max;
        if has_room {
            self.taken.insert(connection, place);
        }
        has_room
    }

    /// Gives a place back: the peer of the connection is admitted, known to be a member, or gone.
    pub(crate) fn give_back(&mut self, connection: ConnectionId) {
        self.taken.remove(&connection);
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken.len()
    }
}

/// The host of an address.
pub(crate) fn host(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8) -> Multiaddr {
        format!("/ip4/10.0.0.{host}/tcp/1").parse().unwrap()
    }

    #[test]
    fn strangers_have_few_places_each_address_fewer_and_those_at_members_addresses_have_others() {
        let mut places = Places::default();
        let mut ids = (0..).map(ConnectionId::new_unchecked);
        let mut take = |places: &mut Places, host: u8, is_known| places.take(ids.next().unwrap(), &at(host), is_known);
        let of_one = (0..100).filter(|_| take(&mut places, 1, false)).count();
        assert_eq!(of_one, limits::MESH_STRANGERS_PER_SOURCE_MAX);
        let of_others = (2..200).filter(|host| take(&mut places, *host, false)).count();
        assert_eq!(of_one + of_others, limits::MESH_STRANGERS_MAX);
        assert!(!take(&mut places, 201, false));
        let at_members = (0..100).filter(|_| take(&mut places, 1, true)).count();
        assert_eq!(at_members, limits::MESH_STRANGERS_MAX, "many members may be behind one address");
        places.give_back(ConnectionId::new_unchecked(0));
        assert!(take(&mut places, 201, false), "a place that was given back is another's");
        assert_eq!(places.taken(), 2 * limits::MESH_STRANGERS_MAX);
    }
}
