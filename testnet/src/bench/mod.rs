//! Benchmarks: on nodes of their own, through the public API, and honest about what they ran on.

mod broadcast;
mod command;
mod commit;
mod endure;
mod failover;
mod links;
mod robots;

use std::path::PathBuf;

use serde::Serialize;

pub use broadcast::{BroadcastReport, BroadcastSettings, broadcast};
pub use command::{CommandReport, CommandSettings, StepsMs, command};
pub use commit::{CommitReport, CommitSettings, commit};
pub use endure::{
    Curves, EndureNode, EndureReport, EndureSettings, Growth, Restart, SAMPLE_EVERY, SAMPLE_EVERY_MIN, endure,
};
pub use failover::{FailoverReport, FailoverSettings, Spread, failover};
pub use links::{LinkFigures, LinksReport, LinksSettings, links};

use crate::error::LaunchError;
use crate::launch::Layout;
use crate::place;

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyMs {
    /// Half are faster.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl LatencyMs {
    /// Of microseconds.
    pub(crate) fn of_us(all: &hdrhistogram::Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        Self { p50: ms(all.value_at_quantile(0.5)), p99: ms(all.value_at_quantile(0.99)), max: ms(all.max()) }
    }

    /// Of nanoseconds, in any order.
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

/// A node while a benchmark ran.
#[derive(Clone, Debug, Serialize)]
pub struct NodeFigures {
    /// Which.
    pub node: String,
    /// What it was.
    pub role: String,
    /// Resident memory before the load, in MiB.
    pub rss_idle_mib: f64,
    /// Resident memory after the load, in MiB.
    pub rss_loaded_mib: f64,
    /// Processor time while idle, in percent of a core.
    pub cpu_idle_pct: f64,
    /// Processor time under load, in percent of a core.
    pub cpu_loaded_pct: f64,
    /// Bytes written to disk for each payload byte committed, as the operating system counts them.
    pub written_per_committed_byte: f64,
    /// Those of them that are of the log, as the node counts them. The others are of its history, its journals and its
    /// snapshots, and of pages that were written for less than a page.
    pub log_per_committed_byte: f64,
}

fn layout(binary: PathBuf, dir: PathBuf, voters: usize) -> Layout {
    let (preset, overrides) = ("lan".to_owned(), Vec::new());
    Layout { binary, dir, nodes: voters, voters, preset, overrides, hosts: None, links: None, tcp: false }
}

/// A fresh directory for a benchmark; removed when it went well.
fn scratch(name: &str) -> Result<PathBuf, LaunchError> {
    place::made(name)
}
