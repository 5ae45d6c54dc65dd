//! The calls that the API makes to the node's driver.

use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::change::ChangeSet;
use skep_protocol::entry::{Op, Request};
use skep_protocol::fault::FaultReport;
use skep_protocol::history::HistoryEdge;
use skep_protocol::ids::{Genesis, NodeId, RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::operator::SignedFirst;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Query, QueryReply};
use skep_protocol::settled::Settled;
use skep_protocol::shard_status::ShardStatus;
use skep_protocol::telemetry::{Publication, TopicPath};
use skep_protocol::time::LogInstant;
use tokio::sync::{mpsc, oneshot, watch};

/// One call. If the driver drops `answer` unsent, the node is stopping.
#[derive(Debug)]
pub enum Call {
    /// Change a shard.
    Submit {
        /// The shard.
        shard: ShardId,
        /// The request.
        request: Box<Request>,
        /// How long the caller waits, in milliseconds.
        patience_ms: u64,
        /// Takes the end of the request.
        answer: oneshot::Sender<Settled>,
    },
    /// Read a shard.
    Query {
        /// The shard.
        shard: ShardId,
        /// The query.
        query: Query,
        /// Whether the node answers from its own replica, as that is.
        stale: bool,
        /// How long the caller waits, in milliseconds.
        patience_ms: u64,
        /// Takes the answer.
        answer: oneshot::Sender<Result<QueryReply, NotDone>>,
    },
    /// Read changes of this node's replica, and follow the first index that is not readable yet.
    Changes {
        /// The shard.
        shard: ShardId,
        /// The index to read from, and how many changes of that entry to leave out; none for changes that are still to
        /// come.
        from: Option<(u64, u32)>,
        /// Takes the page, or why there is none.
        answer: oneshot::Sender<Result<ChangesPage, NotDone>>,
    },
    /// Tell the log clock of a shard.
    Clock {
        /// The shard.
        shard: ShardId,
        /// Takes the clock, or why no leader told it.
        answer: oneshot::Sender<Result<LogInstant, NotDone>>,
    },
    /// Tell what this node knows of a shard.
    ShardStatus {
        /// The shard.
        shard: ShardId,
        /// Takes the shard's row; none if the node takes no part in the shard.
        answer: oneshot::Sender<Option<Box<ShardRow>>>,
    },
    /// Change the members of a shard.
    Members {
        /// The shard.
        shard: ShardId,
        /// The change.
        change: MemberChange,
        /// Takes the shard's status afterwards; none if the node takes no part in the shard any more.
        answer: oneshot::Sender<Result<Option<Box<ShardStatus>>, ShardFailure>>,
    },
    /// Answer the request to join of a machine without a network, as it was sealed.
    Admit {
        /// The request.
        request: Vec<u8>,
        /// Takes the reply, as this node sealed it, or why there is none.
        answer: oneshot::Sender<Result<Vec<u8>, AdmitFailure>>,
    },
    /// Attach an agent.
    AgentOpened {
        /// The number of the agent's stream.
        stream: u64,
        /// What the agent says of itself.
        wish: Box<AttachWish>,
        /// Takes what the agent is told. It is closed after [`AgentTold::Ended`]. The driver gives up an agent that
        /// does not read.
        told: mpsc::Sender<AgentTold>,
    },
    /// An attached agent said something.
    AgentSaid {
        /// The number of the agent's stream.
        stream: u64,
        /// What the agent said.
        said: AgentSaid,
    },
    /// Subscribe to topics.
    Subscribe {
        /// The number of the subscriber.
        subscriber: u64,
        /// The topics.
        topics: Vec<TopicPath>,
        /// Takes the values. A subscriber misses a value that does not fit.
        values: mpsc::Sender<TopicTold>,
    },
    /// End a subscription.
    Unsubscribe {
        /// The number of the subscriber.
        subscriber: u64,
    },
    /// Tell this node's names, and the peers that it reaches.
    NodeStatus {
        /// Takes the node's view of itself.
        answer: oneshot::Sender<NodeView>,
    },
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicTold {
    /// The latest value of a source on a topic.
    Value {
        /// The publication.
        publication: Box<Publication>,
        /// The node that sent it.
        sender: NodeId,
        /// How long ago this node heard it, in milliseconds.
        age_ms: u64,
    },
    /// There is no room for one more subscriber.
    Refused,
}

/// Changes, and how to wait for more.
#[derive(Debug)]
pub struct ChangesPage {
    /// The changes of consecutive entries.
    pub sets: Vec<ChangeSet>,
    /// The first index that the page does not cover.
    pub next: u64,
    /// How many changes of that entry the page covers all the same.
    pub skip: u32,
    /// Which entries have no changes.
    pub edge: HistoryEdge,
    /// Follows the first index that is not readable yet.
    pub progress: watch::Receiver<u64>,
}

/// How the members of a shard are to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Create the shard.
    Init {
        /// The shard's voters.
        voters: Vec<NodeId>,
        /// The random genesis: what is signed for this shard holds for no other.
        genesis: Genesis,
        /// The first operator, with its own signature; none for a shard without operators.
        first: Option<Box<SignedFirst>>,
    },
    /// Hand over the lead, to this voter if one is given.
    Transfer(Option<NodeId>),
    /// Make a node a voter.
    Add(NodeId),
    /// Remove a voter.
    Remove(NodeId),
}

/// Why the members did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFailure {
    /// What went wrong, and what to do.
    pub message: String,
    /// Whether the change may work later without anything else changing.
    pub retryable: bool,
    /// Whether the change may have been done all the same.
    pub unknown: bool,
}

/// Why the request to join of a machine without a network has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitFailure {
    /// What went wrong, and what to do.
    pub message: String,
    /// Whether it is not known what became of the request. The same request again goes on with it.
    pub unknown: bool,
}

/// A shard as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The status of this node's replica.
    pub status: ShardStatus,
    /// What the node can reach of the shard, in words.
    pub connectivity: String,
}

/// A node as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The node's id.
    pub node: NodeId,
    /// The node's name for people.
    pub name: String,
    /// The node's site.
    pub site: String,
    /// The node's incarnation, as text.
    pub incarnation: String,
    /// How long the node has been running, in milliseconds.
    pub uptime_ms: u64,
    /// The peers that the node admits.
    pub peers: Vec<PeerRow>,
    /// The numbers of the shards in which the node takes part.
    pub shards: Vec<u32>,
    /// The address on which the control plane listens; none if that is not known.
    pub control_address: Option<String>,
    /// The multiaddresses on which the mesh listens.
    pub mesh_addresses: Vec<String>,
    /// How many publications the mesh had no room for.
    pub mesh_overflow: u64,
    /// How many received publications the mesh did not accept.
    pub mesh_invalid: u64,
    /// What is wrong, each with the number of its shard.
    pub faults: Vec<(u32, FaultReport)>,
}

/// A peer as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// The peer's id.
    pub node: NodeId,
    /// The peer's name for people.
    pub name: Option<String>,
    /// Whether the peer is connected on the control plane.
    pub control_up: bool,
    /// Whether the peer is connected on the mesh.
    pub mesh_up: bool,
    /// The address at which the node dials the peer's control plane.
    pub control_address: Option<String>,
    /// Why the peer is not connected; none if the node does not know.
    pub last_error: Option<String>,
    /// The round trip to the peer, in milliseconds.
    pub rtt_ms: Option<u64>,
    /// How many of a thousand packets to the peer are lost.
    pub lost_permille: Option<u32>,
    /// The rate that the link to the peer carries, in bytes a second.
    pub bytes_per_s: Option<u64>,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The channel is full, or the node is stopping: the node did nothing.
    NotTaken,
    /// The node stopped meanwhile: it may have done the call.
    Dropped,
}

/// The API's end of the channel to the driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls {
    calls: mpsc::Sender<Call>,
    /// Publications have a channel of their own: a flood of them delays no call, and above all no keep-alive.
    publications: mpsc::Sender<Publication>,
}

/// The driver's end of the channel.
#[derive(Debug)]
pub struct CallQueue {
    /// The calls, in order.
    pub calls: mpsc::Receiver<Call>,
    /// The publications, in order. The driver takes them when there is nothing else to do.
    pub publications: mpsc::Receiver<Publication>,
}

impl Calls {
    /// The two ends of the channel.
    pub fn channel() -> (Self, CallQueue) {
        let (calls, calls_in) = mpsc::channel(limits::API_CALLS_QUEUED_MAX);
        let (publications, publications_in) = mpsc::channel(limits::ENVELOPES_QUEUED_MAX);
        (Self { calls, publications }, CallQueue { calls: calls_in, publications: publications_in })
    }

    /// Makes a call and waits for its answer.
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.calls.try_send(call(answer)).map_err(|_| Unanswered::NotTaken)?;
        answered.await.map_err(|_| Unanswered::Dropped)
    }

    /// Makes a call that has no answer, and waits for room for it. Gives false if the node is stopping.
    pub(crate) async fn tell(&self, call: Call) -> bool {
        self.calls.send(call).await.is_ok()
    }

    /// Publishes a value, and waits for room for it. Gives false if the node is stopping.
    pub(crate) async fn publish(&self, publication: Publication) -> bool {
        self.publications.send(publication).await.is_ok()
    }

    /// Asks the leader of a shard for all that was acknowledged before, and waits for its answer.
    ///
    /// # Errors
    /// [`NotDone`] says why there is none.
    pub async fn read(&self, shard: ShardId, query: Query, patience_ms: u64) -> Result<QueryReply, NotDone> {
        let asked = self.ask(|answer| Call::Query { shard, query, stale: false, patience_ms, answer }).await;
        asked.unwrap_or(Err(NotDone::NoQuorum))
    }

    /// Submits an operation under a new request id, and waits for its end.
    pub async fn request(&self, shard: ShardId, op: Op, patience_ms: u64) -> Settled {
        let clock = self.ask(|answer| Call::Clock { shard, answer }).await;
        let first_sent = match clock {
            Ok(Ok(first_sent)) => first_sent,
            Ok(Err(why)) => return Settled::NotDone(why),
            Err(_) => return Settled::NotDone(NotDone::NoQuorum),
        };
        let id = RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes());
        let deadline = first_sent.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT);
        let request = Box::new(Request { id, first_sent, deadline, op });
        match self.ask(|answer| Call::Submit { shard, request, patience_ms, answer }).await {
            Ok(settled) => settled,
            Err(Unanswered::NotTaken) => Settled::NotDone(NotDone::NoQuorum),
            Err(Unanswered::Dropped) => Settled::Unknown,
        }
    }
}
