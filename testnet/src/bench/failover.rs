//! How long writes stop when the leader is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use skep_client::{Client, Settings, TaskSpec};

use super::{layout, scratch};
use crate::error::LaunchError;
use crate::site::launch::{Layout, Testnet};
use crate::site::process::Machine;
use crate::workload::Load;

/// The settings of the benchmark.
#[derive(Clone, Debug)]
pub struct FailoverSettings {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// How often the leader is killed.
    pub repeats: usize,
    /// How many voters.
    pub voters: usize,
    /// How many nodes that do not vote, each of which lists all others.
    pub others: usize,
    /// How many clients keep writing on every voter meanwhile.
    pub clients: usize,
}

/// The spread of a duration, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The shortest.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// The longest.
    pub max: f64,
}

impl Spread {
    fn of(all: &[f64]) -> Self {
        let mut sorted = all.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        Self { min: at(0), median: at(sorted.len() / 2), max: at(sorted.len().saturating_sub(1)) }
    }
}

/// Writes once through each of these clients at the same time. Returns when each write was acknowledged, in
/// milliseconds, the first one first.
async fn write_through(clients: &[Client], begun: Instant) -> Vec<f64> {
    let writes = clients.iter().cloned().map(|client| {
        tokio::spawn(async move {
            let spec = TaskSpec { title: "after the kill".to_owned(), ..TaskSpec::default() };
            client.create_task(spec).await.map(|_| begun.elapsed())
        })
    });
    let mut took = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        if let Ok(Ok(after)) = write.await {
            took.push((after.as_secs_f64() * 10_000.0).round() / 10.0);
        }
    }
    took.sort_by(f64::total_cmp);
    took
}

/// The result of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverReport {
    /// Always `failover`.
    pub bench: &'static str,
    /// From SIGKILL to the acknowledgement of a write that was sent after it.
    pub failover_ms: Spread,
    /// Every duration, in the order of the kills.
    pub each_ms: Vec<f64>,
    /// The same through the first node that gets an answer, of those that do not vote; none if there are none.
    pub others_first_ms: Option<Spread>,
    /// The same through the last of these nodes.
    pub others_last_ms: Option<Spread>,
    /// How many nodes do not vote.
    pub others: usize,
    /// How many voters.
    pub voters: usize,
    /// How many clients kept writing.
    pub clients: usize,
    /// How many writes were acknowledged in all.
    pub acknowledged: usize,
    /// How many acknowledged writes every voter had afterwards.
    pub verified: usize,
    /// The machine that it ran on.
    pub machine: Machine,
}

/// How long a write is tried after a kill.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long every kill took, in milliseconds.
#[derive(Default)]
struct Times {
    each: Vec<f64>,
    others_first: Vec<f64>,
    others_last: Vec<f64>,
}

/// Kills the leader once, and waits until that node is back. `voters` and `others` are the clients of the nodes that
/// vote and of those that do not.
async fn kill_leader(
    testnet: &mut Testnet,
    voters: &[Client],
    others: &[Client],
    times: &mut Times,
) -> Result<(), LaunchError> {
    let dir = testnet.dir().to_owned();
    let late =
        || LaunchError::Timeout { what: "a write after the kill".to_owned(), within: PATIENCE, dir: dir.clone() };
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Every node has found the leader that is killed next.
    write_through(others, Instant::now()).await;
    let leader = testnet.leader().await?;
    let begun = Instant::now();
    testnet.kill(leader);
    let survivors = voters.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, client)| client.clone());
    let survivors: Vec<Client> = survivors.collect();
    let (took, by_others) = tokio::join!(write_through(&survivors, begun), write_through(others, begun));
    times.each.push(took.first().copied().ok_or_else(late)?);
    if !others.is_empty() {
        if by_others.len() < others.len() {
            return Err(late());
        }
        times.others_first.extend(by_others.first().copied());
        times.others_last.extend(by_others.last().copied());
    }
    testnet.start(leader)?;
    let client = testnet.nodes[leader].impatient_client();
    let back = async || {
        let status = client.shard_status().await.ok()?;
        (status.role == "follower" && status.applied_index + 1_000 > status.last_log_index).then_some(())
    };
    testnet.wait_for("the killed node back", back).await
}

/// Runs the benchmark on nodes of its own.
///
/// # Errors
/// [`LaunchError`].
pub async fn failover(settings: FailoverSettings) -> Result<FailoverReport, LaunchError> {
    let dir = scratch("bench-failover")?;
    let nodes = settings.voters + settings.others;
    let layout = Layout { nodes, ..layout(settings.binary.clone(), dir.clone(), settings.voters) };
    let mut testnet = Testnet::create(layout)?;
    testnet.up().await?;
    let patient = Settings { patience: PATIENCE, pipelined: true, ..Settings::default() };
    let mut connections: Vec<Client> = testnet.nodes.iter().map(|node| node.client_with(patient)).collect();
    let others = connections.split_off(settings.voters);
    let load = Load::start(&connections, settings.clients, 256);
    let mut times = Times::default();
    for _ in 0..settings.repeats {
        kill_leader(&mut testnet, &connections, &others, &mut times).await?;
    }
    let done = load.stop().await;
    let all: Vec<usize> = (0..settings.voters).collect();
    testnet.until_equal(&all).await?;
    let verified = testnet.verify(&done.acknowledged).await?;
    drop(testnet);
    if verified == done.acknowledged.len() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    let of_others = |all: &[f64]| (!all.is_empty()).then(|| Spread::of(all));
    Ok(FailoverReport {
        bench: "failover",
        failover_ms: Spread::of(&times.each),
        each_ms: times.each,
        others_first_ms: of_others(&times.others_first),
        others_last_ms: of_others(&times.others_last),
        others: settings.others,
        voters: settings.voters,
        clients: settings.clients,
        acknowledged: done.acknowledged.len(),
        verified,
        machine: Machine::here(),
    })
}
