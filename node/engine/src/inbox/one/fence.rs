//! The word to go, and what keeps it from software that does not own its agent any more.
//!
//! A node that is cut off cannot know whether another node serves its agent by now. The agent's lease tells: until it
//! is over, on the clock of the software that holds it, no other node attaches the agent. So a word to go reaches no
//! further than the confirmed lease, and names the home epoch and the attachment.

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
    /// The word for software that asked at `stamp` of its own clock, with `left_ms` to the deadline. None while the
    /// software's lease does not run: the software asks again. The node tells software in any case that it is too late.
    pub(super) fn of(taker: Option<&Taker>, seq: DeliverySeq, stamp: u64, left_ms: u64) -> Option<Self> {
        let taker = taker?;
        let within_ms = if left_ms == 0 { 0 } else { left_ms.min(lease_left_ms(taker, stamp)?) };
        Some(Self { stamp, within_ms, token: GoToken { home: seq.home, attachment: taker.attachment } })
    }

    pub(super) fn told(self) -> CommandTold {
        let Self { stamp, within_ms, token } = self;
        CommandTold::Go { stamp, within_ms, token }
    }

    /// Whether this word allows nothing any more when the software's own clock shows `stamp`.
    pub(super) fn is_over(self, stamp: u64) -> bool {
        stamp >= self.stamp.saturating_add(self.within_ms)
    }
}

/// How much of the lease is left when the software's own clock shows `stamp`, in milliseconds; none if the lease is
/// over.
fn lease_left_ms(taker: &Taker, stamp: u64) -> Option<u64> {
    if is_on(Mutant::StartWithoutLease) {
        return Some(u64::MAX);
    }
    let lease = taker.lease?;
    let left_ms = lease.stamp.saturating_add(lease.usable_ms).saturating_sub(stamp);
    (left_ms > 0).then_some(left_ms)
}

impl Inbox {
    /// The software asks again for a word that the node may have given: its question and the answer may have crossed.
    /// The node repeats the word while it holds, and gives a new one after that. Only the software can say from here on
    /// whether it has begun, and whether it is too late. A command that was called off, or that is of a home epoch that
    /// is over, gets no new word.
    pub(super) fn start_again(&mut self, seq: DeliverySeq, stamp: u64, bound: Option<LogInstant>, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq).filter(|live| live.writing == 0) else { return };
        // After a crash this node does not remember the word that it gave.
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

    /// The software got no word to begin the command after all: the command is received, as it was.
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
