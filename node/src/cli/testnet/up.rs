//! `skep testnet up`, and what is done to it

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use skep_protocol::node_dir::default_dir;
use skep_testnet::builtin;
use skep_testnet::scenario::up::{ProcessRow, TestnetVerb, Up as Running, ask};
use skep_testnet::site::{SiteOptions, place};

use crate::cli::output::{Format, Row, parse_span, print, rows};
use crate::cli::{Common, Failure};

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Number of nodes: 1 to 200
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: u16,
    /// Number of nodes that vote: 1 to 7
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    voters: u16,
    /// Number of simulated robots, spread over the nodes; they take tasks that require nothing, or "transport"
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    robots: u16,
    /// Time that a robot takes for one cell, such as 60ms
    #[arg(long, value_parser = parse_span, default_value = "60ms")]
    tick: Duration,
    /// A value of every node's configuration, such as agents.lease_ttl_ms=3000; repeat for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Where a testnet lives: --dir, or a place of its own beside that of nodes.
pub(super) fn place_of(common: &Common) -> Result<PathBuf, Failure> {
    if let Some(dir) = &common.dir {
        return Ok(dir.clone());
    }
    let dir = default_dir(crate::cli::variable);
    let dir = dir.ok_or_else(|| Failure::usage("no directory: give --dir, or set SKEP_DIR or HOME"))?;
    Ok(dir.with_file_name("skep-testnet"))
}

#[derive(Serialize)]
#[serde(transparent)]
struct Process(ProcessRow);

impl Row for Process {
    const COLUMNS: &'static [&'static str] = &["name", "what", "pid", "state", "role", "node's directory"];
    fn cells(&self) -> Vec<String> {
        let row = &self.0;
        vec![
            row.name.clone(),
            row.what.clone(),
            row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            row.state.clone(),
            row.role.clone(),
            row.dir.display().to_string(),
        ]
    }
}

fn show(format: Format, processes: Vec<ProcessRow>) -> Result<(), Failure> {
    let processes: Vec<Process> = processes.into_iter().map(Process).collect();
    rows(format, &processes)
}

impl Up {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let dir = place_of(common)?;
        if self.nodes < self.voters {
            let (nodes, voters) = (self.nodes, self.voters);
            return Err(Failure::usage(format!("{voters} voters need as many nodes; there are {nodes}")));
        }
        place::own(&dir).map_err(Failure::failed)?;
        let options = SiteOptions {
            binary: std::env::current_exe().map_err(Failure::failed)?,
            dir: dir.clone(),
            robots: usize::from(self.robots),
            nodes: usize::from(self.nodes),
            voters: usize::from(self.voters),
            tick: self.tick,
            overrides: self.overrides,
            hosts: None,
            links: None,
            listed: Vec::new(),
        };
        let workload = builtin(options.robots, 1, 0);
        let mut running = Running::start(&options, &workload).await.map_err(Failure::failed)?;
        show(common.output, running.processes().await)?;
        if common.output == Format::Table {
            let first = dir.join("n0");
            print("")?;
            print(&format!("try        skep --dir {} task create 'fetch pallet 7'", first.display()))?;
            print(&format!("and        skep --dir {} topic tail robots/pose", first.display()))?;
            print(&format!(
                "command    SKEP_OPERATOR_KEY={} skep --dir {} command send ...",
                dir.join("operator.key").display(),
                first.display()
            ))?;
            print("harm it    skep testnet status | kill n1 | pause n1 | resume n1 | restart n1 | logs n1")?;
            print("end it     Ctrl-C here, or skep testnet down; what it stored stays for the next 'up'")?;
        }
        let interrupted = async {
            let _ = tokio::signal::ctrl_c().await;
        };
        running.serve(interrupted).await.map_err(Failure::failed)
    }
}

/// Has something done to a testnet that is up, and shows what runs then.
pub(super) async fn carry_out(common: &Common, verb: TestnetVerb) -> Result<(), Failure> {
    let answer = ask(&place_of(common)?, &verb).await.map_err(Failure::failed)?;
    if let Some(error) = answer.error {
        return Err(Failure::failed(error));
    }
    if verb == TestnetVerb::Down { Ok(()) } else { show(common.output, answer.processes) }
}

/// Prints the end of a process's log.
pub(super) fn logs(dir: &Path, name: &str, lines: usize) -> Result<(), Failure> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !plain {
        return Err(Failure::usage(format!("{name:?} is no process; 'skep testnet status' shows which there are")));
    }
    let node = dir.join(name).join("log");
    let path = if node.exists() { node } else { dir.join(format!("{name}.log")) };
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::not_found(format!("{}: {e}", path.display())))?;
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().try_for_each(|line| print(line))
}
