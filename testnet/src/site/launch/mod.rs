//! Starting and ending node processes.

mod descriptors;
mod first;
mod listed;
mod node;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use skep_client::{ClientError, v1};
use tokio::time::Instant;

use crate::error::{LaunchError, io_error};
use crate::site::hosts::Hosts;
use crate::site::place;
use crate::site::ports::free_ports;
use crate::site::relay::{self, Links, Relay};

pub use listed::NodeAddress;
use node::Made;
pub use node::TestNode;

/// The layout of a testnet.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The path of the program that is a node: `BINARY run …`.
    pub binary: PathBuf,
    /// A directory of its own, which is kept.
    pub dir: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// How many nodes vote.
    pub voters: usize,
    /// The preset of all nodes.
    pub preset: String,
    /// Values that override every node's configuration, as `section.key=value`.
    pub overrides: Vec<String>,
    /// Hosts of their own, one for each node; if none, all nodes are on loopback.
    pub hosts: Option<Arc<Hosts>>,
    /// A relay that joins the nodes' control planes; if none, the nodes reach each other directly.
    pub links: Option<Links>,
    /// Whether new nodes serve their API over TCP as well.
    pub tcp: bool,
}

/// The name of every testnet's site.
const SITE: &str = "testnet";
/// The file in a node's directory that lists the peers with which the node does not speak.
const CUTS: &str = "cuts";
/// The setting that makes nodes obey that file.
pub(crate) const SWITCHES: &str = "testnet.cuts=cuts";

/// A number of nodes. Dropping it ends them.
#[derive(Debug)]
pub struct Testnet {
    layout: Layout,
    /// The nodes, voters first.
    pub nodes: Vec<TestNode>,
    relay: Option<Relay>,
}

/// The relay between these nodes, if the layout has one.
fn join(layout: &Layout, nodes: &[TestNode]) -> Result<Option<Relay>, LaunchError> {
    let Some(links) = &layout.links else { return Ok(None) };
    let failed = |output: String| LaunchError::Command { command: "a relay".to_owned(), output };
    let address =
        |node: &TestNode| node.control.parse::<SocketAddr>().map_err(|e| failed(format!("{}: {e}", node.name)));
    let addresses = nodes.iter().map(address).collect::<Result<Vec<_>, _>>()?;
    Relay::start(&layout.dir, addresses, links, layout.hosts.as_deref()).map(Some)
}

impl Testnet {
    /// Makes the nodes' directories and configurations, or finds those that were made before in the same directory:
    /// they keep their keys and ports. No node runs yet.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub fn create(layout: Layout) -> Result<Self, LaunchError> {
        place::own(&layout.dir)?;
        let known = layout.dir.join(place::LIST);
        if let Ok(text) = std::fs::read(&known) {
            return Self::reopen(layout, &text);
        }
        let mut nodes = Vec::new();
        let mut all = Vec::new();
        // No two nodes get the same port: all are held until all are given.
        let mut held = Vec::new();
        for at in 0..layout.nodes {
            let name = format!("n{at}");
            let dir = layout.dir.join(&name);
            let ports = free_ports().map_err(io_error("free ports"))?;
            let port = ports.start.to_string();
            held.push(ports);
            let args = ["init", "--name", &name, "--site", SITE, "--port", &port, "-o", "json", "--dir"];
            let mut init = Command::new(&layout.binary);
            init.args(args).arg(&dir).args(layout.tcp.then_some("--tcp")).env_clear();
            let output = init.output();
            let output = output.map_err(io_error(layout.binary.display().to_string()))?;
            let command = || format!("{} init", layout.binary.display());
            if !output.status.success() {
                let output = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(LaunchError::Command { command: command(), output });
            }
            let mut made: Made = serde_json::from_slice(&output.stdout)
                .map_err(|e| LaunchError::Command { command: command(), output: e.to_string() })?;
            if let Some(hosts) = &layout.hosts {
                let address = hosts.address(at).to_string();
                made.control = made.control.replace("127.0.0.1", &address);
                made.mesh = made.mesh.replace("127.0.0.1", &address);
            }
            all.push(made.clone());
            nodes.push(TestNode::of(name, dir, made));
        }
        let relay = join(&layout, &nodes)?;
        let testnet = Self { layout, nodes, relay };
        for at in 0..testnet.nodes.len() {
            testnet.configure(at)?;
        }
        let text = serde_json::to_vec_pretty(&all).unwrap_or_default();
        std::fs::write(&known, text).map_err(io_error(known.display().to_string()))?;
        Ok(testnet)
    }

    fn reopen(layout: Layout, known: &[u8]) -> Result<Self, LaunchError> {
        let command = || format!("reading {}", layout.dir.join(place::LIST).display());
        let failed = |output: String| LaunchError::Command { command: command(), output };
        let all: Vec<Made> = serde_json::from_slice(known).map_err(|e| failed(e.to_string()))?;
        if all.len() != layout.nodes {
            let asked = layout.nodes;
            return Err(failed(format!("it has {} nodes and {asked} are asked for; give a fresh --dir", all.len())));
        }
        let name = |at: usize| format!("n{at}");
        let nodes = all.into_iter().enumerate();
        let nodes: Vec<_> = nodes.map(|(at, made)| TestNode::of(name(at), layout.dir.join(name(at)), made)).collect();
        if layout.links.is_some() != relay::is_in(&layout.dir) {
            return Err(failed(
                "its nodes are behind a relay, or are to be, but not both; give a fresh --dir".to_owned(),
            ));
        }
        let relay = join(&layout, &nodes)?;
        Ok(Self { layout, nodes, relay })
    }

    fn configure(&self, at: usize) -> Result<(), LaunchError> {
        let path = self.nodes[at].dir.join("skep.toml");
        let what = || io_error(path.display().to_string());
        let text = std::fs::read_to_string(&path).map_err(what())?;
        let mut text = text.replace("preset = \"lan\"", &format!("preset = \"{}\"", self.layout.preset));
        for (other, peer) in self.nodes.iter().enumerate().filter(|(other, _)| *other != at) {
            let control = self.relay.as_ref().map(|relay| relay.address(other).to_string());
            text.push_str(&format!(
                "\n[[peers]]\nid = \"{}\"\nname = \"{}\"\ncontrol = \"{}\"\nmesh = \"{}\"\nvoter = {}\n",
                peer.id,
                peer.name,
                control.as_ref().unwrap_or(&peer.control),
                peer.mesh,
                other < self.layout.voters
            ));
        }
        std::fs::write(&path, text).map_err(what())
    }

    /// Starts all nodes, creates the shard on the first ones and waits until each of them holds a replica.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn up(&mut self) -> Result<(), LaunchError> {
        for at in 0..self.nodes.len() {
            self.start(at)?;
        }
        let voters: Vec<String> = self.nodes.iter().take(self.layout.voters).map(|node| node.id.clone()).collect();
        for at in 0..self.nodes.len() {
            let client = self.nodes[at].client();
            // Once the nodes know who votes, two that do not keep no connection.
            let needed =
                |node: &String| *node != self.nodes[at].id && (at < self.layout.voters || voters.contains(node));
            self.wait_for("all nodes connected", async || {
                let status = client.node_status().await.ok()?;
                let up: BTreeSet<&String> = status.peers.iter().filter(|p| p.control_up).map(|p| &p.node).collect();
                self.nodes.iter().map(|node| &node.id).filter(|id| needed(id)).all(|id| up.contains(id)).then_some(())
            })
            .await?;
        }
        let (genesis, first) = self.charter()?;
        match self.nodes[0].client().init_shard(voters, genesis, Some(&first)).await {
            Ok(_) => {}
            // The answer was lost, and this was a second sending.
            Err(ClientError::NotDone(failure)) if failure.message.contains("exists already") => {}
            Err(error) => return Err(error.into()),
        }
        self.leader().await?;
        // A voter holds no replica until it has heard of the shard from its leader.
        let voters: Vec<usize> = (0..self.layout.voters).collect();
        self.until_equal(&voters).await.map(drop)
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub fn start(&mut self, at: usize) -> Result<(), LaunchError> {
        self.launch(at, None)
    }

    /// `descriptors`: how many descriptors it may have; as many as this process if none.
    fn launch(&mut self, at: usize, descriptors: Option<u64>) -> Result<(), LaunchError> {
        let node = &mut self.nodes[at];
        let log = node.dir.join("log");
        let log =
            OpenOptions::new().create(true).append(true).open(&log).map_err(io_error(log.display().to_string()))?;
        let (mut command, own) = match &self.layout.hosts {
            None => (Command::new(&self.layout.binary), Vec::new()),
            Some(hosts) => {
                let mesh = format!("mesh.listen={}:{}", hosts.address(at), node.mesh_port());
                let control = format!("control.listen={}", node.control);
                (hosts.command(at, &self.layout.binary), vec![control, mesh])
            }
        };
        if let Some(descriptors) = descriptors {
            command = descriptors::limited(&command, descriptors);
        }
        let child = command
            .args(["run", "--while-stdin", "--dir"])
            .arg(&node.dir)
            .args(self.layout.overrides.iter().chain(&own).flat_map(|set| ["--set", set]))
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "SKEP_LOG" || name == "RUST_BACKTRACE"))
            // The testnet reads from outside what each node takes of memory, disk and descriptors.
            .env("SKEP_DUMPABLE", "1")
            .envs(node.variables.iter().map(|(name, value)| (name, value)))
            // The node ends when its end of this pipe does, however the launcher ends.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(io_error("log"))?)
            .stderr(log)
            .spawn()
            .map_err(io_error(self.layout.binary.display().to_string()))?;
        node.child = Some(child);
        Ok(())
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.nodes[at].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills a node with SIGKILL to which another process has sent one too; returns whether the other one ended it.
    pub(crate) fn kill_again(&mut self, at: usize) -> bool {
        let Some(mut child) = self.nodes[at].child.take() else { return false };
        let _ = child.kill();
        child.wait().is_ok_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// Lets a node drain and waits until it is gone; returns whether it ended well.
    pub async fn stop(&mut self, at: usize) -> bool {
        let Some(mut child) = self.nodes[at].child.take() else { return false };
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// Removes everything that a node stored, except its key and configuration.
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub fn wipe(&self, at: usize) -> Result<(), LaunchError> {
        let data = self.nodes[at].dir.join("data");
        std::fs::remove_dir_all(&data).map_err(io_error(data.display().to_string()))
    }

    /// Waits until a running node leads, and returns that node.
    ///
    /// # Errors
    /// [`LaunchError::Timeout`].
    pub async fn leader(&self) -> Result<usize, LaunchError> {
        self.wait_for("a leader", async || {
            for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.pid().is_some()) {
                let Ok(status) = node.impatient_client().shard_status().await else { continue };
                if status.role == "leader" && status.leader == node.id && status.clock > 0 {
                    return Some(at);
                }
            }
            None
        })
        .await
    }

    /// Waits until all these nodes have applied the same and have the same digest; returns what each says of it.
    ///
    /// # Errors
    /// [`LaunchError::Timeout`].
    pub async fn until_equal(&self, nodes: &[usize]) -> Result<Vec<v1::ShardStatusReply>, LaunchError> {
        self.wait_for("equal replicas", async || {
            let mut all: Vec<v1::ShardStatusReply> = Vec::new();
            for at in nodes {
                let status = self.nodes[*at].impatient_client().shard_status().await.ok()?;
                let known = all.first().unwrap_or(&status);
                let equal = known.applied_index == status.applied_index && known.digest == status.digest;
                if !equal || status.applied_index != status.last_log_index {
                    return None;
                }
                all.push(status);
            }
            Some(all)
        })
        .await
    }

    /// The nodes' hosts, if they have hosts of their own.
    pub fn hosts(&self) -> Option<&Hosts> {
        self.layout.hosts.as_deref()
    }

    /// The relay between the nodes, if there is one.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Tells every node which peers it does not reach, in place of what it was told before. Needs [`SWITCHES`].
    pub(crate) fn throw_switches(&self, pairs: &[(usize, usize)]) -> Result<(), LaunchError> {
        for (at, node) in self.nodes.iter().enumerate() {
            let cut_off = pairs.iter().filter(|(from, _)| *from == at).map(|(_, to)| self.nodes[*to].id.as_str());
            let path = node.dir.join(CUTS);
            let text = cut_off.collect::<Vec<_>>().join("\n");
            std::fs::write(&path, text).map_err(io_error(path.display().to_string()))?;
        }
        Ok(())
    }

    /// Waits until all these nodes have applied everything that the leader has applied at this moment.
    ///
    /// # Errors
    /// [`LaunchError::Timeout`].
    pub async fn until_caught_up(&self, nodes: &[usize]) -> Result<(), LaunchError> {
        let leader = self.leader().await?;
        let end = self.nodes[leader].client().shard_status().await?.last_log_index;
        self.wait_for("replicas that have caught up", async || {
            for at in nodes {
                let status = self.nodes[*at].impatient_client().shard_status().await.ok()?;
                if status.applied_index < end {
                    return None;
                }
            }
            Some(())
        })
        .await
    }

    /// Returns how many of these tasks every running voter holds.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn verify(&self, tasks: &[[u8; 16]]) -> Result<usize, LaunchError> {
        let mut verified: BTreeSet<[u8; 16]> = tasks.iter().copied().collect();
        for node in self.nodes.iter().take(self.layout.voters).filter(|node| node.pid().is_some()) {
            let held = node.held().await?;
            verified.retain(|id| held.contains(id));
        }
        Ok(verified.len())
    }

    /// Asks until there is an answer, for a generous time.
    ///
    /// # Errors
    /// [`LaunchError::Timeout`].
    pub async fn wait_for<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T, LaunchError> {
        let within = Duration::from_secs(60);
        let deadline = Instant::now() + within;
        loop {
            if let Some(answer) = ask().await {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                let dir = self.layout.dir.clone();
                return Err(LaunchError::Timeout { what: what.to_owned(), within, dir });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The testnet's directory.
    pub fn dir(&self) -> &Path {
        &self.layout.dir
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.kill(at));
    }
}
