//! The log clock as one node knows it.

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::time::LogInstant;

/// The longest round in which a node without a clock learns one, in milliseconds of its boot clock. What takes longer is
/// asked again.
pub const CLOCK_ROUND_MS_MAX: u64 = 1_000;

/// How much faster than the leader's clock this node's may run, as a part of ten: as far as leases bear it.
const SLEW_PARTS: u64 = 10;

/// A node's estimate of a shard's clock: the last value heard and the node's own boot clock since.
///
/// The estimate never falls behind a stamp that was seen. What is heard moves it on; it moves it back by no more than a
/// clock that runs too fast can have gained since it was heard last, so that a fast clock does not run away and a late
/// frame hardly matters. A node that has learned no clock
/// since its own start has no estimate, however many old stamps its log holds: it cannot know how long it was away. Nor
/// does it take the first clock that it hears, for a frame may have waited anywhere, above all where the node itself was
/// suspended: it asks, and takes an answer that comes within [`CLOCK_ROUND_MS_MAX`]. So the estimate lags the leader's
/// clock by no more than that, mostly by the one-way delay of the last frame.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    heard: Option<Heard>,
    /// The latest stamp seen in the log.
    floor: LogInstant,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    clock: LogInstant,
    at_boot_ms: u64,
}

impl Heard {
    fn at(self, boot_ms: u64) -> LogInstant {
        self.clock.plus_ms(boot_ms.saturating_sub(self.at_boot_ms))
    }
}

impl LogClock {
    /// The leader's clock arrived in a frame, and an estimate that is behind goes on from there. `boot_ms` is this node's
    /// boot clock. False if there is no estimate: the leader is to be asked.
    pub fn hear(&mut self, clock: LogInstant, boot_ms: u64) -> bool {
        let Some(now) = self.now(boot_ms) else {
            if is_on(Mutant::ClockFromAnyFrame) {
                self.begin(clock, boot_ms);
            }
            return false;
        };
        let since = self.heard.map_or(0, |heard| boot_ms.saturating_sub(heard.at_boot_ms));
        let gained = since.div_ceil(SLEW_PARTS);
        let least = LogInstant::from_raw(now.raw().saturating_sub(gained));
        // What it may have gained, it gained in this era.
        let least = if least.era() == now.era() { least } else { now };
        self.begin(clock.max(least), boot_ms);
        true
    }

    /// The leader was asked for its clock at `asked_boot_ms` and answered. Ignored if the round took too long.
    pub fn learn(&mut self, clock: LogInstant, asked_boot_ms: u64, boot_ms: u64) {
        if boot_ms.saturating_sub(asked_boot_ms) <= CLOCK_ROUND_MS_MAX {
            let clock = self.now(boot_ms).map_or(clock, |now| now.max(clock));
            self.begin(clock, boot_ms);
        }
    }

    /// The clock is this from now on: for a leader that gave the shard a new one.
    pub fn begin(&mut self, clock: LogInstant, boot_ms: u64) {
        self.heard = Some(Heard { clock, at_boot_ms: boot_ms });
    }

    /// An entry with this stamp was seen. An estimate that is behind it goes on from there.
    pub fn observe_stamp(&mut self, stamp: LogInstant, boot_ms: u64) {
        self.floor = self.floor.max(stamp);
        if self.heard.is_some_and(|heard| heard.at(boot_ms) < stamp) {
            self.heard = Some(Heard { clock: stamp, at_boot_ms: boot_ms });
        }
    }

    /// The estimate; none if no clock was learned since the node's start.
    pub fn now(&self, boot_ms: u64) -> Option<LogInstant> {
        if is_on(Mutant::ClockFromLastEntry) && self.heard.is_none() {
            return Some(self.floor);
        }
        let heard = self.heard?;
        Some(heard.at(boot_ms).max(self.floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> LogInstant {
        LogInstant::from_raw(ms)
    }

    #[test]
    fn a_node_that_heard_no_clock_has_no_estimate_whatever_its_log_holds() {
        let mut clock = LogClock::default();
        clock.observe_stamp(at(500), 900);
        assert_eq!(clock.now(1_000), None);
        clock.begin(at(400), 1_000);
        assert_eq!(clock.now(1_000), Some(at(500)));
    }

    #[test]
    fn a_first_clock_is_learned_in_one_short_round() {
        let mut clock = LogClock::default();
        // It may have been on its way for as long as this node was suspended.
        assert!(!clock.hear(at(5_000), 20_000));
        assert_eq!(clock.now(20_000), None);
        clock.learn(at(5_000), 20_000, 20_001 + CLOCK_ROUND_MS_MAX);
        assert_eq!(clock.now(22_000), None);
        clock.learn(at(16_000), 22_000, 22_000 + CLOCK_ROUND_MS_MAX);
        assert_eq!(clock.now(22_000 + CLOCK_ROUND_MS_MAX), Some(at(16_000)));
    }

    #[test]
    fn an_answer_that_comes_late_turns_no_clock_back() {
        let mut clock = LogClock::default();
        clock.begin(at(9_000), 100);
        clock.learn(at(8_000), 100, 150);
        assert_eq!(clock.now(150), Some(at(9_050)));
    }

    #[test]
    fn the_estimate_goes_on_between_frames() {
        let mut clock = LogClock::default();
        clock.begin(at(1_000), 50);
        assert_eq!(clock.now(80), Some(at(1_030)));
        assert!(clock.hear(at(900), 100));
        assert_eq!(clock.now(100), Some(at(1_045)), "a late frame hardly matters");
        assert_eq!(clock.now(40), Some(at(1_045)), "a boot clock that seems to run back stands still");
        assert!(clock.hear(at(1_070), 100));
        assert_eq!(clock.now(110), Some(at(1_080)));
    }

    #[test]
    fn a_clock_that_runs_too_fast_does_not_run_away() {
        let mut clock = LogClock::default();
        clock.begin(at(10_000), 0);
        // A twentieth too fast, for a minute.
        for n in 1..=1_200_u64 {
            clock.hear(at(10_000 + 50 * n), n * 50 + n * 50 / 20);
        }
        assert_eq!(clock.now(63_000), Some(at(70_000)));
    }

    #[test]
    fn a_new_era_is_followed_and_goes_on() {
        let mut clock = LogClock::default();
        clock.begin(at(1_000), 0);
        clock.observe_stamp(at(1_000).next_era(), 10);
        assert_eq!(clock.now(10), Some(at(1_000).next_era()));
        assert_eq!(clock.now(35), Some(at(1_000).next_era().plus_ms(25)));
    }
}
