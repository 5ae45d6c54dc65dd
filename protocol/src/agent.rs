//! Agents and the roles they take.

mod change;
mod op;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fleet::FleetLimits;
use crate::ids::{AttachmentId, NodeId, SessionId};
use crate::task::{InvalidSpec, Task};
use crate::text::{Capability, RoleName};
use crate::time::LogInstant;

pub use change::AgentChange;
pub use op::AgentOp;

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

/// A place on the site's floor. Integers, because the state holds no floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// East of the site's origin, in millimetres.
    pub x_mm: i64,
    /// North of the site's origin, in millimetres.
    pub y_mm: i64,
}

impl Position {
    /// How far apart two places are along the aisles (Manhattan distance), in millimetres.
    pub fn distance_mm(self, other: Self) -> u64 {
        self.x_mm.abs_diff(other.x_mm).saturating_add(self.y_mm.abs_diff(other.y_mm))
    }
}

/// How long a lease lasts, and how far its two sides keep apart.
///
/// The holder stops `margin` before its lease ends, counted from before it asked for the last renewal; the
/// orchestrator takes what it held `margin` after the end, counted from when it confirmed the last renewal. So the two
/// never overlap while clocks run alike to one part in ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// How long a renewal lasts, in milliseconds.
    pub ttl_ms: u64,
}

impl LeaseTerms {
    /// Five seconds.
    pub const DEFAULT: Self = Self { ttl_ms: 5_000 };

    /// A tenth of the lease, in milliseconds.
    pub const fn margin_ms(self) -> u64 {
        self.ttl_ms / 10
    }

    /// How long after it asked for a renewal that was confirmed its holder may go on, in milliseconds.
    pub const fn holder_ms(self) -> u64 {
        self.ttl_ms - self.margin_ms()
    }

    /// How long after it confirmed the last renewal the orchestrator waits, in milliseconds.
    pub const fn orchestrator_ms(self) -> u64 {
        self.ttl_ms + self.margin_ms()
    }

    /// Checks the limits of this build.
    ///
    /// # Errors
    /// [`InvalidSpec::LeaseTtl`].
    pub fn check(self) -> Result<(), InvalidSpec> {
        self.check_within(&FleetLimits::default())
    }

    /// Checks the limits of a shard.
    ///
    /// # Errors
    /// [`InvalidSpec::LeaseTtl`].
    pub fn check_within(self, limits: &FleetLimits) -> Result<(), InvalidSpec> {
        let (min, max) = (limits.lease_ttl_ms_min, limits.lease_ttl_ms_max);
        if (min..=max).contains(&self.ttl_ms) {
            return Ok(());
        }
        Err(InvalidSpec::LeaseTtl { given: self.ttl_ms, min, max })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_holder_of_a_lease_stops_before_the_orchestrator_takes_over() {
        for ttl_ms in [limits::LEASE_TTL_MS_MIN, 5_000, limits::LEASE_TTL_MS_MAX] {
            let terms = LeaseTerms { ttl_ms };
            assert_eq!(terms.check(), Ok(()));
            assert!(terms.holder_ms() < ttl_ms && ttl_ms < terms.orchestrator_ms());
            // Both clocks off by 5 % in the worst direction.
            assert!(terms.holder_ms() * 105 / 100 < terms.orchestrator_ms() * 95 / 100);
        }
        assert!(LeaseTerms { ttl_ms: 0 }.check().is_err());
    }

    #[test]
    fn distances_never_overflow() {
        let far = Position { x_mm: i64::MAX, y_mm: i64::MAX };
        let away = Position { x_mm: i64::MIN, y_mm: i64::MIN };
        assert_eq!(far.distance_mm(away), u64::MAX);
        assert_eq!(Position { x_mm: 3, y_mm: -4 }.distance_mm(Position::default()), 7);
    }
}

/// A lease as its holder counts it: it may go on until its own clock shows `stamp` and `usable_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    /// That of a keep-alive from before the renewal was asked for, in milliseconds of the holder's clock.
    pub stamp: u64,
    /// How long from there, in milliseconds.
    pub usable_ms: u64,
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
