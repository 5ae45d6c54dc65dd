//! The handler of the protocol of admission on one connection.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, StreamUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};
use skep_admission::SiteHandle;
use skep_trust::{Member, PublicKey};
use tokio::time::Sleep;

use super::refusals::NotAdmitted;
use super::talk::{Heard, Judged, Talk};

/// How long a stranger may take until its chain has been verified.
const STRANGER_FOR: Duration = Duration::from_secs(2);
/// How long a peer may take for the rest: there may be much to tell, on a thin link.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// The protocol of admission, while a side offers it or asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Offer(Option<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl<C> InboundUpgrade<C> for Offer {
    type Output = C;
    type Error = Infallible;
    type Future = Ready<Result<C, Infallible>>;

    fn upgrade_inbound(self, stream: C, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl<C> OutboundUpgrade<C> for Offer {
    type Output = C;
    type Error = Infallible;
    type Future = Ready<Result<C, Infallible>>;

    fn upgrade_outbound(self, stream: C, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

/// What a connection tells the door.
#[derive(Debug)]
pub(crate) enum Word {
    /// The peer is admitted. The door answers with [`Opened`].
    Admitted(Arc<Member>),
    /// The peer is not admitted.
    Refused(NotAdmitted),
}

/// The door's answer: this side listens on the connection.
#[derive(Debug)]
pub(crate) struct Opened;

/// The peer of a connection, and the site to which the peer must belong.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) protocol: StreamProtocol,
    pub(crate) site: SiteHandle,
    pub(crate) peer: PublicKey,
}

impl Terms {
    fn talk(self, stream: Stream) -> Talk<Stream> {
        Talk::new(stream, self.site, self.peer)
    }
}

enum Stage {
    /// A dialler asks for the stream.
    Asks(Terms),
    /// A dialler waits for the stream.
    Asked(Terms),
    /// An acceptor waits for the stream, and offers it.
    Offers(Terms),
    Hears(BoxFuture<'static, Result<Heard<Stream>, NotAdmitted>>),
    Judges(BoxFuture<'static, Result<Judged<Stream>, NotAdmitted>>),
    /// The door has been told that the peer is admitted.
    Opens(Box<Judged<Stream>>),
    Concludes(BoxFuture<'static, Result<(), NotAdmitted>>),
    Fails(NotAdmitted),
    /// The talk has ended.
    Over,
}

/// The handler of the protocol of admission.
pub(crate) struct Asking {
    stage: Stage,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Set once the peer listens.
    may_speak: Arc<AtomicBool>,
}

impl Asking {
    /// The handler on a connection whose peer the list admits.
    pub(crate) fn nothing(may_speak: Arc<AtomicBool>) -> Self {
        may_speak.store(true, Ordering::Relaxed);
        Self { stage: Stage::Over, deadline: None, may_speak }
    }

    /// The handler on a connection that this node dialled.
    pub(crate) fn dialled(terms: Terms, may_speak: Arc<AtomicBool>) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep(SETTLED_WITHIN)));
        Self { stage: Stage::Asks(terms), deadline, may_speak }
    }

    /// The handler on a connection of a stranger.
    pub(crate) fn accepted(terms: Terms, may_speak: Arc<AtomicBool>) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep(STRANGER_FOR)));
        Self { stage: Stage::Offers(terms), deadline, may_speak }
    }

    fn go_on_for(&mut self, time: Duration) {
        self.deadline = Some(Box::pin(tokio::time::sleep(time)));
    }

    fn fail(&mut self, why: NotAdmitted) -> Poll<Event> {
        (self.stage, self.deadline) = (Stage::Over, None);
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Word::Refused(why)))
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.poll_unpin(cx).is_ready())
    }

    /// One step of the talk. Returns the next stage, or what the door is to be told.
    fn step(&mut self, stage: Stage, cx: &mut Context<'_>) -> Result<Next, NotAdmitted> {
        Ok(match stage {
            Stage::Asks(terms) => {
                let offer = Offer(Some(terms.protocol.clone()));
                let protocol = SubstreamProtocol::new(offer, ()).with_timeout(SETTLED_WITHIN);
                Next::Say(Stage::Asked(terms), ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            Stage::Hears(mut talk) => match talk.poll_unpin(cx) {
                Poll::Ready(heard) => {
                    let heard = heard?;
                    self.go_on_for(SETTLED_WITHIN);
                    Next::Go(Stage::Judges(heard.answer().boxed()))
                }
                Poll::Pending => Next::Wait(Stage::Hears(talk)),
            },
            Stage::Judges(mut talk) => match talk.poll_unpin(cx) {
                Poll::Ready(judged) => {
                    let judged = judged?;
                    let admitted = Word::Admitted(judged.member());
                    Next::Say(Stage::Opens(Box::new(judged)), ConnectionHandlerEvent::NotifyBehaviour(admitted))
                }
                Poll::Pending => Next::Wait(Stage::Judges(talk)),
            },
            Stage::Concludes(mut talk) => match talk.poll_unpin(cx) {
                Poll::Ready(concluded) => {
                    concluded?;
                    self.deadline = None;
                    self.may_speak.store(true, Ordering::Relaxed);
                    Next::Wait(Stage::Over)
                }
                Poll::Pending => Next::Wait(Stage::Concludes(talk)),
            },
            Stage::Fails(why) => return Err(why),
            Stage::Asked(_) | Stage::Offers(_) | Stage::Opens(_) | Stage::Over => Next::Wait(stage),
        })
    }
}

type Event = ConnectionHandlerEvent<Offer, (), Word>;

/// What follows a step.
enum Next {
    Go(Stage),
    Say(Stage, Event),
    Wait(Stage),
}

impl ConnectionHandler for Asking {
    type FromBehaviour = Opened;
    type ToBehaviour = Word;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Offer, ()> {
        let offered = match &self.stage {
            Stage::Offers(terms) => Some(terms.protocol.clone()),
            _ => None,
        };
        SubstreamProtocol::new(Offer(offered), ())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.is_late(cx) {
            return self.fail(NotAdmitted::Silent);
        }
        loop {
            let stage = std::mem::replace(&mut self.stage, Stage::Over);
            match self.step(stage, cx) {
                Ok(Next::Go(next)) => self.stage = next,
                Ok(Next::Say(next, event)) => {
                    self.stage = next;
                    return Poll::Ready(event);
                }
                Ok(Next::Wait(next)) => {
                    self.stage = next;
                    // A timer that was set in this step has not registered its waker yet.
                    return if self.is_late(cx) { self.fail(NotAdmitted::Silent) } else { Poll::Pending };
                }
                Err(why) => return self.fail(why),
            }
        }
    }

    fn on_behaviour_event(&mut self, Opened: Opened) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Opens(judged) => {
                self.go_on_for(SETTLED_WITHIN);
                Stage::Concludes(judged.conclude().boxed())
            }
            other => other,
        };
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), ()>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        self.stage = match (event, stage) {
            (
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }),
                Stage::Offers(terms),
            ) => Stage::Hears(terms.talk(stream).hear().boxed()),
            (
                ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }),
                Stage::Asked(terms),
            ) => Stage::Judges(terms.talk(stream).show().boxed()),
            (ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }), Stage::Asked(_)) => {
                Stage::Fails(unasked(error))
            }
            (_, stage) => stage,
        };
    }
}

/// Why the stream was not opened.
fn unasked(error: StreamUpgradeError<Infallible>) -> NotAdmitted {
    match error {
        StreamUpgradeError::Timeout => NotAdmitted::Silent,
        StreamUpgradeError::NegotiationFailed => NotAdmitted::OtherSite,
        StreamUpgradeError::Io(error) => error.into(),
        StreamUpgradeError::Apply(never) => match never {},
    }
}
