//! How long answers take, and how long to wait for the next one.

use std::time::Duration;

/// Mean deviations of the time that answers take which the next one is given beside the mean.
const DEVIATIONS: f64 = 4.0;
/// Means that an answer is given at least.
const MEANS: f64 = 4.0;
/// Longest patience with a call, beside the time for its bytes.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// What was learned of the answers to one kind of calls, as an RTO follows round trips (RFC 6298): smoothed mean and mean
/// deviation, doubled while nothing is answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    mean_s: f64,
    deviation_s: f64,
    missed: u32,
}

impl Answers {
    /// A call was answered after so long.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.missed = 0;
        if self.mean_s == 0.0 {
            (self.mean_s, self.deviation_s) = (took, took / 2.0);
        } else {
            self.deviation_s += ((took - self.mean_s).abs() - self.deviation_s) / 4.0;
            self.mean_s += (took - self.mean_s) / 8.0;
        }
    }

    /// A call was not answered in time.
    pub(super) fn missed(&mut self) {
        self.missed = self.missed.saturating_add(1);
    }

    /// How long an answer may take, going by those before it.
    pub(super) fn learned(&self) -> Duration {
        let answers = (self.mean_s * MEANS).max(self.mean_s + self.deviation_s * DEVIATIONS);
        Duration::from_secs_f64(answers.min(PATIENCE_MAX.as_secs_f64()))
    }

    /// So long, doubled for each call that was not answered, up to so many times and to the longest patience.
    pub(super) fn doubled(&self, patient: Duration, doublings_max: u32) -> Duration {
        patient.saturating_mul(1 << self.missed.min(doublings_max)).min(PATIENCE_MAX)
    }
}
