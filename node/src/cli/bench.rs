//! `skep bench`

use clap::Subcommand;
use skep_testnet::bench::{CommitSettings, FailoverSettings, commit, failover};

use super::output::one;
use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Durable task creates: writes per second and latency, every acknowledgement verified on every voter
    Commit {
        /// Clients, each with one write outstanding
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Voters
        #[arg(long, default_value_t = 3)]
        voters: usize,
        /// How long it counts
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Bytes of payload in a task
        #[arg(long, default_value_t = 256)]
        payload_bytes: usize,
        /// Through the nodes' Unix sockets instead of loopback TCP
        #[arg(long)]
        socket: bool,
        /// Every create a call of its own, instead of a message on the connection's stream
        #[arg(long)]
        unary: bool,
    },
    /// SIGKILL of the leader under load, to the next acknowledged write
    Failover {
        /// How often the leader is killed
        #[arg(long, default_value_t = 10)]
        repeats: usize,
        /// Voters
        #[arg(long, default_value_t = 3)]
        voters: usize,
        /// Clients that keep writing meanwhile
        #[arg(long, default_value_t = 6)]
        clients: usize,
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
                let report = runtime.block_on(commit(settings)).map_err(Failure::failed)?;
                let latency = report.latency_ms;
                let mut lines = vec![
                    (
                        "clients",
                        format!(
                            "{} on {} connections ({}, {})",
                            report.clients, report.connections, report.transport, report.calls
                        ),
                    ),
                    ("writes/s", format!("{:.0}", report.writes_per_s)),
                    ("latency", format!("p50 {} ms, p99 {} ms, max {} ms", latency.p50, latency.p99, latency.max)),
                    ("errors", format!("{} not done, {} unknown", report.errors, report.unknown)),
                    ("verified", format!("{} of {} acknowledged", report.verified, report.acknowledged)),
                ];
                for node in &report.nodes {
                    lines.push(("node", format!(
                        "{} {}: RSS {} MiB idle, {} loaded; CPU {} % idle, {} % loaded; {} bytes written per committed byte",
                        node.node, node.role, node.rss_idle_mib, node.rss_loaded_mib, node.cpu_idle_pct,
                        node.cpu_loaded_pct, node.written_per_committed_byte
                    )));
                }
                let machine = &report.machine;
                lines.push((
                    "machine",
                    format!("{} cores, {}, Linux {}, {}", machine.cores, machine.cpu, machine.kernel, machine.build),
                ));
                one(format, &report, &lines)?;
                if report.verified == report.acknowledged {
                    return Ok(());
                }
                Err(Failure::failed("acknowledged writes are missing; the nodes' directories are kept"))
            }
            Self::Failover { repeats, voters, clients } => {
                let settings = FailoverSettings { binary, repeats, voters, clients };
                let report = runtime.block_on(failover(settings)).map_err(Failure::failed)?;
                let spread = report.failover_ms;
                let lines = [
                    ("failover", format!("min {} ms, median {} ms, max {} ms", spread.min, spread.median, spread.max)),
                    ("verified", format!("{} of {} acknowledged", report.verified, report.acknowledged)),
                    (
                        "machine",
                        format!("{} cores, {}, {}", report.machine.cores, report.machine.cpu, report.machine.build),
                    ),
                ];
                one(format, &report, &lines)?;
                if report.verified == report.acknowledged {
                    return Ok(());
                }
                Err(Failure::failed("acknowledged writes are missing; the nodes' directories are kept"))
            }
        }
    }
}
