//! What happened, for people as it happens and for checkers afterwards.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{RecordError, Recorder};

/// A claim of a process that was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldClaim {
    /// The robot that held it.
    pub robot: String,
    /// The task's id.
    pub task: String,
    /// The epoch of the claim.
    pub epoch: u64,
}

/// One thing that happened to the testnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StoryRecord {
    /// The testnet is up.
    Begun {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// How many nodes.
        nodes: usize,
        /// How many nodes vote.
        voters: usize,
        /// How many robots.
        robots: usize,
        /// The workload's name.
        workload: String,
        /// The robots' leases, in milliseconds.
        lease_ttl_ms: u64,
        /// The longest silence of a leader that voters accept, in milliseconds.
        election_ms_max: u64,
        /// The seed of random choices.
        seed: u64,
        /// The shard's log clock at this instant.
        clock: u64,
    },
    /// A process was killed with SIGKILL.
    Killed {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the process.
        name: String,
        /// Whether it led the shard.
        leader: bool,
        /// The shard's log clock shortly before.
        clock: u64,
        /// The claims that its robots held.
        held: Vec<HeldClaim>,
    },
    /// A process was suspended.
    Paused {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the process.
        name: String,
    },
    /// A suspended process continues.
    Resumed {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the process.
        name: String,
    },
    /// A run of a robot's software was started at a node, where it stays until it ends.
    Placed {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the run.
        run: String,
        /// The name of the node.
        node: String,
    },
    /// Something went wrong, in a run in which many things do.
    Fault {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the fault.
        fault: String,
        /// The name of the process that it hit.
        name: String,
    },
    /// A killed leader has a successor that takes writes.
    Elected {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the new leader.
        name: String,
        /// The time since the kill, in milliseconds.
        after_ms: u64,
    },
    /// A task that a killed node's robot held has another holder, or has ended.
    Reassigned {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The task's id.
        task: String,
        /// The robot that has it.
        to: String,
        /// The time since the kill, in milliseconds.
        after_ms: u64,
    },
    /// A process runs again.
    Restarted {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The name of the process.
        name: String,
    },
    /// Telemetry is published at a multiple of what the robots publish.
    FloodBegun {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The shard's log clock.
        clock: u64,
        /// The shard's term.
        term: u64,
        /// The rate that was asked for, in publications a second.
        per_s: f64,
    },
    /// The flood of telemetry ended.
    FloodEnded {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The shard's log clock.
        clock: u64,
        /// The shard's term.
        term: u64,
        /// How many publications were handed to nodes.
        sent: u64,
        /// How many publications, of all during the flood, some node had no room for.
        dropped: u64,
    },
    /// The shard's log clock was read. The clock of a new leader may lag behind that of the former one, by the time
    /// that a frame takes.
    Clock {
        /// When the node answered, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The shard's log clock, as a node knew it.
        clock: u64,
    },
    /// All orders have ended.
    Ended {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
    },
}

/// Tells the story: to standard error for people, and into a file.
#[derive(Clone)]
pub struct Story {
    recorder: Arc<Recorder>,
    bar: indicatif::ProgressBar,
    /// Whether a person reads along.
    tells: bool,
    begun: Instant,
}

impl Story {
    /// Begins the story of `orders` orders. Silent for people if `tells` is false.
    ///
    /// # Errors
    /// [`RecordError`] if its file cannot be opened.
    pub fn begin(path: &Path, orders: u64, tells: bool) -> Result<Self, RecordError> {
        let shows = tells && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let bar = if shows { indicatif::ProgressBar::new(orders) } else { indicatif::ProgressBar::hidden() };
        if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} orders  {msg}") {
            bar.set_style(style);
        }
        Ok(Self { recorder: Arc::new(Recorder::open(path)?), bar, tells, begun: Instant::now() })
    }

    /// Writes a record into the file.
    pub fn record(&self, record: &StoryRecord) {
        if let Err(error) = self.recorder.write(record) {
            self.say(&format!("the story cannot be written: {error}"));
        }
    }

    /// Says something to people.
    pub fn say(&self, text: &str) {
        if !self.tells {
            return;
        }
        let line = format!("{:>6.1} s  {text}", self.begun.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Shows how many orders are done.
    pub fn progress(&self, done: usize) {
        self.bar.set_position(done as u64);
    }

    /// Removes the progress bar.
    pub fn close(&self) {
        self.bar.finish_and_clear();
    }
}
