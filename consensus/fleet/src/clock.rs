//! The log clock as one node knows it.

use skep_protocol::limits::{CLOCK_LEAD_MS_MAX, ERAS_AHEAD_MAX};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::time::LogInstant;

/// The longest round in which a node without a clock learns one, in milliseconds of its boot clock. If a round takes
/// longer, the node asks again. A slow link's round fits in. A new leader that goes on from an answer is ahead of the
/// clock by no more than this.
pub const CLOCK_ROUND_MS_MAX: u64 = 5_000;

/// How much faster than the leader's clock this node's may run, as one part in this many: as far as leases bear it.
const SLEW_PARTS: u64 = 10;

/// How far apart this node's clock and the leader's may have come since the node heard it last, in per cent: more than
/// any clock runs wrong by.
const DRIFT_PERCENT: u64 = 1;

/// A node's estimate of a shard's clock: the last value that it heard and its own boot clock since.
///
/// The estimate never falls behind a stamp that the node saw. A clock that the node hears moves it on; it moves the
/// estimate back by no more than a clock that runs too fast can have gained since the last one, so that a fast clock
/// does not run away and a late frame hardly matters. A node that has learned no clock since its own start has no
/// estimate, however many old stamps its log holds: it cannot know how long it was away, unless the process before it
/// left what it knew ([`resume`](Self::resume)). A node also loses its estimate when it sees that the shard began a new
/// era: it does not know when that era began, and asks. It does not take the first clock that it hears, for a frame may
/// have waited anywhere, above all where the node itself was suspended: it asks, and takes an answer that comes within
/// [`CLOCK_ROUND_MS_MAX`].
///
/// The estimate lags the leader's clock: by no more than that round at first, and by the one-way delay of the last
/// frame when the node has heard some. So a deadline that is made of it is early. A leader's clock that lags makes
/// deadlines late: a node that begins to [`lead`](Self::lead) goes on from the latest that the clock can have been when
/// it learned it.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    heard: Option<Heard>,
    /// The latest stamp that the node saw in the log.
    floor: LogInstant,
}

/// What a node knows of a shard's clock at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEstimate {
    /// The estimate.
    pub clock: LogInstant,
    /// How far the clock may be ahead of the estimate for the way on which the node learned it, in milliseconds.
    pub lag_ms: u64,
}

impl ClockEstimate {
    /// The latest that the clock can be.
    pub fn latest(self) -> LogInstant {
        self.clock.plus_ms(self.lag_ms)
    }
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    clock: LogInstant,
    at_boot_ms: u64,
    lag_ms: u64,
}

impl Heard {
    fn at(self, boot_ms: u64) -> LogInstant {
        self.clock.plus_ms(boot_ms.saturating_sub(self.at_boot_ms))
    }
}

impl LogClock {
    /// Takes the leader's clock from a frame: an estimate that is behind goes on from there. `boot_ms` is this node's
    /// boot clock. Returns false if there is no estimate, or only one of an era that is over: then the node is to ask
    /// the leader.
    pub fn hear(&mut self, clock: LogInstant, boot_ms: u64) -> bool {
        let Some(now) = self.now(boot_ms).filter(|now| clock.era() <= now.era()) else {
            self.heard = None;
            if is_on(Mutant::ClockFromAnyFrame) {
                self.begin(clock, boot_ms);
            }
            return false;
        };
        let (since, lag_ms) =
            self.heard.map_or((0, 0), |heard| (boot_ms.saturating_sub(heard.at_boot_ms), heard.lag_ms));
        let gained = since.div_ceil(SLEW_PARTS);
        let least = LogInstant::from_raw(now.raw().saturating_sub(gained));
        // What it may have gained, it gained in this era.
        let least = if least.era() == now.era() { least } else { now };
        let clock = clock.max(least);
        // What moves the clock on is what the estimate lagged. Where frames go on, the lag becomes that of a frame.
        // What moves it back need not be what it gained: the frame may have waited as long as this node was suspended.
        let lag_ms = lag_ms.saturating_sub(clock.since_ms(now) + gained) + now.since_ms(clock);
        self.heard = Some(Heard { clock, at_boot_ms: boot_ms, lag_ms });
        true
    }

    /// Takes an answer to a question for the clock that this node asked at `asked_boot_ms`: of the leader, or of a
    /// voter that has an estimate. Ignores it if the round took too long, if the log knows of a later era, or if there
    /// is an estimate by then. Returns whether the estimate is the new one.
    pub fn learn(&mut self, clock: LogInstant, asked_boot_ms: u64, boot_ms: u64) -> bool {
        let lag_ms = boot_ms.saturating_sub(asked_boot_ms);
        let is_usable = lag_ms <= CLOCK_ROUND_MS_MAX && clock.era() >= self.floor.era();
        if is_usable && self.heard.is_none() && self.is_possible(clock, boot_ms) {
            self.heard = Some(Heard { clock, at_boot_ms: boot_ms, lag_ms });
        }
        self.heard.is_some()
    }

    /// Goes on from the estimate that an earlier process of this node had at `at_boot_ms`, counted on the same boot
    /// clock as `boot_ms` now. Returns whether it could.
    ///
    /// That is as good as if the process had gone on without hearing anything: it left an estimate that a leader had
    /// told or that it had given as the leader, and the machine counted the boot clock meanwhile, suspended or not. A
    /// process that is cut off has no more than that, and may be elected with it, since the entries that it lacks show
    /// themselves in the log that it must have for that: their stamps move the estimate on, and those of a later era
    /// end it. The caller makes sure that it was the same boot and the same directory.
    pub fn resume(&mut self, kept: ClockEstimate, at_boot_ms: u64, boot_ms: u64) -> bool {
        let ClockEstimate { clock, lag_ms } = kept;
        let is_usable = self.heard.is_none() && at_boot_ms <= boot_ms && clock.era() >= self.floor.era();
        if is_usable {
            self.heard = Some(Heard { clock, at_boot_ms, lag_ms });
        }
        is_usable
    }

    /// This node leads from now on: the clock goes on from the latest that it can be. None if there is no estimate.
    pub fn lead(&mut self, boot_ms: u64) -> Option<LogInstant> {
        let latest = self.estimate(boot_ms)?.latest();
        self.begin(latest, boot_ms);
        Some(latest)
    }

    /// Sets the clock, for a leader that gave the shard a new one.
    pub fn begin(&mut self, clock: LogInstant, boot_ms: u64) {
        self.heard = Some(Heard { clock, at_boot_ms: boot_ms, lag_ms: 0 });
    }

    /// Takes the stamp of an entry. An estimate that is behind it goes on from there; one of an era before it is over.
    pub fn observe_stamp(&mut self, stamp: LogInstant, boot_ms: u64) {
        self.floor = self.floor.max(stamp);
        let Some(heard) = self.heard else { return };
        if heard.clock.era() < stamp.era() {
            self.heard = None;
        } else if heard.at(boot_ms) < stamp {
            let lag_ms = heard.lag_ms.saturating_sub(stamp.since_ms(heard.at(boot_ms)));
            self.heard = Some(Heard { clock: stamp, at_boot_ms: boot_ms, lag_ms });
        }
    }

    /// Whether the clock can show this by now: no more than a minute ahead of the latest that this node can explain, or
    /// a limited number of eras ahead. A node that knows nothing of the clock knows nothing against it.
    ///
    /// A machine that stood still, without its boot clock, explains less than it should: another voter confirms a
    /// leader that this node refuses for that long, and then the caller gives the estimate up
    /// ([`forget`](Self::forget)).
    pub fn is_possible(&self, clock: LogInstant, boot_ms: u64) -> bool {
        let latest = self.estimate(boot_ms).map(ClockEstimate::latest);
        let known = latest.unwrap_or(self.floor);
        if latest.is_some() && clock.era() == known.era() {
            let since = self.heard.map_or(0, |heard| boot_ms.saturating_sub(heard.at_boot_ms));
            return clock.since_ms(known) <= CLOCK_LEAD_MS_MAX + since.saturating_mul(DRIFT_PERCENT) / 100;
        }
        known == LogInstant::ZERO || clock.era() <= known.era().saturating_add(ERAS_AHEAD_MAX)
    }

    /// Gives the estimate up until the node learns another one.
    pub fn forget(&mut self) {
        self.heard = None;
    }

    /// The estimate; none if no clock was learned since the node's start, or since the era began.
    pub fn now(&self, boot_ms: u64) -> Option<LogInstant> {
        self.estimate(boot_ms).map(|estimate| estimate.clock)
    }

    /// The estimate, and how far it may lag.
    pub fn estimate(&self, boot_ms: u64) -> Option<ClockEstimate> {
        if is_on(Mutant::ClockFromLastEntry) && self.heard.is_none() {
            return Some(ClockEstimate { clock: self.floor, lag_ms: 0 });
        }
        let heard = self.heard?;
        Some(ClockEstimate { clock: heard.at(boot_ms).max(self.floor), lag_ms: heard.lag_ms })
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
    fn a_clock_that_cannot_show_so_much_yet_is_known_by_whoever_has_an_estimate() {
        let mut clock = LogClock::default();
        assert!(clock.is_possible(at(u64::MAX), 0), "a node that knows nothing");
        clock.begin(at(10_000), 0);
        assert!(clock.is_possible(at(70_000), 0) && !clock.is_possible(at(70_001), 0));
        assert!(clock.is_possible(at(75_000), 5_000), "its own time counts");
        assert!(clock.is_possible(at(5), 5_000), "what is late is not ahead");
        // Cut off for a month, with a clock that ran slow by a twentieth of a percent.
        let month = 30 * 24 * 3_600_000;
        assert!(clock.is_possible(at(10_000 + month + month / 2_000), month));
        assert!(!clock.is_possible(at(10_000 + 2 * month), month));
    }

    #[test]
    fn an_era_that_is_far_ahead_of_every_other_is_not_possible_and_one_of_a_quorum_that_is_booted_each_day_is() {
        let era = |n: u64| (0..n).fold(at(0), |era, _| era.next_era());
        let mut clock = LogClock::default();
        assert!(clock.is_possible(era(5_000), 0), "a node that comes to an old shard");
        clock.observe_stamp(at(500), 0);
        assert!(clock.is_possible(era(366), 0) && !clock.is_possible(era(65_535), 0));
        assert!(!clock.learn(era(65_535), 0, 5), "nor is it learned from an answer");
        clock.begin(era(1), 0);
        assert!(clock.is_possible(era(2).plus_ms(9_000_000), 0) && !clock.is_possible(era(65_535), 0));
        clock.forget();
        assert_eq!(clock.now(10), None);
    }

    #[test]
    fn a_first_clock_is_learned_in_one_short_round() {
        let mut clock = LogClock::default();
        // It may have been on its way for as long as this node was suspended.
        assert!(!clock.hear(at(5_000), 20_000));
        assert_eq!(clock.now(20_000), None);
        assert!(!clock.learn(at(5_000), 20_000, 20_001 + CLOCK_ROUND_MS_MAX));
        assert_eq!(clock.now(30_000), None);
        assert!(clock.learn(at(16_000), 30_000, 30_000 + CLOCK_ROUND_MS_MAX));
        assert_eq!(clock.now(30_000 + CLOCK_ROUND_MS_MAX), Some(at(16_000)));
    }

    #[test]
    fn a_clock_that_was_learned_over_a_slow_link_makes_no_deadline_late_whoever_leads() {
        let leader = |boot_ms: u64| at(10_000 + boot_ms);
        for (there, back) in [(600, 600), (0, 1_200), (1_200, 0)] {
            let (mut clock, mut now) = (LogClock::default(), there + back);
            assert!(clock.learn(leader(there), 0, now));
            // A deadline by this clock is early for the leader.
            assert!(clock.now(now) <= Some(leader(now)), "{there} {back}");
            // If the node had to lead by it, it would not be behind, and ahead by the round at most.
            let lead = clock.clone().lead(now).unwrap();
            assert!(lead >= leader(now) && lead.since_ms(leader(now)) <= 1_200, "{there} {back}");
            // The node hears frames that take as long, and is behind by as much as they take.
            while now < 20_000 {
                now += 100;
                assert!(clock.hear(leader(now - back), now));
                assert!(clock.now(now) <= Some(leader(now)), "{there} {back}");
            }
            assert_eq!(clock.lead(now), Some(leader(now - back)), "{there} {back}");
        }
    }

    #[test]
    fn a_process_goes_on_from_the_clock_of_the_one_before_it_in_the_same_boot() {
        let mut before = LogClock::default();
        before.begin(at(7_000), 100);
        let (kept, kept_at) = (before.estimate(1_100).unwrap(), 1_100);
        let mut after = LogClock::default();
        // The node reads its log first, which holds the stamps since.
        after.observe_stamp(at(8_300), 5_000);
        assert!(after.resume(kept, kept_at, 5_000));
        assert_eq!(after.now(5_000), before.now(5_000));
        after.observe_stamp(at(20_000), 5_000);
        assert_eq!(after.now(5_010), Some(at(20_010)));
    }

    #[test]
    fn a_clock_that_was_left_is_not_taken_if_it_cannot_be_the_shards() {
        let kept = |clock| ClockEstimate { clock, lag_ms: 0 };
        let mut clock = LogClock::default();
        assert!(!clock.resume(kept(at(9_000)), 2_000, 1_999), "a boot clock that runs back is another one");
        clock.observe_stamp(at(0).next_era(), 10);
        assert!(!clock.resume(kept(at(9_000)), 5, 20), "the log knows of a later era");
        assert_eq!(clock.now(20), None);
        clock.begin(at(0).next_era(), 20);
        assert!(!clock.resume(kept(at(0).next_era()), 5, 30), "what it learned itself is newer");
        assert_eq!(clock.now(30), Some(at(0).next_era().plus_ms(10)));
    }

    #[test]
    fn an_answer_that_comes_late_turns_no_clock_back() {
        let mut clock = LogClock::default();
        clock.begin(at(9_000), 100);
        assert!(clock.learn(at(8_000), 100, 150));
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
    fn frames_that_waited_while_a_voter_was_suspended_make_no_deadline_late_if_it_leads() {
        let mut clock = LogClock::default();
        clock.begin(at(10_000), 0);
        // The leader sent them in the first moments of the node's sleep of seven seconds.
        for n in 0..10 {
            assert!(clock.hear(at(10_000 + 50 * n), 7_000));
        }
        assert!(clock.now(7_010) < Some(at(17_010)));
        assert_eq!(clock.clone().lead(7_010), Some(at(17_010)));
        // Those that come in time say what the clock is.
        assert!(clock.hear(at(17_050), 7_050));
        assert_eq!(clock.lead(7_050), Some(at(17_050)));
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
    fn a_new_era_is_asked_for_since_nobody_else_knows_how_long_ago_it_began() {
        let next = at(1_000).next_era();
        type See = fn(&mut LogClock, LogInstant);
        let seen: [See; 2] =
            [|clock, stamp| clock.observe_stamp(stamp, 10), |clock, heard| assert!(!clock.hear(heard, 10))];
        for see in seen {
            let mut clock = LogClock::default();
            clock.begin(at(1_000), 0);
            see(&mut clock, next);
            assert_eq!(clock.now(10), None);
            assert!(clock.learn(next.plus_ms(60_000), 10, 10));
            assert_eq!(clock.now(35), Some(next.plus_ms(60_025)));
        }
    }

    #[test]
    fn an_answer_of_an_era_that_is_over_is_none() {
        let mut clock = LogClock::default();
        clock.observe_stamp(at(0).next_era(), 0);
        assert!(!clock.learn(at(70_000), 0, 5));
        assert_eq!(clock.now(5), None);
    }
}
