//! What is asked of agents.

use serde::{Deserialize, Serialize};

use super::{LeaseTerms, Role};
use crate::ids::{AttachmentId, NodeId, SessionId};
use crate::text::AgentId;

/// What a client or a node can ask of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentOp {
    /// Make an agent known, or change its role.
    Register {
        /// Who.
        agent: AgentId,
        /// What it can do.
        role: Role,
    },
    /// Forget an agent that holds nothing.
    Remove {
        /// Who.
        agent: AgentId,
    },
    /// Serve an agent from a node, under a lease. Refused while another run of its software, or another node, has it.
    Attach {
        /// Who.
        agent: AgentId,
        /// What it can do.
        role: Role,
        /// The node that asks; only it may.
        node: NodeId,
        /// The run of the agent's software. The same one takes up what it held.
        session: SessionId,
        /// The lease it asks for.
        lease: LeaseTerms,
    },
    /// Give an agent up: it has stopped, and gives back what it holds.
    Detach {
        /// Who.
        agent: AgentId,
        /// The attachment that ends.
        attachment: AttachmentId,
    },
}

impl AgentOp {
    /// The agent that it is about.
    pub fn agent(&self) -> &AgentId {
        match self {
            Self::Register { agent, .. }
            | Self::Remove { agent }
            | Self::Attach { agent, .. }
            | Self::Detach { agent, .. } => agent,
        }
    }

    /// Whether it brings somebody who does work.
    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::Register { .. } | Self::Attach { .. } => true,
            Self::Remove { .. } | Self::Detach { .. } => false,
        }
    }
}
