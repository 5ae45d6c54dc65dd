//! What nodes and the orchestrator tell each other of agents, beside the log.
//!
//! Nothing here is a fact of the shard: a heartbeat that is lost is sent again, and an update that is lost is told
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
    /// One for each agent.
    pub agents: Vec<AgentHeartbeat>,
}

/// What a node says of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHeartbeat {
    /// Who.
    pub agent: AgentId,
    /// Its attachment.
    pub attachment: AttachmentId,
    /// How many tasks the orchestrator may have assigned under the attachment in all. Rises with every credit that the
    /// agent gives, so that a heartbeat that is lost or late changes nothing.
    pub credit_limit: u64,
    /// Where it is.
    pub place: Option<Position>,
    /// Whether its lease is to be renewed: its software has been heard of since the last renewal.
    pub renew: bool,
}

/// What the orchestrator answers to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// One for each agent that asked for a renewal or is not attached, in the order of the heartbeat.
    pub agents: Vec<AgentRenewal>,
    /// What the leader says of itself, so that its node knows whom to ask when it does not answer any more.
    pub lead: LeaderHint,
}

/// What became of one agent's renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRenewal {
    /// Who.
    pub agent: AgentId,
    /// Its attachment.
    pub attachment: AttachmentId,
    /// Whether it is renewed.
    pub renewal: Renewal,
}

/// Whether a lease is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewal {
    /// It runs from the sending of the heartbeat.
    Confirmed,
    /// Nobody may confirm it now. Its holder goes on for as long as the last renewal lasts.
    NotConfirmed,
    /// The attachment has ended.
    NotAttached,
}

/// Why a heartbeat was not heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HeartbeatFailure {
    /// This node does not lead the shard. What it knows of who does.
    #[error("this node does not lead the shard")]
    NotLeader(LeaderHint),
    /// Too many wait.
    #[error("too many heartbeats wait")]
    Overloaded,
}

/// The answer to a heartbeat on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The answer, or why there is none.
    pub result: Result<HeartbeatReply, HeartbeatFailure>,
}

/// What agents of one node hold, as the shard stands at an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsUpdate {
    /// The index: an update of an earlier one says nothing new.
    pub as_of: u64,
    /// The agents whose claims changed.
    pub agents: Vec<AgentClaims>,
}

/// All that one agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentClaims {
    /// Who.
    pub agent: AgentId,
    /// Its attachment.
    pub attachment: AttachmentId,
    /// How many tasks were assigned under the attachment by then, ended ones too: a credit whose task ended before its
    /// node heard of it is given again.
    pub assigned: u64,
    /// Every claim that it holds. What it had and is not here, it has lost.
    pub held: Vec<(TaskId, ClaimEpoch)>,
    /// The tasks among them that its node has not been told of yet. Not all at once, if they are large.
    pub tasks: Vec<Task>,
}
