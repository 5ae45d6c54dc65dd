//! What a shard tells of an agent.

use serde::{Deserialize, Serialize};

use super::{Attachment, Role};
use crate::text::AgentId;

/// An agent as a shard tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Id of the agent.
    pub id: AgentId,
    /// The agent's role.
    pub role: Role,
    /// Tasks it holds.
    pub held: u32,
    /// Number of registered agents of other roles that share a capability with it.
    pub overlaps: u32,
    /// The attachment by which a node serves it; none while no node does.
    pub attachment: Option<Attachment>,
}
