//! Tests that need the whole product: real processes, and what programs say of the source.
//!
//! The tests themselves are in `tests/`; this is the harness that they share. Everything runs on loopback, in
//! directories and on ports of its own, and is ended by process id.

pub mod hall;
pub mod ports;
pub mod pose;
pub mod rogue;
pub mod running;
pub mod sim;
pub mod small_disk;

use std::path::PathBuf;
use std::process::{Command, Output};

use skep_testnet::site::relay::{Links, Relay};
use skep_testnet::{Layout, Testnet};

/// A testnet in a directory that is removed unless the test fails.
pub struct Site {
    /// The nodes.
    pub net: Testnet,
    binary: PathBuf,
    _dir: KeepOnPanic,
}

struct KeepOnPanic(Option<tempfile::TempDir>);

impl Drop for KeepOnPanic {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("the nodes' directories are kept in {}", dir.keep().display());
        }
    }
}

impl Site {
    /// Makes nodes that do not run yet. `binary` is the program under test.
    ///
    /// # Panics
    /// If they cannot be made: the test cannot go on.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn create(binary: &str, nodes: usize, voters: usize, overrides: &[&str]) -> Self {
        Self::create_with(binary, nodes, voters, overrides, false)
    }

    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    fn create_with(binary: &str, nodes: usize, voters: usize, overrides: &[&str], tcp: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout {
            binary: binary.into(),
            dir: dir.path().to_owned(),
            nodes,
            voters,
            preset: "sim".to_owned(),
            overrides: overrides.iter().map(|set| (*set).to_owned()).collect(),
            hosts: None,
            links: None,
            tcp,
        };
        Self::of(layout, dir)
    }

    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    fn of(layout: Layout, dir: tempfile::TempDir) -> Self {
        let binary = layout.binary.clone();
        let net = Testnet::create(layout).expect("nodes are made");
        Self { net, binary, _dir: KeepOnPanic(Some(dir)) }
    }

    /// Starts voters of this preset, behind a relay, with a shard on them.
    ///
    /// # Panics
    /// If they do not come up: the test cannot go on.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub async fn up_behind_relay(binary: &str, voters: usize, preset: &str, links: Links) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout {
            binary: binary.into(),
            dir: dir.path().to_owned(),
            nodes: voters,
            voters,
            preset: preset.to_owned(),
            overrides: Vec::new(),
            hosts: None,
            links: Some(links),
            tcp: false,
        };
        let mut site = Self::of(layout, dir);
        site.net.up().await.expect("nodes come up");
        site
    }

    /// Starts a node with a shard on it, which serves its API over TCP as well.
    ///
    /// # Panics
    /// If it does not come up: the test cannot go on.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub async fn up_over_tcp(binary: &str) -> Self {
        let mut site = Self::create_with(binary, 1, 1, &[], true);
        site.net.up().await.expect("a node comes up");
        site
    }

    /// The relay between its nodes.
    ///
    /// # Panics
    /// If the site has none.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn relay(&self) -> &Relay {
        self.net.relay().expect("a relay")
    }

    /// Starts nodes, with a shard on the first of them.
    ///
    /// # Panics
    /// If they do not come up: the test cannot go on.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub async fn up(binary: &str, nodes: usize, voters: usize, overrides: &[&str]) -> Self {
        let mut site = Self::create(binary, nodes, voters, overrides);
        site.net.up().await.expect("nodes come up");
        site
    }

    /// Waits until each of these nodes has saved the shard's clock for its next process.
    ///
    /// # Panics
    /// If they do not: the test cannot go on.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub async fn until_clocks_are_left(&self, nodes: &[usize]) {
        let clocks: Vec<PathBuf> = nodes.iter().map(|at| self.net.nodes[*at].dir.join("data/clocks")).collect();
        let is_left = |clocks: &PathBuf| std::fs::read_dir(clocks).is_ok_and(|mut files| files.next().is_some());
        let left = async || clocks.iter().all(is_left).then_some(());
        self.net.wait_for("every node has written the clock down", left).await.expect("clocks are left");
    }

    /// Runs the program against a node, as a user does.
    ///
    /// # Panics
    /// If the program cannot be run.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn skep(&self, node: usize, args: &[&str]) -> Ran {
        Ran(self.command(node, args).output().expect("the program runs"))
    }

    /// The command line of the program against a node, not run yet.
    #[must_use]
    pub fn command(&self, node: usize, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).arg("--dir").arg(&self.net.nodes[node].dir).env_clear();
        command
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran(Output);

impl Ran {
    /// Runs a program that is not one against a node.
    ///
    /// # Panics
    /// If the program cannot be run.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        Self(command.output().expect("the program runs"))
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// What the program printed on standard output.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// What the program printed on standard error.
    #[must_use]
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// What the program printed, as JSON.
    ///
    /// # Panics
    /// If the program failed or printed no JSON.
    #[allow(clippy::panic, reason = "a harness: what fails here fails the test")]
    pub fn json(&self) -> serde_json::Value {
        assert!(self.0.status.success(), "{}", self.error());
        serde_json::from_slice(&self.0.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}
