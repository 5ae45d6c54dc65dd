//! Steady load for any length of time: what each node uses meanwhile, as curves, and how soon it serves after a
//! restart.

mod curve;
mod load;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use skep_client::{Read, Settings};
use tokio::time::Instant;

use super::{layout, scratch};
use crate::error::LaunchError;
use crate::site::launch::Testnet;
use crate::site::process::Machine;
use curve::{Curve, Sample, mib};
pub use curve::{Curves, Growth};
use load::{Load, ROBOTS};

/// How often the use of nodes is sampled, unless the settings say otherwise.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// The shortest interval of sampling: a sample walks the nodes' directories.
pub const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(100);
/// How long nodes are left alone before the first sample.
const AT_REST: Duration = Duration::from_secs(2);
/// How long a node may take from its start until it serves.
const START_MAX: Duration = Duration::from_secs(600);
/// How long one question to a node that starts may take: then it is asked again.
const ASK_MAX: Duration = Duration::from_millis(200);
/// How often the benchmark checks whether a node takes connections.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The settings of the benchmark.
#[derive(Clone, Debug)]
pub struct EndureSettings {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// How long the load lasts.
    pub lasts: Duration,
    /// How many voters; all nodes vote.
    pub voters: usize,
    /// Rounds a second: each creates a task, one in four sends a command too, and in one of ten an agent comes and
    /// goes.
    pub rate: u32,
    /// How often the use of nodes is sampled; no more often than [`SAMPLE_EVERY_MIN`].
    pub every: Duration,
}

/// A voter that was stopped and started again.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Restart {
    /// Whether the node drained by itself, and did not have to be killed.
    pub drained: bool,
    /// How long the node took to end, in milliseconds.
    pub stopped_ms: f64,
    /// From its start until its API takes connections, in milliseconds.
    pub listens_ms: f64,
    /// From its start until it answered a linearizable read, in milliseconds.
    pub serves_ms: f64,
    /// Resident memory then, in MiB.
    pub rss_mib: f64,
    /// How many files and sockets are open then.
    pub descriptors: u64,
}

/// The figures of a node while the benchmark ran.
#[derive(Clone, Debug, Serialize)]
pub struct EndureNode {
    /// The node's name.
    pub node: String,
    /// Its role when the load began.
    pub role: String,
    /// What it used, as curves.
    pub curves: Curves,
    /// Growth from the node at rest to the end.
    pub last_to_first: Growth,
    /// Growth from half of the time to the end.
    pub last_to_half: Growth,
    /// Its restart after that.
    pub restart: Restart,
}

/// The result of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct EndureReport {
    /// Always `endure`.
    pub bench: &'static str,
    /// How many voters; all nodes vote.
    pub voters: usize,
    /// How many robots were attached all the time.
    pub robots: usize,
    /// How long the load lasted, in seconds.
    pub seconds: f64,
    /// The rounds a second that the settings asked for.
    pub rate: u32,
    /// The rounds a second that took place.
    pub rounds_per_s: f64,
    /// How many tasks were created.
    pub created: u64,
    /// How many tasks were completed.
    pub completed: u64,
    /// How many commands were accepted.
    pub commands: u64,
    /// How many commands succeeded.
    pub succeeded: u64,
    /// How many agents came and went.
    pub visits: u64,
    /// How many calls were not done.
    pub not_done: u64,
    /// How many calls had an unknown outcome.
    pub unknown: u64,
    /// The figures of each node.
    pub nodes: Vec<EndureNode>,
    /// The machine that it ran on.
    pub machine: Machine,
}

/// Runs the benchmark on nodes of its own.
///
/// # Errors
/// [`LaunchError`]: also if a node ends by itself. Then its directory is kept.
pub async fn endure(settings: EndureSettings) -> Result<EndureReport, LaunchError> {
    let dir = scratch("bench-endure")?;
    let mut testnet = Testnet::create(layout(settings.binary.clone(), dir.clone(), settings.voters))?;
    testnet.up().await?;
    let leader = testnet.leader().await?;
    tokio::time::sleep(AT_REST).await;
    let mut curves: Vec<Curve> = testnet.nodes.iter().map(|_| Curve::new()).collect();
    let begun = Instant::now();
    look(&mut testnet, begun, &mut curves).await?;
    let load = Load::start(&testnet, settings.rate).await?;
    let (loaded, every) = (Instant::now(), settings.every.max(SAMPLE_EVERY_MIN));
    let (until, mut next) = (loaded + settings.lasts, loaded);
    while next < until {
        next = (next + every).min(until);
        tokio::time::sleep_until(next).await;
        look(&mut testnet, begun, &mut curves).await?;
    }
    let seconds = loaded.elapsed().as_secs_f64();
    let rounds = load.counts.rounds.load(Ordering::Relaxed);
    let counts = load.stop().await;
    let mut nodes = Vec::new();
    for (at, curve) in curves.iter().enumerate() {
        let role = if at == leader { "leader" } else { "follower" };
        let restart = restart(&mut testnet, at).await?;
        nodes.push(figures(&testnet.nodes[at].name, role, curve, restart));
    }
    drop(testnet);
    let _ = std::fs::remove_dir_all(&dir);
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(EndureReport {
        bench: "endure",
        voters: settings.voters,
        robots: ROBOTS,
        seconds,
        rate: settings.rate,
        rounds_per_s: (rounds as f64 / seconds * 10.0).round() / 10.0,
        created: of(&counts.created),
        completed: of(&counts.completed),
        commands: of(&counts.sent),
        succeeded: of(&counts.succeeded),
        visits: of(&counts.visits),
        not_done: of(&counts.not_done),
        unknown: of(&counts.unknown),
        nodes,
        machine: Machine::here(),
    })
}

/// Samples what every node uses.
async fn look(testnet: &mut Testnet, begun: Instant, curves: &mut [Curve]) -> Result<(), LaunchError> {
    for (node, curve) in testnet.nodes.iter_mut().zip(curves) {
        let status = node.impatient_client().shard_status().await.unwrap_or_default();
        let at_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sample = if node.has_ended() { None } else { Sample::of(node, at_ms, &status) };
        let output = || format!("it ended by itself; its log is in {}", node.dir.display());
        let sample = sample.ok_or_else(|| LaunchError::Command { command: node.name.clone(), output: output() })?;
        curve.push(sample);
    }
    Ok(())
}

fn figures(name: &str, role: &str, curve: &Curve, restart: Restart) -> EndureNode {
    let samples = curve.samples();
    let growth = |from: usize| match (samples.get(from), samples.last()) {
        (Some(before), Some(last)) => Growth::between(before, last),
        _ => Growth::default(),
    };
    EndureNode {
        node: name.to_owned(),
        role: role.to_owned(),
        curves: Curves::of(&samples),
        last_to_first: growth(0),
        last_to_half: growth(samples.len() / 2),
        restart,
    }
}

fn ms_since(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// Drains a voter, starts it again, and waits until it has everything that the leader has.
async fn restart(testnet: &mut Testnet, at: usize) -> Result<Restart, LaunchError> {
    let stopping = Instant::now();
    let drained = testnet.stop(at).await;
    let stopped_ms = ms_since(stopping);
    let begun = Instant::now();
    testnet.start(at)?;
    let node = &testnet.nodes[at];
    let late = |what: &str| LaunchError::Timeout {
        what: format!("{what} of {} after its start", node.name),
        within: START_MAX,
        dir: node.dir.clone(),
    };
    let socket = node.dir.join("api.sock");
    while UnixStream::connect(&socket).is_err() {
        if begun.elapsed() > START_MAX {
            return Err(late("the API"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let listens_ms = ms_since(begun);
    let client = node.client_with(Settings { patience: ASK_MAX, attempt_timeout: ASK_MAX, ..Settings::default() });
    while client.tasks(&[], &[], 1, Read::Linearizable).await.is_err() {
        if begun.elapsed() > START_MAX {
            return Err(late("a linearizable read"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let serves_ms = ms_since(begun);
    let used = node.pid().and_then(crate::site::process::Usage::of).unwrap_or_default();
    // A quorum is there before the next one is stopped.
    testnet.until_caught_up(&[at]).await?;
    let (rss_mib, descriptors) = (mib(used.rss_bytes), used.descriptors);
    Ok(Restart { drained, stopped_ms, listens_ms, serves_ms, rss_mib, descriptors })
}
