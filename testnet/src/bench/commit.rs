//! Durable task creates per second.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use skep_client::{Client, Settings};

use super::{NodeFigures, layout, scratch};
use crate::error::LaunchError;
use crate::latency::LatencyMs;
use crate::site::launch::{Layout, TestNode, Testnet};
use crate::site::process::{Machine, Usage};
use crate::workload::{Done, Load};

/// The most connections that all clients share, as in the benchmarks of similar systems.
const CONNECTIONS_MAX: usize = 16;
const WARM_UP: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(3);

/// The settings of the benchmark.
#[derive(Clone, Debug)]
pub struct CommitSettings {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// How many clients, each with one write under way.
    pub clients: usize,
    /// How many voters.
    pub voters: usize,
    /// How long the benchmark counts, in seconds.
    pub seconds: u64,
    /// Bytes of payload in a task.
    pub payload_bytes: usize,
    /// Whether clients use the nodes' Unix sockets instead of loopback TCP.
    pub socket: bool,
    /// Whether every create is a call of its own, instead of a message on the connection's stream.
    pub unary: bool,
}

/// The result of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct CommitReport {
    /// Always `commit`.
    pub bench: &'static str,
    /// How many clients, each with one write under way.
    pub clients: usize,
    /// How many connections they shared.
    pub connections: usize,
    /// `tcp` or `socket`.
    pub transport: &'static str,
    /// `stream` or `unary`.
    pub calls: &'static str,
    /// How many voters.
    pub voters: usize,
    /// How long the benchmark counted, in seconds.
    pub seconds: f64,
    /// Bytes of payload in a task.
    pub payload_bytes: usize,
    /// Durable writes per second.
    pub writes_per_s: f64,
    /// From the sending to the acknowledgement.
    pub latency_ms: LatencyMs,
    /// How many calls were not done.
    pub errors: u64,
    /// How many calls had an unknown outcome.
    pub unknown: u64,
    /// How many writes were acknowledged, the warm-up included.
    pub acknowledged: usize,
    /// How many acknowledged writes every voter had afterwards.
    pub verified: usize,
    /// Bytes written to disk for each payload byte committed, on the mean of the voters.
    pub written_bytes_per_payload_byte: f64,
    /// The figures of each node.
    pub nodes: Vec<NodeFigures>,
    /// The machine that it ran on.
    pub machine: Machine,
}

/// What the load did, and what the nodes used for it.
struct Measured {
    /// How many writes count.
    counted: u64,
    took: Duration,
    done: Done,
    /// What each node had used, before and after the load.
    loaded: [Vec<Usage>; 2],
    /// Bytes of each node's log, before and after the load.
    log: [Vec<u64>; 2],
}

/// Runs the benchmark on nodes of its own.
///
/// # Errors
/// [`LaunchError`].
pub async fn commit(settings: CommitSettings) -> Result<CommitReport, LaunchError> {
    let dir = scratch("bench-commit")?;
    let mut testnet = Testnet::create(Layout {
        tcp: !settings.socket,
        ..layout(settings.binary.clone(), dir.clone(), settings.voters)
    })?;
    testnet.up().await?;
    let leader = testnet.leader().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle_from = usage(&testnet);
    tokio::time::sleep(IDLE).await;
    let idle = [idle_from, usage(&testnet)];

    let count = settings.clients.min(CONNECTIONS_MAX);
    let connections: Result<Vec<Client>, LaunchError> =
        (0..count).map(|_| connection(&testnet.nodes[leader], settings.socket, settings.unary)).collect();
    let measured = measure(&testnet, &connections?, &settings).await;

    let all: Vec<usize> = (0..settings.voters).collect();
    testnet.until_equal(&all).await?;
    let verified = testnet.verify(&measured.done.acknowledged).await?;
    let for_each = for_each(measured.counted * settings.payload_bytes as u64);
    let written_in_all: u64 = all.iter().map(|at| measured.written(*at)).sum();
    let Measured { counted, took, done, .. } = &measured;
    let report = CommitReport {
        bench: "commit",
        clients: settings.clients,
        connections: count,
        transport: if settings.socket { "socket" } else { "tcp" },
        calls: if settings.unary { "unary" } else { "stream" },
        voters: settings.voters,
        seconds: took.as_secs_f64(),
        payload_bytes: settings.payload_bytes,
        writes_per_s: (*counted as f64 / took.as_secs_f64()).round(),
        latency_ms: LatencyMs::of_us(&done.latency_us),
        errors: done.errors,
        unknown: done.unknown,
        acknowledged: done.acknowledged.len(),
        verified,
        written_bytes_per_payload_byte: for_each(written_in_all / settings.voters.max(1) as u64),
        nodes: measured.nodes(&testnet, leader, &idle, for_each),
        machine: Machine::here(),
    };
    drop(testnet);
    if report.verified == report.acknowledged {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(report)
}

/// Puts nodes under load for as long as the benchmark counts.
async fn measure(testnet: &Testnet, connections: &[Client], settings: &CommitSettings) -> Measured {
    let load = Load::start(connections, settings.clients, settings.payload_bytes);
    tokio::time::sleep(WARM_UP).await;
    let log_from = log_bytes(testnet).await;
    let loaded_from = usage(testnet);
    load.measure();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(settings.seconds)).await;
    let counted = load.count();
    let took = begun.elapsed();
    let loaded = [loaded_from, usage(testnet)];
    let log = [log_from, log_bytes(testnet).await];
    Measured { counted, took, done: load.stop().await, loaded, log }
}

impl Measured {
    /// How many bytes a node wrote to disk under load.
    fn written(&self, at: usize) -> u64 {
        let [from, to] = &self.loaded;
        to[at].written_bytes.saturating_sub(from[at].written_bytes)
    }

    fn nodes(
        &self,
        testnet: &Testnet,
        leader: usize,
        idle: &[Vec<Usage>; 2],
        for_each: impl Fn(u64) -> f64,
    ) -> Vec<NodeFigures> {
        let mib = |bytes: u64| (bytes as f64 / 1_048_576.0 * 10.0).round() / 10.0;
        let share = |[from, to]: &[Vec<Usage>; 2], at: usize, time: Duration| {
            let share = to[at].cpu.saturating_sub(from[at].cpu).as_secs_f64() / time.as_secs_f64() * 100.0;
            (share * 10.0).round() / 10.0
        };
        let nodes = testnet.nodes.iter().enumerate().map(|(at, node)| NodeFigures {
            node: node.name.clone(),
            role: if at == leader { "leader" } else { "follower" }.to_owned(),
            rss_idle_mib: mib(idle[1][at].rss_bytes),
            rss_loaded_mib: mib(self.loaded[1][at].rss_bytes),
            cpu_idle_pct: share(idle, at, IDLE),
            cpu_loaded_pct: share(&self.loaded, at, self.took),
            written_per_committed_byte: for_each(self.written(at)),
            log_per_committed_byte: for_each(self.log[1][at].saturating_sub(self.log[0][at])),
        });
        nodes.collect()
    }
}

/// Divides bytes by the bytes that were committed.
fn for_each(committed: u64) -> impl Fn(u64) -> f64 + Copy {
    let committed = committed.max(1) as f64;
    move |bytes| (bytes as f64 / committed * 100.0).round() / 100.0
}

/// What each node has used so far.
fn usage(testnet: &Testnet) -> Vec<Usage> {
    testnet.nodes.iter().map(|node| node.pid().and_then(Usage::of).unwrap_or_default()).collect()
}

/// How many bytes each node has written to its log.
async fn log_bytes(testnet: &Testnet) -> Vec<u64> {
    let mut all = Vec::with_capacity(testnet.nodes.len());
    for node in &testnet.nodes {
        all.push(node.client().shard_status().await.map_or(0, |status| status.log_bytes));
    }
    all
}

fn connection(node: &TestNode, socket: bool, unary: bool) -> Result<Client, LaunchError> {
    let settings = Settings { pipelined: !unary, ..Settings::default() };
    if socket {
        return Ok(node.client_with(settings));
    }
    Ok(Client::with_settings(node.tcp_endpoint()?, settings)?)
}
