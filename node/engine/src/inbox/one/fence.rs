//! The word to go, and what keeps a run of the software that owns its agent no more from getting one.
//!
//! A node that is cut off cannot know whether its agent is another node's by now. The agent's lease can: until it is over, on
//! the clock of the software that holds it, nobody else is attached. So a word to go reaches no further than the lease that
//! was confirmed, and says of which home and attachment it is.

use skep_protocol::journal::JournalPhase;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::offer::{CommandTold, GoToken};
use skep_protocol::time::LogInstant;

use super::{DeliverySeq, Inbox, Out, Taker};

/// A word to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoWord {
    stamp: u64,
    within_ms: u64,
    token: GoToken,
}

impl GoWord {
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

impl Inbox {
    /// The software asks again for what it may have been told to do: its question and the answer may have crossed. It is
    /// told the same while that holds, and anew when it does not; whether it has begun, and whether it is too late, only it
    /// can say from here on. What was called off, or is of a home that is over, is begun by nobody who was not told before.
    pub(super) fn start_again(&mut self, seq: DeliverySeq, stamp: u64, bound: Option<LogInstant>, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq).filter(|live| live.writing == 0) else { return };
        // After a crash of this node nobody remembers the word that was given.
        if live.go.is_none_or(|word| word.is_over(stamp)) {
            let deadline = live.entry.command.deadline;
            let never = live.void.is_some() || (self.open && seq.home != self.head.home);
            let left_ms = if never { Some(0) } else { bound.map(|now| deadline.checked_since_ms(now).unwrap_or(0)) };
            let left_ms = left_ms.filter(|left_ms| self.open || *left_ms == 0);
            let word = left_ms.and_then(|left_ms| GoWord::of(self.taker.as_ref(), seq, stamp, left_ms));
            let Some(word) = word else { return out.told.push((live.command(), CommandTold::Ignored)) };
            live.go = Some(word);
        }
        if let Some(word) = live.go {
            out.told.push((live.command(), word.told()));
        }
    }

    /// Nobody was told to begin it after all: it is received, as it was.
    pub(super) fn withdraw(&mut self, seq: DeliverySeq, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq) else { return };
        if !live.entry.begun_before {
            live.entry.steps.started = None;
        }
        match live.void {
            Some(cause) => self.void_here(seq, cause, out),
            None => self.set_phase(seq, JournalPhase::Received, out),
        }
    }
}
