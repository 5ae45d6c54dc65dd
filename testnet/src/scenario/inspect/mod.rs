//! An inspection: one command to all robots, which is released in waves while robots sleep, die and return, the
//! orchestrator is killed, and all robots are cut off for a while. The station sees what was done, and the check
//! compares that with what the shard says of each robot.

mod site;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use skep_client::command::Waves;
use skep_client::{CommandId, v1};
use tokio::time::Instant;

use crate::error::LaunchError;
use crate::latency::LatencyMs;
use crate::record::{Story, boot_ns, read};
use crate::scenario::ScenarioError;
use crate::site::crew::deed;
use crate::site::operator::{Operator, Sent, ToSend};
use crate::site::station::{Effect, Step};
use crate::verify::{Amid, Pause, SentCommand, Verdict, judge};
use site::{GROUP, Plan, Site};

/// The verb of the command.
const VERB: &str = "inspect";
/// How many waves the command is released in.
const WAVES: usize = 10;
const WAVE_EVERY_MS: u64 = 200;
/// How long the command is valid.
const VALID: Duration = Duration::from_secs(15);
/// How much longer than that the longest sleeper sleeps.
const OVERSLEEPS: Duration = Duration::from_secs(2);
/// How many commands with all robots awake are compared with as many with some asleep.
const ROUNDS: usize = 4;
/// How long commands may take to end: beyond their deadlines, and the doubt after them.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// How often the run checks which robots are at work, and what is to happen.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long all robots may take to attach.
const MUSTER_MAX: Duration = Duration::from_secs(180);

/// The settings of an inspection.
#[derive(Clone, Debug)]
pub struct InspectOptions {
    /// The path of the program that is node, robot and station.
    pub binary: PathBuf,
    /// A fresh directory.
    pub dir: PathBuf,
    /// How many robots.
    pub robots: usize,
    /// How many nodes, voters included. Robots share the others; robots that are killed or suspended have nodes of
    /// their own in addition.
    pub nodes: usize,
    /// How many nodes vote.
    pub voters: usize,
    /// The seed of which robots are hit, and when.
    pub seed: u64,
    /// Whether the story is told on standard error.
    pub tells: bool,
}

/// The result of an inspection.
#[derive(Clone, Debug, Serialize)]
pub struct InspectReport {
    /// How many starts there were after the first one of a command at a robot.
    pub duplicates: usize,
    /// How many starts there were after the command's deadline.
    pub stale: usize,
    /// At how many robots a command never ended.
    pub limbo: usize,
    /// How many times the shard says something of a command at a robot that the station did not see.
    pub untrue: usize,
    /// How the command ended, and at how many robots.
    pub outcomes: BTreeMap<String, usize>,
    /// From the sending of the command to the start at a robot, over the robots that started.
    pub latency_ms: LatencyMs,
    /// How much later 99 of 100 of the others start when some robots sleep, in percent.
    pub slow_robot_delay_pct: f64,
    /// From the sending to the start, with all robots awake.
    pub awake_ms: LatencyMs,
    /// The same with some robots asleep.
    pub asleep_ms: LatencyMs,
    /// What went wrong, and how often.
    pub faults: BTreeMap<&'static str, usize>,
    /// The seed of what went wrong.
    pub seed: u64,
    /// How many robots there were.
    pub robots: usize,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many voters there were.
    pub voters: usize,
    /// How many commands were sent; the inspection is the last of them.
    pub commands: usize,
    /// What must not have happened, and did.
    pub violations: Vec<String>,
    /// Whether nothing happened that must not, and everything that was to go wrong did.
    pub ok: bool,
}

/// What is done to the site while the command is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    Kill(usize),
    KillAtWork(usize),
    Start(usize),
    Suspend(usize),
    Resume(usize),
    KillLeader,
    StartLeader,
    CutOff,
    Join,
}

/// Plans what happens when, after the command was accepted.
fn blows(plan: &Plan, rng: &mut SmallRng) -> Vec<(Duration, Blow)> {
    let broadcast_ms = WAVES as u64 * WAVE_EVERY_MS;
    let mut at = |from: u64, to: u64| Duration::from_millis(rng.random_range(from..to));
    let mut blows = Vec::new();
    for node in plan.killed_any_time() {
        let killed = at(0, broadcast_ms);
        blows.extend([(killed, Blow::Kill(node)), (killed + at(500, 3_000), Blow::Start(node))]);
    }
    for (n, node) in plan.paused_nodes().enumerate() {
        let asleep = at(0, broadcast_ms / 2);
        // Every other robot wakes when it is too late.
        let sleeps = if n % 2 == 0 { VALID + OVERSLEEPS } else { at(500, 4_000) };
        blows.extend([(asleep, Blow::Suspend(node)), (asleep + sleeps, Blow::Resume(node))]);
    }
    let killed = at(broadcast_ms / 5, broadcast_ms * 3 / 4);
    blows.extend([(killed, Blow::KillLeader), (killed + at(2_000, 4_000), Blow::StartLeader)]);
    let cut = at(broadcast_ms / 4, broadcast_ms);
    blows.extend([(cut, Blow::CutOff), (cut + at(1_000, 2_500), Blow::Join)]);
    blows.sort();
    blows
}

/// A run that goes on.
struct Run {
    site: Site,
    plan: Plan,
    story: Story,
    operator: Operator,
    amid: Amid,
    /// Since when a node's software has been asleep.
    asleep: BTreeMap<usize, u64>,
    faults: BTreeMap<&'static str, usize>,
    /// The leader that was killed, and when.
    killed_leader: Option<(usize, u64)>,
}

/// Runs an inspection to its end.
///
/// # Errors
/// [`ScenarioError`] if it could not run. The report has what it found.
pub async fn inspect(options: InspectOptions) -> Result<InspectReport, ScenarioError> {
    let hit = (options.robots / 8).clamp(1, 5);
    let (robots, voters, nodes) = (options.robots, options.voters, options.nodes);
    let plan = Plan { robots, voters, nodes, killed: hit, paused: hit };
    let story = Story::begin(&options.dir.join("story.jsonl"), 0, options.tells)?;
    story.say(&format!(
        "{robots} robots on {} nodes, {voters} of them voters; seed {}",
        plan.all_nodes(),
        options.seed
    ));
    let site = Site::up(options.binary.clone(), &options.dir, &plan).await?;
    let clients = site.net.nodes.iter().take(voters).map(crate::site::launch::TestNode::impatient_client).collect();
    let operator = Operator::of(&site.net, clients)?;
    let (amid, asleep, faults) = (Amid::default(), BTreeMap::new(), BTreeMap::new());
    let mut run = Run { site, plan, story, operator, amid, asleep, faults, killed_leader: None };
    let mut commands = run.muster().await?;
    let (awake, asleep) = run.compare().await?;
    commands.extend(awake.iter().chain(&asleep));
    let command = run.inspect(options.seed).await?;
    commands.push(command);
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    run.story.say("everything is mended; waiting until every command has ended at every robot");
    let views = run.operator.ended(&ids, ENDS_WITHIN).await?;
    let fallen = run.site.fallen();
    // The station's log is complete once the station has ended.
    drop(run.site);
    let effects: Vec<Effect> = read(&options.dir.join("actuator.jsonl"))?;
    let amid = run.killed_leader.is_some_and(|(_, at_ns)| is_amid(&command, &effects, at_ns));
    run.faults.insert("orchestrator killed mid-broadcast", usize::from(amid));
    let (plan, found) = (run.plan, Found { views, effects, amid: run.amid });
    let verdict = found.judge(&commands);
    let mut violations = findings(&verdict, &fallen);
    violations.extend(found.undone(awake.iter().chain(&asleep), &plan.shared()));
    violations.extend(missed(&plan, &run.faults));
    let everybody: Vec<String> = (0..plan.all_nodes()).flat_map(|node| plan.robots_on(node)).collect();
    let others = |commands: &[Sent]| latencies(commands, &found.effects, &plan.shared());
    let (awake_ms, asleep_ms) = (others(&awake), others(&asleep));
    Ok(InspectReport {
        duplicates: verdict.duplicates.len(),
        stale: verdict.stale.len(),
        limbo: verdict.limbo.len(),
        untrue: verdict.untrue.len(),
        outcomes: found.judge(&[command]).outcomes,
        latency_ms: latencies(&[command], &found.effects, &everybody),
        slow_robot_delay_pct: ((asleep_ms.p99 / awake_ms.p99.max(0.001) - 1.0) * 1_000.0).round() / 10.0,
        awake_ms,
        asleep_ms,
        faults: run.faults,
        seed: options.seed,
        robots,
        nodes: plan.all_nodes(),
        voters,
        commands: commands.len(),
        ok: violations.is_empty(),
        violations,
    })
}

/// What the shard says at the end, and what the world saw.
struct Found {
    views: BTreeMap<CommandId, v1::CommandView>,
    effects: Vec<Effect>,
    amid: Amid,
}

impl Found {
    fn judge(&self, commands: &[Sent]) -> Verdict {
        let as_sent = |command: &Sent| {
            let view = self.views.get(&command.id)?;
            Some(SentCommand { sent_ns: command.at_ns, valid_ms: command.valid_ms, view })
        };
        judge(&commands.iter().filter_map(as_sent).collect::<Vec<_>>(), &self.effects, &self.amid)
    }

    /// What these robots did not do of commands during which nothing was done to them.
    fn undone<'a>(&self, commands: impl Iterator<Item = &'a Sent>, robots: &[String]) -> Option<String> {
        let deliveries = commands.filter_map(|command| self.views.get(&command.id)).flat_map(|view| &view.deliveries);
        let undone = deliveries.filter(|of| of.outcome != "succeeded" && robots.contains(&of.agent)).count();
        let what = format!("nothing was done to robots, and they did not do {undone} of what they were told");
        (undone > 0).then_some(what)
    }
}

/// The faults that were planned and did not happen.
fn missed(plan: &Plan, faults: &BTreeMap<&'static str, usize>) -> Vec<String> {
    let expected = [
        ("killed", plan.killed_any_time().count()),
        ("killed at work", plan.killed_at_work().count()),
        ("suspended", plan.paused),
        ("links dropped", 1),
        ("orchestrator killed mid-broadcast", 1),
    ];
    let happened = |fault| faults.get(fault).copied().unwrap_or(0);
    let missed = expected.into_iter().filter(|(fault, times)| happened(*fault) < *times);
    missed
        .map(|(fault, times)| format!("{fault}: it was to happen {times} times, and did {} times", happened(fault)))
        .collect()
}

fn findings(verdict: &Verdict, fallen: &[String]) -> Vec<String> {
    let found = [&verdict.duplicates, &verdict.stale, &verdict.limbo, &verdict.untrue];
    let mut found: Vec<String> = found.into_iter().flatten().cloned().collect();
    found.extend(fallen.iter().map(|name| format!("{name} ended though nothing was done to it")));
    found
}

/// Whether some robots had started a command by an instant, and others started after it.
fn is_amid(command: &Sent, effects: &[Effect], at_ns: u64) -> bool {
    let of = deed(command.id.as_bytes(), "");
    let mut starts = effects.iter().filter(|e| e.question.step == Step::Start && e.question.task.starts_with(&of));
    starts.clone().any(|start| start.at_ns < at_ns) && starts.any(|start| start.at_ns > at_ns)
}

/// From the sending to the start, at those of these robots that started.
fn latencies(commands: &[Sent], effects: &[Effect], robots: &[String]) -> LatencyMs {
    let starts = effects.iter().filter(|effect| effect.question.step == Step::Start && effect.refused.is_none());
    let starts: BTreeMap<&str, u64> = starts.map(|start| (start.question.task.as_str(), start.at_ns)).collect();
    let mut all: Vec<u64> = Vec::new();
    for command in commands {
        let of = robots.iter().filter_map(|robot| starts.get(deed(command.id.as_bytes(), robot).as_str()));
        all.extend(of.map(|at| at.saturating_sub(command.at_ns)));
    }
    LatencyMs::of_ns(all)
}

impl Run {
    fn command(&self, valid: Duration, waves: Option<Waves>) -> ToSend<'static> {
        ToSend { target: GROUP, is_group: true, verb: VERB, valid, waves }
    }

    /// Calls the roll until all robots answer; every call is a command like any other.
    async fn muster(&self) -> Result<Vec<Sent>, ScenarioError> {
        let until = Instant::now() + MUSTER_MAX;
        let mut commands = Vec::new();
        loop {
            // The shard does not know the group before its first robot is attached.
            if let Ok(sent) = self.operator.send(&self.command(Duration::from_secs(30), None)).await {
                commands.push(sent);
                if sent.agents == self.plan.robots {
                    break;
                }
            }
            if Instant::now() > until {
                let (what, dir) = ("the presence of all robots".to_owned(), self.site.net.dir().to_owned());
                return Err(LaunchError::Timeout { what, within: MUSTER_MAX, dir }.into());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.story.say(&format!("all {} robots are there", self.plan.robots));
        let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
        self.operator.ended(&ids, ENDS_WITHIN).await?;
        Ok(commands)
    }

    /// Sends the same command with all robots awake and with some asleep, in turns.
    async fn compare(&mut self) -> Result<(Vec<Sent>, Vec<Sent>), ScenarioError> {
        let (mut awake, mut asleep) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let command = self.command(Duration::from_secs(60), None);
            let sent = self.operator.send(&command).await?;
            self.operator.ended(&[sent.id], ENDS_WITHIN).await?;
            awake.push(sent);
            for at in self.plan.paused_nodes() {
                self.suspend(at)?;
            }
            let sent = self.operator.send(&command).await?;
            self.operator.until_open(sent.id, self.plan.paused, ENDS_WITHIN).await?;
            for at in self.plan.paused_nodes() {
                self.resume(at)?;
            }
            self.operator.ended(&[sent.id], ENDS_WITHIN).await?;
            asleep.push(sent);
        }
        self.story.say(&format!("{ROUNDS} commands with all robots awake, {ROUNDS} with {} asleep", self.plan.paused));
        Ok((awake, asleep))
    }

    /// Sends the command of the inspection, and makes everything go wrong meanwhile.
    async fn inspect(&mut self, seed: u64) -> Result<Sent, ScenarioError> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut blows = blows(&self.plan, &mut rng);
        let mut to_work: Vec<usize> = self.plan.killed_at_work().collect();
        let agents = u32::try_from(self.plan.robots.div_ceil(WAVES)).unwrap_or(u32::MAX);
        let waves = Some(Waves { agents, every_ms: WAVE_EVERY_MS });
        let sent = self.operator.send(&self.command(VALID, waves)).await?;
        self.story.say(&format!("the command is accepted, for {} robots in waves of {agents}", sent.agents));
        let begun = Instant::now();
        while !blows.is_empty() || (!to_work.is_empty() && begun.elapsed() < VALID) {
            tokio::time::sleep(LOOK_EVERY).await;
            let at_work = if to_work.is_empty() { Vec::new() } else { self.at_work(&sent, &to_work)? };
            to_work.retain(|node| !at_work.contains(node));
            for node in at_work {
                let now = begun.elapsed();
                blows.push((now, Blow::KillAtWork(node)));
                blows.push((now + Duration::from_millis(rng.random_range(500..3_000)), Blow::Start(node)));
            }
            blows.sort();
            let due = blows.iter().take_while(|(after, _)| *after <= begun.elapsed()).count();
            for (_, blow) in blows.drain(..due).collect::<Vec<_>>() {
                self.strike(blow).await?;
            }
        }
        Ok(sent)
    }

    /// The robots of some nodes that have started a command and not done it yet, as the station sees it.
    fn at_work(&self, command: &Sent, of: &[usize]) -> Result<Vec<usize>, ScenarioError> {
        let effects: Vec<Effect> = read(&self.site.net.dir().join("actuator.jsonl"))?;
        let is_at_work = |node: &usize| {
            let robots = self.plan.robots_on(*node);
            let deeds: Vec<String> = robots.iter().map(|robot| deed(command.id.as_bytes(), robot)).collect();
            let has = |step| effects.iter().any(|e| e.question.step == step && deeds.contains(&e.question.task));
            has(Step::Start) && !has(Step::Done)
        };
        Ok(of.iter().copied().filter(is_at_work).collect())
    }

    async fn strike(&mut self, blow: Blow) -> Result<(), ScenarioError> {
        let name = |at: usize| format!("n{at}");
        let mut count = |what| *self.faults.entry(what).or_default() += 1;
        match blow {
            Blow::Kill(at) | Blow::KillAtWork(at) => {
                let at_work = matches!(blow, Blow::KillAtWork(_));
                count(if at_work { "killed at work" } else { "killed" });
                self.site.kill(at);
                let when = if at_work { ", which is at work," } else { "" };
                self.story.say(&format!("{} and its robot{when} are killed", name(at)));
            }
            Blow::Start(at) => {
                self.site.start(at)?;
                self.story.say(&format!("{} and its robot are started again", name(at)));
            }
            Blow::Suspend(at) => {
                count("suspended");
                self.suspend(at)?;
                self.story.say(&format!("{} and its robot sleep", name(at)));
            }
            Blow::Resume(at) => {
                self.resume(at)?;
                self.story.say(&format!("{} and its robot wake", name(at)));
            }
            Blow::KillLeader => {
                let at = self.site.net.leader().await?;
                self.killed_leader = Some((at, boot_ns()));
                self.site.kill(at);
                self.story.say(&format!("{}, the orchestrator, is killed", name(at)));
            }
            Blow::StartLeader => {
                if let Some((at, _)) = self.killed_leader {
                    self.site.start(at)?;
                    self.story.say(&format!("{} is started again", name(at)));
                }
            }
            Blow::CutOff => {
                count("links dropped");
                let robots = self.plan.voters..self.plan.all_nodes();
                let both = |robot| (0..self.plan.voters).flat_map(move |voter| [(robot, voter), (voter, robot)]);
                self.site.net.throw_switches(&robots.flat_map(both).collect::<Vec<_>>())?;
                self.story.say("all robots are cut off from the voters");
            }
            Blow::Join => {
                self.site.net.throw_switches(&[])?;
                self.story.say("they reach them again");
            }
        }
        Ok(())
    }

    fn suspend(&mut self, at: usize) -> Result<(), LaunchError> {
        self.asleep.insert(at, boot_ns());
        self.site.suspend(at, true)
    }

    fn resume(&mut self, at: usize) -> Result<(), LaunchError> {
        self.site.suspend(at, false)?;
        let Some(from_ns) = self.asleep.remove(&at) else { return Ok(()) };
        let pause = |run| Pause { run, from_ns, to_ns: boot_ns() };
        self.amid.pauses.extend(self.plan.robots_on(at).into_iter().map(pause));
        Ok(())
    }
}

/// Checks that there are enough robots and nodes for an inspection.
///
/// # Errors
/// What is wrong with the numbers.
pub fn check_inspect(robots: usize, nodes: usize, voters: usize) -> Result<(), String> {
    if robots < 8 {
        return Err(format!("{robots} robots are too few for what is to happen to them; give at least 8"));
    }
    if nodes <= voters || voters < 3 {
        return Err(format!("{nodes} nodes with {voters} voters: give at least 3 voters, and a node more for robots"));
    }
    Ok(())
}
