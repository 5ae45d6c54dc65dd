//! Agents and the roles they take.

mod change;
mod op;
mod query;
mod refusal;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fleet::FleetLimits;
use crate::ids::{AttachmentId, NodeId, SessionId};
use crate::lease::{LeaseTerms, Usable};
use crate::task::{InvalidSpec, Task};
use crate::text::{Capability, RoleName};
use crate::time::LogInstant;

pub use change::AgentChange;
pub use op::AgentOp;
pub use query::AgentView;
pub use refusal::AgentRefusal;

/// What an agent of this role can do and how much at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Name of the role.
    pub name: RoleName,
    /// What its agents can do. The orchestrator offers a task only to agents that have all capabilities that it
    /// requires.
    pub capabilities: BTreeSet<Capability>,
    /// Whether its agents keep state of their own, so that work for one entity must return to one agent.
    pub stateful: bool,
    /// Number of tasks that one agent may hold at a time, at most.
    pub max_concurrent: u32,
}

impl Role {
    /// The role of an agent that never registered: no capabilities, one task at a time.
    pub fn unregistered() -> Self {
        Self { name: RoleName::unregistered(), capabilities: BTreeSet::new(), stateful: false, max_concurrent: 1 }
    }

    /// Checks the limits of this build.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the field.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        self.check_within(&FleetLimits::default())
    }

    /// Checks the limits of a shard.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the field.
    pub fn check_within(&self, limits: &FleetLimits) -> Result<(), InvalidSpec> {
        if self.capabilities.len() as u64 > limits.capabilities_max {
            return Err(InvalidSpec::Capabilities { given: self.capabilities.len(), max: limits.capabilities_max });
        }
        let (given, max) = (self.max_concurrent, limits.concurrent_claims_max);
        if given == 0 || given > max {
            return Err(InvalidSpec::MaxConcurrent { given, max });
        }
        Ok(())
    }
}

/// Which node serves an agent, and for which run of its software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Id of the attachment; all that nodes say of the agent carries it.
    pub id: AttachmentId,
    /// PeerId of the node.
    pub node: NodeId,
    /// The run of the agent's software.
    pub session: SessionId,
    /// The terms of the agent's lease.
    pub lease: LeaseTerms,
    /// Number of tasks that the orchestrator has assigned under this attachment.
    pub assigned: u64,
    /// When the attachment began, on the shard's clock.
    pub since: LogInstant,
}

/// An agent as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The agent's role: its capabilities, and how many tasks it takes at a time.
    pub role: Role,
    /// The attachment by which a node serves it; none while no node does.
    pub attachment: Option<Attachment>,
    /// Whether a client registered it. The shard keeps such an agent whether a node serves it or not; it forgets any
    /// other once no node has served it for long.
    pub registered: bool,
    /// Since when no node serves it, or from when the shard counts that; of no meaning while a node does.
    pub idle_since: LogInstant,
}

impl AgentRecord {
    /// Since when no node serves it; none if the shard is not to forget it for that.
    pub fn forgettable_since(&self) -> Option<LogInstant> {
        (self.attachment.is_none() && !self.registered).then_some(self.idle_since)
    }
}

/// A task that an agent holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The task, with the epoch of the agent's claim.
    pub task: Task,
    /// Whether the orchestrator assigned it against a credit of this attachment.
    pub spends_credit: bool,
    /// The agent's lease as of its last renewal; none before the first one.
    pub lease: Option<Usable>,
}
