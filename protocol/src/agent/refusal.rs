//! Why a shard refuses what a client or a node asks of an agent.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{AttachmentId, NodeId};
use crate::text::AgentId;

/// Why a shard did not do what a client or a node asked of an agent, or an agent asked itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AgentRefusal {
    /// There is no such agent.
    #[error("agent {0} is not registered")]
    NoSuchAgent(AgentId),
    /// The agent holds as much as its role allows.
    #[error("agent {agent} holds {held} of {max} tasks")]
    Busy {
        /// Id of the agent.
        agent: AgentId,
        /// Number of tasks that it holds.
        held: u32,
        /// The most tasks that it may hold.
        max: u32,
    },
    /// Another node, or another run of its software, has the agent until its lease ends.
    #[error("agent {agent} is attached to node {node} under a lease of {lease_ms} ms")]
    Elsewhere {
        /// Id of the agent.
        agent: AgentId,
        /// PeerId of the node that serves it.
        node: NodeId,
        /// The lease of that attachment, in milliseconds.
        lease_ms: u64,
    },
    /// The attachment has ended: its lease ran out, or the agent was attached anew.
    #[error("attachment {attachment} of agent {agent} has ended")]
    NotAttached {
        /// Id of the agent.
        agent: AgentId,
        /// Id of the attachment that was named.
        attachment: AttachmentId,
    },
}

impl AgentRefusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSuchAgent(_) => Code::NoSuchAgent,
            Self::Busy { .. } => Code::AgentBusy,
            Self::Elsewhere { .. } => Code::AgentElsewhere,
            Self::NotAttached { .. } => Code::NotAttached,
        }
    }

    /// After how many milliseconds the shard may answer the same request otherwise; none if it will not.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Elsewhere { lease_ms, .. } => Some(lease_ms / 10),
            Self::NoSuchAgent(_) | Self::Busy { .. } | Self::NotAttached { .. } => self.code().again().after_ms(),
        }
    }
}
