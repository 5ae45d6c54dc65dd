//! How long things take.

use serde::Serialize;

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyMs {
    /// Half of them are faster.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl LatencyMs {
    /// Reads a histogram of microseconds.
    pub(crate) fn of_us(all: &hdrhistogram::Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        Self { p50: ms(all.value_at_quantile(0.5)), p99: ms(all.value_at_quantile(0.99)), max: ms(all.max()) }
    }

    /// Reads a list of nanoseconds, in any order.
    pub(crate) fn of_ns(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        let at = |share: f64| {
            let rank = (all.len() as f64 * share).ceil() as usize;
            let ns = all.get(rank.saturating_sub(1)).copied().unwrap_or(0);
            (ns as f64 / 10_000.0).round() / 100.0
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}
