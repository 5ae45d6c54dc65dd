//! The processes of a warehouse: nodes, robots, and the station.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_client::{Client, Read, Settings};

use crate::error::{LaunchError, io_error};
use crate::record::{ChangeRecord, HeadRecord, StoryRecord, TaskRecord, boot_ns, run_name};
use crate::site::child::Child;
use crate::site::hosts::Hosts;
use crate::site::launch::{Layout, Testnet};
use crate::site::relay::Links;
use crate::workload::{Cell, Workload};

/// Up to this many robots have a node of their own; more than that share nodes.
pub const OWN_NODE_MAX: usize = 50;

/// The settings of a site.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The path of the program that is node, robot and station.
    pub binary: PathBuf,
    /// A fresh directory.
    pub dir: PathBuf,
    /// How many robots.
    pub robots: usize,
    /// How many nodes the robots share.
    pub nodes: usize,
    /// How many nodes vote.
    pub voters: usize,
    /// How long a robot takes for one cell.
    pub tick: Duration,
    /// Settings that override every node's configuration, as `section.key=value`.
    pub overrides: Vec<String>,
    /// Hosts of their own for the nodes; none for loopback.
    pub hosts: Option<Arc<Hosts>>,
    /// A relay that joins the nodes; none for direct links.
    pub links: Option<Links>,
    /// Peers that every node lists beside the others, and that are not started with them.
    pub listed: Vec<String>,
}

impl SiteOptions {
    /// Sets the leases of all robots, in milliseconds, and how often each shows that it lives.
    pub(crate) fn set_leases(&mut self, ttl_ms: u64) {
        self.overrides.push(format!("agents.lease_ttl_ms={ttl_ms}"));
        self.overrides.push(format!("agents.heartbeat_ms={}", (ttl_ms / 5).min(1_000)));
    }
}

/// Running processes.
pub struct DemoSite {
    /// The nodes.
    pub net: Testnet,
    /// The robots: the run of each one's software that was started last. At first robot `n` is at node `n` modulo the
    /// number of nodes.
    pub robots: Vec<Child>,
    places: Vec<Place>,
    /// For robots whose software was started elsewhere: the run before, until it is ended.
    former: BTreeMap<usize, Child>,
    software: Software,
    station: Child,
}

/// The number of the last run of a robot's software, and its node.
#[derive(Clone, Copy, Debug)]
struct Place {
    run: u32,
    node: usize,
    start: Cell,
}

/// The software of robots.
struct Software {
    binary: PathBuf,
    dir: PathBuf,
    tick: Duration,
}

impl Software {
    /// A run of a robot's software that does not run yet, at the node in a directory.
    fn run(&self, n: usize, place: Place, node: &Path) -> Child {
        let (robot, run) = (robot_name(n), run_name(&robot_name(n), place.run));
        let pairs = [
            ("--name", robot),
            ("--run", place.run.to_string()),
            ("--node", text(node.to_owned())),
            ("--floor", text(self.dir.join("floor.map"))),
            ("--start", place.start.to_string()),
            ("--station", text(self.dir.join("station.sock"))),
            ("--history", text(self.dir.join("histories").join(format!("{run}.jsonl")))),
            ("--tick-ms", self.tick.as_millis().to_string()),
        ];
        let args = ["testnet", "robot"].map(str::to_owned).into_iter();
        let args = args.chain(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        Child::new(&run, &self.binary, args.collect(), self.dir.join(format!("{run}.log")))
    }
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
            tcp: false,
        })?;
        options.listed.iter().try_for_each(|peer| net.list(peer))?;
        let (mut station, socket) = station(&options.binary, dir);
        station.start()?;
        net.up().await?;
        net.wait_for("the station", async || socket.exists().then_some(())).await?;
        let software = Software { binary: options.binary.clone(), dir: dir.clone(), tick: options.tick };
        let (mut robots, mut places) = (Vec::new(), Vec::new());
        for (n, start) in workload.starts.iter().enumerate().take(options.robots) {
            let place = Place { run: 0, node: n % options.nodes, start: *start };
            let mut robot = software.run(n, place, &net.nodes[place.node].dir);
            robot.start()?;
            robots.push(robot);
            places.push(place);
        }
        Ok(Self { net, robots, places, former: BTreeMap::new(), software, station })
    }

    /// How long the site's clients try before they ask another node. A call over links with delays takes longer: two
    /// round trips of up to 600 ms, to the leader and to its quorum, as much again where another client writes, and
    /// processes that wait for a core.
    pub(crate) fn patience(&self) -> Duration {
        if self.net.relay().is_some() { Duration::from_secs(4) } else { Duration::from_millis(500) }
    }

    /// A client of each node.
    pub fn clients(&self) -> Vec<Client> {
        let patience = self.patience();
        let settings = Settings { patience, attempt_timeout: patience, ..Settings::default() };
        self.net.nodes.iter().map(|node| node.client_with(settings)).collect()
    }

    /// The node that serves a robot, by the robot's name.
    pub fn node_of(&self, robot: &str) -> Option<usize> {
        self.node_at(robot.strip_prefix("robot-")?.parse().ok()?)
    }

    /// The node that serves a robot, by the robot's number.
    pub(crate) fn node_at(&self, n: usize) -> Option<usize> {
        self.places.get(n).map(|place| place.node)
    }

    /// The story's record of the node at which the last run of a robot's software was started.
    pub(crate) fn placed(&self, n: usize) -> StoryRecord {
        let (run, node) = (self.robots[n].name.clone(), self.net.nodes[self.places[n].node].name.clone());
        StoryRecord::Placed { at_ns: boot_ns(), run, node }
    }

    /// Starts the software of a robot at another node, though the run before may continue: that run is left as it is
    /// until [`end_former`](Self::end_former).
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub(crate) fn start_elsewhere(&mut self, n: usize, node: usize) -> Result<(), LaunchError> {
        let place = Place { run: self.places[n].run + 1, node, ..self.places[n] };
        let mut robot = self.software.run(n, place, &self.net.nodes[node].dir);
        robot.start()?;
        self.places[n] = place;
        let before = std::mem::replace(&mut self.robots[n], robot);
        self.former.insert(n, before);
        Ok(())
    }

    /// The run of a robot's software before the last one, until it is ended.
    pub(crate) fn former(&self, n: usize) -> Option<&Child> {
        self.former.get(&n)
    }

    /// Kills that run with SIGKILL.
    pub(crate) fn end_former(&mut self, n: usize) {
        // Dropping a child kills it.
        self.former.remove(&n);
    }

    /// Whether the station still keeps its log: without it nothing is known of the world.
    pub fn station_lives(&mut self) -> bool {
        !self.station.has_ended()
    }

    /// The robots whose software ended by itself.
    pub fn ended_robots(&mut self) -> Vec<String> {
        self.robots.iter_mut().filter_map(|robot| robot.has_ended().then(|| robot.name.clone())).collect()
    }

    /// Ends the robots, waits until all voters are equal, and records what each holds, for checkers.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn write_down(&mut self, voters: usize, tasks: &[Vec<u8>]) -> Result<(), LaunchError> {
        self.robots.iter_mut().chain(self.former.values_mut()).for_each(Child::kill);
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

fn write<T: serde::Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> Result<(), LaunchError> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, &line).map_err(|e| io_error(path.display().to_string())(e.into()))?;
        text.push(b'\n');
    }
    std::fs::write(path, text).map_err(io_error(path.display().to_string()))
}
