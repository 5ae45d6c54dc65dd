//! Commands to single robots: from a durable submission to a durable outcome.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use skep_client::{Client, Settings};

use super::robots::{Fleet, Seen};
use crate::error::LaunchError;
use crate::latency::LatencyMs;
use crate::site::operator::{Operator, ToSend};
use crate::site::process::Machine;
use crate::site::warehouse::robot_name;

const WARM_UP: Duration = Duration::from_secs(2);
/// How long a command is valid: longer than any of them takes.
const VALID: Duration = Duration::from_secs(60);

/// The settings of the benchmark.
#[derive(Clone, Debug)]
pub struct CommandSettings {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// How many robots; one process has them all, spread over the nodes.
    pub robots: usize,
    /// How many commands are under way at a time, each for another robot.
    pub inflight: usize,
    /// How many voters.
    pub voters: usize,
    /// How many nodes that do not vote and have all robots; if 0, the voters have them.
    pub others: usize,
    /// How long the benchmark counts, in seconds.
    pub seconds: u64,
}

/// The result of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct CommandReport {
    /// Always `command`.
    pub bench: &'static str,
    /// How many robots.
    pub robots: usize,
    /// How many commands were under way at a time.
    pub inflight: usize,
    /// How many voters.
    pub voters: usize,
    /// How many nodes that do not vote and have all robots.
    pub others: usize,
    /// How long the benchmark counted, in seconds.
    pub seconds: f64,
    /// Durable submissions with their durable outcomes, per second.
    pub round_trips_per_s: f64,
    /// From before the command is signed until its operator hears its outcome.
    pub latency_ms: LatencyMs,
    /// How much of that each step takes.
    pub steps_ms: StepsMs,
    /// How many commands ended with each outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// How many commands were not accepted, or had an outcome that could not be heard.
    pub errors: u64,
    /// How many commands a robot started more than once.
    pub duplicates: usize,
    /// The machine that it ran on.
    pub machine: Machine,
}

/// The steps of a round trip.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepsMs {
    /// From before the command is signed until its operator hears that it is accepted.
    pub accept: LatencyMs,
    /// From then until the robot's software is offered it.
    pub offer: LatencyMs,
    /// From then until the software is told to go: the intent is durable.
    pub start: LatencyMs,
    /// From then until the outcome is durable on the robot's node.
    pub record: LatencyMs,
    /// From then until the operator hears that the shard knows the outcome.
    pub report: LatencyMs,
}

/// What one operator did.
struct Done {
    round_us: Histogram<u64>,
    /// By command: when the operator heard of its acceptance and of its end.
    heard: BTreeMap<Vec<u8>, (Instant, Instant)>,
    accept_us: Histogram<u64>,
    outcomes: BTreeMap<String, u64>,
    errors: u64,
}

impl Done {
    fn new() -> Self {
        // Three digits up to two minutes: constants that the constructor accepts.
        let empty = || Histogram::new_with_bounds(1, 120_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self { round_us: empty(), heard: BTreeMap::new(), accept_us: empty(), outcomes: BTreeMap::new(), errors: 0 }
    }

    fn merge(&mut self, mut other: Self) {
        self.heard.append(&mut other.heard);
        let _ = self.round_us.add(&other.round_us);
        let _ = self.accept_us.add(&other.accept_us);
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.errors += other.errors;
    }
}

/// What robots saw, counted as it arrives, so that no robot waits for room.
#[derive(Default)]
struct AtRobots {
    /// How often each command was started.
    starts: BTreeMap<Vec<u8>, u32>,
    seen: Vec<Seen>,
}

impl AtRobots {
    fn add(&mut self, seen: Seen) {
        *self.starts.entry(seen.command.clone()).or_default() += u32::from(seen.started.is_some());
        self.seen.push(seen);
    }
}

/// Runs the benchmark on nodes of its own.
///
/// # Errors
/// [`LaunchError`].
pub async fn command(settings: CommandSettings) -> Result<CommandReport, LaunchError> {
    let Fleet { dir, testnet, leader, mut robots } =
        Fleet::up("bench-command", settings.binary.clone(), (settings.voters, settings.others), settings.robots)
            .await?;
    let pipelined = Settings { pipelined: true, ..Settings::default() };
    let client = testnet.nodes[leader].client_with(pipelined);
    let operator = Arc::new(Operator::of(&testnet, vec![client.clone()])?);
    let run = Operators::start(&operator, &client, &settings).run(settings.seconds);
    tokio::pin!(run);
    let mut at_robots = AtRobots::default();
    let (counted, took, done) = loop {
        tokio::select! {
            ended = &mut run => break ended,
            Some(seen) = robots.seen.recv() => at_robots.add(seen),
        }
    };
    while let Ok(seen) = robots.seen.try_recv() {
        at_robots.add(seen);
    }
    robots.end().await;
    drop(testnet);
    if done.errors == 0 {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(CommandReport {
        bench: "command",
        robots: settings.robots,
        inflight: settings.inflight,
        voters: settings.voters,
        others: settings.others,
        seconds: took.as_secs_f64(),
        round_trips_per_s: (counted as f64 / took.as_secs_f64()).round(),
        latency_ms: LatencyMs::of_us(&done.round_us),
        steps_ms: steps(&done, &at_robots.seen),
        outcomes: done.outcomes,
        errors: done.errors,
        duplicates: at_robots.starts.values().filter(|count| **count > 1).count(),
        machine: Machine::here(),
    })
}

/// How long each step took, over the commands that count.
fn steps(done: &Done, seen: &[Seen]) -> StepsMs {
    let mut steps: [Vec<u64>; 4] = Default::default();
    for seen in seen {
        let Some((accepted, ended)) = done.heard.get(&seen.command) else { continue };
        let (Some(started), Some(recorded)) = (seen.started, seen.recorded) else { continue };
        let instants = [*accepted, seen.offered, started, recorded, *ended];
        for (step, pair) in steps.iter_mut().zip(instants.windows(2)) {
            // A robot may be offered a command before its operator hears that it was accepted.
            let took = pair[1].saturating_duration_since(pair[0]);
            step.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    let [offer, start, record, report] = steps.map(LatencyMs::of_ns);
    StepsMs { accept: LatencyMs::of_us(&done.accept_us), offer, start, record, report }
}

/// The operators at work.
struct Operators {
    stop: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    sending: tokio::task::JoinSet<Done>,
}

impl Operators {
    /// Starts one operator for each command under way. Each has robots of its own.
    fn start(operator: &Arc<Operator>, client: &Client, settings: &CommandSettings) -> Self {
        let (stop, measuring) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let count: Arc<AtomicU64> = Arc::default();
        let mut sending = tokio::task::JoinSet::new();
        for n in 0..settings.inflight {
            let load = Load {
                operator: Arc::clone(operator),
                client: client.clone(),
                robots: (n..settings.robots).step_by(settings.inflight).collect(),
                stop: Arc::clone(&stop),
                measuring: Arc::clone(&measuring),
                count: Arc::clone(&count),
            };
            sending.spawn(load.run());
        }
        Self { stop, measuring, count, sending }
    }

    /// Counts for this many seconds, and ends the operators. Returns the commands that counted, the time that they
    /// took, and everything that was done.
    async fn run(mut self, seconds: u64) -> (u64, Duration, Done) {
        tokio::time::sleep(WARM_UP).await;
        self.measuring.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let counted = self.count.load(Ordering::Relaxed);
        let took = begun.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let mut done = Done::new();
        while let Some(ended) = self.sending.join_next().await {
            match ended {
                Ok(part) => done.merge(part),
                Err(_) => done.errors += 1,
            }
        }
        (counted, took, done)
    }
}

/// One operator with one command under way.
struct Load {
    operator: Arc<Operator>,
    client: Client,
    robots: Vec<usize>,
    stop: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
}

impl Load {
    async fn run(self) -> Done {
        let mut done = Done::new();
        for robot in self.robots.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let counts = self.measuring.load(Ordering::Relaxed);
            let begun = Instant::now();
            let target = robot_name(*robot);
            let to_send = ToSend { target: &target, is_group: false, verb: "goto", valid: VALID, waves: None };
            let Ok(signed) = self.operator.sign(&self.client, &to_send).await else {
                done.errors += 1;
                continue;
            };
            let micros = || u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            if self.client.send_command(&signed).await.is_err() {
                done.errors += 1;
                continue;
            }
            let (accepted, accepted_at) = (micros(), Instant::now());
            match self.client.command_end(signed.id).await {
                Ok(view) => {
                    let outcome = view.deliveries.first().map(|of| of.outcome.clone()).unwrap_or_default();
                    *done.outcomes.entry(outcome).or_default() += 1;
                    if counts {
                        done.heard.insert(signed.id.as_bytes().to_vec(), (accepted_at, Instant::now()));
                        done.accept_us.saturating_record(accepted);
                        done.round_us.saturating_record(micros());
                        self.count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(_) => done.errors += 1,
            }
        }
        done
    }
}
