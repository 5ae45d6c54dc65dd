//! When this node dials a peer.
//!
//! The node dials a peer until it is connected, after longer and longer waits. After a connection that ended soon the
//! node rests, longer each time: nodes that disagree about their connections, or two processes with one key, make few
//! of them.
//!
//! A node that hears where a peer may be dials it at once, but not again and again: the teller may lie.

use std::time::Duration;

use skep_protocol::ids::NodeId;
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// Shortest and longest wait between dials of one peer.
const REDIAL_MIN: Duration = Duration::from_millis(200);
const REDIAL_MAX: Duration = Duration::from_secs(30);
/// Longest rest after a connection that ended soon.
const REST_MAX: Duration = Duration::from_secs(5);
/// A connection that lasted this long did not end soon.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How often the node dials a peer before its time because another node says where the peer is: each such dial costs
/// five, so that three pass at once, and then one in five seconds.
const BEFORE_ITS_TIME: Rate = Rate { per_s: 1, burst: 15 };
const BEFORE_ITS_TIME_COSTS: u64 = 5;
/// The number of attempts in a row after which the node asks others where the peer is, even if it knows an address: the
/// peer may have moved.
const ASK_AFTER: u32 = 4;
/// The node asks others again after twice as many attempts each time, and at least after this number: of a site's
/// peers, hundreds may be off.
const ASK_AT_LEAST_EVERY: u32 = 64;

/// A peer, and when the node dials it.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) node: NodeId,
    at: Instant,
    wait: Duration,
    /// The earliest instant of the next dial, whatever address becomes known.
    rested: Instant,
    rest: Duration,
    up_since: Option<Instant>,
    /// Attempts since the peer was last connected.
    attempts: u32,
    /// Whether it is time to ask others where the peer is. This stays set until they were asked: the next turn may be
    /// half an hour away.
    is_to_be_asked_for: bool,
    before_its_time: Bucket,
}

impl Dial {
    pub(crate) fn new(node: NodeId, now: Instant) -> Self {
        let before_its_time = Bucket::full(now);
        let (wait, rest) = (REDIAL_MIN, REDIAL_MIN);
        let (up_since, attempts, is_to_be_asked_for) = (None, 0, false);
        Self { node, at: now, wait, rested: now, rest, up_since, attempts, is_to_be_asked_for, before_its_time }
    }

    /// When the node next dials the peer; none while the peer is connected.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.up_since.is_none().then_some(self.at)
    }

    /// Notes that the node dials the peer. `jitter` is around 1.
    pub(crate) fn begin(&mut self, now: Instant, jitter: f64) {
        self.at = now + self.wait.mul_f64(jitter);
        self.wait = (self.wait * 2).min(REDIAL_MAX);
        self.attempts = self.attempts.wrapping_add(1);
        self.is_to_be_asked_for |= self.attempts.is_power_of_two() || self.attempts.is_multiple_of(ASK_AT_LEAST_EVERY);
    }

    /// Whether to ask others where the peer is: attempts have failed for long, or there is no address to try.
    pub(crate) fn is_missed(&self, has_address: bool) -> bool {
        let is_for_long = !has_address || self.attempts >= ASK_AFTER;
        self.up_since.is_none() && self.is_to_be_asked_for && is_for_long
    }

    /// Notes that others were asked where the peer is.
    pub(crate) fn asked_for(&mut self) {
        self.is_to_be_asked_for = false;
    }

    /// Notes that the peer may be reachable by now.
    pub(crate) fn soon(&mut self, now: Instant) {
        let soon = now.max(self.rested);
        if self.up_since.is_none()
            && soon < self.at
            && self.before_its_time.take(BEFORE_ITS_TIME, BEFORE_ITS_TIME_COSTS, now)
        {
            self.at = soon;
        }
    }

    /// Notes that the first connection to the peer was made.
    pub(crate) fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
        self.wait = REDIAL_MIN;
        self.attempts = 0;
        self.is_to_be_asked_for = false;
    }

    /// Notes that the last connection to the peer has ended. `jitter` is around 1: both sides notice the end at once.
    pub(crate) fn down(&mut self, now: Instant, jitter: f64) {
        let lasted = self.up_since.take().map_or(Duration::ZERO, |since| now - since);
        if lasted >= STEADY_AFTER {
            self.rest = REDIAL_MIN;
        }
        self.rested = now + self.rest.mul_f64(jitter);
        self.at = self.rested;
        self.rest = (self.rest * 2).min(REST_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(now: Instant) -> Dial {
        let key = libp2p::identity::Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let node = NodeId::from_peer_id_bytes(&key.public().to_peer_id().to_bytes()).unwrap();
        Dial::new(node, now)
    }

    /// How often the node dials a peer within a minute, if each connection ends after this time and the node always
    /// hears where the peer is.
    fn dials_in_a_minute(lasts: Duration) -> usize {
        let begun = Instant::now();
        let (mut dial, mut now, mut count) = (dial(begun), begun, 0);
        while let Some(at) = dial.due().filter(|at| *at - begun < Duration::from_secs(60)) {
            now = now.max(at);
            dial.begin(now, 1.0);
            dial.up(now);
            assert_eq!(dial.due(), None, "a connected peer is not dialled");
            count += 1;
            now += lasts;
            dial.down(now, 1.0);
            dial.soon(now);
        }
        count
    }

    #[test]
    fn connections_that_end_at_once_are_made_again_seldom() {
        // 0.2, 0.4, 0.8, 1.6 and 3.2 s, and then every 5 s.
        assert_eq!(dials_in_a_minute(Duration::ZERO), 16);
        assert!(dials_in_a_minute(Duration::from_secs(1)) <= 16);
    }

    #[test]
    fn a_connection_that_lasted_is_made_again_soon() {
        let now = Instant::now();
        let mut dial = dial(now);
        for _ in 0..10 {
            dial.up(now);
            dial.down(now, 1.0);
        }
        assert_eq!(dial.due(), Some(now + REST_MAX));
        dial.up(now);
        let later = now + STEADY_AFTER;
        dial.down(later, 1.0);
        assert_eq!(dial.due(), Some(later + REDIAL_MIN));
    }

    #[test]
    fn a_peer_that_is_not_there_is_dialled_after_longer_and_longer_waits_until_somebody_knows_where_it_is() {
        let now = Instant::now();
        let mut dial = dial(now);
        for _ in 0..20 {
            dial.begin(now, 1.0);
        }
        assert_eq!(dial.due(), Some(now + REDIAL_MAX));
        dial.soon(now);
        assert_eq!(dial.due(), Some(now));
    }

    #[test]
    fn whoever_says_again_and_again_where_a_peer_is_has_it_dialled_seldom() {
        let begun = Instant::now();
        let (mut dial, mut count) = (dial(begun), 0);
        for tenth in 0..600 {
            let now = begun + Duration::from_millis(100 * tenth);
            dial.soon(now);
            if dial.due().is_some_and(|at| at <= now) {
                dial.begin(now, 1.0);
                count += 1;
            }
        }
        // These are its own attempts, after 0.2, 0.4 … 25.6 s, and three and one each five seconds.
        assert!((10..=8 + 3 + 12).contains(&count), "{count}");
    }

    #[test]
    fn others_are_asked_where_a_peer_is_that_is_not_where_it_was() {
        let now = Instant::now();
        let asked_after = |has_address: bool| {
            let mut dial = dial(now);
            assert!(!dial.is_missed(has_address));
            let mut asked = Vec::new();
            for attempt in 1..=200 {
                dial.begin(now, 1.0);
                if dial.is_missed(has_address) {
                    dial.asked_for();
                    asked.push(attempt);
                }
            }
            asked
        };
        assert_eq!(asked_after(true), [4, 8, 16, 32, 64, 128, 192], "more and more seldom, and not for ever");
        assert_eq!(asked_after(false), [1, 2, 4, 8, 16, 32, 64, 128, 192]);
    }

    #[test]
    fn a_turn_in_which_nobody_could_be_asked_is_kept_until_somebody_was_or_the_peer_is_up() {
        let now = Instant::now();
        let (mut dial, mut other) = (dial(now), dial(now));
        for attempt in 1..=ASK_AT_LEAST_EVERY + 10 {
            dial.begin(now, 1.0);
            assert_eq!(dial.is_missed(true), attempt >= ASK_AFTER, "after {attempt} attempts");
        }
        dial.asked_for();
        assert!(!dial.is_missed(true) && !dial.is_missed(false));
        dial.begin(now, 1.0);
        assert!(!dial.is_missed(true), "its turn comes with more attempts");
        other.begin(now, 1.0);
        assert!(other.is_missed(false));
        other.up(now);
        other.down(now, 1.0);
        assert!(!other.is_missed(false));
    }
}
