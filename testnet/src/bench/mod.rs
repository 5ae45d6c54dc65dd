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

pub use crate::latency::LatencyMs;

use crate::error::LaunchError;
use crate::site::launch::Layout;
use crate::site::place;

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
