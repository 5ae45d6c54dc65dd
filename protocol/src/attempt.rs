//! Attempts: what a node wants done by the leader of a shard, where it tries, and how a try ended.
//!
//! The engine decides what is tried where, and the control plane carries it out: here, or by a call to another node.

use crate::entry::Request;
use crate::heartbeat::{Heartbeat, HeartbeatFailure, HeartbeatReply};
use crate::ids::NodeId;
use crate::outcome::ProposeOutcome;
use crate::pull::{Pull, PullFailure, Pulled};
use crate::query::{Query, QueryFailure, QueryReply};

/// What a caller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A request that changes the shard. Every attempt repeats it byte for byte.
    Request(Request),
    /// A query that must hold everything acknowledged before it.
    Query(Query),
    /// A heartbeat for the orchestrator.
    Heartbeat(Heartbeat),
    /// What there is for agents. Its answer may take as long as it says.
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
    /// Of a request.
    Propose(ProposeOutcome),
    /// Of a query.
    Query(Result<QueryReply, QueryFailure>),
    /// Of a heartbeat.
    Heartbeat(Result<HeartbeatReply, HeartbeatFailure>),
    /// Of a pull.
    Pull(Result<Box<Pulled>, PullFailure>),
}

impl Outcome {
    /// Whether this is the answer that was asked for, and not why there is none: however late it comes, it holds.
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
