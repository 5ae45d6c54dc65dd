//! Leases: how long an agent may go on without a word from the orchestrator.

use serde::{Deserialize, Serialize};

use crate::fleet::FleetLimits;
use crate::task::InvalidSpec;

/// How long a lease lasts, and how far its two sides keep apart.
///
/// The holder stops `margin` before its lease ends, counted from before it asked for the last renewal; the orchestrator
/// takes what it held `margin` after the end, counted from when it confirmed the last renewal. So the two never overlap
/// while their clocks run alike to one part in ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// How long a renewal lasts, in milliseconds.
    pub ttl_ms: u64,
}

impl LeaseTerms {
    /// The terms of a lease if the agent asks for none: five seconds.
    pub const DEFAULT: Self = Self { ttl_ms: 5_000 };

    /// The margin: a tenth of the lease, in milliseconds.
    pub const fn margin_ms(self) -> u64 {
        self.ttl_ms / 10
    }

    /// For how long the holder may go on after it asked for a renewal that was confirmed, in milliseconds.
    pub const fn holder_ms(self) -> u64 {
        self.ttl_ms - self.margin_ms()
    }

    /// For how long the orchestrator waits after it confirmed the last renewal, in milliseconds.
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

/// A lease as its holder counts it: it may go on until its own clock shows `stamp` and `usable_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    /// The stamp of a keep-alive from before the node asked for the renewal, in milliseconds of the holder's clock.
    pub stamp: u64,
    /// For how long from there the holder may go on, in milliseconds.
    pub usable_ms: u64,
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
}
