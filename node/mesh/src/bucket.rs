//! Limits of a rate: an amount in each second, and an amount at once.

use std::time::Duration;

use tokio::time::Instant;

/// The rate of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The amount that comes back in each second.
    pub(crate) per_s: u64,
    /// The most that passes at once.
    pub(crate) burst: u64,
}

impl Rate {
    /// How long an amount takes to come back.
    fn time(self, amount: u64) -> Duration {
        Duration::from_nanos(amount.saturating_mul(1_000_000_000) / self.per_s.max(1))
    }
}

/// A token bucket. It is kept as the instant at which it is full again, so that no task has to fill it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes an amount if all of it is there; returns whether it was.
    pub(crate) fn take(&mut self, rate: Rate, amount: u64, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + rate.time(amount);
        let is_there = full_at.duration_since(now) <= rate.time(rate.burst);
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }

    /// Takes an amount, or what is left of it.
    pub(crate) fn drain(&mut self, rate: Rate, amount: u64, now: Instant) {
        self.full_at = (self.full_at.max(now) + rate.time(amount)).min(now + rate.time(rate.burst));
    }

    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 5 };

    fn taken(bucket: &mut Bucket, wanted: u64, now: Instant) -> usize {
        (0..wanted).filter(|_| bucket.take(RATE, 1, now)).count()
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        assert_eq!(taken(&mut bucket, 100, now), 5);
        assert_eq!(taken(&mut bucket, 100, now + Duration::from_millis(300)), 3);
        assert!(!bucket.is_full(now + Duration::from_secs(0)));
        assert_eq!(taken(&mut bucket, 100, now + Duration::from_secs(3_600)), 5, "no more than a burst is kept");
        assert!(!Bucket::full(now).take(RATE, 6, now), "more than a burst never passes");
    }

    #[test]
    fn what_is_drained_is_missed_and_owed_no_longer_than_a_burst_takes() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        bucket.drain(RATE, u64::MAX, now);
        assert_eq!(taken(&mut bucket, 1, now), 0);
        assert_eq!(taken(&mut bucket, 100, now + Duration::from_millis(500)), 5);
    }
}
