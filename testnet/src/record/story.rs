//! What happened, for people as it happens and for checkers afterwards.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{RecordError, Recorder};

/// A claim that a process took with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldClaim {
    /// Who held it.
    pub robot: String,
    /// The task.
    pub task: String,
    /// The claim.
    pub epoch: u64,
}

/// One thing that happened to the testnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StoryRecord {
    /// It is up.
    Begun {
        /// On the boot clock.
        at_ns: u64,
        /// How many nodes.
        nodes: usize,
        /// How many of them vote.
        voters: usize,
        /// How many robots.
        robots: usize,
        /// What they do.
        workload: String,
        /// Their leases, in milliseconds.
        lease_ttl_ms: u64,
        /// Longest silence of a leader that voters bear, in milliseconds.
        election_ms_max: u64,
        /// What random choices began with.
        seed: u64,
        /// The shard's log clock at this instant.
        clock: u64,
    },
    /// A process was killed with SIGKILL.
    Killed {
        /// On the boot clock.
        at_ns: u64,
        /// Which.
        name: String,
        /// Whether it led the shard.
        leader: bool,
        /// The shard's log clock shortly before.
        clock: u64,
        /// What its robots held.
        held: Vec<HeldClaim>,
    },
    /// A process was suspended.
    Paused {
        /// On the boot clock.
        at_ns: u64,
        /// Which.
        name: String,
    },
    /// A suspended process goes on.
    Resumed {
        /// On the boot clock.
        at_ns: u64,
        /// Which.
        name: String,
    },
    /// A run of a robot's software was started at a node. It is there until it ends.
    Placed {
        /// On the boot clock.
        at_ns: u64,
        /// Which run.
        run: String,
        /// Which node.
        node: String,
    },
    /// Something went wrong, in a run in which many things do.
    Fault {
        /// On the boot clock.
        at_ns: u64,
        /// What.
        fault: String,
        /// Whom it hit.
        name: String,
    },
    /// A killed leader has a successor that takes writes.
    Elected {
        /// On the boot clock.
        at_ns: u64,
        /// Which.
        name: String,
        /// Since the kill, in milliseconds.
        after_ms: u64,
    },
    /// What a killed node's robot held has another holder, or its end.
    Reassigned {
        /// On the boot clock.
        at_ns: u64,
        /// The task.
        task: String,
        /// Who has it.
        to: String,
        /// Since the kill, in milliseconds.
        after_ms: u64,
    },
    /// A process runs again.
    Restarted {
        /// On the boot clock.
        at_ns: u64,
        /// Which.
        name: String,
    },
    /// Telemetry is published at a multiple of what the robots publish.
    FloodBegun {
        /// On the boot clock.
        at_ns: u64,
        /// The shard's log clock.
        clock: u64,
        /// The shard's term.
        term: u64,
        /// Publications a second, wished.
        per_s: f64,
    },
    /// No more.
    FloodEnded {
        /// On the boot clock.
        at_ns: u64,
        /// The shard's log clock.
        clock: u64,
        /// The shard's term.
        term: u64,
        /// Publications that were handed to nodes.
        sent: u64,
        /// Those, of all meanwhile, that some node had no room for.
        dropped: u64,
    },
    /// The shard's log clock was asked for. A new leader's may lag behind that of the one before, by what a frame takes.
    Clock {
        /// When it was told, on the boot clock.
        at_ns: u64,
        /// The shard's log clock, as a node knew it.
        clock: u64,
    },
    /// All orders have ended.
    Ended {
        /// On the boot clock.
        at_ns: u64,
    },
}

/// Tells the story: to standard error for people, and into a file.
#[derive(Clone)]
pub struct Story {
    recorder: Arc<Recorder>,
    bar: indicatif::ProgressBar,
    /// Whether anybody reads along.
    tells: bool,
    begun: Instant,
}

impl Story {
    /// A story of `orders` orders. Silent for people if `tells` is false.
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

    /// Keeps a record.
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

    /// So many orders are done.
    pub fn progress(&self, done: usize) {
        self.bar.set_position(done as u64);
    }

    /// The bar goes away.
    pub fn close(&self) {
        self.bar.finish_and_clear();
    }
}
