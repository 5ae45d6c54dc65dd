//! `skep testnet`

mod chaos;
mod demo;
mod inspect;
mod up;
mod verb;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use skep_testnet::site::crew::CrewOptions;
use skep_testnet::site::place;
use skep_testnet::site::robot::RobotOptions;

use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Testnet {
    /// Run a warehouse of real nodes and simulated robots that survives the loss of its orchestrator and of a robot's node
    Demo(demo::Demo),
    /// Run a site while processes, disks and networks fail by a seed, and judge it by what was recorded
    Chaos(chaos::Chaos),
    /// Cut the power of voters while clients write, and check that every acknowledged write is there. Needs root
    Power(chaos::Power),
    /// Run a scenario that ends with a verdict
    #[command(subcommand)]
    Run(Scenario),
    /// Start nodes and robots, and keep them running until Ctrl-C or 'skep testnet down'
    Up(up::Up),
    #[command(flatten)]
    Verb(verb::Given),
    /// Print the end of a process's log
    Logs {
        /// Name of the process, as 'skep testnet status' prints it
        name: String,
        /// Number of lines
        #[arg(long, default_value_t = 50)]
        lines: usize,
    },
    /// Check again what a demo or a chaos run has left
    Verify {
        /// Directory of the run
        path: PathBuf,
    },
    /// The physical world of a demo
    #[command(hide = true)]
    Station(Station),
    /// A simulated robot of a demo
    #[command(hide = true)]
    Robot(Robot),
    /// Simulated robots that share a node
    #[command(hide = true)]
    Crew(Crew),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Send one command to all robots in waves, while robots are suspended and killed, the orchestrator is killed and all links drop
    Inspect(inspect::Inspect),
}

#[derive(Debug, Args)]
pub(crate) struct Crew {
    #[arg(long, value_delimiter = ',')]
    robots: Vec<String>,
    #[arg(long)]
    node: PathBuf,
    #[arg(long)]
    group: String,
    #[arg(long)]
    station: PathBuf,
    #[arg(long)]
    works_ms: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Station {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    log: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Robot {
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 0)]
    run: u32,
    #[arg(long)]
    node: PathBuf,
    #[arg(long)]
    floor: PathBuf,
    #[arg(long)]
    start: u32,
    #[arg(long)]
    station: PathBuf,
    #[arg(long)]
    history: PathBuf,
    #[arg(long)]
    tick_ms: u64,
}

/// Runs a child of a testnet: to its end, or until its launcher is gone.
fn child<E: std::fmt::Display>(work: impl Future<Output = Result<(), E>>) -> Result<(), Failure> {
    super::block_on(async {
        tokio::select! {
            ended = work => ended.map_err(Failure::failed),
            () = crate::run::input_ended(true) => Ok(()),
        }
    })
}

/// A fresh directory: the one that was asked for, or one for what is to be run.
fn fresh(common: &Common, name: &str) -> Result<PathBuf, Failure> {
    let Some(dir) = common.dir.clone() else { return place::made(name).map_err(Failure::failed) };
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty; give a fresh directory", dir.display())));
    }
    place::own(&dir).map_err(Failure::failed)?;
    Ok(dir)
}

impl Testnet {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Demo(demo) => demo.run(common),
            Self::Chaos(chaos) => chaos.run(common),
            Self::Power(power) => power.run(common),
            Self::Run(Scenario::Inspect(inspect)) => inspect.run(common),
            Self::Up(up) => super::block_on(up.run(common)),
            Self::Verb(verb::Given(verb)) => super::block_on(up::carry_out(common, verb)),
            Self::Logs { name, lines } => up::logs(&up::place_of(common)?, &name, lines),
            Self::Verify { path } => {
                let report = skep_testnet::verify::verify(&path).map_err(Failure::failed)?;
                demo::print(common.output, &report)
            }
            Self::Station(Station { socket, log }) => {
                child(async move { skep_testnet::site::station::serve(&socket, &log).await })
            }
            Self::Crew(Crew { robots, node, group, station, works_ms }) => {
                let works = Duration::from_millis(works_ms);
                child(skep_testnet::site::crew::run(CrewOptions { robots, node, group, station, works }))
            }
            Self::Robot(Robot { name, run, node, floor, start, station, history, tick_ms }) => {
                let tick = Duration::from_millis(tick_ms);
                let options = RobotOptions { name, run, node, floor, start, station, history, tick };
                child(skep_testnet::site::robot::run(options))
            }
        }
    }
}
