//! A robot whose key was stolen: a peer that is listed, votes nowhere, and says what it likes.
//!
//! It has the vocabulary of a node and none of its behaviour, so that nothing that keeps a node from doing wrong keeps
//! this one from it. It never panics on what a node does: it runs for hours beside a site at work.

mod mesh;
mod silent;
mod turns;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p_identity::{Keypair, PeerId, PublicKey, ed25519};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, RecvStream, SendStream};
use skep_protocol::ballot::{BallotKey, Election, LeaderProof, Voter, VoterSet};
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

pub use mesh::MeshRogue;
pub use silent::{Unfinished, silent_connections, unfinished};
pub use turns::{DEEDS, Deed, Done, Turns, Victim};
pub use words::OF_VOTERS;

/// The longest wait for what a node does at once.
const SOON: Duration = Duration::from_secs(20);
/// How long it waits for one more stream, or until a node takes what it writes: after that, the node takes no more.
const TAKEN: Duration = Duration::from_secs(1);
/// The name of the site of test networks.
const SITE: &str = "testnet";
/// The most kinds of frames of a node that it remembers.
const HEARD_MAX: usize = 4_096;
/// Of its data directory, which it has not.
const INCARNATION: Incarnation = Incarnation([9; 16]);

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn secret(seed: u64) -> [u8; 32] {
    let mut bytes = [0x5A; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}

/// The key that follows from a seed.
fn key(seed: u64) -> Result<Keypair, String> {
    Keypair::ed25519_from_bytes(secret(seed)).map_err(text)
}

fn node_of(key: &Keypair) -> Result<NodeId, String> {
    let public = key.public().try_into_ed25519().map_err(text)?;
    Ok(NodeId::from_public_key(public.to_bytes()))
}

fn peer_of(node: NodeId) -> Result<PeerId, String> {
    let key = ed25519::PublicKey::try_from_bytes(node.public_key()).map_err(text)?;
    Ok(PublicKey::from(key).to_peer_id())
}

/// The PeerId of the robot of a seed.
///
/// # Errors
/// Why its key cannot be made.
pub fn identity(seed: u64) -> Result<NodeId, String> {
    node_of(&key(seed)?)
}

/// A key, and an endpoint.
pub struct Rogue {
    endpoint: quinn::Endpoint,
    keypair: Keypair,
    ballots: BallotKey,
    /// Who it is.
    pub node: NodeId,
}

/// A connection to a node, on which it said hello.
pub struct Line {
    connection: quinn::Connection,
    /// The members of a group in whose names the two ends speak.
    address: RaftAddress,
    heard: Arc<Mutex<Vec<FrameKind>>>,
}

/// Streams on which something is wrong for as long as this is kept.
pub struct Held(Vec<(SendStream, RecvStream)>);

impl Held {
    /// How many streams these are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// What a node did with a message that reached it.
enum Made {
    /// The node answered with these bytes.
    Answer(Vec<u8>),
    /// The node did not answer, or ended the stream or the connection: why.
    Nothing(String),
}

/// A frame as bytes. Its header may announce more than there is.
#[must_use]
pub fn frame(kind: FrameKind, shard: ShardId, call: u64, announced: usize, body: &[u8]) -> Vec<u8> {
    stamped(None, kind, shard, call, announced, body)
}

/// A frame whose sender says that it leads the shard, and which clock it has.
#[must_use]
pub fn stamped(
    clock: Option<LogInstant>,
    kind: FrameKind,
    shard: ShardId,
    call: u64,
    announced: usize,
    body: &[u8],
) -> Vec<u8> {
    let body_bytes = u32::try_from(announced).unwrap_or(u32::MAX);
    let header = Header { kind, shard, clock, call, body_bytes };
    [header.encode().as_slice(), body].concat()
}

async fn read(receive: &mut RecvStream) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    receive.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).ok()?;
    let mut body = vec![0; header.body_bytes as usize];
    receive.read_exact(&mut body).await.ok()?;
    Some((header, body))
}

/// What it answers a node that takes it for the leader: that everything is done.
fn answer_to(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    if !matches!(kind, FrameKind::Propose | FrameKind::End) {
        return Vec::new();
    }
    let Ok(proposal) = Proposal::decode(body) else { return Vec::new() };
    let (status, epoch) = (TaskStatus::Pending, ClaimEpoch(0));
    let receipt = Receipt::Task { task: TaskId::from_bytes([6; 16]), status, epoch, attempts: 0 };
    let done = ProposeOutcome::Applied { index: 424_242, stamp: LogInstant::from_raw(1), reply: Reply::Done(receipt) };
    let outcomes = vec![done; proposal.requests.len()];
    ProposalReply { outcomes }.encode().unwrap_or_default()
}

impl Rogue {
    /// A robot with the key of a seed, which calls from an address of this machine.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn new(seed: u64, from: IpAddr) -> Result<Self, String> {
        let keypair = key(seed)?;
        let endpoint = quinn::Endpoint::client(SocketAddr::new(from, 0)).map_err(text)?;
        let node = node_of(&keypair)?;
        Ok(Self { endpoint, keypair, ballots: BallotKey::from_seed(&secret(seed)), node })
    }

    fn hello(&self) -> Result<Hello, String> {
        Ok(Hello {
            frame_version_min: FRAME_VERSION,
            frame_version_max: FRAME_VERSION,
            fleet: FLEET_VERSIONS,
            incarnation: INCARNATION,
            process: 666,
            name: NodeName::new("rogue").map_err(text)?,
            site: SiteName::new(SITE).map_err(text)?,
            shards: Vec::new(),
        })
    }

    /// That it was elected in a term: by its own vote, in a shard of which it is the only voter, as it says.
    ///
    /// # Errors
    /// That it cannot be said.
    pub fn proof(&self, line: &Line, term: u64) -> Result<Vec<u8>, String> {
        let itself = Voter { node: self.node, incarnation: INCARNATION };
        let voters = VoterSet::of([vec![itself]]).ok_or("one voter is too few")?;
        let (shard, candidate) = (ShardId::FIRST, itself.raft_id());
        let election = Election { shard, genesis: None, term, candidate, voters: voters.digest() };
        let proof = LeaderProof::new(&election, voters, [self.ballots.vote(&election, candidate)]);
        let mut body = Vec::new();
        line.address.write(&mut body);
        body.extend(proof.encode().map_err(text)?);
        Ok(body)
    }

    fn dialling(&self, to: NodeId, address: SocketAddr) -> Result<quinn::Connecting, String> {
        let mut tls = libp2p_tls::make_client_config(&self.keypair, Some(peer_of(to)?)).map_err(text)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(text)?));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(200)));
        config.transport_config(Arc::new(transport));
        self.endpoint.connect_with(config, address, "0.0.0.0").map_err(text)
    }

    /// Connects to a node, shows its key, and says nothing.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn dial(&self, to: NodeId, address: SocketAddr) -> Result<quinn::Connection, String> {
        let dialled = tokio::time::timeout(SOON, self.dialling(to, address)?).await;
        dialled.map_err(|_| "no answer".to_owned())?.map_err(text)
    }

    /// Connects to a node and says something before hello; returns why the connection ended.
    ///
    /// # Errors
    /// Why there is no connection, or that it did not end.
    pub async fn say_first(&self, to: NodeId, address: SocketAddr, frame: &[u8]) -> Result<String, String> {
        let connection = self.dial(to, address).await?;
        let (mut send, _receive) = connection.open_bi().await.map_err(text)?;
        send.write_all(frame).await.map_err(text)?;
        let ended = tokio::time::timeout(SOON, connection.closed()).await;
        ended.map(text).map_err(|_| "the connection is kept".to_owned())
    }

    /// Connects to a node and says hello.
    ///
    /// # Errors
    /// Why there is no connection, or why the node refused it.
    pub async fn connect(&self, to: NodeId, address: SocketAddr) -> Result<Line, String> {
        let connection = self.dial(to, address).await?;
        let hello = self.hello()?;
        let body = hello.encode().map_err(text)?;
        let greet = async {
            let (mut send, mut receive) = connection.open_bi().await.map_err(text)?;
            let frame = frame(FrameKind::Hello, ShardId(0), 0, body.len(), &body);
            send.write_all(&frame).await.map_err(text)?;
            send.finish().map_err(text)?;
            let answer = read(&mut receive).await;
            answer.ok_or_else(|| format!("it was not let in: {:?}", connection.close_reason()))
        };
        let greeted = tokio::time::timeout(SOON, greet).await.unwrap_or_else(|_| Err("no hello".to_owned()));
        let (_, body) = greeted?;
        let theirs = Hello::decode(&body).map_err(text)?;
        let (from, to) = (RaftId::derive(self.node, hello.incarnation), RaftId::derive(to, theirs.incarnation));
        let heard = Arc::<Mutex<Vec<FrameKind>>>::default();
        tokio::spawn(answer(connection.clone(), Arc::clone(&heard)));
        Ok(Line { connection, address: RaftAddress { from, to }, heard })
    }
}

/// Notes a kind of frame.
fn note(heard: &Mutex<Vec<FrameKind>>, kind: FrameKind) {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    if heard.len() < HEARD_MAX {
        heard.push(kind);
    }
}

/// Answers everything that the node asks, with lies, and notes the kinds of its frames.
async fn answer(connection: quinn::Connection, heard: Arc<Mutex<Vec<FrameKind>>>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some((header, body)) = read(&mut receive).await {
                note(&heard, header.kind);
                let answer = answer_to(header.kind, &body);
                let frame = frame(FrameKind::Reply, header.shard, header.call, answer.len(), &answer);
                if send.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Line {
    /// The kinds of frames that the node has sent on it.
    #[must_use]
    pub fn heard(&self) -> Vec<FrameKind> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the node has ended it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Opens a stream of its own, if the node allows one more.
    pub async fn stream(&self) -> Option<(SendStream, RecvStream)> {
        tokio::time::timeout(TAKEN, self.connection.open_bi()).await.ok()?.ok()
    }

    /// Says something, and returns the answer.
    ///
    /// # Errors
    /// Why there is no answer, or why the node refused to answer.
    pub async fn call(&self, kind: FrameKind, shard: ShardId, body: &[u8]) -> Result<Vec<u8>, String> {
        self.announce(kind, shard, body.len(), body).await
    }

    /// Says something, with a header that announces this many bytes, and returns the answer.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub async fn announce(
        &self,
        kind: FrameKind,
        shard: ShardId,
        announced: usize,
        body: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.exchange(&frame(kind, shard, 1, announced, body)).await
    }

    /// Says these bytes on a stream of their own, and returns the answer.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub async fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self.put(bytes).await? {
            Made::Answer(body) => Ok(body),
            Made::Nothing(why) => Err(why),
        }
    }

    /// Says these bytes on a stream of their own: the node answers, or refuses them, or ends the stream or the
    /// connection.
    ///
    /// # Errors
    /// Why it is unknown whether they reached the node.
    pub async fn reach(&self, bytes: &[u8]) -> Result<(), String> {
        self.put(bytes).await.map(drop)
    }

    async fn put(&self, bytes: &[u8]) -> Result<Made, String> {
        let put = async {
            let (mut send, mut receive) = self.connection.open_bi().await.map_err(text)?;
            let answer = match send.write_all(bytes).await {
                Ok(()) => read(&mut receive).await,
                Err(_) => None,
            };
            match answer {
                Some((header, body)) if header.kind == FrameKind::Reply => Ok(Made::Answer(body)),
                Some((_, why)) => Ok(Made::Nothing(String::from_utf8_lossy(&why).into_owned())),
                None => {
                    let reason = self.connection.close_reason();
                    let why = format!("the stream ended: {reason:?}");
                    let is_of_node = reason.is_none() || self.was_ended_by_node();
                    if is_of_node { Ok(Made::Nothing(why)) } else { Err(why) }
                }
            }
        };
        tokio::time::timeout(SOON, put).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    /// Whether the node has ended the connection with a reason, and not because it is gone.
    fn was_ended_by_node(&self) -> bool {
        matches!(self.connection.close_reason(), Some(ConnectionError::ApplicationClosed(_)))
    }

    /// Waits for this long. Returns whether the node was there meanwhile, so that it took what came before: it answers
    /// each ping, or it has ended the connection.
    async fn is_there_for(&self, time: Duration) -> bool {
        let came = self.connection.stats().udp_rx.datagrams;
        tokio::time::sleep(time).await;
        self.connection.stats().udp_rx.datagrams > came || self.was_ended_by_node()
    }

    /// Says these bytes, and that nothing follows them, and waits for no answer. Returns whether the node got them.
    pub async fn cut_short(&self, bytes: &[u8]) -> bool {
        let Some((mut send, _receive)) = self.stream().await else { return false };
        let _ = tokio::time::timeout(TAKEN, send.write_all(bytes)).await;
        let _ = send.finish();
        let got = tokio::time::timeout(TAKEN, send.stopped()).await;
        matches!(got, Ok(Ok(_))) || self.was_ended_by_node()
    }

    /// Says the same this many times on one stream, as fast as the node takes it; returns how many were answered.
    pub async fn many(&self, kind: FrameKind, count: u64, body: &[u8]) -> u64 {
        let Some((mut send, mut receive)) = self.stream().await else { return 0 };
        let say = async {
            for call in 0..count {
                let frame = frame(kind, ShardId::FIRST, call, body.len(), body);
                if send.write_all(&frame).await.is_err() {
                    return;
                }
            }
            let _ = send.finish();
        };
        let mut answered = 0;
        let hear = async {
            while answered < count && read(&mut receive).await.is_some() {
                answered += 1;
            }
        };
        let _ = tokio::time::timeout(SOON, async { tokio::join!(say, hear) }).await;
        answered
    }

    /// Begins a frame on each of this many streams, as large as its kind may be, and leaves its last byte out.
    pub async fn never_ended(&self, kind: FrameKind, shard: ShardId, streams: usize) -> Held {
        let bytes = kind.body_bytes_max();
        let said = frame(kind, shard, 1, bytes, &vec![7; bytes.saturating_sub(1)]);
        let mut held = Vec::new();
        while held.len() < streams
            && let Some((mut send, receive)) = self.stream().await
        {
            let _ = tokio::time::timeout(TAKEN, send.write_all(&said)).await;
            held.push((send, receive));
        }
        Held(held)
    }

    /// Asks this many times on each of this many streams, and reads no answer.
    pub async fn never_read(&self, kind: FrameKind, body: &[u8], (streams, calls): (usize, u64)) -> Held {
        let mut held = Vec::new();
        while held.len() < streams
            && let Some((mut send, receive)) = self.stream().await
        {
            let asked = async {
                for call in 0..calls {
                    let frame = frame(kind, ShardId::FIRST, call, body.len(), body);
                    if send.write_all(&frame).await.is_err() {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(TAKEN, asked).await;
            held.push((send, receive));
        }
        Held(held)
    }
}
