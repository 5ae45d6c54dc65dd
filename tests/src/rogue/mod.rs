//! A robot whose key was stolen: it speaks the control protocol, and says what it likes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p_identity::{Keypair, PublicKey, ed25519};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{RecvStream, SendStream};
use skep_protocol::codec::Encoded as _;
use skep_protocol::fleet::FLEET_VERSIONS;
use skep_protocol::frame::{
    ALPN, FRAME_VERSION, FrameKind, HEADER_BYTES, Header, Hello, Proposal, ProposalReply, RaftAddress,
};
use skep_protocol::ids::{ClaimEpoch, Incarnation, NodeId, RaftId, ShardId, TaskId};
use skep_protocol::outcome::{ProposeOutcome, Receipt, Reply};
use skep_protocol::task::TaskStatus;
use skep_protocol::text::{NodeName, SiteName};
use skep_protocol::time::LogInstant;

/// Longest wait for what a node does at once.
const SOON: Duration = Duration::from_secs(20);

/// A key, and an endpoint.
pub(crate) struct Rogue {
    endpoint: quinn::Endpoint,
    keypair: Keypair,
    /// Who it is.
    pub(crate) node: NodeId,
}

/// A connection to a node, on which it said hello.
pub(crate) struct Line {
    connection: quinn::Connection,
    /// As which members of a group the two ends speak.
    address: RaftAddress,
    heard: Arc<Mutex<Vec<FrameKind>>>,
}

/// A frame as bytes. Its header may announce more than there is.
pub(crate) fn frame(kind: FrameKind, shard: ShardId, call: u64, announced: usize, body: &[u8]) -> Vec<u8> {
    let header = Header { kind, shard, clock: None, call, body_bytes: u32::try_from(announced).unwrap() };
    [header.encode().as_slice(), body].concat()
}

async fn read(receive: &mut RecvStream) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    receive.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).unwrap();
    let mut body = vec![0; header.body_bytes as usize];
    receive.read_exact(&mut body).await.ok()?;
    Some((header, body))
}

/// What it answers whoever takes it for the leader: that all is done.
fn lie(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    if !matches!(kind, FrameKind::Propose | FrameKind::End) {
        return Vec::new();
    }
    let (status, epoch) = (TaskStatus::Pending, ClaimEpoch(0));
    let receipt = Receipt::Task { task: TaskId::from_bytes([6; 16]), status, epoch, attempts: 0 };
    let done = ProposeOutcome::Applied { index: 424_242, stamp: LogInstant::from_raw(1), reply: Reply::Done(receipt) };
    let requests = Proposal::decode(body).unwrap().requests;
    ProposalReply { outcomes: vec![done; requests.len()] }.encode().unwrap()
}

impl Rogue {
    /// One with a key of its own.
    pub(crate) fn new(seed: u8) -> Self {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let public = keypair.public().try_into_ed25519().unwrap().to_bytes();
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        Self { endpoint, keypair, node: NodeId::from_public_key(public) }
    }

    /// Connects to a node and says hello.
    pub(crate) async fn connect(&self, to: NodeId, address: SocketAddr) -> Line {
        let key = ed25519::PublicKey::try_from_bytes(to.public_key()).unwrap();
        let peer = PublicKey::from(key).to_peer_id();
        let mut tls = libp2p_tls::make_client_config(&self.keypair, Some(peer)).unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(200)));
        config.transport_config(Arc::new(transport));
        let connection = self.endpoint.connect_with(config, address, "0.0.0.0").unwrap().await.unwrap();
        let incarnation = Incarnation([9; 16]);
        let hello = Hello {
            frame_version_min: FRAME_VERSION,
            frame_version_max: FRAME_VERSION,
            fleet: FLEET_VERSIONS,
            incarnation,
            process: 666,
            name: NodeName::new("rogue").unwrap(),
            site: SiteName::new("testnet").unwrap(),
        };
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let body = hello.encode().unwrap();
        send.write_all(&frame(FrameKind::Hello, ShardId(0), 0, body.len(), &body)).await.unwrap();
        send.finish().unwrap();
        let (_, body) = read(&mut receive).await.expect("a listed peer is let in");
        let theirs = Hello::decode(&body).unwrap();
        let (from, to) = (RaftId::derive(self.node, incarnation), RaftId::derive(to, theirs.incarnation));
        let heard = Arc::<Mutex<Vec<FrameKind>>>::default();
        tokio::spawn(answer(connection.clone(), Arc::clone(&heard)));
        Line { connection, address: RaftAddress { from, to }, heard }
    }
}

/// Answers whatever it is asked, with lies, and writes down of what kind that was.
async fn answer(connection: quinn::Connection, heard: Arc<Mutex<Vec<FrameKind>>>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some((header, body)) = read(&mut receive).await {
                heard.lock().unwrap().push(header.kind);
                let answer = lie(header.kind, &body);
                let frame = frame(FrameKind::Reply, header.shard, header.call, answer.len(), &answer);
                if send.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Line {
    /// What the node has asked on it.
    pub(crate) fn heard(&self) -> Vec<FrameKind> {
        self.heard.lock().unwrap().clone()
    }

    /// A stream of its own, if the node allows one more.
    pub(crate) async fn stream(&self) -> Option<(SendStream, RecvStream)> {
        tokio::time::timeout(Duration::from_secs(1), self.connection.open_bi()).await.ok()?.ok()
    }

    /// Says something, and what it is answered; or why it is not.
    pub(crate) async fn call(&self, kind: FrameKind, shard: ShardId, body: &[u8]) -> Result<Vec<u8>, String> {
        self.announce(kind, shard, body.len(), body).await
    }

    /// The same, with a header that announces so many bytes.
    pub(crate) async fn announce(
        &self,
        kind: FrameKind,
        shard: ShardId,
        announced: usize,
        body: &[u8],
    ) -> Result<Vec<u8>, String> {
        let call = async {
            let (mut send, mut receive) = self.connection.open_bi().await.map_err(|e| e.to_string())?;
            send.write_all(&frame(kind, shard, 1, announced, body)).await.map_err(|e| e.to_string())?;
            let answer = read(&mut receive).await;
            match answer.ok_or_else(|| format!("the stream ended: {:?}", self.connection.close_reason()))? {
                (header, body) if header.kind == FrameKind::Reply => Ok(body),
                (_, why) => Err(String::from_utf8_lossy(&why).into_owned()),
            }
        };
        tokio::time::timeout(SOON, call).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    /// A frame of Raft in its own name: it leads, or asks for votes, in a term.
    pub(crate) fn raft(&self, kind: FrameKind, term: u64) -> Vec<u8> {
        let mut body = Vec::new();
        self.address.write(&mut body);
        // The form of openraft's types, their version first: the vote, then what is behind it.
        body.push(1);
        number(&mut body, term);
        body.push(1);
        number(&mut body, self.address.from.0);
        body.push(1);
        body.extend_from_slice(match kind {
            FrameKind::Append => &[0, 0, 0],
            FrameKind::Vote | FrameKind::PreVote => &[0, 1],
            _ => &[],
        });
        body
    }
}

/// A number as openraft's types have it on the wire.
fn number(body: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        body.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    body.push(number as u8);
}
