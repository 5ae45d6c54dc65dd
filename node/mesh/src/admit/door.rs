//! The door of the mesh: the behaviour behind it hears of admitted peers only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerSelect, ConnectionId,
    DialError, DialFailure, FromSwarm, InvalidProtocol, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use skep_trust::Member;

use super::asking::{Asking, Opened, Word};
use super::late::{Late, Tell};
use super::members::Members;
use super::refusals::{NotAdmitted, Unwelcome};
use super::strangers::Strangers;
use crate::peer::node_id;

/// What the door reports.
#[derive(Debug)]
pub(crate) enum DoorEvent<E> {
    /// A peer is admitted on a connection. `others`: the number of its other admitted connections.
    In { peer: PeerId, connection: ConnectionId, endpoint: ConnectedPoint, others: usize },
    /// An admitted peer's connection has ended, or is ending.
    Left(Left),
    /// A peer is not admitted, or has stopped being admitted. `dialled`: whether this node dialled it.
    Refused { peer: PeerId, dialled: bool, why: NotAdmitted },
    /// The behaviour behind the door reports an event.
    Inner(E),
}

/// A connection of a peer that was admitted.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) endpoint: ConnectedPoint,
    /// The number of connections that the peer has left.
    pub(crate) remaining: usize,
    pub(crate) why: String,
}

/// How far a connection has come.
#[derive(Debug)]
enum State {
    Stranger,
    /// The peer is admitted; with the member, if there is a site.
    In(Option<Arc<Member>>),
    /// The behaviour behind the door has been told that the connection is closed.
    Out,
}

#[derive(Debug)]
struct Link {
    endpoint: ConnectedPoint,
    /// Addresses at which dials failed before this connection was made.
    failed: Vec<Multiaddr>,
    state: State,
}

impl Link {
    fn is_in(&self) -> bool {
        matches!(self.state, State::In(_))
    }
}

type Handler<B> = ConnectionHandlerSelect<Asking, Late<THandler<B>>>;
type Wish<B> = ToSwarm<DoorEvent<<B as NetworkBehaviour>::ToSwarm>, <Handler<B> as ConnectionHandler>::FromBehaviour>;

/// The door, and the behaviour behind it.
pub(crate) struct Door<B: NetworkBehaviour> {
    inner: B,
    /// The listed peers; with a site, the members that this node dials.
    known: BTreeSet<PeerId>,
    cut_off: BTreeSet<PeerId>,
    /// The site's terms; none if there is a list.
    site: Option<Strangers>,
    links: BTreeMap<PeerId, BTreeMap<ConnectionId, Link>>,
    wishes: VecDeque<Wish<B>>,
    waker: Option<Waker>,
}

impl<B: NetworkBehaviour> Door<B> {
    /// A door that admits the listed peers, which are the [known](Self::know) ones.
    pub(crate) fn of_list(inner: B) -> Self {
        let (known, cut_off, links) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { inner, known, cut_off, site: None, links, wishes: VecDeque::new(), waker: None }
    }

    /// A door that admits the members of a site.
    pub(crate) fn of_site(inner: B, members: Members) -> Result<Self, InvalidProtocol> {
        Ok(Self { site: Some(Strangers::of(members)?), ..Self::of_list(inner) })
    }

    /// The behaviour behind the door.
    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Lets this node dial a peer; if there is a list, also admits the peer.
    pub(crate) fn know(&mut self, peer: PeerId, at: Option<&Multiaddr>) {
        self.known.insert(peer);
        if let (Some(site), Some(at)) = (&mut self.site, at) {
            site.note_host(peer, at);
        }
    }

    /// Stops this node from dialling a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.known.remove(peer);
        if let Some(site) = &mut self.site {
            site.forget_host(peer);
        }
    }

    /// Closes all connections of these peers, and lets none of them in; all others may come again.
    pub(crate) fn cut_off(&mut self, peers: BTreeSet<PeerId>) {
        self.cut_off = peers;
        let cut = self.links.iter().filter(|(peer, _)| self.cut_off.contains(*peer));
        let cut: Vec<(PeerId, ConnectionId)> =
            cut.flat_map(|(peer, links)| links.keys().map(move |connection| (*peer, *connection))).collect();
        for (peer, connection) in cut {
            self.close(peer, connection, "it was cut off");
        }
    }

    /// Judges all connections again, and closes those of peers that have stopped being members.
    pub(crate) fn judge_all(&mut self) {
        let Some(site) = &self.site else { return };
        let mut out = Vec::new();
        for (peer, links) in &self.links {
            for (connection, link) in links {
                if let State::In(Some(member)) = &link.state
                    && let Err(refusal) = site.members.site.judge(member)
                {
                    out.push((*peer, *connection, link.endpoint.is_dialer(), refusal));
                }
            }
        }
        for (peer, connection, dialled, refusal) in out {
            self.close(peer, connection, &refusal.to_string());
            self.say(DoorEvent::Refused { peer, dialled, why: refusal.into() });
        }
    }

    /// Whether this node may dial a peer.
    fn may_dial(&self, peer: PeerId) -> Result<(), Unwelcome> {
        self.is_not_cut_off(peer)?;
        match &self.site {
            None if self.known.contains(&peer) => Ok(()),
            None => Err(Unwelcome::NotListed(peer)),
            Some(site) => {
                let is_out = || node_id(&peer).is_none_or(|node| site.members.is_revoked(node));
                if !self.known.contains(&peer) || is_out() { Err(Unwelcome::NotAMember(peer)) } else { Ok(()) }
            }
        }
    }

    fn is_not_cut_off(&self, peer: PeerId) -> Result<(), Unwelcome> {
        if self.cut_off.contains(&peer) { Err(Unwelcome::CutOff(peer)) } else { Ok(()) }
    }

    /// Whether the peer of an incoming connection may stay until it is judged.
    fn may_come(&mut self, peer: PeerId, connection: ConnectionId) -> Result<(), Unwelcome> {
        self.is_not_cut_off(peer)?;
        let is_known = self.known.contains(&peer);
        match &mut self.site {
            None if is_known => Ok(()),
            None => Err(Unwelcome::NotListed(peer)),
            Some(site) => {
                let is_member = node_id(&peer).is_some_and(|node| site.members.member(node).is_some());
                if is_known || is_member {
                    // One peer has few connections, and no other peer has its key.
                    site.give_back(connection);
                }
                Ok(())
            }
        }
    }

    fn say(&mut self, event: DoorEvent<B::ToSwarm>) {
        self.wish(ToSwarm::GenerateEvent(event));
    }

    fn wish(&mut self, wish: Wish<B>) {
        self.wishes.push_back(wish);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn others_in(&self, peer: &PeerId, than: ConnectionId) -> usize {
        let others = self.links.get(peer).into_iter().flatten();
        others.filter(|(connection, link)| **connection != than && link.is_in()).count()
    }

    fn link(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<&mut Link> {
        self.links.get_mut(peer)?.get_mut(&connection)
    }

    /// A handler without the handler behind the door.
    fn ask(asking: impl FnOnce(Arc<AtomicBool>) -> Asking) -> Handler<B> {
        let may_speak = Arc::default();
        asking(Arc::clone(&may_speak)).select(Late::new(None, may_speak))
    }

    /// The handler of a connection whose peer is in the list.
    fn open(handler: THandler<B>) -> Handler<B> {
        let may_speak = Arc::default();
        Asking::nothing(Arc::clone(&may_speak)).select(Late::new(Some(Box::new(handler)), may_speak))
    }

    fn on_established(&mut self, made: ConnectionEstablished<'_>) {
        let ConnectionEstablished { peer_id: peer, connection_id: connection, .. } = made;
        let (endpoint, failed) = (made.endpoint.clone(), made.failed_addresses.to_vec());
        let links = self.links.entry(peer).or_default();
        links.insert(connection, Link { endpoint, failed, state: State::Stranger });
        if self.site.is_none() {
            self.let_in(peer, connection, None);
        }
    }

    /// Makes a stranger's connection that of a member, or of a listed peer.
    fn let_in(&mut self, peer: PeerId, connection: ConnectionId, member: Option<Arc<Member>>) {
        let others = self.others_in(&peer, connection);
        let Some(link) = self.link(&peer, connection) else { return };
        link.state = State::In(member);
        let (endpoint, failed) = (link.endpoint.clone(), std::mem::take(&mut link.failed));
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &failed,
            other_established: others,
        }));
        self.say(DoorEvent::In { peer, connection, endpoint, others });
    }

    /// Takes note that a peer has shown that it is a member.
    fn on_admitted(&mut self, peer: PeerId, connection: ConnectionId, member: Arc<Member>) {
        let Some(link) = self.link(&peer, connection) else { return };
        if !matches!(link.state, State::Stranger) {
            return;
        }
        let endpoint = link.endpoint.clone();
        let Some(site) = &mut self.site else { return };
        site.give_back(connection);
        // The others may have been judged anew since this member was judged.
        if let Err(refusal) = site.members.site.judge(&member) {
            return self.refuse(peer, connection, refusal.into());
        }
        site.members.meet(&member);
        site.note_host(peer, endpoint.get_remote_address());
        let handler = match &endpoint {
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                self.inner.handle_established_inbound_connection(connection, peer, local_addr, send_back_addr)
            }
            ConnectedPoint::Dialer { address, role_override, port_use } => {
                self.inner.handle_established_outbound_connection(connection, peer, address, *role_override, *port_use)
            }
        };
        let handler = match handler {
            Ok(handler) => handler,
            Err(denied) => return self.refuse(peer, connection, NotAdmitted::NoPlace(denied.to_string())),
        };
        // The connection has to hear this before anything that the behaviour behind the door says of it.
        self.tell(peer, connection, Either::Right(Tell::Open(Box::new(handler))));
        self.tell(peer, connection, Either::Left(Opened));
        self.let_in(peer, connection, Some(member));
    }

    fn tell(&mut self, peer_id: PeerId, connection: ConnectionId, event: THandlerInEvent<Self>) {
        self.wish(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
    }

    /// Refuses a peer on a connection.
    fn refuse(&mut self, peer: PeerId, connection: ConnectionId, why: NotAdmitted) {
        let Some(link) = self.link(&peer, connection) else { return };
        let dialled = link.endpoint.is_dialer();
        self.close(peer, connection, "it was refused");
        self.say(DoorEvent::Refused { peer, dialled, why });
    }

    /// Closes a connection. The behaviour behind the door hears of the end at once: the close itself may take long.
    fn close(&mut self, peer: PeerId, connection: ConnectionId, why: &str) {
        self.leave(peer, connection, why);
        self.wish(ToSwarm::CloseConnection { peer_id: peer, connection: CloseConnection::One(connection) });
    }

    /// Tells the behaviour behind the door that a connection is closed.
    fn leave(&mut self, peer: PeerId, connection: ConnectionId, why: &str) {
        if let Some(site) = &mut self.site {
            site.give_back(connection);
        }
        let remaining = self.others_in(&peer, connection);
        let Some(link) = self.link(&peer, connection) else { return };
        let state = std::mem::replace(&mut link.state, State::Out);
        let endpoint = link.endpoint.clone();
        match state {
            State::In(_) => {
                self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                    peer_id: peer,
                    connection_id: connection,
                    endpoint: &endpoint,
                    cause: None,
                    remaining_established: remaining,
                }));
                self.say(DoorEvent::Left(Left { peer, connection, endpoint, remaining, why: why.to_owned() }));
            }
            // Kademlia may wait for the dial to succeed.
            State::Stranger if endpoint.is_dialer() => {
                let failure =
                    DialFailure { peer_id: Some(peer), error: &DialError::Aborted, connection_id: connection };
                self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
            }
            State::Stranger | State::Out => {}
        }
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let ConnectionClosed { peer_id: peer, connection_id: connection, .. } = closed;
        let why = closed.cause.map_or_else(|| "it was closed".to_owned(), ToString::to_string);
        let was_stranger = self.link(&peer, connection).is_some_and(|link| matches!(link.state, State::Stranger));
        self.leave(peer, connection, &why);
        if was_stranger {
            let (dialled, why) = (closed.endpoint.is_dialer(), NotAdmitted::Ended(why));
            self.say(DoorEvent::Refused { peer, dialled, why });
        }
        if let Some(links) = self.links.get_mut(&peer) {
            links.remove(&connection);
            if links.is_empty() {
                self.links.remove(&peer);
            }
        }
    }

    /// The connections of a peer to which a notice goes; a stranger's gets none.
    fn admitted(&self, peer: &PeerId, meant: NotifyHandler) -> Option<NotifyHandler> {
        let links = self.links.get(peer)?;
        match meant {
            NotifyHandler::One(connection) => Some(NotifyHandler::One(connection)),
            NotifyHandler::Any if links.values().all(Link::is_in) => Some(NotifyHandler::Any),
            NotifyHandler::Any => {
                let is_in = links.iter().find(|(_, link)| link.is_in());
                is_in.map(|(connection, _)| NotifyHandler::One(*connection))
            }
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Door<B> {
    type ConnectionHandler = Handler<B>;
    type ToSwarm = DoorEvent<B::ToSwarm>;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if let Some(site) = &mut self.site {
            site.comes(connection, remote).map_err(ConnectionDenied::new)?;
        }
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler<B>, ConnectionDenied> {
        self.may_come(peer, connection).map_err(ConnectionDenied::new)?;
        if let Some(site) = &self.site {
            let terms = site.terms(peer).map_err(ConnectionDenied::new)?;
            return Ok(Self::ask(|may_speak| Asking::accepted(terms, may_speak)));
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Self::open)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.may_dial(peer).map_err(ConnectionDenied::new)?;
        }
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<Handler<B>, ConnectionDenied> {
        self.may_dial(peer).map_err(ConnectionDenied::new)?;
        if let Some(site) = &self.site {
            let terms = site.terms(peer).map_err(ConnectionDenied::new)?;
            return Ok(Self::ask(|may_speak| Asking::dialled(terms, may_speak)));
        }
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port_use).map(Self::open)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) => return self.on_established(made),
            FromSwarm::ConnectionClosed(closed) => return self.on_closed(closed),
            FromSwarm::AddressChange(change) => {
                let Some(link) = self.link(&change.peer_id, change.connection_id) else { return };
                link.endpoint = change.new.clone();
                if !link.is_in() {
                    return;
                }
            }
            FromSwarm::ListenFailure(failure) => {
                if let Some(site) = &mut self.site {
                    site.give_back(failure.connection_id);
                }
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(Word::Admitted(member)) => self.on_admitted(peer, connection, member),
            Either::Left(Word::Refused(why)) => {
                let is_out = self.link(&peer, connection).is_none_or(|link| matches!(link.state, State::Out));
                if !is_out {
                    self.refuse(peer, connection, why);
                }
            }
            Either::Right(event) => {
                if self.link(&peer, connection).is_some_and(|link| link.is_in()) {
                    self.inner.on_connection_handler_event(peer, connection, event);
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(wish) = self.wishes.pop_front() {
            return Poll::Ready(wish);
        }
        loop {
            let wish = match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event }) => {
                    // The peer has no connection left.
                    let Some(handler) = self.admitted(&peer_id, handler) else { continue };
                    ToSwarm::NotifyHandler { peer_id, handler, event }
                }
                Poll::Ready(wish) => wish,
                Poll::Pending => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            let wish = wish.map_out(DoorEvent::Inner).map_in(|event| Either::Right(Tell::Inner(event)));
            return Poll::Ready(wish);
        }
    }
}
