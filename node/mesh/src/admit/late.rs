//! A handler that starts when its peer is admitted.
//!
//! Until then it offers no protocol, asks for no substream, and hears of none. From then on it accepts what the peer
//! opens. It speaks itself once the peer listens as well: gossip takes a protocol that a peer refuses once for one that
//! the peer does not know.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::Either as Output;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, ListenUpgradeError, SendWrapper};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};

/// What a handler hears of its connection.
type Heard<'a, H> = ConnectionEvent<
    'a,
    <H as ConnectionHandler>::InboundProtocol,
    <H as ConnectionHandler>::OutboundProtocol,
    <H as ConnectionHandler>::InboundOpenInfo,
    <H as ConnectionHandler>::OutboundOpenInfo,
>;

/// What the door tells a handler.
pub(crate) enum Tell<H: ConnectionHandler> {
    /// The peer is admitted; with the handler to start.
    Open(Box<H>),
    /// What the behaviour tells its handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for Tell<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// The handler, once the peer is admitted.
pub(crate) struct Late<H> {
    inner: Option<Box<H>>,
    may_speak: Arc<AtomicBool>,
}

impl<H> Late<H> {
    pub(crate) fn new(inner: Option<Box<H>>, may_speak: Arc<AtomicBool>) -> Self {
        Self { inner, may_speak }
    }

    fn speaking(&mut self) -> Option<&mut H> {
        if self.may_speak.load(Ordering::Relaxed) { self.inner.as_deref_mut() } else { None }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Late<H> {
    type FromBehaviour = Tell<H>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Either<SendWrapper<H::InboundProtocol>, SendWrapper<DeniedUpgrade>>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Either<H::InboundOpenInfo, ()>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => {
                let offered = inner.listen_protocol();
                offered.map_upgrade(|upgrade| Either::Left(SendWrapper(upgrade))).map_info(Either::Left)
            }
            None => SubstreamProtocol::new(Either::Right(SendWrapper(DeniedUpgrade)), Either::Right(())),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.connection_keep_alive())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        self.speaking().map_or(Poll::Pending, |inner| inner.poll(cx))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.speaking().map_or(Poll::Ready(None), |inner| inner.poll_close(cx))
    }

    fn on_behaviour_event(&mut self, event: Tell<H>) {
        match event {
            Tell::Open(handler) => self.inner = Some(handler),
            Tell::Inner(event) => {
                if let Some(inner) = &mut self.inner {
                    inner.on_behaviour_event(event);
                }
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let Some(inner) = &mut self.inner else { return };
        let event: Heard<'_, H> = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                let (Output::Left(protocol), Either::Left(info)) = (protocol, info) else { return };
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                let (Either::Left(info), Either::Left(error)) = (info, error) else { return };
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::FullyNegotiatedOutbound(made) => ConnectionEvent::FullyNegotiatedOutbound(made),
            ConnectionEvent::DialUpgradeError(failed) => ConnectionEvent::DialUpgradeError(failed),
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => ConnectionEvent::LocalProtocolsChange(change),
            ConnectionEvent::RemoteProtocolsChange(change) => ConnectionEvent::RemoteProtocolsChange(change),
            _ => return,
        };
        inner.on_connection_event(event);
    }
}
