//! A peer that notes all that a node opens to it, and tries to open all protocols of the mesh.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, SwarmEvent, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};

/// The protocols that a node of the site `s` speaks with admitted peers.
pub(crate) const SPOKEN: [&str; 6] =
    ["/meshsub/1.3.0", "/meshsub/1.1.0", "/skep/s/kad/1", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"];

/// One of these protocols.
#[derive(Clone, Debug)]
struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl<C> InboundUpgrade<C> for AnyOf {
    type Output = (StreamProtocol, C);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: C, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl<C> OutboundUpgrade<C> for AnyOf {
    type Output = (StreamProtocol, C);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: C, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

/// What the probe noted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Noted {
    /// The node opened a stream of this protocol.
    Opened(String),
    /// The node accepted a stream of this protocol.
    Accepted(String),
    /// The node refused a stream of this protocol.
    Refused(String),
}

struct ProbeHandler {
    to_open: VecDeque<StreamProtocol>,
    noted: VecDeque<Noted>,
    /// Streams that the probe keeps open.
    streams: Vec<Stream>,
}

fn spoken() -> Vec<StreamProtocol> {
    SPOKEN.map(StreamProtocol::new).to_vec()
}

impl ConnectionHandler for ProbeHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Noted;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = StreamProtocol;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyOf, ()> {
        SubstreamProtocol::new(AnyOf(spoken()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<AnyOf, StreamProtocol, Noted>> {
        if let Some(noted) = self.noted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(noted));
        }
        if let Some(protocol) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(AnyOf(vec![protocol.clone()]), protocol);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyOf, AnyOf, (), StreamProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (name, stream), .. }) => {
                self.streams.push(stream);
                self.noted.push_back(Noted::Opened(name.to_string()));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (name, stream), .. }) => {
                self.streams.push(stream);
                self.noted.push_back(Noted::Accepted(name.to_string()));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                self.noted.push_back(Noted::Refused(info.to_string()));
            }
            _ => {}
        }
    }
}

struct ProbeBehaviour {
    noted: VecDeque<Noted>,
}

fn handler() -> ProbeHandler {
    ProbeHandler { to_open: spoken().into(), noted: VecDeque::new(), streams: Vec::new() }
}

impl NetworkBehaviour for ProbeBehaviour {
    type ConnectionHandler = ProbeHandler;
    type ToSwarm = Noted;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<ProbeHandler, ConnectionDenied> {
        Ok(handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<ProbeHandler, ConnectionDenied> {
        Ok(handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, noted: THandlerOutEvent<Self>) {
        self.noted.push_back(noted);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Noted, THandlerInEvent<Self>>> {
        self.noted.pop_front().map_or(Poll::Pending, |noted| Poll::Ready(ToSwarm::GenerateEvent(noted)))
    }
}

/// A peer that dials a node, and takes notes.
pub(crate) struct Probe(Swarm<ProbeBehaviour>);

impl Probe {
    pub(crate) fn dial(seed: u8, address: &str) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| ProbeBehaviour { noted: VecDeque::new() })
            .unwrap()
            .build();
        swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
        Self(swarm)
    }

    /// Notes what happens until the connection is closed, or the notes are enough.
    pub(crate) async fn note_until(mut self, is_enough: impl Fn(&BTreeSet<Noted>) -> bool) -> BTreeSet<Noted> {
        let mut all = BTreeSet::new();
        while !is_enough(&all) {
            match self.0.select_next_some().await {
                SwarmEvent::Behaviour(noted) => {
                    all.insert(noted);
                }
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => return all,
                _ => {}
            }
        }
        all
    }
}
