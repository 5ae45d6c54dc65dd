//! The log clock as one node knows it.

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::time::LogInstant;

/// A node's estimate of a shard's clock: the last value heard and the node's own boot clock since.
///
/// The estimate never runs backwards and never falls behind a stamp that was seen. It lags the leader's clock by the
/// one-way delay of the last frame. A node that has heard no clock since its own start has no estimate, however many
/// old stamps its log holds: it cannot know how long it was away.
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
    /// The leader's clock arrived in a frame. `boot_ms` is this node's boot clock.
    pub fn hear(&mut self, clock: LogInstant, boot_ms: u64) {
        let clock = self.now(boot_ms).map_or(clock, |now| now.max(clock));
        self.heard = Some(Heard { clock, at_boot_ms: boot_ms });
    }

    /// An entry with this stamp was seen. An estimate that is behind it goes on from there.
    pub fn observe_stamp(&mut self, stamp: LogInstant, boot_ms: u64) {
        self.floor = self.floor.max(stamp);
        if self.heard.is_some_and(|heard| heard.at(boot_ms) < stamp) {
            self.heard = Some(Heard { clock: stamp, at_boot_ms: boot_ms });
        }
    }

    /// The estimate; none if no clock was heard since the node's start.
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
        clock.hear(at(400), 1_000);
        assert_eq!(clock.now(1_000), Some(at(500)));
    }

    #[test]
    fn the_estimate_goes_on_between_frames_and_never_back() {
        let mut clock = LogClock::default();
        clock.hear(at(1_000), 50);
        assert_eq!(clock.now(80), Some(at(1_030)));
        clock.hear(at(900), 100);
        assert_eq!(clock.now(100), Some(at(1_050)));
        assert_eq!(clock.now(40), Some(at(1_050)), "a boot clock that seems to run back stands still");
    }

    #[test]
    fn a_new_era_is_followed_and_goes_on() {
        let mut clock = LogClock::default();
        clock.hear(at(1_000), 0);
        clock.observe_stamp(at(1_000).next_era(), 10);
        assert_eq!(clock.now(10), Some(at(1_000).next_era()));
        assert_eq!(clock.now(35), Some(at(1_000).next_era().plus_ms(25)));
    }
}
