//! Attempts: what a node wants the leader of a shard to do, where the node tries, and how a try ended.
//!
//! The engine decides what is tried where, and the control plane carries it out: here, or by a call to another node.

use crate::entry::Request;
use crate::heartbeat::{Heartbeat, HeartbeatFailure, HeartbeatReply};
use crate::ids::NodeId;
use crate::outcome::ProposeOutcome;
use crate::pull::{Pull, PullFailure, Pulled};
use crate::query::{Query, QueryFailure, QueryReply};

/// What a caller wants the leader to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A request that changes the shard. Every attempt repeats it byte for byte.
    Request(Request),
    /// A query. The replica that answers must hold everything acknowledged before the query.
    Query(Query),
    /// A heartbeat for the orchestrator.
    Heartbeat(Heartbeat),
    /// A question what there is for agents. The leader may take as long for its answer as the pull says.
    Pull(Pull),
}

/// Where an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttemptTarget {
    /// To this node itself.
    Local,
    /// To a peer.
    Node(NodeId),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// How an attempt at a request ended.
    Propose(ProposeOutcome),
    /// How an attempt at a query ended.
    Query(Result<QueryReply, QueryFailure>),
    /// How an attempt at a heartbeat ended.
    Heartbeat(Result<HeartbeatReply, HeartbeatFailure>),
    /// How an attempt at a pull ended.
    Pull(Result<Box<Pulled>, PullFailure>),
}

impl Outcome {
    /// Whether this is the answer to the question, and not a reason why there is none: it holds, however late it comes.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Propose(ProposeOutcome::Applied { .. })
                | Self::Query(Ok(_))
                | Self::Heartbeat(Ok(_))
                | Self::Pull(Ok(_))
        )
    }
}
