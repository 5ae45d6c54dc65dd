//! The latest that a shard's clock can be by now.

use skep_protocol::limits;
use skep_protocol::time::LogInstant;

/// By how much the clock of this node may run slower than the leader's, in thousandths.
const DRIFT_PERMILLE: u64 = 1;

/// How old a bound may be for requests to be sent by it, in milliseconds.
const FRESH_MS: u64 = 3 * limits::PULL_WAIT_MS_MAX as u64;

/// An upper bound of a shard's clock: what its leader said, and all the time since this node asked.
///
/// The bound counts from the sending of the question and not from the answer. So no delay of either, and no sleep of
/// this node, makes the clock seem earlier than it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockBound {
    clock: LogInstant,
    asked_ms: u64,
    /// When this node asked the leader last, in milliseconds of its boot clock. Another answer may be the one that
    /// bounds best.
    heard_ms: u64,
}

impl ClockBound {
    /// The leader's clock when it heard a question that this node sent at `asked_ms` of its boot clock.
    pub(crate) fn new(clock: LogInstant, asked_ms: u64) -> Self {
        Self { clock, asked_ms, heard_ms: asked_ms }
    }

    /// The bound at an instant of this node's boot clock.
    pub(crate) fn at(self, now_ms: u64) -> LogInstant {
        let since = now_ms.saturating_sub(self.asked_ms);
        self.clock.plus_ms(since + since.div_ceil(1_000 / DRIFT_PERMILLE))
    }

    /// The bound at an instant of this node's boot clock, if this node asked the leader a moment ago. An older bound
    /// may be of an era that is over, in which the shard takes no request any more.
    pub(crate) fn at_if_fresh(self, now_ms: u64) -> Option<LogInstant> {
        let fresh = now_ms.saturating_sub(self.heard_ms) <= FRESH_MS;
        fresh.then(|| self.at(now_ms))
    }

    /// When the bound reaches an instant, on this node's boot clock, in milliseconds.
    pub(crate) fn reaches_at(self, instant: LogInstant) -> u64 {
        let left = instant.since_ms(self.clock);
        // This is not later than the bound reaches the instant: a caller that looks too early looks again.
        self.asked_ms.saturating_add(left - left / (1_000 / DRIFT_PERMILLE + 1))
    }

    /// The clock has come to this instant: the bound is no earlier.
    pub(crate) fn raise(&mut self, least: LogInstant, now_ms: u64) {
        if self.at(now_ms) < least {
            (self.clock, self.asked_ms) = (least, now_ms);
        }
    }

    /// Keeps the tighter of two bounds.
    pub(crate) fn tighten(&mut self, other: Self, now_ms: u64) {
        // A new era is later than everything before it, and its bound holds whatever that is.
        let newer_era = other.clock.era() > self.clock.era();
        let same_era = other.clock.era() == self.clock.era();
        let heard_ms = if same_era { self.heard_ms.max(other.heard_ms) } else { other.heard_ms };
        if newer_era || (same_era && other.at(now_ms) < self.at(now_ms)) {
            *self = other;
        }
        if newer_era || same_era {
            self.heard_ms = heard_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> LogInstant {
        LogInstant::from_raw(ms)
    }

    #[test]
    fn a_bound_is_fresh_while_the_leader_answers_and_not_by_what_an_era_before_said() {
        let mut bound = ClockBound::new(at(5_000), 100);
        // The later answer was longer under way, and bounds worse.
        bound.tighten(ClockBound::new(at(8_200), 3_100), 3_200);
        assert_eq!(bound.at(100), at(5_000));
        assert_eq!(bound.at_if_fresh(3_100 + FRESH_MS), Some(bound.at(3_100 + FRESH_MS)));
        assert_eq!(bound.at_if_fresh(3_101 + FRESH_MS), None);
        let next = at(5_000).next_era();
        bound.tighten(ClockBound::new(next, 3_150), 3_200);
        bound.tighten(ClockBound::new(at(9_000), 9_000), 9_000);
        assert_eq!(bound.at_if_fresh(9_000), None, "a leader that was deposed answers late");
        assert_eq!(bound.at_if_fresh(3_150), Some(next));
    }

    #[test]
    fn the_bound_counts_from_when_the_leader_was_asked() {
        let bound = ClockBound::new(at(5_000), 100);
        assert_eq!(bound.at(100), at(5_000));
        // The node slept, or the answer was late: the clock is later than the answer says.
        assert_eq!(bound.at(10_100), at(15_010));
        for ms in [5_000, 5_001, 6_000, 15_010, 900_000] {
            assert!(bound.at(bound.reaches_at(at(ms))) >= at(ms), "{ms}");
            assert!(bound.reaches_at(at(ms)) <= 100 + ms - 5_000);
        }
    }

    #[test]
    fn a_bound_is_tightened_by_better_news_and_moved_by_a_new_era() {
        let mut bound = ClockBound::new(at(5_000), 100);
        bound.tighten(ClockBound::new(at(5_000), 50), 200);
        assert_eq!(bound.at(200), at(5_101));
        bound.tighten(ClockBound::new(at(5_099), 200), 200);
        assert_eq!(bound.at(200), at(5_099));
        let era = at(5_000).next_era();
        bound.tighten(ClockBound::new(era, 300), 300);
        assert_eq!(bound.at(300), era);
        bound.raise(era.plus_ms(7), 300);
        bound.raise(at(9), 300);
        assert_eq!((bound.at(300), bound.at_if_fresh(300)), (era.plus_ms(7), Some(era.plus_ms(7))));
    }
}
