//! How quick a connection and what is behind it are, and how long to wait therefore.

use std::time::Duration;

use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};

use super::answers::Answers;

/// How often the patience with a peer that does not answer doubles.
const DOUBLINGS_MAX: u32 = 4;
/// How often the patience with a peer that does not say that entries are written doubles: whether it is there is known from its
/// other answers, and a disk can take a hundred times as long as the way.
const DOUBLINGS_OF_DISK_MAX: u32 = 10;
/// The slowest link on which the bytes of one call are waited for, in bytes a second: 64 kbit/s.
const BYTES_PER_S_MIN: f64 = 8.0 * 1024.0;
/// Fewest and most bytes of entries in one call.
const APPEND_BYTES_MIN: usize = 4 * 1024;
/// See [`APPEND_BYTES_MIN`].
pub(crate) const APPEND_BYTES_MAX: usize = 128 * 1024;
/// How long entries may keep others waiting on the way.
const QUEUEING_MAX: Duration = Duration::from_millis(200);
/// Calls, or chunks of a snapshot, with the fewest bytes after which it takes as long as it does, whatever is sent.
const FEWEST_IN_VAIN: u32 = 16;
/// By how much it is thought to take longer at a time, and at most: the entries of one shard and the snapshot of another wait for each
/// other on one way, and each would take the other's queue for the way again and again.
const REST_STEP: Duration = Duration::from_secs(1);
/// See [`REST_STEP`]: four times as long as both take with the fewest bytes at 64 kbit/s.
const REST_MAX: Duration = Duration::from_secs(4);
/// Fewest bytes of a snapshot under way, and fewest in one chunk.
const SNAPSHOT_BYTES_MIN: usize = 4 * 1024;
/// Bytes of a snapshot under way before anything is known of the link.
const SNAPSHOT_BYTES_FIRST: usize = 16 * 1024;
/// How long the chunks of a snapshot may wait on the way, for each other and with whatever else is under way.
const SNAPSHOT_QUEUEING_MAX: Duration = Duration::from_millis(250);
/// Chunks under way at a time, of which one is answered while the others are on their way.
const SNAPSHOT_CHUNKS: usize = 4;

/// Fewest and most bytes of one answer, and of one update of what agents hold.
const ANSWER_BYTES_MIN: u64 = 16 * 1024;
/// See [`ANSWER_BYTES_MIN`].
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// How many bytes an answer may have on a connection of which so many may be under way: two round trips' worth, so that it
/// arrives while it is waited for. More follow in the next one.
pub(super) fn answer_bytes(window: u64) -> u64 {
    window.saturating_mul(2).clamp(ANSWER_BYTES_MIN, ANSWER_BYTES_MAX)
}

/// How long something takes at rest, beside the shortest that the way ever took: the way may have become a longer one, or whoever
/// is at its end take long for each part.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    longer: Duration,
    /// How often in a row the fewest bytes had to wait all the same.
    in_vain: u32,
}

impl Rest {
    /// How long bytes waited behind others that took so much longer than the shortest. `most`: what is too long. If the fewest
    /// that there can be wait too long again and again, it is not they who fill the way: that is how long it takes at rest, step by
    /// step.
    fn queueing(&mut self, longer: Duration, are_fewest: bool, most: Duration) -> Duration {
        self.longer = self.longer.min(longer);
        let queueing = longer - self.longer;
        self.in_vain = if are_fewest && queueing > most { self.in_vain + 1 } else { 0 };
        if self.in_vain < FEWEST_IN_VAIN {
            return queueing;
        }
        *self = Self { longer: longer.min(self.longer + REST_STEP).min(REST_MAX), in_vain: 0 };
        longer - self.longer
    }
}

/// What was learned of one connection.
///
/// Patience follows the answers: with entries those that come once entries are written, and with all else those that come from
/// memory. Heartbeats that are answered at once say nothing of a disk, and a slow disk says nothing of the way. How much is sent
/// at once follows the delay that it adds on the way (as in LEDBAT, RFC 6817), and not the time that the other side needs: a
/// slow disk gains nothing from smaller batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// What is answered from memory: what the way takes.
    way: Answers,
    /// Entries: what the way and the disk take.
    disk: Answers,
    append_bytes: usize,
    append_rest: Rest,
    snapshot_bytes: usize,
    snapshot_rest: Rest,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            way: Answers::default(),
            disk: Answers::default(),
            append_bytes: APPEND_BYTES_MAX,
            append_rest: Rest::default(),
            snapshot_bytes: SNAPSHOT_BYTES_FIRST,
            snapshot_rest: Rest::default(),
        }
    }
}

impl Pace {
    /// A call was answered from memory after so long.
    pub(super) fn answered(&mut self, took: Duration) {
        self.way.answered(took);
    }

    /// A call that is answered from memory was not answered in time.
    pub(super) fn missed(&mut self) {
        self.way.missed();
    }

    /// Entries were said to be written after so long. Not to be called for those that were sent again: the other side may have
    /// been at it since it got them first (Karn's algorithm).
    pub(super) fn written(&mut self, took: Duration) {
        self.disk.answered(took);
    }

    /// Entries were not said to be written in time.
    pub(super) fn not_written(&mut self) {
        self.disk.missed();
    }

    /// How long to wait for the answer to a call of so many bytes: at least so long on a quick link, and longer on one whose
    /// round trip or whose answers take longer.
    pub(super) fn patience(&self, least: Duration, round_trip: Duration, bytes: usize) -> Duration {
        let patient = least.max(self.way.learned()).max(round_trip.saturating_mul(4));
        // What was configured to be longer than the bound is.
        self.way.doubled(patient, DOUBLINGS_MAX).max(least) + time_for(bytes)
    }

    /// The same, for entries, which are answered once they are written.
    pub(super) fn append_patience(&self, least: Duration, round_trip: Duration, bytes: usize) -> Duration {
        let learned = self.way.learned().max(self.disk.learned());
        let patient = least.max(learned).max(round_trip.saturating_mul(4));
        self.disk.doubled(patient, DOUBLINGS_OF_DISK_MAX).max(least) + time_for(bytes)
    }

    /// How many bytes of entries to send in one call.
    pub(super) fn append_bytes(&self) -> usize {
        if is_on(Mutant::AppendBudgetFixed) { APPEND_BYTES_MAX } else { self.append_bytes }
    }

    /// Entries of so many bytes were sent, and the way took so much longer than the shortest that it ever took.
    pub(super) fn appended(&mut self, bytes: usize, longer: Duration) {
        let queueing = self.append_rest.queueing(longer, self.append_bytes == APPEND_BYTES_MIN, QUEUEING_MAX);
        if queueing > QUEUEING_MAX {
            self.append_bytes = (self.append_bytes / 2).max(APPEND_BYTES_MIN);
        } else if queueing < QUEUEING_MAX / 2 && bytes >= self.append_bytes / 2 {
            self.append_bytes = (self.append_bytes + self.append_bytes / 4).min(APPEND_BYTES_MAX);
        }
    }

    /// How many bytes of a snapshot may be under way.
    pub(super) fn snapshot_bytes(&self) -> usize {
        self.snapshot_bytes
    }

    /// How many bytes of a snapshot go into one chunk: several are under way at a time, so that a round trip is not waited for
    /// after each of them.
    pub(super) fn chunk_bytes(&self) -> usize {
        (self.snapshot_bytes / SNAPSHOT_CHUNKS).clamp(SNAPSHOT_BYTES_MIN, limits::SNAPSHOT_CHUNK_BYTES_MAX)
    }

    /// A chunk of so many bytes was answered, which took so much longer than the shortest that the way ever took, while so many
    /// bytes were under way. What is under way doubles within a round trip while nothing waits, and stays where chunks wait for
    /// as long as they may.
    pub(super) fn chunk_answered(&mut self, bytes: usize, longer: Duration, under_way: usize) {
        let are_fewest = self.snapshot_bytes == SNAPSHOT_BYTES_MIN;
        let queueing = self.snapshot_rest.queueing(longer, are_fewest, SNAPSHOT_QUEUEING_MAX);
        let most = SNAPSHOT_QUEUEING_MAX.as_secs_f64();
        let step = ((most - queueing.as_secs_f64()) / most).max(-0.5) * bytes as f64;
        // What was not used says nothing of what there is room for.
        if step < 0.0 || under_way >= self.snapshot_bytes / 2 {
            let (least, most) = (SNAPSHOT_BYTES_MIN as f64, limits::SNAPSHOT_BYTES_UNDER_WAY_MAX as f64);
            self.snapshot_bytes = (self.snapshot_bytes as f64 + step).clamp(least, most) as usize;
        }
    }

    /// A chunk was not answered in time.
    pub(super) fn chunk_missed(&mut self) {
        self.snapshot_bytes = (self.snapshot_bytes / 2).max(SNAPSHOT_BYTES_MIN);
    }
}

/// How long so many bytes may take.
fn time_for(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / BYTES_PER_S_MIN)
}

#[cfg(test)]
mod tests {
    use super::super::answers::PATIENCE_MAX;
    use super::*;

    const LEAST: Duration = Duration::from_millis(1_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn patience_follows_what_answers_take_and_falls_to_what_is_configured() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(LEAST, ms(1), 0), LEAST);
        assert_eq!(pace.patience(LEAST, ms(1_200), 0), ms(4_800), "a round trip is known before the first answer");
        for _ in 0..50 {
            pace.answered(ms(1_200));
        }
        assert!(pace.patience(LEAST, ms(1), 0) >= ms(4_700));
        for _ in 0..100 {
            pace.answered(ms(2));
        }
        assert_eq!(pace.patience(LEAST, ms(1), 0), LEAST);
    }

    #[test]
    fn patience_doubles_while_nothing_is_answered_and_has_a_bound() {
        let mut pace = Pace::default();
        pace.missed();
        assert_eq!(pace.patience(LEAST, ms(1), 0), 2 * LEAST);
        (0..1_000).for_each(|_| pace.missed());
        assert_eq!(pace.patience(LEAST, ms(1), 0), 16 * LEAST);
        assert_eq!(pace.patience(LEAST, Duration::MAX, 0), PATIENCE_MAX);
        pace.answered(ms(1));
        assert_eq!(pace.patience(LEAST, ms(1), 0), LEAST);
    }

    #[test]
    fn bytes_have_the_time_that_they_need_on_a_thin_link() {
        let entry = skep_protocol::limits::ENTRY_BYTES_MAX;
        assert!(Pace::default().patience(LEAST, ms(50), entry) >= Duration::from_secs(entry as u64 / 8_192));
    }

    #[test]
    fn entries_keep_others_waiting_no_longer_than_they_may_and_a_quick_way_is_used() {
        // 32 KiB a second: each call adds the time that its bytes take.
        let mut pace = Pace::default();
        for _ in 0..50 {
            let queueing = Duration::from_secs_f64(pace.append_bytes() as f64 / (32.0 * 1024.0));
            pace.appended(pace.append_bytes(), queueing);
        }
        assert!((APPEND_BYTES_MIN..=8 * 1024).contains(&pace.append_bytes()), "{}", pace.append_bytes());
        (0..50).for_each(|_| pace.appended(pace.append_bytes(), ms(1)));
        assert_eq!(pace.append_bytes(), APPEND_BYTES_MAX);
        // The way becomes a longer one, whatever is sent on it, and then the old one again.
        (0..100).for_each(|_| pace.appended(pace.append_bytes(), ms(600)));
        assert_eq!(pace.append_bytes(), APPEND_BYTES_MAX);
        pace.appended(pace.append_bytes(), ms(1));
        pace.appended(pace.append_bytes(), ms(600));
        assert!(pace.append_bytes() < APPEND_BYTES_MAX, "that is a queue");
        (0..50).for_each(|_| pace.appended(pace.append_bytes(), ms(1)));
        // The way is quick, and the other side is not: that is no reason to send less.
        (0..50).for_each(|_| pace.written(ms(2_000)));
        assert_eq!(pace.append_bytes(), APPEND_BYTES_MAX);
    }

    /// Calls with entries to a disk that takes so long for each, one after another, beside heartbeats that are answered at once;
    /// how often the entries of each were sent again. An answer says how long it took only if they were not.
    fn write(pace: &mut Pace, takes: Duration, calls: usize) -> Vec<u32> {
        let call = |_| {
            let (mut waited, mut again) = (Duration::ZERO, 0);
            loop {
                (0..20).for_each(|_| pace.answered(ms(2)));
                let patience = pace.append_patience(LEAST, ms(1), 0);
                if waited + patience >= takes {
                    break;
                }
                pace.not_written();
                (waited, again) = (waited + patience, again + 1);
            }
            if again == 0 {
                pace.written(takes);
            }
            again
        };
        (0..calls).map(call).collect()
    }

    #[test]
    fn entries_are_waited_for_as_long_as_a_slow_disk_takes_though_heartbeats_are_quick() {
        for seconds in [1, 3, 10] {
            let mut pace = Pace::default();
            let again = write(&mut pace, Duration::from_secs(seconds) + ms(5), 50);
            assert!(again[..2].iter().all(|times| *times <= 4), "{seconds} s: {again:?}");
            assert!(again[2..].iter().all(|times| *times == 0), "{seconds} s: {again:?}");
            assert_eq!(pace.patience(LEAST, ms(1), 0), LEAST, "{seconds} s: others wait for the disk");
            assert!(write(&mut pace, ms(2), 100).iter().all(|times| *times == 0));
            assert_eq!(pace.append_patience(LEAST, ms(1), 0), LEAST, "{seconds} s: the disk is quick by now");
        }
    }

    #[test]
    fn entries_with_new_ones_behind_each_time_that_they_are_sent_again_are_answered_all_the_same() {
        // Each call is answered once what came with it is written, behind what is being written already.
        let takes = Duration::from_secs(2 * 10);
        let mut pace = Pace::default();
        let mut again = 0;
        while pace.append_patience(LEAST, ms(1), 0) < takes {
            (0..20).for_each(|_| pace.answered(ms(2)));
            pace.not_written();
            again += 1;
        }
        assert!(again <= 5, "{again}");
        (0..1_000).for_each(|_| pace.not_written());
        assert_eq!(pace.append_patience(LEAST, ms(1), 0), PATIENCE_MAX, "it has a bound");
    }

    /// A way that carries so many bytes a second and takes so long both ways at rest, filled with a snapshot; how long the
    /// chunks waited for each other in the end, and how many bytes a second came. It never took less.
    fn fill(pace: &mut Pace, bytes_per_s: f64, round_trip: Duration) -> (Duration, f64) {
        fill_longer(pace, bytes_per_s, round_trip, Duration::ZERO)
    }

    /// The same, of a way that took so much less once.
    fn fill_longer(pace: &mut Pace, bytes_per_s: f64, round_trip: Duration, longer: Duration) -> (Duration, f64) {
        let (mut now, mut free_at, mut under_way) = (0.0_f64, 0.0_f64, std::collections::VecDeque::new());
        let (mut flying, mut waited, mut came) = (0, 0.0, 0);
        while now < 60.0 {
            while flying < pace.snapshot_bytes() {
                let bytes = pace.chunk_bytes();
                free_at = now.max(free_at) + bytes as f64 / bytes_per_s;
                under_way.push_back((now, free_at + round_trip.as_secs_f64(), bytes));
                flying += bytes;
            }
            let Some((sent, answered, bytes)) = under_way.pop_front() else { break };
            now = answered;
            waited = answered - sent - round_trip.as_secs_f64();
            pace.chunk_answered(bytes, longer + Duration::from_secs_f64(waited), flying);
            flying -= bytes;
            came += if now > 30.0 { bytes } else { 0 };
        }
        (Duration::from_secs_f64(waited), came as f64 / 30.0)
    }

    #[test]
    fn a_snapshot_fills_a_thin_link_and_keeps_nobody_waiting_on_it() {
        let mut pace = Pace::default();
        let (waited, rate) = fill(&mut pace, 32.0 * 1024.0, ms(20));
        assert!(waited <= 2 * SNAPSHOT_QUEUEING_MAX, "{waited:?}");
        assert!(rate >= 0.9 * 32.0 * 1024.0, "{rate}");
    }

    #[test]
    fn a_snapshot_fills_a_link_that_is_quick_and_long() {
        let mut pace = Pace::default();
        let (_, rate) = fill(&mut pace, 4e6, ms(400));
        assert!(rate >= 0.8 * 4e6, "{rate}");
        assert!(pace.snapshot_bytes() <= limits::SNAPSHOT_BYTES_UNDER_WAY_MAX);
        assert!(pace.chunk_bytes() <= limits::SNAPSHOT_CHUNK_BYTES_MAX);
    }

    #[test]
    fn a_snapshot_comes_as_fast_as_the_link_carries_once_the_way_is_known_to_be_a_longer_one_or_the_receiver_slow() {
        for longer in [ms(300), ms(599)] {
            let (waited, rate) = fill_longer(&mut Pace::default(), 5e5, longer + ms(1), longer);
            assert!(rate >= 0.8 * 5e5, "{longer:?} longer: {rate}");
            assert!(waited <= 3 * SNAPSHOT_QUEUEING_MAX, "{longer:?} longer: {waited:?}");
        }
    }

    /// The bytes of entries and of a snapshot that come in an hour over one way at 64 kbit/s, where each waits for the other.
    fn share(pace: &mut Pace) -> (usize, usize) {
        let (bytes_per_s, round_trip) = (BYTES_PER_S_MIN, 0.6);
        let (mut now, mut free_at, mut late) = (0.0_f64, 0.0_f64, 0.0);
        let (mut under_way, mut flying, mut came) = (std::collections::VecDeque::new(), 0, (0, 0));
        let mut are_entries_due = true;
        while now < 3_600.0 {
            let mut send = |bytes: usize, are_entries: bool| {
                free_at = now.max(free_at) + bytes as f64 / bytes_per_s;
                under_way.push_back((now, free_at + round_trip, bytes, are_entries));
            };
            if std::mem::take(&mut are_entries_due) {
                send(pace.append_bytes(), true);
            }
            while flying < pace.snapshot_bytes() {
                send(pace.chunk_bytes(), false);
                flying += pace.chunk_bytes();
            }
            let Some((sent, answered, bytes, are_entries)) = under_way.pop_front() else { break };
            now = answered;
            let waited = answered - sent - round_trip;
            if are_entries {
                // As round trips are smoothed.
                late += (waited - late) / 8.0;
                pace.appended(bytes, Duration::from_secs_f64(late));
                came.0 += bytes;
                are_entries_due = true;
            } else {
                pace.chunk_answered(bytes, Duration::from_secs_f64(waited), flying);
                came.1 += bytes;
                flying -= bytes;
            }
            let rests = [pace.append_rest.longer, pace.snapshot_rest.longer];
            assert!(rests.iter().all(|rest| *rest <= REST_MAX / 2), "after {now} s: {rests:?}");
        }
        came
    }

    #[test]
    fn entries_and_a_snapshot_share_a_thin_link_and_neither_takes_the_other_for_the_way() {
        let mut pace = Pace::default();
        let (entries, snapshot) = share(&mut pace);
        let all = BYTES_PER_S_MIN * 3_600.0;
        assert!(entries as f64 >= 0.25 * all && snapshot as f64 >= 0.25 * all, "{entries} and {snapshot} of {all}");
        assert!(pace.append_bytes() <= 16 * 1024 && pace.snapshot_bytes() <= 16 * 1024, "{pace:?}");
    }

    #[test]
    fn what_waits_longer_and_longer_is_taken_for_the_way_step_by_step_and_up_to_a_bound() {
        let (mut rest, mut last) = (Rest::default(), Duration::ZERO);
        for n in 0..10_000 {
            let queueing = rest.queueing(ms(100 * n), true, SNAPSHOT_QUEUEING_MAX);
            assert!(rest.longer <= (last + REST_STEP).min(REST_MAX), "{n}: {rest:?} after {last:?}");
            assert_eq!(queueing, ms(100 * n) - rest.longer);
            last = rest.longer;
        }
        assert_eq!(rest.longer, REST_MAX);
        rest.queueing(ms(5), true, SNAPSHOT_QUEUEING_MAX);
        assert_eq!(rest.longer, ms(5), "the way is what it was");
    }

    #[test]
    fn a_bad_moment_slows_a_snapshot_down_for_a_moment() {
        let mut pace = Pace::default();
        fill(&mut pace, 1e6, ms(600));
        (0..100).for_each(|_| pace.chunk_missed());
        assert_eq!(pace.snapshot_bytes(), SNAPSHOT_BYTES_MIN);
        let (_, rate) = fill(&mut pace, 1e6, ms(600));
        assert!(rate >= 0.8e6, "{rate}");
        // A queue of others for a while, that is taken for the way; then it is gone.
        (0..100).for_each(|_| pace.chunk_answered(pace.chunk_bytes(), ms(2_000), pace.snapshot_bytes()));
        let (waited, rate) = fill(&mut pace, 1e6, ms(600));
        assert!(rate >= 0.8e6 && waited <= 3 * SNAPSHOT_QUEUEING_MAX, "{rate}, {waited:?}");
    }
}
