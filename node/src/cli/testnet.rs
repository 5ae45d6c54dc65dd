//! `skep testnet`

mod demo;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use skep_testnet::robot::RobotOptions;

use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Testnet {
    /// A warehouse of real nodes and simulated robots that works, and survives the loss of its orchestrator and of a robot
    Demo(demo::Demo),
    /// Check what a demo has left, again
    Verify {
        /// Its directory
        path: PathBuf,
    },
    /// The physical world of a demo
    #[command(hide = true)]
    Station(Station),
    /// A simulated robot of a demo
    #[command(hide = true)]
    Robot(Robot),
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

impl Testnet {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Demo(demo) => demo.run(common),
            Self::Verify { path } => {
                let report = skep_testnet::verify::verify(&path).map_err(Failure::failed)?;
                demo::print(common.output, &report)
            }
            Self::Station(Station { socket, log }) => {
                child(async move { skep_testnet::station::serve(&socket, &log).await })
            }
            Self::Robot(Robot { name, node, floor, start, station, history, tick_ms }) => {
                let tick = Duration::from_millis(tick_ms);
                child(skep_testnet::robot::run(RobotOptions { name, node, floor, start, station, history, tick }))
            }
        }
    }
}
