//! The log clock's instants and the durations measured on it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds within one era of the log clock: 2^40 ms are 34 years, for which no quorum runs without a pause.
const ERA_MS: u64 = 1 << 40;

/// An instant of a shard's log clock.
///
/// The clock counts milliseconds that only grow; the leader stamps them into every entry. The upper 24 bits are the
/// _era_: when the machines of a whole quorum were booted, no node knows how long the quorum was away, and the new
/// leader moves the clock to the next era. Every deadline ever given lies within the era that gave it, so all of them
/// have passed then: early, never late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogInstant(u64);

impl LogInstant {
    /// The clock of a shard in which no entry was stamped yet.
    pub const ZERO: Self = Self(0);

    /// The instant with this wire form.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The wire form of the instant.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// How often the shard's clock lost its continuity before this instant.
    pub const fn era(self) -> u64 {
        self.0 / ERA_MS
    }

    /// Milliseconds since the start of the era.
    pub const fn ms_in_era(self) -> u64 {
        self.0 % ERA_MS
    }

    /// The first instant of the era after this one. Saturates after 16,777,215 losses: a machine that is booted every
    /// ten seconds, and is the only voter, comes so far in five years.
    pub const fn next_era(self) -> Self {
        Self((self.era().saturating_add(1)).saturating_mul(ERA_MS))
    }

    /// This instant and `ms` more, held within the era so that no deadline survives a lost clock.
    pub const fn plus_ms(self, ms: u64) -> Self {
        let room = ERA_MS - 1 - self.ms_in_era();
        let step = if ms < room { ms } else { room };
        Self(self.0 + step)
    }

    /// Milliseconds from `earlier` to this instant; zero if `earlier` is later.
    ///
    /// Longer than anything that a node waits for if `earlier` is of an era that is over. How long that was is not
    /// known: code that shows it, or tells how much time is left, takes [`checked_since_ms`](Self::checked_since_ms).
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds from `earlier` to this instant, zero if `earlier` is later; none if they are of different eras: how
    /// long it was between two eras is not known.
    pub const fn checked_since_ms(self, earlier: Self) -> Option<u64> {
        if self.era() == earlier.era() { Some(self.since_ms(earlier)) } else { None }
    }
}

impl fmt::Display for LogInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (era, ms) = (self.era(), self.ms_in_era());
        if era > 0 {
            write!(f, "era {era} ")?;
        }
        write!(f, "{}.{:03} s", ms / 1_000, ms % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_era_lies_beyond_every_deadline_of_the_old_one() {
        let now = LogInstant::from_raw(5_000);
        let deadline = now.plus_ms(u64::MAX);
        assert!(deadline < now.next_era());
        assert_eq!(now.next_era().era(), 1);
        assert_eq!(now.next_era().ms_in_era(), 0);
    }

    #[test]
    fn a_voter_that_is_booted_again_and_again_for_years_goes_on_having_deadlines() {
        let mut now = LogInstant::from_raw(5_000);
        for lost in 1..1 << 24 {
            let before = now.plus_ms(u64::MAX);
            now = now.next_era();
            assert!(now > before && now.era() == lost, "{lost}");
        }
        assert_eq!(now.plus_ms(60_000).since_ms(now), 60_000);
        assert_eq!(now.next_era().plus_ms(1), now.next_era(), "there is none after the last");
    }

    #[test]
    fn adding_and_subtracting_agree() {
        let now = LogInstant::from_raw(7).next_era().plus_ms(250);
        assert_eq!(now.plus_ms(1_500).since_ms(now), 1_500);
        assert_eq!(now.since_ms(now.plus_ms(1)), 0);
        assert_eq!(now.to_string(), "era 1 0.250 s");
    }

    #[test]
    fn nobody_knows_how_long_it_was_between_two_eras() {
        let before = LogInstant::from_raw(5_000);
        let after = before.next_era().plus_ms(20);
        assert_eq!(before.plus_ms(30).checked_since_ms(before), Some(30));
        assert_eq!(before.checked_since_ms(before.plus_ms(30)), Some(0));
        assert_eq!((after.checked_since_ms(before), before.checked_since_ms(after)), (None, None));
        assert!(after.since_ms(before) > crate::limits::REQUEST_DEADLINE_MS_MAX, "whatever waited for it has passed");
    }
}
