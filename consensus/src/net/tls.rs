//! Mutual authentication by PeerId.

use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::{PeerId, PublicKey, ed25519};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use skep_protocol::frame::{ALPN, JOIN_ALPN};
use skep_protocol::ids::NodeId;
use skep_protocol::limits;

use crate::identity::Identity;

/// Why the control plane cannot be secured.
#[derive(Debug, thiserror::Error)]
#[error("the control plane's TLS cannot be set up: {0}")]
pub(crate) struct TlsError(String);

fn failed(error: impl std::fmt::Display) -> TlsError {
    TlsError(error.to_string())
}

/// Who may speak on a connection as soon as it is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opens {
    /// Whoever has the key of a peer that is listed.
    Whole,
    /// Somebody who is to show a certificate first, on one stream and in few bytes.
    FirstStream,
}

impl Opens {
    /// How many streams the other side may open, and how many bytes it may have unread on all of them.
    fn bounds(self) -> (quinn::VarInt, quinn::VarInt) {
        let (streams, bytes) = match self {
            Self::Whole => (limits::STREAMS_PER_PEER_MAX, limits::CONNECTION_BYTES_UNREAD_MAX as u32),
            Self::FirstStream => (1, limits::FIRST_BYTES_UNREAD_MAX),
        };
        (quinn::VarInt::from_u32(streams), quinn::VarInt::from_u32(bytes))
    }

    /// What a node that is dialled speaks: where certificates say who is let in, machines may want to join.
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Whole => vec![ALPN.to_vec()],
            Self::FirstStream => vec![ALPN.to_vec(), JOIN_ALPN.to_vec()],
        }
    }
}

/// The other side of a connection was let in.
pub(super) fn open_up(connection: &quinn::Connection) {
    let (streams, bytes) = Opens::Whole.bounds();
    connection.set_max_concurrent_bi_streams(streams);
    connection.set_receive_window(bytes);
}

fn transport(idle_timeout: Duration, opens: Opens) -> Result<Arc<quinn::TransportConfig>, TlsError> {
    let mut transport = quinn::TransportConfig::default();
    let (streams, bytes) = opens.bounds();
    transport
        .max_idle_timeout(Some(idle_timeout.try_into().map_err(failed)?))
        .keep_alive_interval(Some(idle_timeout / 4))
        .initial_rtt(Duration::from_millis(20))
        .max_concurrent_bidi_streams(streams)
        .max_concurrent_uni_streams(quinn::VarInt::from_u32(0))
        // A larger frame passes while it is read. At a round trip of 600 ms so much lets one stream carry 3.5 MB (28 Mbit) a second.
        .stream_receive_window(quinn::VarInt::from_u32(limits::STREAM_BYTES_UNREAD_MAX as u32))
        .receive_window(bytes)
        .send_window(limits::CONNECTION_BYTES_UNREAD_MAX as u64)
        .datagram_receive_buffer_size(None)
        .allow_spin(false);
    Ok(Arc::new(transport))
}

pub(super) fn server(identity: &Identity, idle: Duration, opens: Opens) -> Result<quinn::ServerConfig, TlsError> {
    let mut tls = libp2p_tls::make_server_config(identity.keypair()).map_err(failed)?;
    tls.alpn_protocols = opens.protocols();
    // libp2p-tls installs a key log that obeys SSLKEYLOGFILE.
    tls.key_log = Arc::new(rustls::NoKeyLog);
    // Every connection proves its identity anew.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let crypto = QuicServerConfig::try_from(tls).map_err(failed)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(idle, opens)?);
    Ok(config)
}

pub(super) fn client(
    identity: &Identity,
    peer: NodeId,
    idle: Duration,
    opens: Opens,
) -> Result<quinn::ClientConfig, TlsError> {
    client_that_speaks(ALPN, (identity, peer), idle, opens)
}

/// The same of a machine that wants to join the site of that peer.
pub(super) fn newcomer(identity: &Identity, peer: NodeId, idle: Duration) -> Result<quinn::ClientConfig, TlsError> {
    client_that_speaks(JOIN_ALPN, (identity, peer), idle, Opens::FirstStream)
}

fn client_that_speaks(
    protocol: &[u8],
    (identity, peer): (&Identity, NodeId),
    idle: Duration,
    opens: Opens,
) -> Result<quinn::ClientConfig, TlsError> {
    let mut tls = libp2p_tls::make_client_config(identity.keypair(), Some(peer_id(peer)?)).map_err(failed)?;
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls.key_log = Arc::new(rustls::NoKeyLog);
    tls.resumption = rustls::client::Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(failed)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(idle, opens)?);
    Ok(config)
}

fn peer_id(node: NodeId) -> Result<PeerId, TlsError> {
    let key = ed25519::PublicKey::try_from_bytes(node.public_key()).map_err(failed)?;
    Ok(PublicKey::from(key).to_peer_id())
}

/// Who is on the other side of an established connection; none if it is not a node.
pub(super) fn authenticated(connection: &quinn::Connection) -> Option<NodeId> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let [certificate] = certificates.as_slice() else { return None };
    let peer = libp2p_tls::certificate::parse(certificate).ok()?.peer_id();
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

/// Whether the other side wants to join the site, as it said in its handshake.
pub(super) fn wants_to_join(connection: &quinn::Connection) -> bool {
    let said = connection.handshake_data().and_then(|said| said.downcast::<HandshakeData>().ok());
    said.is_some_and(|said| said.protocol.as_deref() == Some(JOIN_ALPN))
}
