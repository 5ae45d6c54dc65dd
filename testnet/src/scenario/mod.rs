//! The scenarios for which sites run: each site is started, works, and is judged by its records.

pub mod chaos;
pub mod demo;
pub mod inspect;
pub mod power;
pub mod up;

use std::path::{Path, PathBuf};

use crate::error::LaunchError;
use crate::record::{RecordError, Story, StoryRecord, boot_ns};
use crate::site::warehouse::{DemoSite, SiteOptions};
use crate::verify::{Report, VerifyError, verify};
use crate::workload::{Workload, WorkloadError};

/// The longest silence of a leader that voters of the `sim` preset accept, in milliseconds.
pub(crate) const ELECTION_MS_MAX: u64 = 3_000;

/// Why a scenario did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A process failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A history failed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The workload failed.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The check afterwards failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A process ended that should not.
    #[error("{what}; the logs are in {}", dir.display())]
    Broken {
        /// What ended.
        what: String,
        /// The directory with the logs.
        dir: PathBuf,
    },
}

/// Starts a site, and records how it began.
pub(crate) async fn begin(
    story: &Story,
    options: &SiteOptions,
    workload: &Workload,
    (lease_ttl_ms, seed): (u64, u64),
) -> Result<DemoSite, ScenarioError> {
    let site = DemoSite::up(options, workload).await?;
    let (clock, _) = position(&site).await?;
    story.record(&StoryRecord::Begun {
        at_ns: boot_ns(),
        nodes: options.nodes,
        voters: options.voters,
        robots: options.robots,
        workload: workload.name.clone(),
        lease_ttl_ms,
        election_ms_max: ELECTION_MS_MAX,
        seed,
        clock,
    });
    (0..site.robots.len()).for_each(|n| story.record(&site.placed(n)));
    Ok(site)
}

/// The shard's clock and term.
pub(crate) async fn position(site: &DemoSite) -> Result<(u64, u64), ScenarioError> {
    let leader = site.net.leader().await?;
    let status = site.net.nodes[leader].client().shard_status().await.map_err(LaunchError::from)?;
    Ok((status.clock, status.term))
}

pub(crate) fn broken(dir: &Path, what: String) -> ScenarioError {
    ScenarioError::Broken { what, dir: dir.to_owned() }
}

/// Records what every voter holds once all orders have ended, ends all processes, and judges the run.
pub(crate) async fn conclude(
    mut site: DemoSite,
    dir: &Path,
    story: &Story,
    voters: usize,
    tasks: &[Vec<u8>],
) -> Result<Report, ScenarioError> {
    story.record(&StoryRecord::Ended { at_ns: boot_ns() });
    story.close();
    story.say("all orders have ended; the replicas are compared");
    if !site.station_lives() {
        return Err(broken(dir, "the station ended".to_owned()));
    }
    if let Some(robot) = site.ended_robots().first() {
        return Err(broken(dir, format!("the software of {robot} ended by itself")));
    }
    site.write_down(voters, tasks).await?;
    drop(site);
    Ok(verify(dir)?)
}
