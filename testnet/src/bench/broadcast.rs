//! One command to all robots: from its submission to the last delivery, in rounds with all robots at work, in turns
//! with rounds in which some robots stand still.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::robots::{Fleet, GROUP, Robots};
use crate::error::LaunchError;
use crate::latency::LatencyMs;
use crate::site::operator::{Operator, Sent, ToSend};
use crate::site::process::Machine;

/// How long a command is valid: longer than robots stand still.
const VALID: Duration = Duration::from_secs(60);
/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(30);
/// How many rounds at the start are not counted.
const WARM_UP: usize = 5;

/// The settings of the benchmark.
#[derive(Clone, Debug)]
pub struct BroadcastSettings {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// How many robots; one process has them all, spread over the nodes.
    pub robots: usize,
    /// How many robots stand still in every other round.
    pub slow: usize,
    /// How many voters.
    pub voters: usize,
    /// How many nodes that do not vote and have all robots; if 0, the voters have them.
    pub others: usize,
    /// How many rounds of each kind.
    pub rounds: usize,
}

/// The result of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct BroadcastReport {
    /// Always `broadcast`.
    pub bench: &'static str,
    /// How many robots.
    pub robots: usize,
    /// How many robots stood still in every other round.
    pub slow: usize,
    /// How many voters.
    pub voters: usize,
    /// How many nodes that do not vote and have all robots.
    pub others: usize,
    /// How many rounds of each kind.
    pub rounds: usize,
    /// From before the command is signed until the operator hears that it is accepted.
    pub accept_ms: LatencyMs,
    /// From before the command is signed until the last robot's software is offered it, with all robots at work.
    pub last_delivery_ms: LatencyMs,
    /// From before the command is signed until the last robot is told to go.
    pub last_start_ms: LatencyMs,
    /// From before the command is signed until a robot's software is offered it: robots that never stand still, in
    /// rounds with all robots at work.
    pub delivery_ms: LatencyMs,
    /// The same in rounds in which the slow robots stand still.
    pub delivery_with_slow_ms: LatencyMs,
    /// How much later that is for 99 of 100 robots, in percent.
    pub slow_robot_delay_pct: f64,
    /// The machine that it ran on.
    pub machine: Machine,
}

/// One round: when each robot was offered the command, and told to go, in nanoseconds from before the command was
/// signed.
#[derive(Default)]
struct Round {
    accept_ns: u64,
    offered_ns: BTreeMap<usize, u64>,
    started_ns: BTreeMap<usize, u64>,
}

/// Runs the benchmark on nodes of its own.
///
/// # Errors
/// [`LaunchError`].
pub async fn broadcast(settings: BroadcastSettings) -> Result<BroadcastReport, LaunchError> {
    let Fleet { dir, testnet, leader, mut robots } =
        Fleet::up("bench-broadcast", settings.binary.clone(), (settings.voters, settings.others), settings.robots)
            .await?;
    let operator = Operator::of(&testnet, vec![testnet.nodes[leader].client()])?;
    until_present(&operator, &mut robots, &dir, settings.robots).await?;
    let (mut all, mut with_slow) = (Vec::new(), Vec::new());
    for n in 0..settings.rounds + WARM_UP {
        let (_, whole) = round(&operator, &mut robots, &dir, |agents| agents).await?;
        let without = slow_round(&operator, &mut robots, &dir, &settings).await?;
        if n >= WARM_UP {
            all.push(whole);
            with_slow.push(without);
        }
    }
    robots.end().await;
    drop(testnet);
    let _ = std::fs::remove_dir_all(&dir);
    Ok(report(&settings, &all, &with_slow))
}

/// The result of rounds with all robots at work, and of rounds in which some stood still.
fn report(settings: &BroadcastSettings, all: &[Round], with_slow: &[Round]) -> BroadcastReport {
    let quick = |rounds: &[Round]| {
        let of = |round: &Round| round.offered_ns.range(settings.slow..).map(|(_, ns)| *ns).collect::<Vec<u64>>();
        LatencyMs::of_ns(rounds.iter().flat_map(of).collect())
    };
    let last = |of: fn(&Round) -> &BTreeMap<usize, u64>| {
        LatencyMs::of_ns(all.iter().filter_map(|round| of(round).values().max().copied()).collect())
    };
    let (delivery_ms, delivery_with_slow_ms) = (quick(all), quick(with_slow));
    BroadcastReport {
        bench: "broadcast",
        robots: settings.robots,
        slow: settings.slow,
        voters: settings.voters,
        others: settings.others,
        rounds: settings.rounds,
        accept_ms: LatencyMs::of_ns(all.iter().map(|round| round.accept_ns).collect()),
        last_delivery_ms: last(|round| &round.offered_ns),
        last_start_ms: last(|round| &round.started_ns),
        delivery_ms,
        delivery_with_slow_ms,
        slow_robot_delay_pct: ((delivery_with_slow_ms.p99 / delivery_ms.p99.max(0.001) - 1.0) * 1_000.0).round() / 10.0,
        machine: Machine::here(),
    }
}

/// Waits until all robots are attached when a command is for all of them.
async fn until_present(
    operator: &Operator,
    robots: &mut Robots,
    dir: &std::path::Path,
    count: usize,
) -> Result<(), LaunchError> {
    let until = Instant::now() + ROUND_MAX * 2;
    loop {
        let (sent, _) = round(operator, robots, dir, |agents| agents).await?;
        if sent.agents == count {
            return Ok(());
        }
        if Instant::now() > until {
            let what = "the presence of all robots".to_owned();
            return Err(LaunchError::Timeout { what, within: ROUND_MAX, dir: dir.to_owned() });
        }
    }
}

/// A round in which some robots stand still. They catch up before the next round.
async fn slow_round(
    operator: &Operator,
    robots: &mut Robots,
    dir: &std::path::Path,
    settings: &BroadcastSettings,
) -> Result<Round, LaunchError> {
    robots.stopped.send_replace(settings.slow);
    let quick = settings.robots - settings.slow;
    let (sent, without) = round(operator, robots, dir, |_| quick).await?;
    // Otherwise there would be nothing to compare.
    let open = operator.show(sent.id).await?.open as usize;
    if open != settings.slow {
        let output = format!("{open} robots stood still, and {} were to", settings.slow);
        return Err(LaunchError::Command { command: "a round with slow robots".to_owned(), output });
    }
    robots.stopped.send_replace(0);
    operator.ended(&[sent.id], ROUND_MAX).await?;
    while robots.seen.try_recv().is_ok() {}
    Ok(without)
}

/// Sends one command to all robots, and waits until this many of its robots have been told to go.
async fn round(
    operator: &Operator,
    robots: &mut Robots,
    dir: &std::path::Path,
    wanted: impl Fn(usize) -> usize,
) -> Result<(Sent, Round), LaunchError> {
    let begun = Instant::now();
    let to_send = ToSend { target: GROUP, is_group: true, verb: "look", valid: VALID, waves: None };
    let sent = operator.send(&to_send).await?;
    let ns = |at: Instant| u64::try_from(at.saturating_duration_since(begun).as_nanos()).unwrap_or(u64::MAX);
    let mut round = Round { accept_ns: ns(Instant::now()), ..Round::default() };
    let wanted = wanted(sent.agents);
    let seeing = async {
        while round.started_ns.len() < wanted {
            let Some(seen) = robots.seen.recv().await else { return };
            if seen.command == sent.id.as_bytes() {
                round.offered_ns.insert(seen.robot, ns(seen.offered));
                round.started_ns.extend(seen.started.map(|at| (seen.robot, ns(at))));
            }
        }
    };
    tokio::time::timeout(ROUND_MAX, seeing).await.map_err(|_| LaunchError::Timeout {
        what: format!("the start of a command at {wanted} robots"),
        within: ROUND_MAX,
        dir: dir.to_owned(),
    })?;
    // The outcomes of the robots that did it are known, so that rounds do not overlap.
    operator.until_open(sent.id, sent.agents.saturating_sub(wanted), ROUND_MAX).await?;
    Ok((sent, round))
}
