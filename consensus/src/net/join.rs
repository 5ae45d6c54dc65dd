//! A machine that wants to join, at the member that it dials.
//!
//! The machine shows first that it has the code of an invitation, and that it is at the other end of this connection.
//! If the directory does not know the key of that code, or the invitation has ended, the connection is closed and
//! nothing is said. Otherwise this node shows who it is, hears the request, and answers it once and whole.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_trust::{Channel, JoinRequest, Knock, PublicKey, Sealed, SiteView, TrustNews};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use super::admit::{TRUST_PATIENCE, read, write};
use super::calls::frame;
use super::gate::{COME_AGAIN, Gate, TURNED_AWAY, Turned};
use super::knocks::Knocks;
use super::tls;

/// The label under which both ends export the same bytes from TLS (RFC 9266).
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// How long a machine has to send its request, once it was told who this node is.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long the directory and the issuer have to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(45);
/// How long a machine has to read the answer and to close the connection.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(10);

/// Whether somebody may join; or why that is not known.
pub(crate) type Knowing = Pin<Box<dyn Future<Output = Result<bool, String>> + Send>>;
/// The sealed reply to a request to join, in its protobuf form; or why there is none.
pub(crate) type Joining = Pin<Box<dyn Future<Output = Result<Vec<u8>, NotJoined>> + Send>>;

/// Why a machine is no member.
#[derive(Debug, thiserror::Error)]
pub enum NotJoined {
    /// The site refuses it, for this reason.
    #[error("{0}")]
    Refused(String),
    /// It is not known what became of its request. Another try goes on with it.
    #[error("{0}")]
    Later(String),
}

/// Who makes members of machines that want to join. Implemented by the service that asks the directory.
pub(crate) trait Registrar: Send + Sync + 'static {
    /// Whether the invitation with this key may be redeemed, or was.
    fn knows(&self, invitation: PublicKey) -> Knowing;

    /// Has a node redeem its invitation. That the request came on its connection was seen.
    fn join(&self, request: Sealed<JoinRequest>) -> Joining;
}

/// What is done with machines that want to join.
pub(super) struct Newcomers {
    registrar: Arc<dyn Registrar>,
    knocks: Knocks,
}

/// Who is at the other end, and of which connection.
#[derive(Clone, Copy)]
struct Visitor {
    node: NodeId,
    channel: Channel,
}

/// What only the two ends of a connection have.
pub(super) fn channel(connection: &quinn::Connection) -> Result<Channel, Turned> {
    let mut channel = Channel::default();
    let exported = connection.export_keying_material(&mut channel, EXPORTER, b"");
    exported.map_err(|_| Turned::Lost("TLS exports nothing of the connection".to_owned()))?;
    Ok(channel)
}

/// The root documents, page by page.
async fn tell_documents(view: &SiteView, send: &mut (impl AsyncWrite + Unpin)) -> Result<(), Turned> {
    // As for a node that knows no document and all revocations: only members are told who is out.
    let theirs = TrustNews { root_version: 0, ..view.news() };
    let mut page = view.missing_of(&theirs).unwrap_or_default();
    loop {
        write(send, &frame(FrameKind::SiteNews, ShardId::DIRECTORY, None, 0, &page.to_bytes())).await?;
        if !page.more {
            return Ok(());
        }
        page = view.missing_after(&theirs, &page).unwrap_or_default();
    }
}

/// The request, if it is of whom this node speaks with; or why it is not heard.
fn request_of(body: &Bytes, knock: &Knock, visitor: Visitor) -> Result<Sealed<JoinRequest>, String> {
    let request = Sealed::<JoinRequest>::from_bytes(body).map_err(|error| error.to_string())?;
    request.check_channel(Some(&visitor.channel)).map_err(|error| error.to_string())?;
    if request.invitation != knock.invitation || request.node != PublicKey::from(visitor.node) {
        return Err("the request is for another invitation or another node than those of this connection".to_owned());
    }
    Ok(request)
}

impl Newcomers {
    pub(super) fn new(registrar: Arc<dyn Registrar>) -> Self {
        Self { registrar, knocks: Knocks::default() }
    }

    /// What the machine shows first, which it has to do until an instant.
    async fn knock(
        &self,
        visitor: Visitor,
        receive: &mut (impl AsyncRead + Unpin),
        until: Instant,
    ) -> Result<Knock, Turned> {
        let heard = timeout_at(until, read(receive, FrameKind::Knock, limits::KNOCK_BYTES_MAX)).await;
        let body = heard.map_err(|_| Turned::Late(TRUST_PATIENCE))??;
        let knock = Sealed::<Knock>::from_bytes(&body).map_err(|error| Turned::Malformed(error.to_string()))?;
        if !knock.holds(&visitor.channel) {
            return Err(Turned::Malformed("its knock is not sealed for this connection".to_owned()));
        }
        match self.registrar.knows(knock.invitation).await {
            Ok(true) => Ok(*knock.statement()),
            Ok(false) => Err(Turned::Uninvited),
            Err(why) => Err(Turned::Unable(why)),
        }
    }

    /// Serves one machine. Whether it is a member by that; a refusal was told to it, since it has the code.
    async fn serve<S: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
        &self,
        gate: &Gate,
        visitor: Visitor,
        (send, receive): (&mut S, &mut R),
        until: Instant,
    ) -> Result<bool, Turned> {
        let knock = self.knock(visitor, receive, until).await?;
        tell_documents(&gate.site.view(), send).await?;
        write(send, &frame(FrameKind::Trust, ShardId::DIRECTORY, None, 0, &gate.site.hello().to_bytes())).await?;
        let heard = timeout(REQUEST_PATIENCE, read(receive, FrameKind::Join, limits::JOIN_REQUEST_BYTES_MAX)).await;
        let body = heard.map_err(|_| Turned::Late(REQUEST_PATIENCE))??;
        let answer = match request_of(&body, &knock, visitor) {
            Ok(request) => timeout(ANSWER_PATIENCE, self.registrar.join(request)).await,
            Err(why) => Ok(Err(NotJoined::Refused(why))),
        };
        let (kind, body) = match answer.map_err(|_| Turned::Unable(format!("no reply within {ANSWER_PATIENCE:?}")))? {
            Ok(reply) => (FrameKind::Reply, reply),
            Err(NotJoined::Refused(why)) => (FrameKind::Refused, why.into_bytes()),
            Err(NotJoined::Later(why)) => return Err(Turned::Unable(why)),
        };
        let is_member = kind == FrameKind::Reply;
        write(send, &frame(kind, ShardId::DIRECTORY, None, 0, &body)).await?;
        Ok(is_member)
    }

    /// Serves a machine that wants to join, until it is a member or was turned away.
    pub(super) async fn receive(&self, connection: quinn::Connection, gate: &Gate) {
        let close = |code| connection.close(quinn::VarInt::from_u32(code), b"");
        let Some(node) = tls::authenticated(&connection) else { return close(TURNED_AWAY) };
        let Some(attempt) = self.knocks.attempt(connection.remote_address().ip()) else {
            gate.turned(node, &Turned::TooOften);
            return close(COME_AGAIN);
        };
        // Its streams are there still when it is closed: one that is let go of says so.
        let mut streams = None;
        let served = async {
            let (until, channel) = (Instant::now() + TRUST_PATIENCE, channel(&connection)?);
            let opened = timeout_at(until, connection.accept_bi()).await.map_err(|_| Turned::Late(TRUST_PATIENCE))?;
            let (send, receive) = streams.insert(opened.map_err(|error| Turned::Lost(error.to_string()))?);
            self.serve(gate, Visitor { node, channel }, (send, receive), until).await
        };
        match served.await {
            Ok(is_member) => {
                if is_member {
                    attempt.made_a_member();
                }
                // It closes the connection once it has read what it was told.
                let _ = timeout(FAREWELL_PATIENCE, connection.closed()).await;
                close(0);
            }
            Err(turned) => {
                gate.turned(node, &turned);
                close(turned.close_code());
            }
        }
    }
}
