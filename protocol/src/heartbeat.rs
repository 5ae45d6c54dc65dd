//! What nodes and the orchestrator tell each other of agents, beside the log.
//!
//! Nothing here is a fact of the shard: a node sends a lost heartbeat again, and the orchestrator tells a lost update
//! again. Leases are renewed here and end in the log.

use serde::{Deserialize, Serialize};

use crate::ids::{AttachmentId, ClaimEpoch, TaskId};
use crate::leader::LeaderHint;
use crate::position::Position;
use crate::task::Task;
use crate::text::AgentId;

/// What a node says of the agents that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// One heartbeat for each agent.
    pub agents: Vec<AgentHeartbeat>,
}

/// What a node says of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHeartbeat {
    /// Id of the agent.
    pub agent: AgentId,
    /// Id of the agent's attachment.
    pub attachment: AttachmentId,
    /// Number of tasks that the orchestrator may have assigned under the attachment in all. It rises with every credit
    /// that the agent gives, so that a heartbeat that is lost or late changes nothing.
    pub credit_limit: u64,
    /// The agent's position; none if the agent says none.
    pub place: Option<Position>,
    /// Whether the orchestrator is to renew the lease: the node has heard of the software since the last renewal.
    pub renew: bool,
}

/// What the orchestrator answers to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// One answer for each agent that asked for a renewal or is not attached, in the order of the heartbeat.
    pub agents: Vec<AgentRenewal>,
    /// What the leader says of the lead, so that the node knows whom to ask when the leader does not answer any more.
    pub lead: LeaderHint,
}

/// What came of one agent's renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRenewal {
    /// Id of the agent.
    pub agent: AgentId,
    /// Id of the agent's attachment.
    pub attachment: AttachmentId,
    /// Whether the orchestrator renewed the lease.
    pub renewal: Renewal,
}

/// Whether the orchestrator renewed a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewal {
    /// The lease runs from the sending of the heartbeat.
    Confirmed,
    /// The orchestrator cannot confirm it now. The holder goes on for as long as the last renewal lasts.
    NotConfirmed,
    /// The attachment has ended.
    NotAttached,
}

/// Why a node did not hear a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HeartbeatFailure {
    /// This node does not lead the shard. The hint is what it knows of who does.
    #[error("this node does not lead the shard")]
    NotLeader(LeaderHint),
    /// Too many heartbeats wait.
    #[error("too many heartbeats wait")]
    Overloaded,
}

/// The answer to a heartbeat on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The answer, or why the node gives none.
    pub result: Result<HeartbeatReply, HeartbeatFailure>,
}

/// What agents of one node hold, as the shard stands at an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsUpdate {
    /// Index of the entry up to which this holds: an update of an earlier index says nothing new.
    pub as_of: u64,
    /// The agents whose claims changed.
    pub agents: Vec<AgentClaims>,
}

/// All that one agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentClaims {
    /// Id of the agent.
    pub agent: AgentId,
    /// Id of the agent's attachment.
    pub attachment: AttachmentId,
    /// Number of tasks assigned under the attachment by then, ended ones too: the agent gives a credit again whose task
    /// ended before its node heard of it.
    pub assigned: u64,
    /// Every claim that the agent holds. It has lost each earlier claim that is not here.
    pub held: Vec<(TaskId, ClaimEpoch)>,
    /// The tasks among them that its node has not heard of yet. Large ones come in several updates.
    pub tasks: Vec<Task>,
}
