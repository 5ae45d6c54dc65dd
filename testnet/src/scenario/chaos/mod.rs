//! Chaos: a site of real processes at work, and everything that happens to one in the field, by a seed.
//!
//! A relay gives each direction between two nodes a delay of its own, thins links, and makes cuts that are one-sided or
//! that do not split the nodes into two sides. As root each node has a network namespace of its own, and its network is
//! lossy, slow or flapping as well. Besides, processes are killed and suspended; robots' software is started at another
//! node while the run before continues; disks fill up, are wiped, and damaged; descriptors run out; and logs meet a
//! SIGKILL as they go on to their next segment. At the end everything is mended, all orders end, and the records are
//! judged. A robot whose key was stolen can be there all the while.

mod ambush;
mod bad_robot;
mod commands;
mod descriptors;
mod disks;
mod faults;
mod history;
mod links;
mod mix;
mod network;
mod readers;
mod robots;
mod rotations;
mod watchers;
mod wrong;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use skep_client::{Settings, v1};
use tokio::sync::watch;

use crate::error::LaunchError;
use crate::record::{ClientRecord, Recorder, Story};
use crate::scenario::{ScenarioError, begin, broken, conclude};
use crate::site::hosts::Hosts;
use crate::site::launch::SWITCHES;
use crate::site::operator::Sent;
use crate::site::relay::{Law, Links};
use crate::site::warehouse::{DemoSite, SiteOptions};
use crate::verify::{Amid, Evidence, Invariants, Report, SentCommand, Tasks, Violation, judge};
use crate::workload::{Orders, Progress, Workload};
use bad_robot::BadRobot;
pub use bad_robot::DeedCount;
use commands::Commander;
use faults::Faults;
pub use mix::FaultMix;
use readers::Readers;
use wrong::Mend;

/// How long orders may take to end once everything is mended.
const SETTLE_MAX: Duration = Duration::from_secs(10 * 60);
/// How soon all voters are equal again once everything is mended, in milliseconds: L3, of a LAN.
const HEAL_MS_MAX: u64 = 10_000;
/// How many round trips that may take in addition, where links have delays: to see that the leader is gone, to elect
/// another one, perhaps more than once, and to catch up.
const HEAL_ROUNDS: u64 = 30;
/// How often faults are stepped.
const STEP: Duration = Duration::from_millis(100);
/// How long the search for the leader may take. A node answers from its own knowledge, though not while it is
/// suspended, and late on a busy machine.
const LEADER_LOOK_MAX: Duration = Duration::from_secs(1);

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct ChaosOptions {
    /// The processes. The nodes get hosts of their own if that is possible.
    pub site: SiteOptions,
    /// What robots do: more than they can do in the time.
    pub workload: Workload,
    /// Which kinds of things go wrong.
    pub faults: FaultMix,
    /// The program of a bad robot, if there is to be one: a listed peer that votes nowhere and does what it likes, as
    /// long as things go wrong.
    pub bad_robot: Option<PathBuf>,
    /// Whether a relay gives each direction between two nodes a delay of its own; without it they reach each other at
    /// once.
    pub mixed_links: bool,
    /// How long things go wrong.
    pub lasts: Duration,
    /// The robots' leases, in milliseconds.
    pub lease_ttl_ms: u64,
    /// The seed of what goes wrong, and when.
    pub seed: u64,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct ChaosReport {
    /// How many calls clients made.
    pub ops: usize,
    /// How many of them were done.
    pub acknowledged: usize,
    /// How many of those were linearizable reads.
    pub reads: usize,
    /// The counts of orders.
    pub tasks: Tasks,
    /// The counts of commands.
    pub commands: Commands,
    /// What could go wrong: `all`, or `disks`.
    pub mix: &'static str,
    /// What went wrong, and how often.
    pub faults: BTreeMap<String, usize>,
    /// The results of the bad robot's deeds; empty without one.
    pub bad_robot: BTreeMap<String, DeedCount>,
    /// The deeds that never reached a node, so that the run shows nothing of them.
    pub not_shown: Vec<String>,
    /// What must never happen, and whether it did.
    pub invariants: Invariants,
    /// From when everything was mended, and a voter that lost its disk added again, until all voters have what the
    /// leader had then, in milliseconds.
    pub heal_ms: u64,
    /// The seed of what went wrong.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many voters there were.
    pub voters: usize,
    /// How many robots there were.
    pub robots: usize,
    /// How long things went wrong, in seconds.
    pub seconds: u64,
    /// `namespaces`, or why there are none: then a switch tells nodes which others they do not reach.
    pub network: String,
    /// `lan`, or `mixed`: each direction between two nodes had a delay of its own.
    pub links: &'static str,
    /// Whether every order was completed and every invariant held; and whether the bad robot did each deed once at
    /// least, if it had ten minutes or more.
    pub ok: bool,
}

/// Commands of a chaos run, each counted once for every robot that it was for.
#[derive(Clone, Debug, Serialize)]
pub struct Commands {
    /// How many were accepted.
    pub accepted: usize,
    /// How many ended with each outcome.
    pub outcomes: BTreeMap<String, usize>,
}

impl Commands {
    /// `way_ms`: how long a frame may be under way between two nodes.
    fn judge(sent: &[(Sent, v1::CommandView)], evidence: &Evidence, way_ms: u64, invariants: &mut Invariants) -> Self {
        let all = sent.iter().map(|(sent, view)| SentCommand { sent_ns: sent.at_ns, valid_ms: sent.valid_ms, view });
        let all: Vec<SentCommand<'_>> = all.collect();
        let amid = Amid { pauses: commands::pauses(&evidence.story), leads_ns: evidence.leads_ns(), way_ms };
        let verdict = judge(&all, &evidence.deeds, &amid);
        let found = [("S3", verdict.duplicates), ("S5", verdict.stale), ("L8", verdict.limbo), ("S2", verdict.untrue)];
        for (invariant, found) in found {
            invariants.violations.extend(found.into_iter().map(|what| Violation { invariant, what }));
        }
        invariants.checked.extend(["S2", "S5", "L8"]);
        Self { accepted: sent.len(), outcomes: verdict.outcomes }
    }
}

/// Runs chaos.
///
/// # Errors
/// [`ScenarioError`] if it could not run. The report has what it found.
pub async fn chaos(mut options: ChaosOptions) -> Result<ChaosReport, ScenarioError> {
    let dir = options.site.dir.clone();
    let network = prepare(&mut options)?;
    let links = if options.mixed_links { "mixed" } else { "lan" };
    let SiteOptions { nodes, voters, robots, .. } = options.site;
    let story = Story::begin(&dir.join("story.jsonl"), 0, true)?;
    story.say(&format!(
        "{nodes} nodes, {voters} of them voters, {robots} robots; seed {}; faults {}; {network}; {links} links{}",
        options.seed,
        options.faults.name(),
        if options.bad_robot.is_some() { "; a bad robot" } else { "" }
    ));
    let mut site = begin(&story, &options.site, &options.workload, (options.lease_ttl_ms, options.seed)).await?;
    let mut faults = Faults::new(&options, story.clone(), &site);
    let ran = run(&options, &story, &mut site, &mut faults).await?;
    let incomplete = history::incomplete(&site, voters, faults.lost_disks()).await;
    let mut report = conclude(site, &dir, &story, voters, &ran.tasks).await?;
    let way_ms = if options.mixed_links { links::WAY_MS_MAX } else { 0 };
    judge_nodes(&mut report, faults.fallen(), incomplete, (ran.heal_ms, way_ms));
    let evidence = Evidence::read(&dir)?;
    let commands = Commands::judge(&ran.commands, &evidence, way_ms, &mut report.invariants);
    report.ok &= report.invariants.violations.is_empty();
    let not_shown = bad_robot::not_shown(&ran.bad_robot);
    report.ok &= not_shown.is_empty() || !bad_robot::is_long_enough(options.lasts);
    let of = |wanted: fn(&ClientRecord) -> bool| evidence.clients.values().flatten().filter(|r| wanted(r)).count();
    let reads = of(|record| matches!(record, ClientRecord::Seen { .. }));
    Ok(ChaosReport {
        ops: of(|record| matches!(record, ClientRecord::Invoke { .. })),
        acknowledged: of(|record| matches!(record, ClientRecord::Ok { .. })) + reads,
        reads,
        tasks: report.tasks,
        commands,
        mix: options.faults.name(),
        faults: faults.counts(),
        bad_robot: ran.bad_robot,
        not_shown,
        ok: report.ok,
        invariants: report.invariants,
        heal_ms: ran.heal_ms,
        seed: options.seed,
        nodes,
        voters,
        robots,
        seconds: options.lasts.as_secs(),
        network,
        links,
    })
}

/// Completes how the site is to be started; returns what lies between the nodes, in words.
fn prepare(options: &mut ChaosOptions) -> Result<String, ScenarioError> {
    options.site.set_leases(options.lease_ttl_ms);
    options.site.overrides.extend(options.faults.overrides());
    if let Some(program) = &options.bad_robot {
        options.site.listed.push(bad_robot::identity(program, options.seed)?);
    }
    let network = lay_network(&mut options.site)?;
    options.site.links = options.mixed_links.then(|| Links { law: Law::default(), seed: options.seed });
    Ok(network)
}

/// What is known of a run besides its records.
struct Ran {
    /// The ids of the orders.
    tasks: Vec<Vec<u8>>,
    /// The commands, and how each of them ended.
    commands: Vec<(Sent, v1::CommandView)>,
    bad_robot: BTreeMap<String, DeedCount>,
    /// From when everything was mended until all voters have what the leader had then, in milliseconds.
    heal_ms: u64,
}

/// Makes things go wrong while the site is at work, mends them, and waits for the ends of the orders.
async fn run(
    options: &ChaosOptions,
    story: &Story,
    site: &mut DemoSite,
    faults: &mut Faults,
) -> Result<Ran, ScenarioError> {
    let SiteOptions { dir, voters, robots, .. } = &options.site;
    let (progress, mut ended) = watch::channel(Progress::default());
    let (close, closing) = watch::channel(false);
    let orders = Orders {
        clients: site.clients(),
        recorder: Arc::new(Recorder::open(&dir.join("histories").join("orders.jsonl"))?),
        workload: options.workload.clone(),
        robots: *robots,
        story: story.clone(),
        progress,
        closing,
    };
    let mut ordering = tokio::spawn(orders.run());
    let readers = Readers::start(site, &dir.join("histories"), options.seed, story.clone())?;
    // Things go wrong once work has begun.
    let _ = ended.wait_for(|progress| progress.ended > 0).await;
    let commander = Commander::start(site, *robots, options.seed, options.faults.args_bytes()).await?;
    let bad_robot = options.bad_robot.as_deref().map(|program| BadRobot::start(program, options.seed, site));
    let bad_robot = bad_robot.transpose()?;
    let until = tokio::time::Instant::now() + options.lasts;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(STEP).await;
        faults.step(site).await?;
    }
    let bad_robot = bad_robot.map_or_else(|| Ok(BTreeMap::new()), |robot| robot.end(dir))?;
    faults.mend(site).await?;
    let mended = tokio::time::Instant::now();
    let all: Vec<usize> = (0..*voters).collect();
    site.net.until_caught_up(&all).await?;
    let heal_ms = u64::try_from(mended.elapsed().as_millis()).unwrap_or(u64::MAX);
    story.say(&format!("everything is mended; the voters are one again after {heal_ms} ms"));
    close.send_replace(true);
    let tasks = match tokio::time::timeout(SETTLE_MAX, &mut ordering).await {
        Ok(joined) => joined.map_err(|e| broken(dir, format!("the orders' client failed: {e}")))?,
        Err(_) => return Err(broken(dir, format!("the orders have not ended within {SETTLE_MAX:?}"))),
    };
    let commands = commander.stop().await?;
    readers.stop().await;
    Ok(Ran { tasks, commands, bad_robot, heal_ms })
}

/// Judges what nodes did: whether one ended by itself, what their histories lack, and how long they took to be equal
/// again.
fn judge_nodes(report: &mut Report, fallen: &[String], incomplete: Vec<String>, (heal_ms, way_ms): (u64, u64)) {
    report.invariants.checked.push("L3");
    report.invariants.checked.push("S15");
    for name in fallen {
        let what = format!("{name} ended though nothing was done to it");
        report.invariants.violations.push(Violation { invariant: "S15", what });
        report.ok = false;
    }
    report.invariants.checked.push("history");
    report.invariants.violations.extend(incomplete.into_iter().map(|what| Violation { invariant: "history", what }));
    let heal_ms_max = HEAL_MS_MAX + HEAL_ROUNDS * 2 * way_ms;
    if heal_ms > heal_ms_max {
        let what = format!(
            "the voters are one again only {heal_ms} ms after everything was mended; {heal_ms_max} are allowed"
        );
        report.invariants.violations.push(Violation { invariant: "L3", what });
        report.ok = false;
    }
}

/// Gives each node a host of its own if that is possible; returns what lies between the nodes, in words.
fn lay_network(site: &mut SiteOptions) -> Result<String, ScenarioError> {
    if let Err(why) = Hosts::available() {
        site.overrides.push(SWITCHES.to_owned());
        return Ok(format!("switch: {why}"));
    }
    // A bad robot is on a host of its own, too.
    site.hosts = Some(Arc::new(Hosts::create(site.nodes + site.listed.len())?));
    Ok("namespaces".to_owned())
}

/// The leader, as it says itself: the one in the latest term, if several do. None if no node says so in time.
async fn leader(site: &DemoSite) -> Option<usize> {
    let settings = Settings { patience: LEADER_LOOK_MAX, attempt_timeout: LEADER_LOOK_MAX, ..Settings::default() };
    let mut asked = tokio::task::JoinSet::new();
    for (at, node) in site.net.nodes.iter().enumerate().filter(|(_, node)| node.pid().is_some()) {
        let (client, id) = (node.client_with(settings), node.id.clone());
        asked.spawn(async move {
            let status = client.shard_status().await.ok()?;
            let leads = status.role == "leader" && status.leader == id && status.clock > 0;
            leads.then_some((status.term, at))
        });
    }
    let mut latest: Option<(u64, usize)> = None;
    while let Some(answer) = asked.join_next().await {
        latest = latest.max(answer.ok().flatten());
    }
    latest.map(|(_, at)| at)
}

/// Whether a step was possible.
type Step = Result<(), LaunchError>;
/// How to mend what went wrong, and the node that it concerns; none if it could not go wrong at this point.
type Begun = Result<Option<(Mend, Option<usize>)>, LaunchError>;
