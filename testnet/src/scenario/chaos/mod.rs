//! Chaos: a site of real processes at work, and everything that happens to one in the field, by a seed.
//!
//! A relay gives each way between two nodes a delay of its own, and makes links thin and cuts that are one-sided or leave no
//! two sides. As root each node has a network namespace of its own, and its network is lossy, slow or flapping as well;
//! besides, processes are killed and suspended, robots' software is started at another node while the run before it goes on,
//! disks fill up, are wiped, and damaged, descriptors run out, and logs meet a SIGKILL as they go on to their next segment. In
//! the end everything is mended, all orders come to their ends, and what was written down is judged. A robot whose key was stolen
//! can be there all the while.

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

/// How long orders may take to their ends once everything is mended.
const SETTLE_MAX: Duration = Duration::from_secs(10 * 60);
/// How soon all voters are one again once everything is mended, in milliseconds: L3, of a LAN.
const HEAL_MS_MAX: u64 = 10_000;
/// Round trips that it may take beside, where links have delays: to see that the leader is gone, to elect another one, perhaps
/// more than once, and to catch up.
const HEAL_ROUNDS: u64 = 30;
/// How often what goes wrong is looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long it is looked who leads. A node answers of itself, though not while it is suspended, and late on a busy machine.
const LEADER_LOOK_MAX: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct ChaosOptions {
    /// Processes. Hosts of their own are made for the nodes if that can be.
    pub site: SiteOptions,
    /// What robots do, more than they can within the time.
    pub workload: Workload,
    /// What goes wrong.
    pub faults: FaultMix,
    /// A program that is a bad robot, if there is to be one: a listed peer that votes nowhere and does what it likes, as long as
    /// things go wrong.
    pub bad_robot: Option<PathBuf>,
    /// Whether a relay gives each way between two nodes a delay of its own; without it they reach each other at once.
    pub mixed_links: bool,
    /// How long things go wrong.
    pub lasts: Duration,
    /// The robots' leases, in milliseconds.
    pub lease_ttl_ms: u64,
    /// What decides what goes wrong, and when.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct ChaosReport {
    /// Calls of clients.
    pub ops: usize,
    /// Those that were done.
    pub acknowledged: usize,
    /// Linearizable reads among them.
    pub reads: usize,
    /// Orders.
    pub tasks: Tasks,
    /// What robots were told to do.
    pub commands: Commands,
    /// `all`, or `disks`: what could go wrong.
    pub mix: &'static str,
    /// What went wrong, and how often.
    pub faults: BTreeMap<String, usize>,
    /// How the bad robot fared with all that it does; nothing without one.
    pub bad_robot: BTreeMap<String, DeedCount>,
    /// What of it never reached anybody, so that the run shows nothing of that.
    pub not_shown: Vec<String>,
    /// What must never happen.
    pub invariants: Invariants,
    /// From when everything was mended, and whoever lost its disk taken in again, until all voters have what the leader
    /// had then, in milliseconds.
    pub heal_ms: u64,
    /// What decided what went wrong.
    pub seed: u64,
    /// How many nodes, voters and robots.
    pub nodes: usize,
    /// See `nodes`.
    pub voters: usize,
    /// See `nodes`.
    pub robots: usize,
    /// How long things went wrong, in seconds.
    pub seconds: u64,
    /// `namespaces`, or why there are none: then nodes are told by a switch whom they do not reach.
    pub network: String,
    /// `lan`, or `mixed`: each way between two nodes had a delay of its own.
    pub links: &'static str,
    /// Whether every order was completed and every invariant held; and whether the bad robot did each thing once at least, if it had
    /// ten minutes or more.
    pub ok: bool,
}

/// Commands of a chaos run, each counted once for every robot that it was for.
#[derive(Clone, Debug, Serialize)]
pub struct Commands {
    /// How many were accepted.
    pub accepted: usize,
    /// How they ended.
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

/// Runs it.
///
/// # Errors
/// [`ScenarioError`] if it could not be run. What it found is in the report.
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

/// Completes how the site is to be started; what lies between the nodes, in words.
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

/// What is known of a run beside what was written down.
struct Ran {
    /// Orders.
    tasks: Vec<Vec<u8>>,
    /// Commands, and how each of them ended.
    commands: Vec<(Sent, v1::CommandView)>,
    bad_robot: BTreeMap<String, DeedCount>,
    /// From when everything was mended until all voters have what the leader had then, in milliseconds.
    heal_ms: u64,
}

/// Has things go wrong while the site is at work, mends them, and sees the orders to their ends.
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

/// Judges what nodes did: whether one ended by itself, what their histories lack, and how long they took to be one again.
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

/// Gives each node a host of its own if that can be; what lies between the nodes, in words.
fn lay_network(site: &mut SiteOptions) -> Result<String, ScenarioError> {
    if let Err(why) = Hosts::available() {
        site.overrides.push(SWITCHES.to_owned());
        return Ok(format!("switch: {why}"));
    }
    // A bad robot is on a host of its own, too.
    site.hosts = Some(Arc::new(Hosts::create(site.nodes + site.listed.len())?));
    Ok("namespaces".to_owned())
}

/// Who leads, as it says itself: in the latest term, if several do. None if nobody says so in a moment.
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

/// Why a step could not be taken.
type Step = Result<(), LaunchError>;
/// How what went wrong is mended, and which node it concerns; none if it could not go wrong now.
type Begun = Result<Option<(Mend, Option<usize>)>, LaunchError>;
