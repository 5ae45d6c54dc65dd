//! A machine that joins a site: it has the code of an invitation, and becomes the member that the invitation describes.
//!
//! It takes no node at its word: TLS shows that the node has the key that the code names, and the root documents hash
//! to the site that the code names, or the machine stops and has said nothing but that it has the code. An answer that
//! is lost is asked for again, and is the same.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::frame::{FrameKind, Header};
use skep_protocol::ids::{Incarnation, ShardId};
use skep_protocol::limits;
use skep_protocol::text::NodeName;
use skep_trust::{
    Chain, Channel, InvitationCode, JoinReply, JoinRequest, Knock, Member, MemberAddress, PublicKey, Sealed, SecretKey,
    SiteClock, SiteId, SiteNews, SiteTime, SiteView, TrustHello, judge,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::admit::{read, write};
use super::calls::{begin_frame, frame, read_body};
use super::gate::{COME_AGAIN, TURNED_AWAY, Turned};
use super::join::channel;
use super::tls;
use crate::identity::Identity;

/// How long it is tried again where the answer was lost, or the node had no time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for a handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for all that is said on one connection: the directory may be far from the node.
const TALK_PATIENCE: Duration = Duration::from_secs(60);
/// A connection on which nothing is heard for so long has ended.
const IDLE: Duration = Duration::from_secs(20);
/// How long the node is given to hear that the connection is closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Shortest and longest wait before another try, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 200..1_500;

/// Of what a machine becomes a member.
#[derive(Debug)]
pub struct JoinWish<'a> {
    /// The code that it was given.
    pub code: &'a InvitationCode,
    /// Its key.
    pub identity: &'a Identity,
    /// How it thinks that it is called; none for as the invitation says.
    pub name: Option<NodeName>,
    /// That of its data directory.
    pub incarnation: Incarnation,
    /// Where the node of the code may be, besides where the code says; tried first.
    pub addresses: &'a [SocketAddr],
}

/// What a new member knows of its site.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The root documents, and who is out.
    pub view: SiteView,
    /// Who the node is.
    pub member: Member,
    /// What it shows to others.
    pub chain: Chain,
    /// Site time, when the node joined.
    pub now: SiteTime,
    /// Where members are said to be, the node that was asked among them.
    pub voters: Vec<MemberAddress>,
}

/// Why a machine did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It does not know where to ask.
    #[error("the code names no address, and none was given; say where the node {0} is")]
    NoAddress(PublicKey),
    /// No node was reached that has the key of the code.
    #[error("the node that the code names was not reached: {0}")]
    Unreachable(String),
    /// The node said nothing to this code.
    #[error(
        "the node does not answer to this code: the invitation was not made at this site, has ended, or was revoked; ask \
         for another one"
    )]
    NotHeard,
    /// Too many machines want to join, or the directory has no leader.
    #[error("the node has no time: too many want to join at it, or the directory of the site has no leader; try again")]
    Busy,
    /// The node does not belong to the site of the code.
    #[error("the node does not show that it belongs to the site of the invitation, and was told nothing: {0}")]
    NotMember(String),
    /// The site refused it.
    #[error("the site refused: {0}")]
    Refused(String),
    /// The reply does not hold.
    #[error("the node's reply is not believed: {0}")]
    Reply(Box<skep_trust::JoinError>),
    /// The connection ended before the reply. The invitation may be used by this machine; the same command goes on.
    #[error("the connection ended before the reply came: {0}; run the same command again")]
    Lost(String),
    /// This machine cannot ask.
    #[error("this machine cannot join: {0}")]
    Local(String),
}

impl JoinError {
    /// Whether it is of no use to ask again.
    fn is_final(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Busy | Self::Lost(_) => false,
            Self::NoAddress(_)
            | Self::NotHeard
            | Self::NotMember(_)
            | Self::Refused(_)
            | Self::Reply(_)
            | Self::Local(_) => true,
        }
    }

    /// Of two tries that failed, the one that says more: of a node that was reached.
    fn or(self, before: Option<Self>) -> Self {
        match before {
            Some(before) if matches!(self, Self::Unreachable(_)) => before,
            Some(_) | None => self,
        }
    }
}

impl From<Turned> for JoinError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Refused(_) | Turned::Malformed(_) => Self::NotMember(turned.to_string()),
            Turned::Late(_) | Turned::Uninvited | Turned::TooOften | Turned::Unable(_) | Turned::Lost(_) => {
                Self::Lost(turned.to_string())
            }
        }
    }
}

impl From<skep_trust::JoinError> for JoinError {
    fn from(error: skep_trust::JoinError) -> Self {
        Self::Reply(Box::new(error))
    }
}

impl From<CodecError> for JoinError {
    fn from(error: CodecError) -> Self {
        Self::NotMember(error.to_string())
    }
}

/// Becomes a member of the site of a code. Not to be called while a node runs under the same identity.
///
/// # Errors
/// [`JoinError`] says why not, and what to do.
pub async fn join(wish: JoinWish<'_>) -> Result<Membership, JoinError> {
    let at: Vec<SocketAddr> = wish.addresses.iter().chain(&wish.code.addresses).copied().collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut failed = None;
        for address in &at {
            match try_at(&wish, *address).await {
                Ok(membership) => return Ok(membership),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => failed = Some(error.or(failed)),
            }
        }
        let failed = failed.ok_or_else(|| JoinError::NoAddress(wish.code.node.into()))?;
        if matches!(failed, JoinError::Unreachable(_)) || Instant::now() >= until {
            return Err(failed);
        }
        let pause = rand::random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn try_at(wish: &JoinWish<'_>, address: SocketAddr) -> Result<Membership, JoinError> {
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // A machine may have no IPv6.
    let endpoint = quinn::Endpoint::client(any).map_err(|e| JoinError::Unreachable(format!("{address}: {e}")))?;
    let client = tls::newcomer(wish.identity, wish.code.node, IDLE).map_err(|e| JoinError::Local(e.to_string()))?;
    let joined = Box::pin(dial(wish, &endpoint, client, address)).await;
    endpoint.close(quinn::VarInt::from_u32(0), b"");
    let _ = timeout(CLOSE_PATIENCE, endpoint.wait_idle()).await;
    joined
}

async fn dial(
    wish: &JoinWish<'_>,
    endpoint: &quinn::Endpoint,
    client: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<Membership, JoinError> {
    let unreachable = |why: &str| JoinError::Unreachable(format!("{address}: {why}"));
    // An address as the name sends no SNI; the identity is in the certificate.
    let connecting = endpoint.connect_with(client, address, "0.0.0.0").map_err(|e| unreachable(&e.to_string()))?;
    let connected = timeout(HANDSHAKE_PATIENCE, connecting).await.map_err(|_| unreachable("it does not answer"))?;
    let connection = connected.map_err(|error| closed(&error).unwrap_or_else(|| unreachable(&error.to_string())))?;
    let talk = async {
        let channel = channel(&connection)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|e| JoinError::Lost(e.to_string()))?;
        ask(wish, channel, (&mut send, &mut receive)).await
    };
    let talked = timeout(TALK_PATIENCE, talk).await;
    let talked = talked.unwrap_or_else(|_| Err(JoinError::Lost(format!("no reply within {TALK_PATIENCE:?}"))));
    let mut membership = talked.map_err(|error| {
        let is_lost = matches!(error, JoinError::Lost(_));
        let reason = connection.close_reason().filter(|_| is_lost);
        reason.and_then(|reason| closed(&reason)).unwrap_or(error)
    })?;
    let asked = MemberAddress { node: wish.code.node.into(), control: Some(address), mesh: None };
    membership.voters.retain(|voter| voter.node != asked.node);
    membership.voters.insert(0, asked);
    Ok(membership)
}

/// What the node means that closed a connection; none if that is not known.
fn closed(error: &quinn::ConnectionError) -> Option<JoinError> {
    let is_full = quinn::TransportErrorCode::CONNECTION_REFUSED;
    match error {
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code == TURNED_AWAY.into() => {
            Some(JoinError::NotHeard)
        }
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code == COME_AGAIN.into() => {
            Some(JoinError::Busy)
        }
        quinn::ConnectionError::ConnectionClosed(close) if close.error_code == is_full => Some(JoinError::Busy),
        _ => None,
    }
}

/// What the node shows of itself: the site, if the node belongs to the one of the code.
async fn meet(wish: &JoinWish<'_>, receive: &mut (impl AsyncRead + Unpin)) -> Result<SiteId, JoinError> {
    let mut documents = Vec::new();
    loop {
        let body = read(receive, FrameKind::SiteNews, limits::SITE_NEWS_BYTES_MAX).await?;
        let page = SiteNews::from_bytes(&body)?;
        let is_more = page.more && !page.documents.is_empty();
        documents.extend(page.documents);
        if documents.len() > limits::ROOT_VERSIONS_MAX {
            return Err(JoinError::NotMember("its root documents have no end".to_owned()));
        }
        if !is_more {
            break;
        }
    }
    let body = read(receive, FrameKind::Trust, limits::TRUST_HELLO_BYTES_MAX).await?;
    let not_member = |why: &dyn std::fmt::Display| JoinError::NotMember(why.to_string());
    let hello = TrustHello::from_bytes(&body).map_err(|e| not_member(&e))?;
    let view = SiteView::new(documents).map_err(|e| not_member(&e))?;
    if view.root().site().half() != wish.code.site {
        return Err(not_member(&"its root documents are of another site"));
    }
    let member = hello.chain.verify(view.root()).map_err(|e| not_member(&e))?;
    if member.key != PublicKey::from(wish.code.node) {
        return Err(not_member(&"it shows the certificate of another node"));
    }
    // What time it is at the site, this machine is told with the reply.
    judge(&view, &member, SiteClock::AtLeast(SiteTime::default())).map_err(|e| not_member(&e))?;
    Ok(view.root().site())
}

/// The answer to the request.
async fn hear(receive: &mut (impl AsyncRead + Unpin)) -> Result<(FrameKind, Bytes), JoinError> {
    let begun = begin_frame(receive).await.map_err(JoinError::Lost)?;
    let begun = begun.ok_or_else(|| JoinError::Lost("the node said nothing more".to_owned()))?;
    let header: Header = begun.header(receive).await.map_err(JoinError::Lost)?;
    let body = read_body(receive, &header).await.map_err(JoinError::Lost)?;
    Ok((header.kind, body))
}

/// Says that this machine has the code, looks whom it speaks with, and asks to join.
async fn ask<S: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
    wish: &JoinWish<'_>,
    channel: Channel,
    (send, receive): (&mut S, &mut R),
) -> Result<Membership, JoinError> {
    let invitation = wish.code.key();
    let local = |error: CodecError| JoinError::Local(error.to_string());
    let said = |kind, body: &[u8]| frame(kind, ShardId::DIRECTORY, None, 0, body);
    let knock = Sealed::seal(&Knock { invitation: invitation.public(), channel }, &[&invitation]).map_err(local)?;
    write(send, &said(FrameKind::Knock, &knock.to_bytes())).await?;
    let site = meet(wish, receive).await?;
    let node = SecretKey::from_seed(&wish.identity.seed());
    let request = JoinRequest {
        site,
        invitation: invitation.public(),
        node: node.public(),
        name: wish.name.clone(),
        incarnation: wish.incarnation,
        channel: Some(channel),
    };
    let request = Sealed::seal(&request, &[&invitation, &node]).map_err(local)?;
    write(send, &said(FrameKind::Join, &request.to_bytes())).await?;
    match hear(receive).await? {
        (FrameKind::Reply, body) => {
            let reply = Sealed::<JoinReply>::from_bytes(&body)?;
            let joined = reply.accept(&wish.code.site, &request)?;
            let (chain, voters) = (reply.chain.clone(), reply.voters.clone());
            Ok(Membership { view: joined.view, member: joined.member, chain, now: reply.now, voters })
        }
        (FrameKind::Refused, body) => Err(JoinError::Refused(String::from_utf8_lossy(&body).into_owned())),
        (kind, _) => Err(JoinError::NotMember(format!("it says {kind:?} where it answers the request"))),
    }
}

/// What a machine at an address hears that knocks and says no more: how many frames of streams, and the code with which
/// the connection is closed.
#[cfg(test)]
pub(crate) async fn heard_after(code: &InvitationCode, identity: &Identity, from: Ipv4Addr) -> Option<(u64, u64)> {
    let endpoint = quinn::Endpoint::client((from, 0).into()).ok()?;
    let client = tls::newcomer(identity, code.node, IDLE).ok()?;
    let connection = endpoint.connect_with(client, *code.addresses.first()?, "0.0.0.0").ok()?.await.ok()?;
    let (key, channel) = (code.key(), channel(&connection).ok()?);
    let knock = Sealed::seal(&Knock { invitation: key.public(), channel }, &[&key]).ok()?;
    let streams = connection.open_bi().await;
    if let Ok((mut send, _)) = streams {
        let said = frame(FrameKind::Knock, ShardId::DIRECTORY, None, 0, &knock.to_bytes());
        let _ = write(&mut send, &said).await;
    }
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else { return None };
    Some((connection.stats().frame_rx.stream, close.error_code.into_inner()))
}
