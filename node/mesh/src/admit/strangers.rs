//! Peers that are connected, and have not yet shown that they are members.

use std::collections::BTreeMap;
use std::net::IpAddr;

use libp2p::swarm::{ConnectionId, InvalidProtocol};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use skep_protocol::limits;
use skep_trust::PublicKey;

use super::asking::Terms;
use super::members::Members;
use super::places::{Places, host};
use super::refusals::Unwelcome;
use crate::peer::node_id;

/// The terms on which strangers become members, and the places that they have until then.
pub(crate) struct Strangers {
    pub(crate) members: Members,
    protocol: StreamProtocol,
    places: Places,
    /// The hosts of members, as of their last connection.
    hosts: BTreeMap<PeerId, IpAddr>,
}

impl Strangers {
    pub(crate) fn of(members: Members) -> Result<Self, InvalidProtocol> {
        let protocol = StreamProtocol::try_from_owned(format!("/skep/{}/admit/1", members.site.site()))?;
        Ok(Self { members, protocol, places: Places::default(), hosts: BTreeMap::new() })
    }

    /// The terms on which a peer is admitted.
    pub(crate) fn terms(&self, peer: PeerId) -> Result<Terms, Unwelcome> {
        let node = node_id(&peer).ok_or(Unwelcome::NotAMember(peer))?;
        Ok(Terms { protocol: self.protocol.clone(), site: self.members.site.clone(), peer: PublicKey::from(node) })
    }

    /// Takes a place for a connection that comes in from an address.
    pub(crate) fn comes(&mut self, connection: ConnectionId, from: &Multiaddr) -> Result<(), Unwelcome> {
        let is_known = host(from).is_some_and(|from| self.hosts.values().any(|host| *host == from));
        if self.places.take(connection, from, is_known) { Ok(()) } else { Err(Unwelcome::TooMany) }
    }

    /// Gives a place back: the peer of the connection is admitted, known to be a member, or gone.
    pub(crate) fn give_back(&mut self, connection: ConnectionId) {
        self.places.give_back(connection);
    }

    /// Remembers the host of a member.
    pub(crate) fn note_host(&mut self, peer: PeerId, at: &Multiaddr) {
        let has_room = self.hosts.len() < limits::MESH_MEMBERS_MAX || self.hosts.contains_key(&peer);
        if let Some(host) = host(at).filter(|_| has_room) {
            self.hosts.insert(peer, host);
        }
    }

    /// Forgets the host of a member.
    pub(crate) fn forget_host(&mut self, peer: &PeerId) {
        self.hosts.remove(peer);
    }
}
