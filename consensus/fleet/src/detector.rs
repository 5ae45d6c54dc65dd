//! When a node calls an election.

use skep_protocol::mutant::{Mutant, is_on};

/// Bounds of the detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// The shortest silence for which a node suspects its leader, in milliseconds.
    pub silence_ms_min: u64,
    /// The longest time after which a node asks for votes again while no node leads, in milliseconds, unless the links
    /// are slower.
    pub silence_ms_max: u64,
}

/// Says when a leader has been silent for too long.
///
/// It learns the rhythm in which frames of the leader really arrive, as an RTO estimator learns round trips (RFC 6298:
/// smoothed mean and mean deviation), and waits for a silence that neither this rhythm nor the round trips to other
/// voters explain: on a link that is slower than the configured bounds expect, it is slower, and works. A random part
/// that the caller gives stretches the wait, so that not all voters stand at once. A candidate asks with Pre-Vote; a
/// voter gives its vote only if the leader [is silent](Self::is_silent) for itself, too.
#[derive(Clone, Debug)]
pub struct ElectionDetector {
    config: DetectorConfig,
    last_heard_ms: u64,
    /// Whether this node heard a leader since it started, or led.
    heard: bool,
    /// The round trip that an election needs, as the node measured it, in milliseconds.
    round_ms: u64,
    mean_ms: u64,
    deviation_ms: u64,
    /// Failed attempts since the node heard a leader: each doubles the wait, up to the maximum.
    attempts: u32,
    armed_ms: u64,
    deadline_ms: u64,
}

/// Mean deviations of the rhythm that a silence must exceed.
const DEVIATIONS: u64 = 8;
/// Frames of the leader that must be missing in a silence at least.
const FRAMES: u64 = 4;
/// Round trips within which an election must be over before the next one begins: Pre-Vote, vote, and the first entry.
const ROUNDS: u64 = 4;
/// The longest silence of a leader that a slow link or disk explains, in milliseconds.
pub const SILENCE_LEARNED_MS_MAX: u64 = 15_000;

impl ElectionDetector {
    /// A detector that starts now: a leader has the longest silence to make itself heard, since a node that has
    /// just started disturbs a healthy group if it stands at once.
    ///
    /// `random` is any random number.
    pub fn new(config: DetectorConfig, now_ms: u64, random: u64) -> Self {
        let mut detector = Self {
            config,
            last_heard_ms: now_ms,
            heard: false,
            round_ms: 0,
            mean_ms: 0,
            deviation_ms: 0,
            attempts: 0,
            armed_ms: now_ms,
            deadline_ms: now_ms,
        };
        detector.arm(now_ms, random);
        detector
    }

    /// Notes that the node accepted a frame of the current leader.
    pub fn heard_leader(&mut self, now_ms: u64, random: u64) {
        let gap = now_ms.saturating_sub(self.last_heard_ms).min(SILENCE_LEARNED_MS_MAX);
        let after_failure = self.attempts > 0 || !self.heard;
        self.last_heard_ms = now_ms;
        self.heard = true;
        self.attempts = 0;
        if after_failure {
            // The silence before a new leader says nothing of its rhythm.
            return self.arm(now_ms, random);
        }
        // Integer smoothing by 1/8 and 1/4; the first gap sets both.
        if self.mean_ms == 0 {
            self.mean_ms = gap;
            self.deviation_ms = gap / 2;
        } else {
            self.deviation_ms = (3 * self.deviation_ms + self.mean_ms.abs_diff(gap)) / 4;
            self.mean_ms = (7 * self.mean_ms + gap) / 8;
        }
        self.arm(now_ms, random);
    }

    /// Notes that this node leads: it waits for no leader, and learns nothing.
    pub fn leads(&mut self, now_ms: u64, random: u64) {
        self.last_heard_ms = now_ms;
        self.heard = false;
        self.attempts = 0;
        self.arm(now_ms, random);
    }

    /// Notes the round trip to as many voters as make a quorum, in milliseconds.
    pub fn measured_round(&mut self, round_ms: u64) {
        self.round_ms = round_ms;
        self.deadline_ms = self.deadline_ms.max(self.armed_ms.saturating_add(self.patience_ms()));
    }

    /// Notes that this node gave another its vote: that one has the time of an election to make itself heard.
    pub fn voted(&mut self, now_ms: u64, random: u64) {
        self.arm(now_ms, random);
    }

    /// Whether this node may help to elect another leader: it has not heard one within the silence that it bears.
    pub fn is_silent(&self, now_ms: u64) -> bool {
        let borne = self.borne_ms();
        // A little less, so that a candidate that stands as soon as it may is not refused for the delay of one frame.
        !self.heard || now_ms.saturating_sub(self.last_heard_ms) >= borne - borne / 32
    }

    /// Whether to call an election now. Each yes arms the next attempt.
    pub fn poll(&mut self, now_ms: u64, random: u64) -> bool {
        if now_ms < self.deadline_ms {
            return false;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.arm(now_ms, random);
        true
    }

    /// When [`poll`](Self::poll) can next say yes, in the milliseconds of its argument.
    pub fn poll_timeout(&self) -> u64 {
        self.deadline_ms
    }

    /// The silence that counts as a failure, before its random part, in milliseconds.
    pub fn patience_ms(&self) -> u64 {
        let borne = self.borne_ms();
        if self.attempts > 0 && is_on(Mutant::VotesAskedWithoutPause) {
            return borne / 8;
        }
        let backed_off = borne.saturating_mul(1 << self.attempts.saturating_sub(1).min(8));
        backed_off.min(self.config.silence_ms_max).max(borne)
    }

    /// The silence of a leader that its rhythm and the links explain, in milliseconds.
    pub fn borne_ms(&self) -> u64 {
        let rhythm = (self.mean_ms + DEVIATIONS * self.deviation_ms).max(FRAMES * self.mean_ms);
        let rounds = ROUNDS * self.round_ms;
        rhythm.max(rounds).clamp(self.config.silence_ms_min, SILENCE_LEARNED_MS_MAX)
    }

    fn arm(&mut self, now_ms: u64, random: u64) {
        let patience = self.patience_ms();
        let spread = (patience / 2).max(1);
        self.armed_ms = now_ms;
        self.deadline_ms = now_ms.saturating_add(patience).saturating_add(random % spread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: DetectorConfig = DetectorConfig { silence_ms_min: 350, silence_ms_max: 1_500 };

    #[test]
    fn a_regular_leader_is_never_suspected_and_a_silent_one_soon_is() {
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        let mut now = 0;
        for _ in 0..200 {
            now += 50;
            assert!(!detector.poll(now, 7));
            detector.heard_leader(now, now * 31);
        }
        assert!(!detector.poll(now + 349, 0));
        assert!(detector.poll(now + 350 + 175, 0), "a quiet LAN suspects within half a second");
    }

    #[test]
    fn a_radio_stall_of_300_ms_is_no_failure() {
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        for now in (50..2_000).step_by(50) {
            detector.heard_leader(now, 3);
        }
        assert!(!detector.poll(1_950 + 300, 0));
    }

    #[test]
    fn jitter_makes_it_patient_up_to_the_maximum() {
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        let mut now = 0;
        for i in 0..100 {
            now += if i % 4 == 0 { 300 } else { 40 };
            detector.heard_leader(now, 0);
        }
        assert!(detector.patience_ms() > 500);
        assert!(detector.patience_ms() <= LAN.silence_ms_max);
    }

    #[test]
    fn a_slow_link_makes_it_patient_beyond_what_is_configured_and_no_further_than_the_bound() {
        for (round, least) in [(600, 2_400), (1_200, 4_800)] {
            let mut detector = ElectionDetector::new(LAN, 0, 0);
            detector.measured_round(round);
            assert!(!detector.poll(least - 1, 0), "an election takes its round trips");
            detector.voted(least, 0);
            for now in (least + round..20_000).step_by(round as usize) {
                assert!(!detector.poll(now, 0), "a frame in each round trip is the rhythm of a slow link: {now}");
                detector.heard_leader(now, 0);
            }
        }
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        detector.measured_round(1_000_000);
        assert_eq!(detector.patience_ms(), SILENCE_LEARNED_MS_MAX);
    }

    #[test]
    fn a_voter_that_hears_its_leader_helps_nobody_else_and_one_that_does_not_helps_before_it_stands() {
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        assert!(detector.is_silent(0), "it has heard none since its start");
        for now in (50..1_000).step_by(50) {
            detector.heard_leader(now, 0);
        }
        assert!(!detector.is_silent(950 + 300));
        assert!(detector.is_silent(950 + 340));
        assert!(!detector.poll(950 + 349, 0));
        // A candidate that has its vote gets the time of an election.
        detector.voted(950 + 345, 0);
        assert!(!detector.poll(950 + 345 + 349, 0));
        detector.leads(2_000, 0);
        assert!(detector.is_silent(2_000), "one that led and stepped down follows nobody yet");
    }

    #[test]
    fn failed_attempts_back_off_and_a_leader_resets_them() {
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..5 {
            let from = now;
            now = detector.poll_timeout();
            waits.push(now - from);
            assert!(detector.poll(now, 0));
        }
        assert_eq!(waits, [350, 350, 700, 1_400, 1_500]);
        detector.heard_leader(now + 10, 0);
        assert_eq!(detector.attempts, 0);
    }

    #[test]
    fn a_leader_that_steps_down_is_no_more_patient_than_others() {
        let mut detector = ElectionDetector::new(LAN, 0, 0);
        for now in (0..60_000).step_by(100) {
            detector.leads(now, 7);
        }
        assert!(!detector.poll(60_000, 0));
        assert!(detector.poll(60_000 + 525, 0));
    }
}
