//! The word to go, and what keeps a run of the software that owns its agent no more from getting one.
//!
//! A node that is cut off cannot know whether its agent is another node's by now. The agent's lease can: until it is over, on
//! the clock of the software that holds it, nobody else is attached. So a word to go reaches no further than the lease that
//! was confirmed, and says of which home and attachment it is.

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::offer::{CommandTold, GoToken};

use super::{DeliverySeq, Taker};

/// A word to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    stamp: u64,
    within_ms: u64,
    token: GoToken,
}

impl Word {
    /// The word for software that asked at `stamp` of its own clock, with so long to the deadline. None while its lease does
    /// not run: it is to ask again. That it is too late it is told in any case.
    pub(super) fn of(taker: Option<&Taker>, seq: DeliverySeq, stamp: u64, left_ms: u64) -> Option<Self> {
        let taker = taker?;
        let within_ms = if left_ms == 0 { 0 } else { left_ms.min(lease_left_ms(taker, stamp)?) };
        Some(Self { stamp, within_ms, token: GoToken { home: seq.home, attachment: taker.attachment } })
    }

    pub(super) fn told(self) -> CommandTold {
        let Self { stamp, within_ms, token } = self;
        CommandTold::Go { stamp, within_ms, token }
    }

    /// Whether nothing may be begun by it any more when the software's own clock shows this.
    pub(super) fn is_over(self, stamp: u64) -> bool {
        stamp >= self.stamp.saturating_add(self.within_ms)
    }
}

/// How much of the lease is left when the software's own clock shows this; none if it is over.
fn lease_left_ms(taker: &Taker, stamp: u64) -> Option<u64> {
    if is_on(Mutant::StartWithoutLease) {
        return Some(u64::MAX);
    }
    let lease = taker.lease?;
    let left_ms = lease.stamp.saturating_add(lease.usable_ms).saturating_sub(stamp);
    (left_ms > 0).then_some(left_ms)
}
