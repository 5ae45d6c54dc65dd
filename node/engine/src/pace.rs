//! How long to wait for the answer to an attempt.

/// How many means, and mean deviations beside the mean, the engine waits for an answer.
const MEANS: u64 = 4;
const DEVIATIONS: u64 = 4;
/// The longest wait that slow answers cause, in milliseconds.
const PATIENCE_MS_MAX: u64 = 15_000;

/// How long the answers of a shard take: the way to its leader, and the leader's own way to a quorum.
///
/// Smoothed mean and mean deviation, as an RTO estimator has them of round trips (RFC 6298). A leader that the engine
/// asks again before it can have answered seems to be silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    mean_ms: u64,
    deviation_ms: u64,
}

impl Pace {
    /// An attempt was answered after so many milliseconds.
    pub(crate) fn answered(&mut self, took_ms: u64) {
        let took_ms = took_ms.min(PATIENCE_MS_MAX);
        if self.mean_ms == 0 {
            (self.mean_ms, self.deviation_ms) = (took_ms, took_ms / 2);
        } else {
            self.deviation_ms = (3 * self.deviation_ms + self.mean_ms.abs_diff(took_ms)) / 4;
            self.mean_ms = (7 * self.mean_ms + took_ms) / 8;
        }
    }

    /// How long to wait for an attempt, in milliseconds: at least `least_ms`, and longer where answers take longer.
    pub(crate) fn patience_ms(self, least_ms: u64) -> u64 {
        let learned = (MEANS * self.mean_ms).max(self.mean_ms + DEVIATIONS * self.deviation_ms);
        least_ms.max(learned.min(PATIENCE_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_answers_take_and_falls_to_what_is_configured() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience_ms(1_000), 1_000);
        pace.answered(2_400);
        assert!(pace.patience_ms(1_000) >= 2 * 2_400, "one answer is enough to wait for the next");
        (0..50).for_each(|_| pace.answered(5));
        assert_eq!(pace.patience_ms(1_000), 1_000);
        (0..50).for_each(|_| pace.answered(u64::MAX));
        assert_eq!(pace.patience_ms(1_000), PATIENCE_MS_MAX);
        assert_eq!(pace.patience_ms(60_000), 60_000, "what is configured to be longer is");
    }
}
