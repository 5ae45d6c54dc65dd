//! When a leader makes itself heard, and when it gives up the lead.

use skep_protocol::mutant::{Mutant, is_on};

use crate::detector::SILENCE_LEARNED_MS_MAX;

/// Bounds of the pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PulseConfig {
    /// Time between two heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// For how long an acknowledgement shows that the leader has its quorum, in milliseconds.
    pub silence_ms_min: u64,
    /// The longest first silence of a leader that has lost its quorum, in milliseconds.
    pub silence_ms_max: u64,
}

/// Delays of acknowledgements within which the leader expects the next one.
const DELAYS: u64 = 4;
/// Most times that the quiet of a leader without a quorum doubles.
const DOUBLINGS_MAX: u32 = 3;

/// The heartbeats of one leader.
///
/// A node that hears a leader helps to elect no other one. So a leader that reaches some voters and no quorum must not
/// go on: it is quiet for as long as the others need to elect one among them, and then tries for a moment whether a
/// quorum is back, for its log may be the longest, so that no other node can be elected. (Raft dissertation, 6.2, names
/// this case; openraft issue 2080.) How late an acknowledgement may be follows from how late they are: a slow link or
/// disk is no lost quorum.
#[derive(Clone, Debug)]
pub struct LeaderPulse {
    config: PulseConfig,
    /// When the frame was sent that a quorum acknowledged last, in milliseconds.
    acked_ms: Option<u64>,
    /// How late acknowledgements are, in milliseconds: the largest of the last delays; it falls slowly when they are
    /// sooner.
    delay_ms: u64,
    next_beat_ms: u64,
    /// The leader is quiet, or tries, until then; none while there is a quorum.
    without: Option<Without>,
}

#[derive(Clone, Copy, Debug)]
struct Without {
    trying: bool,
    until_ms: u64,
    /// Until when the others have the time that they need to elect one among them, in milliseconds.
    others_until_ms: u64,
    rounds: u32,
}

impl LeaderPulse {
    /// The pulse of a leader that begins now.
    pub fn new(config: PulseConfig) -> Self {
        Self { config, acked_ms: None, delay_ms: 0, next_beat_ms: 0, without: None }
    }

    /// Notes that a quorum has acknowledged what was sent at `sent_ms`, as the node knows at `now_ms`. The machine has
    /// not slept for `awake_ms`, as far as is known.
    pub fn acknowledged(&mut self, sent_ms: u64, now_ms: u64, awake_ms: u64) {
        if self.acked_ms.is_some_and(|known| sent_ms <= known) {
            return;
        }
        let delay = now_ms.saturating_sub(sent_ms);
        // While the machine slept nothing was under way: that says nothing of the links.
        if delay <= awake_ms {
            // At once when they are later, slowly when they are sooner. What no link explains counts as its limit.
            self.delay_ms = delay.min(SILENCE_LEARNED_MS_MAX).max(self.delay_ms - self.delay_ms / 16);
        }
        self.acked_ms = Some(sent_ms);
        if self.has_quorum(now_ms) {
            self.without = None;
        }
    }

    /// Begins another term, or none: what the leader learned of the links stays. Followers acknowledge nothing before
    /// they have written down which leader they follow, which takes `flush_ms`, as far as is known.
    pub fn begin(&mut self, now_ms: u64, flush_ms: u64) {
        (self.acked_ms, self.without, self.next_beat_ms) = (None, None, now_ms);
        self.delay_ms = self.delay_ms.max(flush_ms);
    }

    /// Notes that a candidate asked in vain whether it would have this node's vote, since it lacks entries. So it is
    /// this node that can lead, and the candidate is there to follow: the node is quiet no longer than the others need
    /// to elect another leader.
    pub fn asked_in_vain(&mut self, now_ms: u64) {
        if let Some(without) = self.without.as_mut().filter(|without| now_ms >= without.others_until_ms) {
            without.until_ms = without.until_ms.min(now_ms);
        }
    }

    /// Whether a quorum acknowledged this leader within the time that counts.
    pub fn has_quorum(&self, now_ms: u64) -> bool {
        self.acked_ms.is_some_and(|acked| now_ms.saturating_sub(acked) < self.window_ms())
    }

    /// How long ago the frame was sent that a quorum acknowledged last, in milliseconds; none if there was none.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        self.acked_ms.map(|acked| now_ms.saturating_sub(acked))
    }

    /// Whether to send a heartbeat at this moment.
    pub fn poll(&mut self, now_ms: u64) -> bool {
        self.judge(now_ms);
        if self.without.is_some_and(|without| !without.trying) || now_ms < self.next_beat_ms {
            return false;
        }
        self.next_beat_ms = now_ms + self.config.heartbeat_ms;
        true
    }

    /// When the caller is to ask [`poll`](Self::poll) next, in the milliseconds of its argument.
    pub fn poll_timeout(&self) -> u64 {
        match self.without {
            Some(without) if !without.trying => without.until_ms,
            _ => self.next_beat_ms,
        }
    }

    /// For how long an acknowledgement counts, in milliseconds.
    fn window_ms(&self) -> u64 {
        (DELAYS * self.delay_ms).clamp(self.config.silence_ms_min, SILENCE_LEARNED_MS_MAX)
    }

    fn judge(&mut self, now_ms: u64) {
        if self.has_quorum(now_ms) || is_on(Mutant::LeaderNeverLetsGo) {
            self.without = None;
            return;
        }
        let try_ms = self.window_ms().max(DELAYS * self.config.heartbeat_ms);
        let until = |trying: bool, ms: u64, rounds: u32| Without {
            trying,
            until_ms: now_ms + ms,
            others_until_ms: now_ms + ms,
            rounds,
        };
        let next = match self.without {
            // A leader that was just elected, or just lost its quorum, is heard until then.
            None => until(true, try_ms, 0),
            Some(without) if now_ms < without.until_ms => return,
            Some(Without { trying: true, rounds, .. }) => {
                let others_ms = (2 * self.window_ms()).max(self.config.silence_ms_max);
                let quiet = until(false, others_ms << rounds.min(DOUBLINGS_MAX), rounds + 1);
                Without { others_until_ms: now_ms + others_ms, ..quiet }
            }
            Some(Without { rounds, .. }) => until(true, try_ms, rounds),
        };
        self.without = Some(next);
        self.next_beat_ms = self.next_beat_ms.min(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: PulseConfig = PulseConfig { heartbeat_ms: 50, silence_ms_min: 350, silence_ms_max: 1_500 };

    /// Runs a leader for a time whose heartbeats are acknowledged after a delay, one at a time. Returns how often it
    /// was heard, and for how long it had no quorum.
    fn run(delay_ms: Option<u64>, pulse: &mut LeaderPulse, from_ms: u64, to_ms: u64) -> (u64, u64) {
        let (mut beats, mut without, mut under_way) = (0, 0, None);
        for now in from_ms..to_ms {
            if let Some(sent) = under_way.filter(|sent| delay_ms.is_some_and(|delay| now >= sent + delay)) {
                pulse.acknowledged(sent, now, u64::MAX);
                under_way = None;
            }
            if pulse.poll(now) {
                beats += 1;
                under_way = under_way.or(Some(now));
            }
            without += u64::from(!pulse.has_quorum(now));
        }
        (beats, without)
    }

    #[test]
    fn a_leader_keeps_its_quorum_however_late_acknowledgements_are() {
        for delay in [1, 60, 120, 400, 1_200, 3_000] {
            let mut pulse = LeaderPulse::new(LAN);
            let (_, without) = run(Some(delay), &mut pulse, 0, 60_000);
            assert!(without <= delay + 1, "{delay}: {without} ms, and the first takes as long as it takes");
        }
    }

    #[test]
    fn a_leader_that_is_asked_in_vain_is_quiet_no_longer_than_others_need() {
        let mut pulse = LeaderPulse::new(LAN);
        run(Some(1), &mut pulse, 0, 2_000);
        let (mut now, mut quiet) = (2_000, 0);
        while quiet <= 3 * LAN.silence_ms_max {
            quiet = if pulse.poll(now) { 0 } else { quiet + 1 };
            now += 1;
        }
        pulse.asked_in_vain(now);
        assert!(pulse.poll(now), "whoever asks is there to follow");
        let (mut quiet, mut longest) = (0, 0);
        for now in now + 1..now + 20_000 {
            pulse.asked_in_vain(now);
            quiet = if pulse.poll(now) { 0 } else { quiet + 1 };
            longest = longest.max(quiet);
        }
        assert!((LAN.silence_ms_max..2 * LAN.silence_ms_max).contains(&longest), "others elect meanwhile: {longest}");
    }

    #[test]
    fn a_leader_whose_followers_write_for_long_is_heard_until_they_have_written() {
        let mut pulse = LeaderPulse::new(LAN);
        pulse.begin(0, 2_000);
        let heard = (0..4_000).filter(|now| pulse.poll(*now)).count() as u64;
        assert_eq!(heard, 4_000 / LAN.heartbeat_ms, "it does not let go before the first answer can be there");
        pulse.acknowledged(3_900, 4_000, u64::MAX);
        run(Some(1), &mut pulse, 4_000, 14_000);
        assert_eq!(pulse.window_ms(), LAN.silence_ms_min, "and what is quick again is expected to be");
    }

    #[test]
    fn a_sleep_of_the_machine_is_taken_for_no_slow_link() {
        let mut pulse = LeaderPulse::new(LAN);
        run(Some(1), &mut pulse, 0, 5_000);
        // Sent before the machine slept for a minute, and acknowledged after.
        pulse.acknowledged(5_000, 65_010, 10);
        assert!(!pulse.has_quorum(65_010), "what was acknowledged is a minute old");
        assert_eq!(pulse.window_ms(), LAN.silence_ms_min);
        // Sent and acknowledged since it woke: that is the link.
        pulse.acknowledged(65_020, 65_520, 520);
        assert!(pulse.has_quorum(65_520));
        assert_eq!(pulse.window_ms(), DELAYS * 500);
    }

    #[test]
    fn acknowledgements_that_become_late_are_missed_once() {
        let mut pulse = LeaderPulse::new(LAN);
        run(Some(1), &mut pulse, 0, 5_000);
        let (_, without) = run(Some(1_000), &mut pulse, 5_000, 60_000);
        assert!(without <= 1_000, "{without}");
    }

    #[test]
    fn a_leader_without_a_quorum_is_quiet_for_longer_than_others_need_and_tries_again() {
        let mut pulse = LeaderPulse::new(LAN);
        run(Some(1), &mut pulse, 0, 2_000);
        let (mut quiet, mut longest, mut tries) = (0, 0, 0);
        for now in 2_000..60_000 {
            let beat = pulse.poll(now);
            tries += u64::from(beat && quiet >= LAN.silence_ms_max);
            quiet = if beat { 0 } else { quiet + 1 };
            longest = longest.max(quiet);
        }
        assert!(!pulse.has_quorum(60_000));
        assert!(longest >= 2 * LAN.silence_ms_max, "others elect meanwhile: {longest}");
        assert!(tries >= 3, "its log may be the longest: {tries}");
        // The quorum is back, and it leads as before.
        let (_, without) = run(Some(1), &mut pulse, 60_000, 120_000);
        assert!(without < 15_000, "{without}");
        assert!(pulse.has_quorum(119_999));
    }
}
