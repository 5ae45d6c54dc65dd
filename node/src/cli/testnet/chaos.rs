//! `skep testnet chaos` and `skep testnet power`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use skep_testnet::builtin;
use skep_testnet::scenario::chaos::{ChaosOptions, ChaosReport, DeedCount, FaultMix, chaos};
use skep_testnet::scenario::power::{PowerOptions, PowerReport, power};
use skep_testnet::site::SiteOptions;

use super::fresh;
use crate::cli::output::{Format, one, parse_span, tell};
use crate::cli::{Common, Failure};

/// How many orders for each robot and minute the robots cannot finish.
const ORDERS_PER_ROBOT_AND_MINUTE: usize = 400;

/// Links between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LinkKind {
    /// Nodes reach each other without delay
    Lan,
    /// Each direction between two nodes has its own delay of 5 to 300 ms; links become thin, and are cut one way and in
    /// part
    Mixed,
}

impl LinkKind {
    /// A lease that outlives a few round trips on such links, so that robots lose their work to the faults, and not to
    /// the links.
    fn lease(self) -> Duration {
        match self {
            Self::Lan => Duration::from_secs(3),
            Self::Mixed => Duration::from_secs(6),
        }
    }
}

/// The faults that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Faults {
    /// All faults but the last two
    All,
    /// Kills of nodes, full, wiped and damaged disks, and the last two
    Disks,
}

impl Faults {
    fn mix(self) -> FaultMix {
        match self {
            Self::All => FaultMix::All,
            Self::Disks => FaultMix::Disks,
        }
    }
}

/// The faults, for the help of chaos.
const FAULTS: &str = "What goes wrong, two things at a time, each for a while:
  kill, kill-leader     a node gets a SIGKILL, and is started again
  pause-node            a node gets a SIGSTOP, for longer than a lease
  kill-robot            a robot's software gets a SIGKILL, and is started again
  pause-robot           a robot's software gets a SIGSTOP, for longer than a lease
  move-robot            a robot's software is started at another node; the run before has ended, is suspended or cut off
                        until then, or goes on
  cut, one-way-cut      nothing goes between two sides, or nothing one way
  partial-cut           the leader is cut off from some nodes, and no other node is
  thin-link             the links of a node carry 256 kbit/s
  loss, slow-link, flap a node's own network; as root
  disk-full             the disk of a voter fills up, its log's and its journals'; as root
  wipe, corrupt         a voter loses its disk, or a byte of it, and is taken in again
  few-descriptors       a node has hardly more descriptors than it had open, from its start or while it runs, and more
                        callers than that watch it
  kill-at-rotation      a node gets a SIGKILL as soon as a segment of its log, or of its journals, is made or goes";

#[derive(Debug, Args)]
#[command(after_help = FAULTS)]
pub(crate) struct Chaos {
    /// Number of robots, each with its own node: 1 to 50
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=50))]
    robots: u16,
    /// Number of nodes that vote: 3 to 7
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=7))]
    voters: u16,
    /// How long faults happen, in minutes: 0.05 to 1440
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Time that a robot takes for one cell, such as 20ms
    #[arg(long, value_parser = parse_span, default_value = "20ms")]
    tick: Duration,
    /// Faults that happen, of those below
    #[arg(long, value_enum, default_value_t = Faults::All)]
    faults: Faults,
    /// Program of a bad robot that attacks the site meanwhile: a peer that all nodes list and that votes nowhere. The
    /// package skep-tests has one, rogue
    #[arg(long, value_name = "PROGRAM")]
    bad_robot: Option<PathBuf>,
    /// Links between the nodes
    #[arg(long, value_enum, default_value_t = LinkKind::Mixed)]
    links: LinkKind,
    /// Lease of the robots: a robot that is silent for so long loses its task [default: 6s, with lan links 3s]
    #[arg(long, value_parser = parse_span)]
    lease: Option<Duration>,
    /// Seed that decides what goes wrong and when: a number [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs and histories; --dir says where. A run in which something was wrong always keeps them
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Power {
    /// Number of power cuts: of one voter, of a quorum and of all voters in turn
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cuts: u32,
    /// Number of nodes, which all vote: 3 to 7
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    voters: u16,
    /// Number of clients, each with one write under way: 1 to 512
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    clients: u16,
    /// Seed that decides whose power is cut and when: a number [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the nodes' logs; --dir says where. A run in which something was wrong always keeps them
    #[arg(long)]
    keep: bool,
}

/// Runs a scenario to its end, or until Ctrl-C. Either way it ends all processes, mounts and cuts that it made.
pub(super) fn until_interrupted<T, E: std::fmt::Display>(
    run: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(async {
        tokio::select! {
            ended = run => ended.map_err(Failure::failed),
            _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted")),
        }
    })
}

pub(super) fn finish(dir: &std::path::Path, keep: bool, ok: bool) {
    if ok && !keep {
        let _ = std::fs::remove_dir_all(dir);
    } else {
        tell(&format!("everything is kept in {}", dir.display()));
    }
}

pub(super) fn judged(ok: bool, what: &str) -> Result<(), Failure> {
    if ok { Ok(()) } else { Err(Failure::failed(format!("{what} failed: see the report"))) }
}

impl Chaos {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let (robots, voters) = (usize::from(self.robots), usize::from(self.voters));
        if !(0.05..=24.0 * 60.0).contains(&self.minutes) {
            return Err(Failure::usage("give --minutes from 0.05 to 1440"));
        }
        let dir = fresh(common, "chaos")?;
        let seed = self.seed.unwrap_or_else(rand::random);
        let lease = self.lease.unwrap_or_else(|| self.links.lease());
        let orders = robots * (self.minutes.ceil() as usize) * ORDERS_PER_ROBOT_AND_MINUTE;
        let options = ChaosOptions {
            site: SiteOptions {
                binary: std::env::current_exe().map_err(Failure::failed)?,
                dir: dir.clone(),
                robots,
                nodes: robots.max(voters),
                voters,
                tick: self.tick,
                overrides: vec!["control.policy=nearest".to_owned()],
                hosts: None,
                links: None,
                listed: Vec::new(),
            },
            workload: builtin(robots, orders, seed),
            faults: self.faults.mix(),
            bad_robot: self.bad_robot,
            mixed_links: self.links == LinkKind::Mixed,
            lasts: Duration::from_secs_f64(self.minutes * 60.0),
            lease_ttl_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            seed,
        };
        let report = until_interrupted(chaos(options))?;
        finish(&dir, self.keep, report.ok);
        print_chaos(common.output, &report)
    }
}

fn print_chaos(format: Format, report: &ChaosReport) -> Result<(), Failure> {
    let faults: Vec<String> = report.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let outcomes = report.commands.outcomes.iter();
    let outcomes: Vec<String> = outcomes.map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let deed = |(deed, count): (&String, &DeedCount)| format!("{deed} {} of {}", count.done, count.turns);
    let deeds: Vec<String> = report.bad_robot.iter().map(deed).collect();
    let violations = &report.invariants.violations;
    let mut lines = vec![
        ("site", format!("{} nodes, {} voters, {} robots", report.nodes, report.voters, report.robots)),
        ("network", format!("{}; {} links", report.network, report.links)),
        ("faults", format!("{}: {}", report.mix, faults.join(", "))),
        ("calls", format!("{}, {} of them done, {} reads", report.ops, report.acknowledged, report.reads)),
        ("orders", format!("{} of {} completed", report.tasks.completed, report.tasks.created)),
        ("commands", format!("{} accepted; at robots {}", report.commands.accepted, outcomes.join(", "))),
        ("healed", format!("after {} ms", report.heal_ms)),
        ("seed", report.seed.to_string()),
        ("checked", format!("{}: {} violations", report.invariants.checked.join(", "), violations.len())),
    ];
    if !deeds.is_empty() {
        lines.push(("bad robot", deeds.join(", ")));
        lines.push(("not shown", report.not_shown.join(", ")));
    }
    lines.extend(violations.iter().map(|violation| (violation.invariant, violation.what.clone())));
    one(format, report, &lines)?;
    judged(report.ok, "the chaos run")
}

impl Power {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let dir = fresh(common, "power")?;
        let seed = self.seed.unwrap_or_else(rand::random);
        let options = PowerOptions {
            binary: std::env::current_exe().map_err(Failure::failed)?,
            dir: dir.clone(),
            voters: usize::from(self.voters),
            clients: usize::from(self.clients),
            cuts: self.cuts,
            seed,
        };
        let report = until_interrupted(power(options))?;
        finish(&dir, self.keep, report.ok);
        print_power(common.output, &report)
    }
}

fn print_power(format: Format, report: &PowerReport) -> Result<(), Failure> {
    if let Some(why) = &report.skipped {
        one(format, report, &[("skipped", why.clone())])?;
        return Ok(());
    }
    let lines = [
        (
            "power cuts",
            format!("{} of one voter, {} of a quorum, {} of all", report.of_one, report.of_quorum, report.of_all),
        ),
        ("writes", format!("{} acknowledged, {} in doubt", report.acknowledged, report.unknown)),
        ("verdict", format!("lost {}, doubled {}", report.lost, report.doubled)),
        ("seed", report.seed.to_string()),
    ];
    one(format, report, &lines)?;
    judged(report.ok, "the power cuts")
}
