//! Writes over links of constant delay, one after another, with pauses in which a leader's lease ends if nothing renews
//! it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use skep_client::{Settings, TaskSpec};

use super::{layout, scratch};
use crate::error::LaunchError;
use crate::latency::LatencyMs;
use crate::site::launch::{Layout, Testnet};
use crate::site::process::Machine;
use crate::site::relay::{Law, Links};

/// Longer than a leader's lease with the shortest election time.
const PAUSE: Duration = Duration::from_millis(400);
/// A slow link is slow; a call without an answer by then gets none.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many writes may fail one after another before the benchmark gives a link up.
const FAILURES_MAX: usize = 3;

/// The settings of the benchmark.
#[derive(Clone, Debug)]
pub struct LinksSettings {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// The delays of all links, one testnet each, in milliseconds one way.
    pub one_way_ms: Vec<u64>,
    /// The preset of all nodes.
    pub preset: String,
    /// How many writes over each link.
    pub writes: usize,
    /// How many voters.
    pub voters: usize,
    /// The seed of the relay's random draws.
    pub seed: u64,
}

/// The result of one delay.
#[derive(Clone, Debug, Serialize)]
pub struct LinkFigures {
    /// How long every datagram is under way, in milliseconds.
    pub one_way_ms: u64,
    /// How many writes were tried: fewer than the settings asked for if several in a row failed.
    pub tried: usize,
    /// How many writes were acknowledged.
    pub done: usize,
    /// From the sending to the acknowledgement, at the node that led first.
    pub latency_ms: LatencyMs,
    /// How many elections there were after the one with which the shard was ready.
    pub elections: u64,
    /// The last error, if a write was not done.
    pub failure: Option<String>,
}

/// The result of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct LinksReport {
    /// Always `links`.
    pub bench: &'static str,
    /// The preset of all nodes.
    pub preset: String,
    /// How many voters.
    pub voters: usize,
    /// How many writes over each link.
    pub writes: usize,
    /// The figures of each delay.
    pub links: Vec<LinkFigures>,
    /// The seed of the relay's random draws.
    pub seed: u64,
    /// The machine that it ran on.
    pub machine: Machine,
}

impl LinksReport {
    /// Whether every write was done, over every link.
    pub fn all_done(&self) -> bool {
        self.links.iter().all(|link| link.done == self.writes)
    }
}

/// Runs the benchmark on nodes of its own.
///
/// # Errors
/// [`LaunchError`] if nodes cannot be made. A site that does not come up counts as a result.
pub async fn links(settings: LinksSettings) -> Result<LinksReport, LaunchError> {
    let mut links = Vec::new();
    for (at, one_way_ms) in settings.one_way_ms.iter().enumerate() {
        links.push(one(&settings, at, *one_way_ms).await?);
    }
    Ok(LinksReport {
        bench: "links",
        preset: settings.preset,
        voters: settings.voters,
        writes: settings.writes,
        links,
        seed: settings.seed,
        machine: Machine::here(),
    })
}

async fn one(settings: &LinksSettings, at: usize, one_way_ms: u64) -> Result<LinkFigures, LaunchError> {
    let dir = scratch(&format!("bench-links-{at}"))?;
    let links = Links { law: Law::delay(one_way_ms), seed: settings.seed };
    let mut testnet = Testnet::create(Layout {
        preset: settings.preset.clone(),
        links: Some(links),
        ..layout(settings.binary.clone(), dir.clone(), settings.voters)
    })?;
    let mut figures =
        LinkFigures { one_way_ms, tried: 0, done: 0, latency_ms: LatencyMs::default(), elections: 0, failure: None };
    if let Err(error) = over(&mut testnet, settings.writes, &mut figures).await {
        figures.failure = Some(error.to_string());
    }
    drop(testnet);
    if figures.done == settings.writes {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(figures)
}

/// Starts a site and writes.
async fn over(testnet: &mut Testnet, writes: usize, figures: &mut LinkFigures) -> Result<(), LaunchError> {
    testnet.up().await?;
    let leader = testnet.leader().await?;
    let first = term(testnet).await;
    let patient = Settings { patience: PATIENCE, attempt_timeout: PATIENCE / 2, ..Settings::default() };
    let client = testnet.nodes[leader].client_with(patient);
    let mut latency_ns = Vec::new();
    let mut failures = 0;
    while figures.tried < writes && failures < FAILURES_MAX {
        tokio::time::sleep(PAUSE).await;
        let spec = TaskSpec { title: format!("write {}", figures.tried), ..TaskSpec::default() };
        figures.tried += 1;
        let begun = Instant::now();
        match client.create_task(spec).await {
            Ok(_) => {
                latency_ns.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
                figures.done += 1;
                failures = 0;
            }
            Err(error) => {
                figures.failure = Some(error.to_string());
                failures += 1;
            }
        }
    }
    figures.latency_ms = LatencyMs::of_ns(latency_ns);
    figures.elections = term(testnet).await.saturating_sub(first);
    Ok(())
}

/// The highest term that a node knows.
async fn term(testnet: &Testnet) -> u64 {
    let mut term = 0;
    for node in &testnet.nodes {
        if let Ok(status) = node.impatient_client().shard_status().await {
            term = term.max(status.term);
        }
    }
    term
}
