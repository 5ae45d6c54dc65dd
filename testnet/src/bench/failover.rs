//! How long writes stop when the leader is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use skep_client::{Settings, TaskSpec};

use super::{layout, scratch};
use crate::launch::{LaunchError, Testnet};
use crate::load::Load;
use crate::process::Machine;

/// What to run.
#[derive(Clone, Debug)]
pub struct FailoverSettings {
    /// The program that is a node.
    pub binary: PathBuf,
    /// How often the leader is killed.
    pub repeats: usize,
    /// Voters.
    pub voters: usize,
    /// Clients that keep writing on every node meanwhile.
    pub clients: usize,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The shortest.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The longest.
    pub max: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverReport {
    /// Always `failover`.
    pub bench: &'static str,
    /// From SIGKILL to the acknowledgement of a write that was sent after it.
    pub failover_ms: Spread,
    /// Every one, in order.
    pub each_ms: Vec<f64>,
    /// Voters.
    pub voters: usize,
    /// Clients that kept writing.
    pub clients: usize,
    /// Acknowledged writes in all.
    pub acknowledged: usize,
    /// Acknowledged writes found on every voter afterwards.
    pub verified: usize,
    /// What it ran on.
    pub machine: Machine,
}

/// Runs it on nodes of its own.
///
/// # Errors
/// [`LaunchError`].
pub async fn failover(settings: FailoverSettings) -> Result<FailoverReport, LaunchError> {
    let dir = scratch("bench-failover")?;
    let mut testnet = Testnet::create(layout(settings.binary.clone(), dir.clone(), settings.voters))?;
    testnet.up().await?;
    let patient = Settings { patience: Duration::from_secs(20), pipelined: true, ..Settings::default() };
    let connections: Vec<_> = testnet.nodes.iter().map(|node| node.client_with(patient)).collect();
    let load = Load::start(&connections, settings.clients, 256);
    let all: Vec<usize> = (0..settings.voters).collect();
    let mut each_ms = Vec::new();
    for _ in 0..settings.repeats {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = testnet.leader().await?;
        let begun = Instant::now();
        testnet.kill(leader);
        let survivors = all.iter().filter(|at| **at != leader).map(|at| connections[*at].clone());
        let writes = survivors.map(|client| {
            tokio::spawn(async move {
                let spec = TaskSpec { title: "after the kill".to_owned(), ..TaskSpec::default() };
                client.create_task(spec).await.map(|_| begun.elapsed())
            })
        });
        let mut first: Option<Duration> = None;
        for write in writes.collect::<Vec<_>>() {
            if let Ok(Ok(took)) = write.await {
                first = Some(first.map_or(took, |known| known.min(took)));
            }
        }
        let first = first.ok_or_else(|| LaunchError::Timeout {
            what: "a write after the kill".to_owned(),
            within: patient.patience,
            dir: dir.clone(),
        })?;
        each_ms.push((first.as_secs_f64() * 10_000.0).round() / 10.0);
        testnet.start(leader)?;
        let client = testnet.nodes[leader].impatient_client();
        testnet
            .wait_for("the killed node back", async || {
                let status = client.shard_status().await.ok()?;
                (status.role == "follower" && status.applied_index + 1_000 > status.last_log_index).then_some(())
            })
            .await?;
    }
    let done = load.stop().await;
    testnet.until_equal(&all).await?;
    let verified = testnet.verify(&done.acknowledged).await?;
    drop(testnet);
    if verified == done.acknowledged.len() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    let mut sorted = each_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    Ok(FailoverReport {
        bench: "failover",
        failover_ms: Spread { min: at(0), median: at(sorted.len() / 2), max: at(sorted.len().saturating_sub(1)) },
        each_ms,
        voters: settings.voters,
        clients: settings.clients,
        acknowledged: done.acknowledged.len(),
        verified,
        machine: Machine::here(),
    })
}
