//! `skep bench`

mod endure;
mod view;

use std::time::Duration;

use clap::Subcommand;
use skep_testnet::bench::{
    BroadcastSettings, CommandSettings, CommitSettings, EndureSettings, FailoverSettings, LinksSettings, SAMPLE_EVERY,
    SAMPLE_EVERY_MIN, broadcast, command, commit, failover, links,
};

use super::output::parse_span;
use super::{Common, Failure};
use view::{print_broadcast, print_command, print_commit, print_failover, print_links};

/// The longest time of steady load, in minutes: a quarter of a year.
const ENDURE_MINUTES_MAX: f64 = 90.0 * 24.0 * 60.0;

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Measure durable task creates: writes a second and latency; every acknowledged write is verified on every voter
    Commit {
        /// Number of clients, each with one write under way
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Number of voters
        #[arg(long, default_value_t = 3)]
        voters: usize,
        /// How long the benchmark measures, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Payload of a task, in bytes
        #[arg(long, default_value_t = 256)]
        payload_bytes: usize,
        /// Use the nodes' Unix sockets in place of loopback TCP
        #[arg(long)]
        socket: bool,
        /// Make every create a call of its own, in place of a message on the connection's stream
        #[arg(long)]
        unary: bool,
    },
    /// Measure the time from a SIGKILL of the leader under load to the next acknowledged write
    Failover {
        /// Number of times that the leader is killed
        #[arg(long, default_value_t = 10)]
        repeats: usize,
        /// Number of voters
        #[arg(long, default_value_t = 3)]
        voters: usize,
        /// Number of nodes that do not vote, each of which lists all others: 0 to 200
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=200))]
        others: u16,
        /// Number of clients that keep writing meanwhile
        #[arg(long, default_value_t = 6)]
        clients: usize,
    },
    /// Measure writes, one after another, over links of constant delay: how many are done, how long they take,
    /// elections
    Links {
        /// Delays of one way between two nodes, in milliseconds, separated by commas; each is measured on a site of its
        /// own
        #[arg(long, value_delimiter = ',', default_values_t = [0_u64, 35, 140, 300], value_parser = clap::value_parser!(u64).range(0..=10_000))]
        one_way: Vec<u64>,
        /// Preset of all nodes: lan, wan or sim
        #[arg(long, default_value_t = skep_config::Preset::Lan)]
        preset: skep_config::Preset,
        /// Number of writes for each delay
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        writes: u32,
        /// Number of voters
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
        voters: u16,
        /// Seed of the relay between the nodes: a number [default: random]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Measure commands to one robot each: a second, from durable submission to durable outcome
    Command {
        /// Number of robots
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        robots: u16,
        /// Number of commands under way at a time, each for another robot: 1 to 512
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
        inflight: u16,
        /// Number of voters
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
        voters: u16,
        /// Number of nodes that do not vote and serve all robots: 0 to 20; with 0 the voters serve them
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=20))]
        others: u16,
        /// How long the benchmark measures, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Measure what each voter uses under steady load, as curves, and how soon it serves after a restart
    Endure {
        /// How long the load lasts, in minutes
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Number of voters
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
        voters: u16,
        /// Rounds a second: each creates a task, one in four sends a command too, and in one of ten an agent comes and
        /// goes
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// Time between two samples of each voter, such as 10s [default: 10s]
        #[arg(long, value_parser = parse_span)]
        every: Option<Duration>,
    },
    /// Measure one command to all robots, up to its last delivery: with all robots at work, and with some that stand
    /// still, in turn
    Broadcast {
        /// Number of robots
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..=1_000))]
        robots: u16,
        /// Number of robots that stand still in every other round
        #[arg(long, default_value_t = 10)]
        slow: u16,
        /// Number of voters
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
        voters: u16,
        /// Number of nodes that do not vote and serve all robots: 0 to 20; with 0 the voters serve them
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=20))]
        others: u16,
        /// Number of rounds of each kind
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rounds: u32,
    },
}

impl Bench {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let binary = std::env::current_exe().map_err(Failure::failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(Failure::failed)?;
        let format = common.output;
        match self {
            Self::Commit { clients, voters, seconds, payload_bytes, socket, unary } => {
                let settings = CommitSettings { binary, clients, voters, seconds, payload_bytes, socket, unary };
                print_commit(format, &runtime.block_on(commit(settings)).map_err(Failure::failed)?)
            }
            Self::Command { robots, inflight, voters, others, seconds } => {
                let (robots, inflight) = (usize::from(robots), usize::from(inflight));
                if inflight > robots {
                    return Err(Failure::usage("every command under way is for another robot: give more --robots"));
                }
                let (voters, others) = (usize::from(voters), usize::from(others));
                let settings = CommandSettings { binary, robots, inflight, voters, others, seconds };
                print_command(format, &runtime.block_on(command(settings)).map_err(Failure::failed)?)
            }
            Self::Broadcast { robots, slow, voters, others, rounds } => {
                let (robots, slow) = (usize::from(robots), usize::from(slow));
                if slow >= robots {
                    return Err(Failure::usage("some robots must be at work: give fewer --slow"));
                }
                let (voters, others) = (usize::from(voters), usize::from(others));
                let settings = BroadcastSettings { binary, robots, slow, voters, others, rounds: rounds as usize };
                print_broadcast(format, &runtime.block_on(broadcast(settings)).map_err(Failure::failed)?)
            }
            Self::Endure { minutes, voters, rate, every } => {
                if !(0.05..=ENDURE_MINUTES_MAX).contains(&minutes) {
                    return Err(Failure::usage(format!("give --minutes from 0.05 to {ENDURE_MINUTES_MAX}")));
                }
                let every = every.unwrap_or(SAMPLE_EVERY);
                if every < SAMPLE_EVERY_MIN {
                    return Err(Failure::usage(format!("give --every {SAMPLE_EVERY_MIN:?} or more")));
                }
                let (lasts, voters) = (Duration::from_secs_f64(minutes * 60.0), usize::from(voters));
                let settings = EndureSettings { binary, lasts, voters, rate, every };
                let running = skep_testnet::bench::endure(settings);
                endure::print(format, &runtime.block_on(running).map_err(Failure::failed)?)
            }
            Self::Links { one_way, preset, writes, voters, seed } => {
                let settings = LinksSettings {
                    binary,
                    one_way_ms: one_way,
                    preset: preset.to_string(),
                    writes: writes as usize,
                    voters: usize::from(voters),
                    seed: seed.unwrap_or_else(rand::random),
                };
                print_links(format, &runtime.block_on(links(settings)).map_err(Failure::failed)?)
            }
            Self::Failover { repeats, voters, others, clients } => {
                let settings = FailoverSettings { binary, repeats, voters, others: others.into(), clients };
                print_failover(format, &runtime.block_on(failover(settings)).map_err(Failure::failed)?)
            }
        }
    }
}
