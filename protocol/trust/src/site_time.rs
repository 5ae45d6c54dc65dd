//! The time of a site, by which certificates are valid.
//!
//! The site's directory counts the milliseconds in which it had a leader. Site time never falls, it errs late, and a
//! lost log clock does not move it. A robot without a clock of its own hears it from a member, or knows only what it
//! wrote down before.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An instant of site time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteTime(pub u64);

impl SiteTime {
    /// This instant and `ms` more.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for SiteTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000, self.0 % 1_000)
    }
}

/// What a node knows of site time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteClock {
    /// The directory told it within the last minute.
    Known(SiteTime),
    /// Site time is not earlier than this, which the node wrote down.
    AtLeast(SiteTime),
}

/// How sure a node is that a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The certificate holds.
    Fresh,
    /// The node does not know whether it is over. Its member catches up, finishes and stops; it begins nothing and
    /// casts no vote.
    Stale,
}

/// The times at which a certificate holds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The first instant at which it holds.
    pub from: SiteTime,
    /// The last instant at which it holds.
    pub until: SiteTime,
}

/// How a certificate that holds at some times does not hold at this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfTime {
    Early,
    Late,
}

/// How far the directory's clock may be ahead of the time that a verifier heard, in milliseconds.
const LEAD_MS_MAX: u64 = skep_protocol::limits::CLOCK_LEAD_MS_MAX;

impl Validity {
    /// The life of the certificate, in milliseconds.
    pub const fn life_ms(&self) -> u64 {
        self.until.0.saturating_sub(self.from.0)
    }

    /// The times at which both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    pub(crate) fn at(&self, clock: SiteClock) -> Result<Standing, OutOfTime> {
        match clock {
            SiteClock::Known(now) | SiteClock::AtLeast(now) if now > self.until => Err(OutOfTime::Late),
            SiteClock::Known(now) if now.plus_ms(LEAD_MS_MAX) < self.from => Err(OutOfTime::Early),
            SiteClock::Known(_) => Ok(Standing::Fresh),
            SiteClock::AtLeast(_) => Ok(Standing::Stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_over_for_who_knows_that_and_in_doubt_for_who_does_not() {
        let validity = Validity { from: SiteTime(100_000), until: SiteTime(200_000) };
        let known = |ms| validity.at(SiteClock::Known(SiteTime(ms)));
        assert_eq!(known(39_999), Err(OutOfTime::Early));
        assert_eq!(known(40_000), Ok(Standing::Fresh), "the issuer's word of the time may be a minute ahead");
        assert_eq!(known(200_000), Ok(Standing::Fresh));
        assert_eq!(known(200_001), Err(OutOfTime::Late));
        let at_least = |ms| validity.at(SiteClock::AtLeast(SiteTime(ms)));
        assert_eq!(at_least(0), Ok(Standing::Stale), "who was away for long knows nothing of the future");
        assert_eq!(at_least(200_001), Err(OutOfTime::Late));
        assert_eq!(validity.and(Validity { from: SiteTime(0), until: SiteTime(150_000) }).life_ms(), 50_000);
    }
}
