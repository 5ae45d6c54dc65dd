//! Runs the simulator: many seeds, one of them again, or a month of steady load.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use skep_tests::sim::{self, Campaign, CampaignOptions, Lies, Month, MonthOptions, SETTLED_DAY, Scale};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Run whole sites in virtual time. Ends with 1 if an invariant was violated, or if something was never put to the
/// test.
#[derive(Debug, Parser)]
struct Args {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// End with 0 even if something was never put to the test: for seeds that were not chosen.
    #[arg(long)]
    any: bool,
    /// Run this seed alone, and print what goes wrong in it.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: only these of its faults, by number; `none` for none.
    #[arg(long, requires = "seed")]
    faults: Option<String>,
    /// Number of robots, instead of what each seed says.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    robots: Option<u16>,
    /// Number of hosts. Three or five of them vote, the leader is killed again and again, nothing else goes wrong, and
    /// the others must follow each new leader at once.
    #[arg(long, value_parser = clap::value_parser!(u16).range(5..=250))]
    hosts: Option<u16>,
    /// Which host lies, instead of what each seed says.
    #[arg(long)]
    lies: Option<Lies>,
    /// Run this many days of steady load instead, in which nothing goes wrong and nothing may grow: agents that come
    /// and go under ids of their own, tasks and commands. Ends with 1 if something has grown since the seventh day.
    /// --seed is that of the load.
    #[arg(
        long,
        value_parser = clap::value_parser!(u16).range(1..=366),
        conflicts_with_all = ["robots", "hosts", "lies", "faults", "any", "progress"]
    )]
    days: Option<u16>,
    /// File that keeps the progress: the same command goes on from there.
    #[arg(long)]
    progress: Option<PathBuf>,
    /// The form of the output.
    #[arg(short, long, default_value = "text")]
    output: Output,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(days) = args.days {
        return month(u64::from(days), args.seed, args.output);
    }
    let (robots, hosts) = (args.robots.map(usize::from), args.hosts.map(usize::from));
    let scale = Scale { robots, hosts, lies: args.lies };
    if let Some(seed) = args.seed {
        return again(seed, scale, args.faults.as_deref());
    }
    // A panic of the product is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let options = CampaignOptions { from: args.from, seeds: args.seeds, scale, progress: args.progress };
    let ran = Campaign::run(&options, |so_far| {
        eprintln!(
            "{} of {} seeds, {:.0} robot hours, {} violations",
            so_far.seeds,
            options.seeds,
            so_far.robot_hours(),
            so_far.violations.len()
        );
    });
    let campaign = match ran {
        Ok(campaign) => campaign,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string(&campaign).unwrap_or_default()),
        Output::Text => print(&campaign),
    }
    let well = if args.any { campaign.violations.is_empty() } else { campaign.is_clean() };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn month(days: u64, seed: Option<u64>, output: Output) -> ExitCode {
    let known = MonthOptions::default();
    let options = MonthOptions { days, seed: seed.unwrap_or(known.seed), ..known };
    let month = Month::run(&options, |sample| eprintln!("day {} of {days}, {} entries", sample.day, sample.entries));
    match output {
        Output::Json => println!("{}", serde_json::to_string(&month).unwrap_or_default()),
        Output::Text => println!("{month}"),
    }
    if days <= SETTLED_DAY {
        eprintln!("what grows is judged from day {SETTLED_DAY} on, and there was no later one");
    }
    if month.is_flat() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(campaign: &Campaign) {
    println!("{} seeds from {}, {:.1} robot hours", campaign.seeds, campaign.from, campaign.robot_hours());
    println!("{:#?}", campaign.coverage);
    for failure in &campaign.violations {
        println!("seed {}: {} at {} ms: {}", failure.seed, failure.invariant, failure.at_ms, failure.what);
        failure.faults.iter().for_each(|fault| println!("    {fault}"));
        println!("    {}", failure.replay);
    }
    if !campaign.missing.is_empty() {
        println!("never met: {}", campaign.missing.join(", "));
    }
}

fn again(seed: u64, scale: Scale, faults: Option<&str>) -> ExitCode {
    let kept: Option<Vec<usize>> = faults.map(|list| list.split(',').filter_map(|at| at.trim().parse().ok()).collect());
    println!("{}", sim::site_of(seed, scale));
    for (at, line) in sim::faults_of(seed, scale).into_iter().enumerate() {
        if kept.as_ref().is_none_or(|kept| kept.contains(&at)) {
            println!("{line}");
        }
    }
    let outcome = sim::run(seed, scale, kept.as_deref());
    println!("{} virtual ms", outcome.virtual_ms);
    println!("{:#?}", outcome.coverage);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{} at {} ms: {}", violation.invariant, violation.at_ms, violation.what);
            ExitCode::FAILURE
        }
    }
}
