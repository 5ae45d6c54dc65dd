//! What the API asks of the node.

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

/// One call. Dropping `answer` unsent means that the node is stopping.
#[derive(Debug)]
pub enum Call {
    /// Change a shard.
    Submit {
        /// Which shard.
        shard: ShardId,
        /// How.
        request: Box<Request>,
        /// How long the caller waits, in milliseconds.
        patience_ms: u64,
        /// How it ended.
        answer: oneshot::Sender<Settled>,
    },
    /// Read a shard.
    Query {
        /// Which.
        shard: ShardId,
        /// What.
        query: Query,
        /// From this node's replica as it is.
        stale: bool,
        /// How long the caller waits, in milliseconds.
        patience_ms: u64,
        /// The answer.
        answer: oneshot::Sender<Result<QueryReply, NotDone>>,
    },
    /// Read changes of this node's replica, and follow the first index that is not readable yet.
    Changes {
        /// Which shard.
        shard: ShardId,
        /// From which index on, without the first so many changes of that entry; none for what comes.
        from: Option<(u64, u32)>,
        /// The page, or why there is none.
        answer: oneshot::Sender<Result<ChangesPage, NotDone>>,
    },
    /// Tell the log clock of a shard.
    Clock {
        /// Which.
        shard: ShardId,
        /// The clock, or why nobody could be asked.
        answer: oneshot::Sender<Result<LogInstant, NotDone>>,
    },
    /// Tell what this node knows of a shard.
    ShardStatus {
        /// Which.
        shard: ShardId,
        /// What; none if it takes no part in it.
        answer: oneshot::Sender<Option<Box<ShardRow>>>,
    },
    /// Change who belongs to a shard.
    Members {
        /// Which.
        shard: ShardId,
        /// How.
        change: MemberChange,
        /// The shard afterwards; none if the node takes no part in it any more.
        answer: oneshot::Sender<Result<Option<Box<ShardStatus>>, ShardFailure>>,
    },
    /// Attach an agent.
    AgentOpened {
        /// Its stream.
        stream: u64,
        /// What it says of itself.
        wish: Box<AttachWish>,
        /// What it is told. Closed after [`AgentTold::Ended`]; an agent that does not read is given up.
        told: mpsc::Sender<AgentTold>,
    },
    /// An attached agent said something.
    AgentSaid {
        /// Its stream.
        stream: u64,
        /// What.
        said: AgentSaid,
    },
    /// Listen to topics.
    Subscribe {
        /// Its name.
        subscriber: u64,
        /// To what.
        topics: Vec<TopicPath>,
        /// What is heard. One that does not fit is missed.
        values: mpsc::Sender<TopicTold>,
    },
    /// Listen no more.
    Unsubscribe {
        /// Its name.
        subscriber: u64,
    },
    /// Tell who this node is and whom it reaches.
    NodeStatus {
        /// That.
        answer: oneshot::Sender<NodeView>,
    },
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicTold {
    /// The latest of a source on a topic.
    Value {
        /// What.
        publication: Box<Publication>,
        /// The node that sent it.
        sender: NodeId,
        /// How long ago it was heard, in milliseconds.
        age_ms: u64,
    },
    /// There is no room for one more.
    Refused,
}

/// Changes, and how to wait for more.
#[derive(Debug)]
pub struct ChangesPage {
    /// Of consecutive entries.
    pub sets: Vec<ChangeSet>,
    /// The first index that is not covered.
    pub next: u64,
    /// How many changes of that entry are covered all the same.
    pub skip: u32,
    /// What there is none of.
    pub edge: HistoryEdge,
    /// Follows the first index that is not readable yet.
    pub progress: watch::Receiver<u64>,
}

/// How the members of a shard are to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Create the shard.
    Init {
        /// Its voters.
        voters: Vec<NodeId>,
        /// Random: what is signed for this shard is good for no other.
        genesis: Genesis,
        /// Its first operator, which has signed that it is that; none for a shard without operators.
        first: Option<Box<SignedFirst>>,
    },
    /// Hand over the lead.
    Transfer(Option<NodeId>),
    /// Make a node a voter.
    Add(NodeId),
    /// Take a voter out.
    Remove(NodeId),
}

/// Why members were not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFailure {
    /// What and what to do.
    pub message: String,
    /// Whether it may work later without anything else changing.
    pub retryable: bool,
    /// Whether it may have been done all the same.
    pub unknown: bool,
}

/// A shard as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// How it stands.
    pub status: ShardStatus,
    /// What the node can reach of it.
    pub connectivity: String,
}

/// A node as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Who it is.
    pub node: NodeId,
    /// For people.
    pub name: String,
    /// The trust domain.
    pub site: String,
    /// Its incarnation.
    pub incarnation: String,
    /// Since its start, in milliseconds.
    pub uptime_ms: u64,
    /// Whom it admits.
    pub peers: Vec<PeerRow>,
    /// The shards that it takes part in.
    pub shards: Vec<u32>,
    /// Where its control plane listens.
    pub control_address: Option<String>,
    /// Where its mesh listens.
    pub mesh_addresses: Vec<String>,
    /// Publications that it had no room for.
    pub mesh_overflow: u64,
    /// Received ones that it did not accept.
    pub mesh_invalid: u64,
    /// What is wrong with its shards.
    pub faults: Vec<(u32, FaultReport)>,
}

/// A peer as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// Who it is.
    pub node: NodeId,
    /// For people.
    pub name: Option<String>,
    /// Whether it is connected on the control plane.
    pub control_up: bool,
    /// Whether it is connected on the mesh.
    pub mesh_up: bool,
    /// Where its control plane is dialled.
    pub control_address: Option<String>,
    /// Why it is not connected, if that is known.
    pub last_error: Option<String>,
    /// The round trip to it, in milliseconds.
    pub rtt_ms: Option<u64>,
    /// How many of a thousand packets to it are lost.
    pub lost_permille: Option<u32>,
    /// What the link to it carries, in bytes a second.
    pub bytes_per_s: Option<u64>,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The channel is full, or the node is stopping: nothing was done.
    NotTaken,
    /// The node stopped meanwhile: it may have been done.
    Dropped,
}

/// The way to the node's driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls {
    calls: mpsc::Sender<Call>,
    /// Telemetry has a way of its own: a flood of it delays no call, and above all no keep-alive.
    publications: mpsc::Sender<Publication>,
}

/// The driver's end of the way.
#[derive(Debug)]
pub struct CallQueue {
    /// Calls, in order.
    pub calls: mpsc::Receiver<Call>,
    /// Publications, in order. Taken when there is nothing else to do.
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

    /// Makes a call that has no answer, and waits for room for it. False if the node is stopping.
    pub(crate) async fn tell(&self, call: Call) -> bool {
        self.calls.send(call).await.is_ok()
    }

    /// Says something on a topic, and waits for room for it. False if the node is stopping.
    pub(crate) async fn publish(&self, publication: Publication) -> bool {
        self.publications.send(publication).await.is_ok()
    }

    /// Has something committed under a new request id.
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
