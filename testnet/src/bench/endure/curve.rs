//! What a node uses over time, in a bounded number of samples.

use serde::Serialize;
use skep_client::v1;

use crate::site::launch::TestNode;
use crate::site::process::{Usage, bytes_below};

/// The most samples that are kept of a node. When there is one more, every other sample is dropped, and from then on
/// half as many are taken.
const SAMPLES_MAX: usize = 1_024;

/// What a node used at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Since the benchmark began, in milliseconds.
    pub(super) at_ms: u64,
    pub(super) usage: Usage,
    /// Bytes on disk, by directory.
    wal: u64,
    history: u64,
    journals: u64,
    snapshots: u64,
    /// How many agents the shard knows, and how many request ids it remembers.
    agents: u64,
    request_ids: u64,
}

impl Sample {
    /// A sample of a running node; none if the node does not run.
    pub(super) fn of(node: &TestNode, at_ms: u64, shard: &v1::ShardStatusReply) -> Option<Self> {
        let usage = node.pid().and_then(Usage::of)?;
        let (data, journals) = (node.dir.join("data"), node.dir.join("journals"));
        Some(Self {
            at_ms,
            usage,
            wal: bytes_below(&data.join("wal")),
            history: bytes_below(&data.join("history")),
            journals: bytes_below(&journals),
            snapshots: bytes_below(&data.join("snapshots")),
            agents: shard.agents,
            request_ids: shard.dedup_ids,
        })
    }
}

/// The samples of a node.
#[derive(Debug)]
pub(super) struct Curve {
    kept: Vec<Sample>,
    last: Option<Sample>,
    /// How many samples were taken, and of how many one is kept.
    taken: u64,
    one_of: u64,
}

impl Curve {
    pub(super) fn new() -> Self {
        Self { kept: Vec::new(), last: None, taken: 0, one_of: 1 }
    }

    pub(super) fn push(&mut self, sample: Sample) {
        if self.taken.is_multiple_of(self.one_of) && self.kept.len() >= SAMPLES_MAX {
            let mut nth = 0_usize;
            self.kept.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.one_of *= 2;
        }
        if self.taken.is_multiple_of(self.one_of) {
            self.kept.push(sample);
        }
        self.taken += 1;
        self.last = Some(sample);
    }

    /// The samples that are kept, the first one and the last one included.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = self.kept.clone();
        samples.extend(self.last.filter(|last| self.kept.last() != Some(last)));
        samples
    }
}

/// The curves of a node: one value for every sample.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Curves {
    /// The instants, in seconds since the node was at rest.
    pub at_s: Vec<f64>,
    /// Resident memory, in MiB.
    pub rss_mib: Vec<f64>,
    /// Processor time since the sample before, in percent of a core.
    pub cpu_pct: Vec<f64>,
    /// How many files and sockets are open.
    pub descriptors: Vec<u64>,
    /// The shard's log on disk, in MiB.
    pub wal_mib: Vec<f64>,
    /// The history on disk, in MiB.
    pub history_mib: Vec<f64>,
    /// The agents' journals on disk, in MiB.
    pub journals_mib: Vec<f64>,
    /// Snapshots on disk, in MiB.
    pub snapshots_mib: Vec<f64>,
    /// Bytes that were written to disk in all, in MiB, as the operating system counts them.
    pub written_mib: Vec<f64>,
    /// How many agents the shard knows.
    pub agents: Vec<u64>,
    /// How many request ids the shard remembers.
    pub request_ids: Vec<u64>,
}

/// Bytes in MiB, to a tenth.
pub(super) fn mib(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 10.0).round() / 10.0
}

impl Curves {
    pub(super) fn of(samples: &[Sample]) -> Self {
        let of = |value: fn(&Sample) -> u64| samples.iter().map(value).collect::<Vec<u64>>();
        let mib_of = |value: fn(&Sample) -> u64| samples.iter().map(|sample| mib(value(sample))).collect::<Vec<f64>>();
        let shares = samples.windows(2).map(|pair| share(&pair[0], &pair[1]));
        Self {
            at_s: samples.iter().map(|sample| sample.at_ms as f64 / 1_000.0).collect(),
            rss_mib: mib_of(|sample| sample.usage.rss_bytes),
            cpu_pct: samples.first().map(|_| 0.0).into_iter().chain(shares).collect(),
            descriptors: of(|sample| sample.usage.descriptors),
            wal_mib: mib_of(|sample| sample.wal),
            history_mib: mib_of(|sample| sample.history),
            journals_mib: mib_of(|sample| sample.journals),
            snapshots_mib: mib_of(|sample| sample.snapshots),
            written_mib: mib_of(|sample| sample.usage.written_bytes),
            agents: of(|sample| sample.agents),
            request_ids: of(|sample| sample.request_ids),
        }
    }
}

/// The share of a core that was used between two samples, in percent.
fn share(from: &Sample, to: &Sample) -> f64 {
    let ms = to.at_ms.saturating_sub(from.at_ms).max(1) as f64;
    let used_ms = to.usage.cpu.saturating_sub(from.usage.cpu).as_secs_f64() * 1_000.0;
    (used_ms / ms * 1_000.0).round() / 10.0
}

/// The factor by which each value grew; none where it was 0 before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Growth {
    /// Resident memory.
    pub rss: Option<f64>,
    /// Files and sockets that are open.
    pub descriptors: Option<f64>,
    /// The shard's log on disk.
    pub wal: Option<f64>,
    /// The history on disk.
    pub history: Option<f64>,
    /// The agents' journals on disk.
    pub journals: Option<f64>,
    /// Snapshots on disk.
    pub snapshots: Option<f64>,
}

impl Growth {
    pub(super) fn between(before: &Sample, later: &Sample) -> Self {
        let of = |value: fn(&Sample) -> u64| {
            let (before, later) = (value(before), value(later));
            (before > 0).then(|| (later as f64 / before as f64 * 100.0).round() / 100.0)
        };
        Self {
            rss: of(|sample| sample.usage.rss_bytes),
            descriptors: of(|sample| sample.usage.descriptors),
            wal: of(|sample| sample.wal),
            history: of(|sample| sample.history),
            journals: of(|sample| sample.journals),
            snapshots: of(|sample| sample.snapshots),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(nth: u64) -> Sample {
        let usage = Usage { rss_bytes: (nth + 1) << 20, cpu: Duration::from_millis(nth * 250), ..Usage::default() };
        Sample { at_ms: nth * 1_000, usage, wal: 4 << 20, history: nth << 20, ..Sample::default() }
    }

    #[test]
    fn however_many_samples_are_taken_so_many_are_kept_from_the_first_to_the_last() {
        let mut curve = Curve::new();
        let count = 10 * SAMPLES_MAX as u64 + 5;
        for nth in 0..count {
            curve.push(sample(nth));
        }
        let samples = curve.samples();
        assert!((SAMPLES_MAX / 2..=SAMPLES_MAX + 1).contains(&samples.len()), "{} samples", samples.len());
        assert_eq!((samples.first(), samples.last()), (Some(&sample(0)), Some(&sample(count - 1))));
        let steps: Vec<u64> = samples.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
        assert!(steps[..steps.len() - 1].iter().all(|step| *step == steps[0]), "as far from each other: {steps:?}");
    }

    #[test]
    fn a_curve_has_a_value_for_every_sample_and_growth_compares_two() {
        let samples: Vec<Sample> = (0..4).map(sample).collect();
        let curves = Curves::of(&samples);
        assert_eq!(curves.at_s, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(curves.rss_mib, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(curves.cpu_pct, [0.0, 25.0, 25.0, 25.0]);
        assert_eq!(curves.wal_mib, [4.0; 4]);
        let growth = Growth::between(&samples[0], &samples[3]);
        assert_eq!((growth.rss, growth.wal, growth.history), (Some(4.0), Some(1.0), None));
    }
}
