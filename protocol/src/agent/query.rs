//! What is told of an agent.

use serde::{Deserialize, Serialize};

use super::{Attachment, Role};
use crate::text::AgentId;

/// An agent as a shard tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// Its role.
    pub role: Role,
    /// Tasks it holds.
    pub held: u32,
    /// Registered agents of other roles that share a capability with it.
    pub overlaps: u32,
    /// Who serves it; none while nobody does.
    pub attachment: Option<Attachment>,
}
