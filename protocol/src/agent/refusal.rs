//! Why a shard refuses what is asked of an agent.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{AttachmentId, NodeId};
use crate::text::AgentId;

/// Why a shard did not do what was asked of an agent, or by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AgentRefusal {
    /// There is no such agent.
    #[error("agent {0} is not registered")]
    NoSuchAgent(AgentId),
    /// The agent holds as much as its role allows.
    #[error("agent {agent} holds {held} of {max} tasks")]
    Busy {
        /// The agent.
        agent: AgentId,
        /// How many tasks it holds.
        held: u32,
        /// How many it may hold.
        max: u32,
    },
    /// Another node, or another run of its software, has the agent until its lease ends.
    #[error("agent {agent} is attached to node {node} under a lease of {lease_ms} ms")]
    Elsewhere {
        /// The agent.
        agent: AgentId,
        /// The node that serves it.
        node: NodeId,
        /// Its lease, in milliseconds.
        lease_ms: u64,
    },
    /// The attachment has ended: its lease ran out, or the agent was attached anew.
    #[error("attachment {attachment} of agent {agent} has ended")]
    NotAttached {
        /// The agent.
        agent: AgentId,
        /// The attachment that was named.
        attachment: AttachmentId,
    },
}

impl AgentRefusal {
    /// What clients know it by.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSuchAgent(_) => Code::NoSuchAgent,
            Self::Busy { .. } => Code::AgentBusy,
            Self::Elsewhere { .. } => Code::AgentElsewhere,
            Self::NotAttached { .. } => Code::NotAttached,
        }
    }

    /// After how many milliseconds the same request may be answered otherwise; none if it will not be.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Elsewhere { lease_ms, .. } => Some(lease_ms / 10),
            Self::NoSuchAgent(_) | Self::Busy { .. } | Self::NotAttached { .. } => self.code().again().after_ms(),
        }
    }
}
