//! What clients and nodes ask of agents.

use serde::{Deserialize, Serialize};

use super::{LeaseTerms, Role};
use crate::ids::{AttachmentId, NodeId, SessionId};
use crate::text::AgentId;

/// What a client or a node can ask of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentOp {
    /// Make an agent known, or change its role.
    Register {
        /// Id of the agent.
        agent: AgentId,
        /// The agent's role: its capabilities, and how many tasks it takes at a time.
        role: Role,
    },
    /// Forget an agent that holds nothing.
    Remove {
        /// Id of the agent.
        agent: AgentId,
    },
    /// Serve an agent from a node, under a lease. Refused while another run of its software, or another node, has it.
    Attach {
        /// Id of the agent.
        agent: AgentId,
        /// The agent's role: its capabilities, and how many tasks it takes at a time.
        role: Role,
        /// PeerId of the node that asks. A node asks for itself only.
        node: NodeId,
        /// The session. The same one takes up what it held.
        session: SessionId,
        /// The lease for which the agent asks.
        lease: LeaseTerms,
    },
    /// Give an agent up: it has stopped, and gives back what it holds.
    Detach {
        /// Id of the agent.
        agent: AgentId,
        /// Id of the attachment that ends.
        attachment: AttachmentId,
    },
}

impl AgentOp {
    /// Id of the agent that the operation is about.
    pub fn agent(&self) -> &AgentId {
        match self {
            Self::Register { agent, .. }
            | Self::Remove { agent }
            | Self::Attach { agent, .. }
            | Self::Detach { agent, .. } => agent,
        }
    }

    /// Whether it brings an agent that does work.
    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::Register { .. } | Self::Attach { .. } => true,
            Self::Remove { .. } | Self::Detach { .. } => false,
        }
    }
}
