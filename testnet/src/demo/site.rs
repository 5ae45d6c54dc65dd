//! The processes of a demo: nodes, robots, and the station.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_client::{Client, Read, Settings};

use crate::child::Child;
use crate::hosts::Hosts;
use crate::launch::{LaunchError, Layout, Testnet, io_error};
use crate::relay::Links;
use crate::verify::{ChangeRecord, HeadRecord, TaskRecord};
use crate::workload::Workload;

/// Robots that have a node of their own; more share.
pub const OWN_NODE_MAX: usize = 50;

/// What to start.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The program that is node, robot and station.
    pub binary: PathBuf,
    /// A fresh directory.
    pub dir: PathBuf,
    /// How many robots.
    pub robots: usize,
    /// How many nodes they share.
    pub nodes: usize,
    /// How many nodes vote.
    pub voters: usize,
    /// How long a robot takes for one cell.
    pub tick: Duration,
    /// Values that override every node's configuration.
    pub overrides: Vec<String>,
    /// Hosts of their own for the nodes.
    pub hosts: Option<Arc<Hosts>>,
    /// A relay that joins the nodes, if there is to be one.
    pub links: Option<Links>,
}

impl SiteOptions {
    /// Sets the leases of all robots, in milliseconds, and how often each says that it is there.
    pub(crate) fn set_leases(&mut self, ttl_ms: u64) {
        self.overrides.push(format!("agents.lease_ttl_ms={ttl_ms}"));
        self.overrides.push(format!("agents.heartbeat_ms={}", (ttl_ms / 5).min(1_000)));
    }
}

/// Running processes.
pub struct DemoSite {
    /// The nodes.
    pub net: Testnet,
    /// The robots; robot `n` is attached to node `n` modulo their number.
    pub robots: Vec<Child>,
    station: Child,
}

/// The name of a robot.
pub fn robot_name(n: usize) -> String {
    format!("robot-{n}")
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// The station of a directory, which does not run yet, and its socket.
pub(crate) fn station(binary: &Path, dir: &Path) -> (Child, PathBuf) {
    let (socket, log) = (dir.join("station.sock"), dir.join("actuator.jsonl"));
    let args = ["testnet", "station", "--socket"].map(str::to_owned).into_iter();
    let args = args.chain([text(socket.clone()), "--log".to_owned(), text(log)]);
    (Child::new("station", binary, args.collect(), dir.join("station.log")), socket)
}

impl DemoSite {
    /// Starts everything, and waits until the shard has a leader and every robot's software runs.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn up(options: &SiteOptions, workload: &Workload) -> Result<Self, LaunchError> {
        let dir = &options.dir;
        for part in ["histories", "final"] {
            let part = dir.join(part);
            std::fs::create_dir_all(&part).map_err(io_error(part.display().to_string()))?;
        }
        let floor = dir.join("floor.map");
        std::fs::write(&floor, workload.floor.to_text()).map_err(io_error(floor.display().to_string()))?;
        let mut net = Testnet::create(Layout {
            binary: options.binary.clone(),
            dir: dir.clone(),
            nodes: options.nodes,
            voters: options.voters,
            preset: "sim".to_owned(),
            overrides: [options.overrides.as_slice(), &["node.history=history.jsonl".to_owned()]].concat(),
            hosts: options.hosts.clone(),
            links: options.links,
        })?;
        let (mut station, socket) = station(&options.binary, dir);
        station.start()?;
        net.up().await?;
        net.wait_for("the station", async || socket.exists().then_some(())).await?;
        let mut robots = Vec::new();
        for (n, start) in workload.starts.iter().enumerate().take(options.robots) {
            let mut robot = Child::new(
                &robot_name(n),
                &options.binary,
                robot_args(options, n, *start, &net.nodes[n % options.nodes].dir),
                dir.join(format!("{}.log", robot_name(n))),
            );
            robot.start()?;
            robots.push(robot);
        }
        Ok(Self { net, robots, station })
    }

    /// How long its clients try: soon another node is asked. What goes over links with delays takes longer.
    pub(crate) fn patience(&self) -> Duration {
        if self.net.relay().is_some() { Duration::from_secs(2) } else { Duration::from_millis(500) }
    }

    /// A client of each node.
    pub fn clients(&self) -> Vec<Client> {
        let patience = self.patience();
        let settings = Settings { patience, attempt_timeout: patience, ..Settings::default() };
        self.net.nodes.iter().map(|node| node.client_with(settings)).collect()
    }

    /// The node that serves a robot.
    pub fn node_of(&self, robot: &str) -> Option<usize> {
        let n: usize = robot.strip_prefix("robot-")?.parse().ok()?;
        Some(n % self.net.nodes.len())
    }

    /// Whether the station still keeps its log: without it nothing is known of the world.
    pub fn station_lives(&mut self) -> bool {
        !self.station.has_ended()
    }

    /// Robots whose software ended by itself.
    pub fn ended_robots(&mut self) -> Vec<String> {
        self.robots.iter_mut().filter_map(|robot| robot.has_ended().then(|| robot.name.clone())).collect()
    }

    /// Ends the robots, waits until all voters are equal, and writes down what each holds, for checkers.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn write_down(&mut self, voters: usize, tasks: &[Vec<u8>]) -> Result<(), LaunchError> {
        self.robots.iter_mut().for_each(Child::kill);
        let all: Vec<usize> = (0..voters).collect();
        let heads = self.net.until_equal(&all).await?;
        for (at, status) in heads.into_iter().enumerate() {
            let node = &self.net.nodes[at];
            let path = |what: &str| self.net.dir().join("final").join(format!("{}.{what}.jsonl", node.name));
            let client = node.client();
            let head = HeadRecord {
                node: node.name.clone(),
                index: status.applied_index,
                term: status.term,
                digest: status.digest,
            };
            write(&path("head"), std::iter::once(head))?;
            let (mut views, mut changes) = (Vec::new(), Vec::new());
            for task in tasks {
                let view = client.task(task, Read::Stale).await?.task.unwrap_or_default();
                views.push(TaskRecord::of(&view));
                let mut after = 0;
                loop {
                    let page = client.history(task, after, 1_000, Read::Stale).await?;
                    after = page.events.last().map_or(after, |event| event.index);
                    changes.extend(page.events.into_iter().map(ChangeRecord::of));
                    if !page.more {
                        break;
                    }
                }
            }
            write(&path("tasks"), views.into_iter())?;
            write(&path("changes"), changes.into_iter())?;
        }
        Ok(())
    }
}

fn robot_args(options: &SiteOptions, n: usize, start: u32, node: &Path) -> Vec<String> {
    let dir = &options.dir;
    let pairs = [
        ("--name", robot_name(n)),
        ("--node", text(node.to_owned())),
        ("--floor", text(dir.join("floor.map"))),
        ("--start", start.to_string()),
        ("--station", text(dir.join("station.sock"))),
        ("--history", text(dir.join("histories").join(format!("{}.jsonl", robot_name(n))))),
        ("--tick-ms", options.tick.as_millis().to_string()),
    ];
    let args = ["testnet", "robot"].map(str::to_owned).into_iter();
    args.chain(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value])).collect()
}

fn write<T: serde::Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> Result<(), LaunchError> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, &line).map_err(|e| io_error(path.display().to_string())(e.into()))?;
        text.push(b'\n');
    }
    std::fs::write(path, text).map_err(io_error(path.display().to_string()))
}
