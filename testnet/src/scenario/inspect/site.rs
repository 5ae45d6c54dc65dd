//! The processes of an inspection: voters, nodes that robots share, and nodes of their own for robots to which
//! something happens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LaunchError;
use crate::site::child::{Child, suspend};
use crate::site::launch::{Layout, SWITCHES, Testnet};
use crate::site::warehouse::{robot_name, station};

/// The group of all robots.
pub(super) const GROUP: &str = "inspection";
/// How long a robot takes for an inspection.
const WORKS: Duration = Duration::from_millis(200);
/// The robots' leases, in milliseconds.
const LEASE_MS: u64 = 3_000;

/// Which processes are on which node.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) robots: usize,
    /// How many nodes vote; no robot is on them.
    pub(super) voters: usize,
    /// How many nodes vote or are shared by robots.
    pub(super) nodes: usize,
    /// How many robots are killed; each has a node of its own.
    pub(super) killed: usize,
    /// How many robots are suspended; each has a node of its own.
    pub(super) paused: usize,
}

impl Plan {
    pub(super) fn all_nodes(&self) -> usize {
        self.nodes + self.killed + self.paused
    }

    /// The nodes of robots that are killed.
    pub(super) fn killed_nodes(&self) -> std::ops::Range<usize> {
        self.nodes..self.nodes + self.killed
    }

    /// The nodes among them whose robots are killed while they are at work.
    pub(super) fn killed_at_work(&self) -> impl Iterator<Item = usize> + use<> {
        self.killed_nodes().skip(1).step_by(2)
    }

    /// The other nodes among them.
    pub(super) fn killed_any_time(&self) -> impl Iterator<Item = usize> + use<> {
        self.killed_nodes().step_by(2)
    }

    /// The robots that share nodes: nothing is done to them.
    pub(super) fn shared(&self) -> Vec<String> {
        (0..self.nodes).flat_map(|node| self.robots_on(node)).collect()
    }

    /// The nodes of robots that are suspended.
    pub(super) fn paused_nodes(&self) -> std::ops::Range<usize> {
        self.nodes + self.killed..self.all_nodes()
    }

    /// The robots on a node.
    pub(super) fn robots_on(&self, node: usize) -> Vec<String> {
        let own = self.killed + self.paused;
        let shared = self.robots - own;
        if node < self.voters {
            return Vec::new();
        }
        if node >= self.nodes {
            return vec![robot_name(shared + node - self.nodes)];
        }
        let sharing = self.nodes - self.voters;
        (0..shared).filter(|n| n % sharing == node - self.voters).map(robot_name).collect()
    }
}

/// Running processes.
pub(super) struct Site {
    pub(super) net: Testnet,
    /// The software on each node; none where no robot is.
    pub(super) crews: Vec<Option<Child>>,
    station: Child,
}

impl Site {
    pub(super) async fn up(binary: PathBuf, dir: &Path, plan: &Plan) -> Result<Self, LaunchError> {
        let mut net = Testnet::create(Layout {
            binary: binary.clone(),
            dir: dir.to_owned(),
            nodes: plan.all_nodes(),
            voters: plan.voters,
            preset: "sim".to_owned(),
            overrides: vec![
                SWITCHES.to_owned(),
                format!("agents.lease_ttl_ms={LEASE_MS}"),
                format!("agents.heartbeat_ms={}", LEASE_MS / 5),
            ],
            hosts: None,
            links: None,
            tcp: false,
        })?;
        let (mut station, socket) = station(&binary, dir);
        station.start()?;
        net.up().await?;
        net.wait_for("the station", async || socket.exists().then_some(())).await?;
        let mut crews = Vec::new();
        for (at, node) in net.nodes.iter().enumerate() {
            let robots = plan.robots_on(at);
            if robots.is_empty() {
                crews.push(None);
                continue;
            }
            let name = format!("crew-{}", node.name);
            let mut args = ["testnet", "crew", "--group", GROUP, "--node"].map(str::to_owned).to_vec();
            let works = WORKS.as_millis().to_string();
            args.extend([node.dir.display().to_string(), "--works-ms".to_owned(), works]);
            args.extend(["--station".to_owned(), socket.display().to_string(), "--robots".to_owned()]);
            args.push(robots.join(","));
            let mut crew = Child::new(&name, &binary, args, dir.join(format!("{name}.log")));
            crew.start()?;
            crews.push(Some(crew));
        }
        Ok(Self { net, crews, station })
    }

    /// Kills a whole machine: a node and the software on it.
    pub(super) fn kill(&mut self, at: usize) {
        self.net.kill(at);
        if let Some(crew) = &mut self.crews[at] {
            crew.kill();
        }
    }

    pub(super) fn start(&mut self, at: usize) -> Result<(), LaunchError> {
        self.net.start(at)?;
        self.crews[at].as_mut().map_or(Ok(()), Child::start)
    }

    pub(super) fn suspend(&self, at: usize, stop: bool) -> Result<(), LaunchError> {
        let crew = self.crews[at].as_ref().and_then(Child::pid);
        self.net.nodes[at].pid().into_iter().chain(crew).try_for_each(|pid| suspend(pid, stop))
    }

    /// The processes that ended by themselves.
    pub(super) fn fallen(&mut self) -> Vec<String> {
        let mut fallen = Vec::new();
        for node in &mut self.net.nodes {
            fallen.extend(node.has_ended().then(|| node.name.clone()));
        }
        for child in self.crews.iter_mut().flatten().chain(std::iter::once(&mut self.station)) {
            fallen.extend(child.has_ended().then(|| child.name.clone()));
        }
        fallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_robot_is_on_one_node_that_does_not_vote_and_those_that_fall_are_alone() {
        let plan = Plan { robots: 23, voters: 3, nodes: 7, killed: 2, paused: 3 };
        let mut all: Vec<String> = (0..plan.all_nodes()).flat_map(|node| plan.robots_on(node)).collect();
        assert_eq!(all.len(), 23);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 23);
        assert!((0..3).all(|node| plan.robots_on(node).is_empty()));
        assert!(plan.killed_nodes().chain(plan.paused_nodes()).all(|node| plan.robots_on(node).len() == 1));
    }
}
