//! The least that a shard's clock has surely come to.
//!
//! [`ClockBound`](super::bound::ClockBound) is the latest that the clock can be, and what leaders say tightens it. A
//! leader that lies could turn it back, so that the node begins commands that are long over. So the node keeps each
//! clock that a leader told, with the time that has passed since: no bound is below that. The node writes the sure part
//! into the journals, where it is after a restart.
//!
//! Sure is what follows from what was sure before and from this node's own clock. Other words of a leader, such as how
//! long the node was away, or that an era began, become sure once no leader has said less for a while
//! ([`limits::FLOOR_SETTLES_MS`]), and eras become sure one at a time. So one answer of a liar does not expire for good
//! what honest leaders ask for; until the process ends it does.
//!
//! What leaders told is not held to what follows, as the sure part is. The word of an honest leader has to count at
//! once: a new leader goes on from the latest that the clock can be, up to a minute ahead, and an era begins at a word.
//! If the node left such a step out, or put it off, the next leader could turn the clock back behind the step, and the
//! node would begin what is over. So a liar can creep ahead by many answers, or by one that names an era: commands end
//! early then, and the node begins none late. A rule against the one way is of no use while the other is open, and
//! nothing that a node knows tells an era that a liar made up from an era that began.

use skep_protocol::limits;
use skep_protocol::time::LogInstant;

/// By how much the leader's clock may run slower than this node's, in thousandths.
const DRIFT_PERMILLE: u64 = 1;

/// What the clock had come to at least, at an instant of this node's boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Least {
    clock: LogInstant,
    at_ms: u64,
}

impl Least {
    fn at(self, now_ms: u64) -> LogInstant {
        let since = now_ms.saturating_sub(self.at_ms);
        self.clock.plus_ms(since - since.div_ceil(1_000 / DRIFT_PERMILLE))
    }

    /// How far the clock may be ahead of what follows from this, in milliseconds: a frame's delay, and the error of
    /// clocks.
    fn slack_ms(self, now_ms: u64) -> u64 {
        limits::CLOCK_LEAD_MS_MAX + now_ms.saturating_sub(self.at_ms) / 100
    }

    /// Whether the clock can have come to `told` by now.
    fn explains(self, told: LogInstant, now_ms: u64) -> bool {
        let known = self.at(now_ms);
        told.era() == known.era() && told.since_ms(known) <= self.slack_ms(now_ms)
    }

    /// Whether it follows from this, within the error of clocks, that the clock has come to `told` by now. Many answers
    /// gain no more by that error than one.
    fn implies(self, told: LogInstant, now_ms: u64) -> bool {
        let known = self.at(now_ms);
        told.era() == known.era() && told.since_ms(known) <= now_ms.saturating_sub(self.at_ms) / 100
    }

    /// What the node knows once it was told `told` too: no less than before. An era that is new to the node began since
    /// then: if a leader says that it has lasted longer, only its beginning counts.
    fn after(self, told: Self) -> Self {
        let (now_ms, known) = (told.at_ms, self.at(told.at_ms));
        if told.clock > known && self.explains(told.clock, now_ms) {
            return told;
        }
        if told.clock.era() <= known.era() {
            return self;
        }
        let (lasted, since) = (told.clock.ms_in_era(), now_ms.saturating_sub(self.at_ms));
        let is_possible = lasted <= since.saturating_add(self.slack_ms(now_ms));
        let begun = LogInstant::from_raw(told.clock.raw().saturating_sub(lasted));
        Self { clock: if is_possible { told.clock } else { begun }, at_ms: now_ms }
    }
}

/// A clock that a leader told and that does not follow from what is sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    since_ms: u64,
    /// The least clock that a leader told since.
    least: Least,
}

/// What a shard's clock has come to. It never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClockFloor {
    /// What leaders told in this process.
    told: Option<Least>,
    sure: Option<Least>,
    doubt: Option<Doubt>,
}

impl ClockFloor {
    /// A voter that leads says that the clock shows this.
    pub(crate) fn hear(&mut self, clock: LogInstant, now_ms: u64) {
        let heard = Least { clock, at_ms: now_ms };
        self.told = Some(self.told.map_or(heard, |known| known.after(heard)));
        match self.sure {
            Some(sure) if clock <= sure.at(now_ms) => self.doubt = None,
            Some(sure) if sure.implies(clock, now_ms) => (self.sure, self.doubt) = (Some(heard), None),
            _ => self.doubt_it(heard, now_ms),
        }
    }

    fn doubt_it(&mut self, heard: Least, now_ms: u64) {
        let Doubt { since_ms, least } = self.doubt.unwrap_or(Doubt { since_ms: now_ms, least: heard });
        let least = if heard.clock < least.at(now_ms) { heard } else { least };
        self.doubt = Some(Doubt { since_ms, least });
        if now_ms.saturating_sub(since_ms) < limits::FLOOR_SETTLES_MS {
            return;
        }
        let clock = match self.sure {
            Some(sure) if sure.clock.era() < least.clock.era() => sure.clock.next_era(),
            _ => least.at(now_ms),
        };
        (self.sure, self.doubt) = (Some(Least { clock, at_ms: now_ms }), None);
    }

    /// A journal says what was sure before this process began.
    pub(crate) fn raise(&mut self, clock: LogInstant, now_ms: u64) {
        if clock > LogInstant::ZERO && self.sure.is_none_or(|sure| sure.at(now_ms) < clock) {
            self.sure = Some(Least { clock, at_ms: now_ms });
        }
    }

    /// What the clock has come to, as far as any leader or journal has told.
    pub(crate) fn at(self, now_ms: u64) -> LogInstant {
        self.told.map_or(LogInstant::ZERO, |told| told.at(now_ms)).max(self.sure_at(now_ms))
    }

    /// What the clock has come to for sure.
    pub(crate) fn sure_at(self, now_ms: u64) -> LogInstant {
        self.sure.map_or(LogInstant::ZERO, |sure| sure.at(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> LogInstant {
        LogInstant::from_raw(ms)
    }

    /// A leader tells a clock every ten seconds for so long, from an instant on. Gives the instant when that ends.
    fn hear(floor: &mut ClockFloor, from_ms: u64, for_ms: u64, clock: impl Fn(u64) -> LogInstant) -> u64 {
        let mut now_ms = from_ms;
        floor.hear(clock(now_ms), now_ms);
        while now_ms + 10_000 <= from_ms + for_ms {
            now_ms += 10_000;
            floor.hear(clock(now_ms), now_ms);
        }
        now_ms
    }

    #[test]
    fn what_was_told_is_never_taken_back_and_goes_on_with_this_nodes_clock() {
        let mut floor = ClockFloor::default();
        floor.hear(at(50_000), 1_000);
        assert_eq!(floor.at(1_000), at(50_000));
        floor.hear(at(7), 2_000);
        assert_eq!(floor.at(2_000), at(50_999));
        assert_eq!(floor.sure_at(2_000), LogInstant::ZERO, "nothing is sure yet");
    }

    #[test]
    fn what_was_told_of_an_era_that_has_begun_is_never_taken_back_either() {
        let era = at(0).next_era();
        let mut floor = ClockFloor::default();
        floor.hear(at(50_000), 1_000);
        floor.hear(era.plus_ms(9_000), 11_000);
        floor.hear(era.plus_ms(5), 12_000);
        assert_eq!(floor.at(12_000), era.plus_ms(9_999));
        // Nor does a leader turn it back that does not know of it.
        floor.hear(at(70_000), 13_000);
        assert_eq!(floor.at(13_000), era.plus_ms(10_998));
        // The era lasted no longer than since the node heard of the one before.
        let mut floor = ClockFloor::default();
        floor.hear(at(50_000), 1_000);
        floor.hear(era.plus_ms(1 << 30), 2_000);
        assert_eq!(floor.at(2_000), era);
        floor.hear(era.plus_ms(5_000), 3_000);
        assert_eq!(floor.at(3_000), era.plus_ms(5_000));
    }

    #[test]
    fn what_nobody_contradicts_for_a_while_is_sure_and_what_follows_from_it_at_once() {
        let mut floor = ClockFloor::default();
        let now = hear(&mut floor, 0, 60_000, |now| at(500_000 + now));
        let sure = floor.sure_at(now);
        assert!(sure <= at(560_000) && sure >= at(559_000), "{sure}");
        floor.hear(at(570_000), now + 10_000);
        assert_eq!(floor.sure_at(now + 10_000), at(570_000));
    }

    #[test]
    fn one_answer_that_is_far_ahead_expires_nothing_for_good() {
        let honest = |now| at(500_000 + now);
        let mut floor = ClockFloor::default();
        floor.hear(at(1 << 39), 0);
        let mut now = hear(&mut floor, 10_000, 60_000, honest);
        assert!(floor.sure_at(now) <= honest(now), "the first answer, too");
        for wild in [at(1 << 39), at(0).next_era()] {
            floor.hear(wild, now + 1_000);
            now = hear(&mut floor, now + 2_000, 100_000, honest);
            assert!(floor.sure_at(now) <= honest(now));
        }
    }

    #[test]
    fn many_answers_that_are_a_little_ahead_expire_nothing_for_good_either() {
        let honest = |now| at(500_000 + now);
        let mut floor = ClockFloor::default();
        let now = hear(&mut floor, 0, 60_000, honest);
        for n in 0..100 {
            let now = now + n * 10;
            floor.hear(floor.sure_at(now).plus_ms(50_000), now);
        }
        let now = hear(&mut floor, now + 2_000, 100_000, honest);
        assert!(floor.sure_at(now) <= honest(now));
        assert!(honest(now).since_ms(floor.sure_at(now)) < 1_000, "it goes on as before");
    }

    #[test]
    fn a_node_that_was_away_for_long_has_what_it_missed_for_sure_soon_and_eras_one_at_a_time() {
        let mut floor = ClockFloor::default();
        floor.raise(at(500_000), 0);
        assert_eq!(floor.sure_at(0), at(500_000));
        let month = 30 * 24 * 3_600_000;
        let now = hear(&mut floor, 0, 60_000, |now| at(500_000 + month + now));
        assert!(floor.sure_at(now) >= at(500_000 + month));
        let era = at(0).next_era().next_era();
        let now = hear(&mut floor, now, 60_000, |_| era.plus_ms(5));
        assert_eq!(floor.sure_at(now).era(), 1);
        let now = hear(&mut floor, now, 70_000, |_| era.plus_ms(5));
        assert_eq!(floor.sure_at(now).era(), 2);
    }

    #[test]
    fn a_journal_that_is_behind_lowers_nothing() {
        let mut floor = ClockFloor::default();
        floor.raise(at(9_000), 10);
        floor.raise(at(4_000), 20);
        floor.raise(LogInstant::ZERO, 30);
        assert_eq!(floor.at(20), at(9_009));
    }
}
