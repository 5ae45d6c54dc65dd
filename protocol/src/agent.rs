//! Agents and the roles they take.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::task::InvalidSpec;
use crate::text::{Capability, RoleName};

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

    /// Checks the limits.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the field.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        if self.capabilities.len() > limits::CAPABILITIES_MAX {
            return Err(InvalidSpec::Capabilities { given: self.capabilities.len() });
        }
        if self.max_concurrent == 0 || self.max_concurrent > limits::CONCURRENT_CLAIMS_MAX {
            return Err(InvalidSpec::MaxConcurrent { given: self.max_concurrent });
        }
        Ok(())
    }
}
