//! `skep testnet run inspect`

use clap::Args;
use skep_testnet::scenario::inspect::{InspectOptions, InspectReport, check_inspect, inspect};

use super::chaos::{finish, judged, until_interrupted};
use super::fresh;
use crate::cli::output::{Format, one};
use crate::cli::{Common, Failure};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Number of robots: 8 to 1000
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(8..=1_000))]
    robots: u16,
    /// Number of nodes: 4 to 100. Robots share those that do not vote; robots that are killed or suspended have more nodes of their own
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(4..=100))]
    nodes: u16,
    /// Number of nodes that vote: 3 to 7
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    voters: u16,
    /// Seed that decides which robots are hit and when: a number [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs; --dir says where. A run in which something was wrong always keeps them
    #[arg(long)]
    keep: bool,
}

impl Inspect {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let (robots, nodes, voters) = (usize::from(self.robots), usize::from(self.nodes), usize::from(self.voters));
        check_inspect(robots, nodes, voters).map_err(Failure::usage)?;
        let dir = fresh(common, "inspect")?;
        let options = InspectOptions {
            binary: std::env::current_exe().map_err(Failure::failed)?,
            dir: dir.clone(),
            robots,
            nodes,
            voters,
            seed: self.seed.unwrap_or_else(rand::random),
            tells: true,
        };
        let report = until_interrupted(inspect(options))?;
        finish(&dir, self.keep, report.ok);
        print(common.output, &report)
    }
}

fn print(format: Format, report: &InspectReport) -> Result<(), Failure> {
    let counted = |counts: Vec<(String, usize)>| {
        let each: Vec<String> = counts.into_iter().map(|(what, count)| format!("{what} {count}")).collect();
        each.join(", ")
    };
    let outcomes = report.outcomes.iter().map(|(outcome, count)| (outcome.clone(), *count)).collect();
    let faults = report.faults.iter().map(|(fault, count)| ((*fault).to_owned(), *count)).collect();
    let ms = |latency: skep_testnet::bench::LatencyMs| {
        format!("p50 {} ms, p99 {} ms, max {} ms", latency.p50, latency.p99, latency.max)
    };
    let InspectReport { duplicates, stale, limbo, untrue, .. } = report;
    let mut lines = vec![
        ("site", format!("{} robots, {} nodes, {} voters", report.robots, report.nodes, report.voters)),
        ("verdict", format!("duplicates {duplicates}, stale {stale}, limbo {limbo}, untrue {untrue}")),
        ("outcomes", counted(outcomes)),
        ("faults", counted(faults)),
        ("to start", ms(report.latency_ms)),
        ("all awake", ms(report.awake_ms)),
        ("some asleep", format!("{}: {} % at p99", ms(report.asleep_ms), report.slow_robot_delay_pct)),
        ("commands", report.commands.to_string()),
        ("seed", report.seed.to_string()),
    ];
    lines.extend(report.violations.iter().map(|violation| ("violation", violation.clone())));
    one(format, report, &lines)?;
    judged(report.ok, "the inspection")
}
