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
    /// Its name.
    pub name: RoleName,
    /// What its agents can do. A task is offered only to agents that have all it requires.
    pub capabilities: BTreeSet<Capability>,
    /// Whether its agents keep state of their own, so that work for one entity must return to one agent.
    pub stateful: bool,
    /// Tasks one agent may hold at a time.
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
    /// Its id; everything that is said of the agent carries it.
    pub id: AttachmentId,
    /// The node.
    pub node: NodeId,
    /// The run of the agent's software.
    pub session: SessionId,
    /// The agent's lease.
    pub lease: LeaseTerms,
    /// Tasks that the orchestrator has assigned under this attachment.
    pub assigned: u64,
    /// Since when.
    pub since: LogInstant,
}

/// An agent as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// What it can do.
    pub role: Role,
    /// Who serves it; none while nobody does.
    pub attachment: Option<Attachment>,
    /// Whether somebody said that it is to be known, served or not. Others are forgotten once nobody has served them for
    /// long.
    pub registered: bool,
    /// Since when nobody serves it, or from when that is counted; of no meaning while somebody does.
    pub idle_since: LogInstant,
}

impl AgentRecord {
    /// Since when nobody serves it, if it is to be forgotten for that.
    pub fn forgettable_since(&self) -> Option<LogInstant> {
        (self.attachment.is_none() && !self.registered).then_some(self.idle_since)
    }
}

/// A task that an agent holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The task, with the epoch of the claim.
    pub task: Task,
    /// Whether it was assigned against a credit of this attachment.
    pub spends_credit: bool,
    /// The agent's lease as it was renewed last; none before the first renewal.
    pub lease: Option<Usable>,
}
