//! Benchmarks: on nodes of their own, through the public API, and with the machine that they ran on in their results.

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

/// The figures of a node while a benchmark ran.
#[derive(Clone, Debug, Serialize)]
pub struct NodeFigures {
    /// The node's name.
    pub node: String,
    /// Its role in the shard.
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
    /// The part of those bytes that is the log's, as the node counts them. The others belong to its history, its
    /// journals and its snapshots, and to pages that were written for less than a page.
    pub log_per_committed_byte: f64,
}

fn layout(binary: PathBuf, dir: PathBuf, voters: usize) -> Layout {
    let (preset, overrides) = ("lan".to_owned(), Vec::new());
    Layout { binary, dir, nodes: voters, voters, preset, overrides, hosts: None, links: None, tcp: false }
}

/// A fresh directory for a benchmark; removed when the benchmark went well.
fn scratch(name: &str) -> Result<PathBuf, LaunchError> {
    place::made(name)
}
