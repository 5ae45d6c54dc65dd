//! The demo: a warehouse that works, and survives.

mod faults;
mod fleet;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use super::{ScenarioError, begin, broken, conclude, position};
use crate::error::LaunchError;
use crate::record::{Recorder, Story, StoryRecord, boot_ns};
use crate::site::warehouse::{DemoSite, SiteOptions};
use crate::verify::Report;
use crate::workload::{Orders, Progress, Workload};

/// A demo whose orders have not ended by then has failed.
const WITHIN: Duration = Duration::from_secs(15 * 60);

/// What is done to the testnet, at shares of the completed orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// At 30 % the orchestrator's node is killed; at 60 % a node whose robot holds a task.
    Story,
    /// One process, node or robot, is killed at a random moment.
    RandomKill,
    /// Telemetry at ten times what the robots publish, from 40 % to 80 %.
    Flood,
    /// Nothing is done to it.
    None,
}

/// The settings of a demo.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The processes.
    pub site: SiteOptions,
    /// What robots do.
    pub workload: Workload,
    /// What is done to the processes.
    pub faults: Faults,
    /// The robots' leases, in milliseconds.
    pub lease_ttl_ms: u64,
    /// The seed of random choices.
    pub seed: u64,
    /// Whether the story is told on standard error.
    pub tells: bool,
}

/// Runs a demo to its end, and checks its records.
///
/// # Errors
/// [`ScenarioError`] if it could not run. The report has what it found.
pub async fn demo(mut options: DemoOptions) -> Result<Report, ScenarioError> {
    let dir = options.site.dir.clone();
    options.site.set_leases(options.lease_ttl_ms);
    let count = options.workload.orders.len();
    let story = Story::begin(&dir.join("story.jsonl"), count as u64, options.tells)?;
    let SiteOptions { nodes, voters, robots, .. } = options.site;
    story.say(&format!(
        "{nodes} nodes, {voters} of them voters, {robots} robots; {}: {count} orders",
        options.workload.name
    ));
    let mut site = begin(&story, &options.site, &options.workload, (options.lease_ttl_ms, options.seed)).await?;
    let leader = site.net.leader().await?;
    story.say(&format!("the site is up; {} is the orchestrator", site.net.nodes[leader].name));
    let (sender, mut progress) = watch::channel(Progress::default());
    let orders = Orders {
        clients: site.clients(),
        recorder: Arc::new(Recorder::open(&dir.join("histories").join("orders.jsonl"))?),
        workload: options.workload.clone(),
        robots,
        story: story.clone(),
        progress: sender,
        closing: watch::channel(false).1,
    };
    let fleet = fleet::Fleet::default();
    let listening = tokio::spawn(fleet.clone().listen(site.clients()));
    let telling = tokio::spawn(tell_of(fleet, story.clone(), robots));
    let mut ordering = tokio::spawn(orders.run());
    let run = async {
        harm(&mut site, &story, &mut progress, &options).await?;
        (&mut ordering).await.map_err(|e| broken(&dir, format!("the orders' client failed: {e}")))
    };
    let tasks = match tokio::time::timeout(WITHIN, run).await {
        Ok(done) => done?,
        Err(_) => return Err(broken(&dir, format!("the orders have not ended within {WITHIN:?}"))),
    };
    listening.abort();
    telling.abort();
    conclude(site, &dir, &story, voters, &tasks).await
}

/// How often the story tells of the fleet.
const FLEET_EVERY: Duration = Duration::from_secs(10);
/// The factor by which a flood publishes more than the robots.
const FLOOD_FACTOR: f64 = 10.0;

async fn tell_of(fleet: fleet::Fleet, story: Story, robots: usize) {
    loop {
        tokio::time::sleep(FLEET_EVERY).await;
        story.say(&fleet.line(robots));
    }
}

/// Publishers that flood every node.
struct Flood {
    publishers: Vec<tokio::task::JoinHandle<()>>,
    sent: Arc<AtomicU64>,
    dropped_before: u64,
}

impl Flood {
    async fn begin(site: &DemoSite, story: &Story, options: &DemoOptions) -> Result<Self, ScenarioError> {
        // A robot publishes two values for every cell that it walks.
        let tick_s = options.site.tick.as_secs_f64().max(0.001);
        let per_s = FLOOD_FACTOR * 2.0 * options.site.robots as f64 / tick_s;
        let (clock, term) = position(site).await?;
        story.say(&format!("a flood of {per_s:.0} publications/s begins, ten times what the robots publish"));
        story.record(&StoryRecord::FloodBegun { at_ns: boot_ns(), clock, term, per_s });
        let sent: Arc<AtomicU64> = Arc::default();
        let share = per_s / site.net.nodes.len() as f64;
        let publishers = site
            .clients()
            .into_iter()
            .enumerate()
            .map(|(n, client)| tokio::spawn(fleet::flood(client, share, format!("flood-{n}"), Arc::clone(&sent))));
        let publishers = publishers.collect();
        Ok(Self { publishers, sent, dropped_before: dropped(site).await? })
    }

    async fn end(self, site: &DemoSite, story: &Story) -> Result<(), ScenarioError> {
        self.publishers.iter().for_each(tokio::task::JoinHandle::abort);
        let sent = self.sent.load(Ordering::Relaxed);
        let (clock, term) = position(site).await?;
        let dropped = dropped(site).await?.saturating_sub(self.dropped_before);
        story.say(&format!(
            "the flood ends after {sent} publications; nodes had no room for {dropped} of what they heard"
        ));
        story.record(&StoryRecord::FloodEnded { at_ns: boot_ns(), clock, term, sent, dropped });
        Ok(())
    }
}

/// How many publications nodes have dropped so far for want of room.
async fn dropped(site: &DemoSite) -> Result<u64, ScenarioError> {
    let mut dropped = 0;
    for node in &site.net.nodes {
        dropped += node.client().node_status().await.map_err(LaunchError::from)?.mesh_overflow;
    }
    Ok(dropped)
}

/// Does each fault at its share of the completed orders.
async fn harm(
    site: &mut DemoSite,
    story: &Story,
    progress: &mut watch::Receiver<Progress>,
    options: &DemoOptions,
) -> Result<(), ScenarioError> {
    let count = options.workload.orders.len();
    let mut until = async |share: f64| {
        let enough = (count as f64 * share).ceil() as usize;
        // The sender lives until all orders have ended.
        let _ = progress.wait_for(|progress| progress.ended >= enough).await;
    };
    let mut random = SmallRng::seed_from_u64(options.seed);
    match options.faults {
        Faults::None => {}
        Faults::Flood => {
            until(0.4).await;
            let flood = Flood::begin(site, story, options).await?;
            until(0.8).await;
            flood.end(site, story).await?;
        }
        Faults::Story => {
            until(0.3).await;
            faults::kill_leader(site, story).await?;
            until(0.6).await;
            faults::kill_holder(site, story, options.site.voters, &mut random).await?;
        }
        Faults::RandomKill => {
            until(random.random_range(0.0..0.8)).await;
            // So the kill comes within an order too, and not only right after the end of one.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
            faults::kill_any(site, story, random.random_range(0..usize::MAX)).await?;
        }
    }
    Ok(())
}
