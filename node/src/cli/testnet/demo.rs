//! `skep testnet demo`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use skep_testnet::scenario::demo::{DemoOptions, Faults, demo};
use skep_testnet::site::{OWN_NODE_MAX, SiteOptions};
use skep_testnet::verify::Report;
use skep_testnet::{builtin, load_problem};

use crate::cli::output::{Format, one, parse_span, print as say, tell};
use crate::cli::{Common, Failure};

/// What robots do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkloadName {
    /// A small warehouse that Skep generates
    Builtin,
}

/// How the orchestrator chooses the robot of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyName {
    /// Robots in turns
    RoundRobin,
    /// The robot that is nearest to where the order begins
    Nearest,
}

/// The faults of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultsName {
    /// At 30 % of the orders the orchestrator is killed, at 60 % a node whose robot holds a task
    Story,
    /// One process, node or robot, is killed at a random moment
    RandomKill,
    /// No fault
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Number of robots; up to 50 have a node each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    robots: u16,
    /// Number of nodes that the robots share [default: as many as robots, at most 50]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,
    /// Number of nodes that vote: 1 to 7
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    voters: u16,
    /// Number of orders
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tasks: u32,
    /// Time that a robot takes for one cell, such as 60ms
    #[arg(long, value_parser = parse_span, default_value = "60ms")]
    tick: Duration,
    /// Work of the robots
    #[arg(long, value_enum, default_value_t = WorkloadName::Builtin, conflicts_with = "problem")]
    workload: WorkloadName,
    /// File of a League of Robot Runners problem: robots walk shortest ways, collisions and delays are ignored
    #[arg(long, value_name = "FILE")]
    problem: Option<PathBuf>,
    /// Policy by which robots get orders
    #[arg(long, value_enum, default_value_t = PolicyName::Nearest)]
    policy: PolicyName,
    /// Faults of the run
    #[arg(long, value_enum, default_value_t = FaultsName::Story)]
    faults: FaultsName,
    /// Flood the data plane with ten times the robots' telemetry, from 40 % to 80 % of the orders, in place of other
    /// faults
    #[arg(long, conflicts_with = "faults")]
    flood: bool,
    /// Lease of the robots, such as 5s: a robot that is silent for so long loses its order
    #[arg(long, value_parser = parse_span, default_value = "5s")]
    lease: Duration,
    /// Seed of random choices: a number [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs and histories for 'skep testnet verify'; --dir says where. A run in which something was wrong always
    /// keeps them
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let robots = usize::from(self.robots);
        let nodes = self.nodes.map_or(robots.clamp(usize::from(self.voters), OWN_NODE_MAX), usize::from);
        let voters = usize::from(self.voters);
        if nodes < voters {
            return Err(Failure::usage(format!("{voters} voters need as many nodes; there are {nodes}")));
        }
        if self.faults == FaultsName::Story && !self.flood && (nodes < 2 || voters < 3) {
            return Err(Failure::usage("the story kills a voter: give at least 3 voters, or --faults none"));
        }
        let seed = self.seed.unwrap_or_else(rand::random);
        let orders = self.tasks as usize;
        let workload = match &self.problem {
            Some(path) => load_problem(path, robots, orders).map_err(Failure::usage)?,
            None => builtin(robots, orders, seed),
        };
        let dir = super::fresh(common, "demo")?;
        let policy = match self.policy {
            PolicyName::RoundRobin => "control.policy=round-robin",
            PolicyName::Nearest => "control.policy=nearest",
        };
        let options = DemoOptions {
            site: SiteOptions {
                binary: std::env::current_exe().map_err(Failure::failed)?,
                dir: dir.clone(),
                robots,
                nodes,
                voters,
                tick: self.tick,
                overrides: vec![policy.to_owned()],
                hosts: None,
                links: None,
                listed: Vec::new(),
            },
            workload,
            faults: match self.faults {
                _ if self.flood => Faults::Flood,
                FaultsName::Story => Faults::Story,
                FaultsName::RandomKill => Faults::RandomKill,
                FaultsName::None => Faults::None,
            },
            lease_ttl_ms: u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX),
            seed,
            tells: true,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let report = runtime.map_err(Failure::failed)?.block_on(demo(options)).map_err(Failure::failed)?;
        let kept = self.keep || !report.ok;
        if !kept {
            let _ = std::fs::remove_dir_all(&dir);
        }
        let printed = print(common.output, &report);
        if kept {
            tell(&format!("everything is kept in {}; 'skep testnet verify {0}' checks it again", dir.display()));
        }
        printed
    }
}

/// Prints a report. A failure if an order was not completed or an invariant was violated.
pub(super) fn print(format: Format, report: &Report) -> Result<(), Failure> {
    let list = |values: &[u64]| values.iter().map(|ms| format!("{ms} ms")).collect::<Vec<_>>().join(", ");
    let (tasks, effects, latency) = (&report.tasks, &report.effects, &report.latency_ms);
    let lines = [
        ("site", format!("{} nodes, {} robots, {}", report.nodes, report.robots, report.workload)),
        ("orders", format!("{} of {} completed, {} dead letters", tasks.completed, tasks.created, tasks.dead_lettered)),
        ("throughput", format!("{} orders/s", report.throughput_per_s)),
        ("claim", format!("p50 {} ms, p99 {} ms after creation", latency.claim.p50, latency.claim.p99)),
        ("completion", format!("p50 {} ms, p99 {} ms after creation", latency.complete.p50, latency.complete.p99)),
        ("failovers", list(&report.failovers_ms)),
        ("reassigned", format!("{} tasks of robots that went away", report.reassigned)),
        (
            "effects",
            format!(
                "{} errands begun; refused: {} stale, {} done already",
                effects.starts, effects.refused.stale, effects.refused.duplicate
            ),
        ),
        ("verdict", format!("lost {}, doubled {}, stale {}", tasks.lost, effects.duplicates, effects.stale)),
        (
            "invariants",
            format!(
                "{}: {}",
                report.invariants.checked.join(" "),
                if report.invariants.violations.is_empty() { "all held" } else { "VIOLATED" }
            ),
        ),
        ("seed", report.seed.to_string()),
    ];
    one(format, report, &lines)?;
    if format == Format::Table {
        if let Some(flood) = &report.flood {
            let (with, without) = (flood.claim_with_ms, flood.claim_without_ms);
            say(&format!(
                "flood       {} publications, {} dropped, {} elections; claim p50 {} ms, p99 {} ms with it, {} and {} without",
                flood.publications, flood.dropped, flood.elections, with.p50, with.p99, without.p50, without.p99
            ))?;
        }
        for explained in &report.explained {
            let line = format!(
                "            {} was refused errand {} of task {}, done by {}: {}",
                explained.refused, explained.errand, explained.task, explained.done_by, explained.because
            );
            say(&line)?;
        }
        for violation in &report.invariants.violations {
            say(&format!("            {}: {}", violation.invariant, violation.what))?;
        }
    }
    if report.ok { Ok(()) } else { Err(Failure::failed("not every order was completed, or an invariant was violated")) }
}
