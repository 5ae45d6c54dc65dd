//! The command line: nouns, verbs, and how they end.

mod agent;
mod as_of;
mod bench;
mod command;
mod config;
mod deadletter;
#[cfg(test)]
mod docs;
mod failure;
mod fault;
mod follow;
mod format;
mod init;
mod join;
mod key;
mod made;
mod new_node;
mod node;
mod operator;
mod output;
mod pin;
mod resend;
mod run;
mod serials;
mod shard;
mod site;
mod task;
mod testnet;
mod topic;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use skep_client::{Client, Endpoint, Genesis, Settings, ShardId};
use skep_protocol::fleet::Build;
use skep_protocol::node_dir::{NodeDir, default_dir};

pub(crate) use failure::Failure;
use format::Format;
use output::tell;

use crate::private;

/// How long the client of a watcher waits for an answer before the watcher says so.
const WATCHER_PATIENCE: Duration = Duration::from_secs(1);

/// Coordination mesh for fleets of robots and AI agents.
#[derive(Debug, Parser)]
#[command(name = "skep", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    noun: Noun,
}

/// Options of every verb.
#[derive(Clone, Debug, Args)]
struct Common {
    /// The node's directory [default: $SKEP_DIR, $STATE_DIRECTORY, $XDG_STATE_HOME/skep, ~/.local/state/skep]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A node's API: a socket's path, or 127.0.0.1:PORT with $SKEP_TOKEN [default: the socket in --dir, $SKEP_ENDPOINT,
    /// the socket in the default directory]
    #[arg(long, global = true, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Number of the shard
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    shard: u32,
    /// The shard's genesis, as 'skep shard status' shows it: nothing is signed for another one [default: as it is
    /// remembered beside the operator's key]
    #[arg(long, global = true, value_name = "GENESIS", env = "SKEP_GENESIS")]
    genesis: Option<Genesis>,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Make a node's directory with its key, incarnation and configuration
    Init(init::Init),
    /// Join a site by the code of an invitation: make a node's directory with its key, certificate and configuration
    Join(Box<join::Join>),
    /// Run a node
    Run(run::Run),
    /// Sites: who belongs together
    #[command(subcommand)]
    Site(Box<site::Site>),
    /// Create, inspect and change shards
    #[command(subcommand)]
    Shard(shard::Shard),
    /// Inspect a node
    #[command(subcommand)]
    Node(node::Node),
    /// Inspect the configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Tasks: work that agents claim
    #[command(subcommand)]
    Task(task::Task),
    /// Agents and their roles
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Commands: what operators have robots do
    #[command(subcommand)]
    Command(Box<command::Command>),
    /// Tasks and commands that failed for good
    #[command(subcommand)]
    Deadletter(Box<deadletter::Deadletter>),
    /// Operators and what they may send
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Operators' keys
    #[command(subcommand)]
    Key(key::Key),
    /// Topics of the data plane: best effort, for telemetry
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Whole sites on this machine: demonstrations and tests
    #[command(subcommand)]
    Testnet(testnet::Testnet),
    /// Benchmarks on nodes that they start themselves
    #[command(subcommand)]
    Bench(bench::Bench),
}

impl Noun {
    /// Whether the process may hold keys of value. The keys of a site that only tests have none.
    fn has_keys(&self) -> bool {
        !matches!(self, Self::Testnet(_) | Self::Bench(_))
    }
}

impl Common {
    fn node_dir(&self) -> Result<NodeDir, Failure> {
        let dir = self.dir.clone().or_else(|| default_dir(variable)).filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.ok_or_else(|| Failure::usage("no directory: give --dir, or set SKEP_DIR or HOME"))?;
        Ok(NodeDir::of(&dir))
    }

    fn client(&self) -> Result<Client, Failure> {
        self.client_that_waits(Settings::default().patience)
    }

    /// The client of a verb that goes on whatever happens to the node: it soon says that there is no answer. It does
    /// not wait for a directory without a node.
    fn watcher(&self) -> Result<Client, Failure> {
        let by_dir = self.dir.is_some() || std::env::var_os("SKEP_ENDPOINT").is_none_or(|value| value.is_empty());
        if self.endpoint.is_none() && by_dir {
            let node_dir = self.node_dir()?;
            if made::Made::find(&node_dir)? == made::Made::Nothing {
                return Err(Failure::usage(format!("{}: there is no node here", node_dir.dir.display())));
            }
        }
        self.client_that_waits(WATCHER_PATIENCE)
    }

    fn client_that_waits(&self, patience: Duration) -> Result<Client, Failure> {
        let endpoint = match (&self.endpoint, &self.dir) {
            (None, Some(dir)) => Endpoint::of_dir(dir),
            (endpoint, _) => Endpoint::find(endpoint.as_deref())?,
        };
        let (shard, genesis) = (ShardId(self.shard), self.genesis);
        let settings = Settings { shard, patience, genesis, ..Settings::default() };
        Ok(Client::with_settings(endpoint, settings)?)
    }
}

/// A variable of the environment.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Runs a future to its end on a small runtime.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(work)
}

/// Prints help, the version, or what is wrong with the arguments. Help and version go to standard output.
fn told(error: &clap::Error) -> ExitCode {
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Err(failed) if !error.use_stderr() => Failure::output(&failed).report(Format::Table),
        Ok(()) | Err(_) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    main_of(Build::default())
}

/// The whole program, with a node of this build's versions: tests pose as another build.
pub fn main_of(build: Build) -> ExitCode {
    // Before there is a second thread, and before the process makes any file.
    private::keep_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    let Cli { common, noun } = cli;
    if noun.has_keys()
        && let Err(error) = private::keep_memory(variable(private::DUMPABLE).as_deref())
    {
        tell(&format!("other programs of this user can read this process's memory, with its keys: {error}"));
    }
    let result = match noun {
        Noun::Init(init) => init.run(&common),
        Noun::Join(join) => join.run(&common),
        Noun::Run(run) => run.run(&common, build),
        Noun::Site(site) => site.run(&common),
        Noun::Shard(shard) => block_on(shard.run(&common, build)),
        Noun::Node(node) => block_on(node.run(&common)),
        Noun::Config(config) => config.run(&common),
        Noun::Task(task) => block_on(task.run(&common)),
        Noun::Agent(agent) => block_on(agent.run(&common)),
        Noun::Command(command) => block_on(command.run(&common)),
        Noun::Deadletter(deadletter) => block_on(deadletter.run(&common)),
        Noun::Operator(operator) => block_on(operator.run(&common)),
        Noun::Key(key) => key.run(&common),
        Noun::Topic(topic) => block_on(topic.run(&common)),
        Noun::Testnet(testnet) => testnet.run(&common),
        Noun::Bench(bench) => bench.run(&common),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(common.output),
    }
}
