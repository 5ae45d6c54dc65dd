//! The door by itself, and what the behaviour behind it hears of connections.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::noop_waker_ref;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use skep_admission::SiteHandle;

use super::hall::*;
use crate::admit::asking::Word;
use crate::admit::{Door, DoorEvent, Members};
use crate::peer::peer_id;

/// The behaviour behind the door in these tests: it notes what it hears.
#[derive(Default)]
struct Behind {
    heard: Vec<String>,
}

impl NetworkBehaviour for Behind {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.heard.push(format!("{connection} comes in"));
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.heard.push(format!("{connection} goes out"));
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.heard.push(match event {
            FromSwarm::ConnectionEstablished(made) => {
                format!("{} is made beside {}", made.connection_id, made.other_established)
            }
            FromSwarm::ConnectionClosed(closed) => {
                format!("{} is closed, {} left", closed.connection_id, closed.remaining_established)
            }
            FromSwarm::DialFailure(failure) => format!("{} failed", failure.connection_id),
            _ => "something else".to_owned(),
        });
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: THandlerOutEvent<Self>) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

fn at() -> Multiaddr {
    "/ip4/10.0.0.1/tcp/1".parse().unwrap()
}

struct Hall {
    site: SiteHandle,
    door: Door<Behind>,
    peer: PeerId,
}

impl Hall {
    fn new() -> Self {
        let site = robot(30).handle();
        let door = Door::of_site(Behind::default(), Members::of(site.clone())).unwrap();
        Self { site, door, peer: peer_id(node(31)).unwrap() }
    }

    fn came(&self) -> ConnectedPoint {
        ConnectedPoint::Listener { local_addr: at(), send_back_addr: at() }
    }

    fn dialled(&self) -> ConnectedPoint {
        ConnectedPoint::Dialer { address: at(), role_override: Endpoint::Dialer, port_use: PortUse::New }
    }

    fn made(&mut self, connection: usize, endpoint: &ConnectedPoint) {
        let (peer_id, connection_id) = (self.peer, id(connection));
        let made = match endpoint {
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                self.door.handle_pending_inbound_connection(connection_id, local_addr, send_back_addr).unwrap();
                self.door.handle_established_inbound_connection(connection_id, peer_id, local_addr, send_back_addr)
            }
            ConnectedPoint::Dialer { address, role_override, port_use } => {
                self.door.know(peer_id, None);
                let (role, port_use) = (*role_override, *port_use);
                self.door.handle_established_outbound_connection(connection_id, peer_id, address, role, port_use)
            }
        };
        assert!(made.is_ok());
        self.door.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            failed_addresses: &[],
            // The count includes strangers.
            other_established: connection,
        }));
    }

    fn closed(&mut self, connection: usize, endpoint: &ConnectedPoint) {
        self.door.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: self.peer,
            connection_id: id(connection),
            endpoint,
            cause: None,
            remaining_established: 7,
        }));
    }

    fn admitted(&mut self, connection: usize) {
        let member = robot(31).member(&self.site);
        self.door.on_connection_handler_event(self.peer, id(connection), Either::Left(Word::Admitted(member)));
    }

    /// What the behaviour behind the door has heard since the last call.
    fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.door.inner_mut().heard)
    }

    /// What the door asks of the swarm, and what it reports.
    fn wishes(&mut self) -> Vec<String> {
        let mut wishes = Vec::new();
        while let Poll::Ready(wish) = self.door.poll(&mut Context::from_waker(noop_waker_ref())) {
            wishes.push(match wish {
                ToSwarm::NotifyHandler { event: Either::Left(_), .. } => "it listens".to_owned(),
                ToSwarm::NotifyHandler { event: Either::Right(tell), .. } => format!("{tell:?}"),
                ToSwarm::CloseConnection { connection: CloseConnection::One(one), .. } => format!("close {one}"),
                ToSwarm::GenerateEvent(DoorEvent::In { connection, others, .. }) => {
                    format!("{connection} in beside {others}")
                }
                ToSwarm::GenerateEvent(DoorEvent::Left(left)) => format!("{} left", left.connection),
                ToSwarm::GenerateEvent(DoorEvent::Refused { why, .. }) => why.kind().to_owned(),
                _ => "something else".to_owned(),
            });
        }
        wishes
    }
}

#[tokio::test]
async fn nothing_behind_the_door_hears_of_a_connection_before_its_peer_is_admitted_and_after_it_is_out() {
    let mut hall = Hall::new();
    let (came, dialled) = (hall.came(), hall.dialled());
    hall.made(1, &came);
    hall.made(2, &dialled);
    assert!(hall.heard().is_empty() && hall.wishes().is_empty());
    hall.admitted(1);
    assert_eq!(hall.heard(), ["1 comes in", "1 is made beside 0"]);
    assert_eq!(hall.wishes(), ["Open", "it listens", "1 in beside 0"]);
    hall.admitted(2);
    assert_eq!(hall.heard(), ["2 goes out", "2 is made beside 1"]);
    assert_eq!(hall.wishes(), ["Open", "it listens", "2 in beside 1"]);
    hall.site.learn(&stolen(31)).unwrap();
    hall.door.judge_all();
    assert_eq!(hall.heard(), ["1 is closed, 1 left", "2 is closed, 0 left"]);
    assert_eq!(hall.wishes(), ["1 left", "close 1", "revoked", "2 left", "close 2", "revoked"]);
    // The peer may take its time to close them.
    hall.closed(1, &came);
    hall.closed(2, &dialled);
    hall.door.judge_all();
    assert!(hall.heard().is_empty() && hall.wishes().is_empty());
}

#[tokio::test]
async fn who_was_revoked_while_it_was_judged_is_refused_at_the_door() {
    let mut hall = Hall::new();
    let came = hall.came();
    hall.made(1, &came);
    let member = robot(31).member(&hall.site);
    hall.site.learn(&stolen(31)).unwrap();
    hall.door.on_connection_handler_event(hall.peer, id(1), Either::Left(Word::Admitted(Arc::clone(&member))));
    assert!(hall.heard().is_empty());
    assert_eq!(hall.wishes(), ["close 1", "revoked"]);
    // The behaviour does not hear what the peer says later.
    hall.door.on_connection_handler_event(hall.peer, id(1), Either::Left(Word::Admitted(member)));
    assert!(hall.heard().is_empty() && hall.wishes().is_empty());
}

#[tokio::test]
async fn a_dial_to_a_peer_that_is_not_admitted_has_failed_for_what_is_behind_the_door() {
    let mut hall = Hall::new();
    let dialled = hall.dialled();
    hall.made(1, &dialled);
    hall.closed(1, &dialled);
    assert_eq!(hall.heard(), ["1 failed"]);
    assert_eq!(hall.wishes(), ["ended"]);
}
