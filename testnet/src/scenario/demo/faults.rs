//! What is done to the testnet, and what must follow from it.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_client::{Client, Read, TaskStatus};

use crate::error::LaunchError;
use crate::record::{HeldClaim, Story, StoryRecord, boot_ns, hex};
use crate::site::warehouse::DemoSite;
use crate::workload::held;

/// The pause between two reads of a node.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a node's robots hold, and the shard's clock, shortly before the node is killed.
///
/// # Errors
/// [`LaunchError::Timeout`] if no node answers: then nothing could be judged afterwards.
async fn before(site: &DemoSite, at: usize) -> Result<(u64, Vec<HeldClaim>), LaunchError> {
    let look = async || {
        for node in site.net.nodes.iter().filter(|node| node.pid().is_some()) {
            let client = node.impatient_client();
            let Ok(clock) = client.clock().await else { continue };
            let Some(held) = held(&client).await else { continue };
            let own = held.into_iter().filter(|(robot, ..)| site.node_of(robot) == Some(at));
            let own = own.map(|(robot, task, epoch)| HeldClaim { robot, task: hex(&task), epoch });
            return Some((clock.clock, own.collect()));
        }
        None
    };
    site.net.wait_for("a node that knows who holds what", look).await
}

/// Kills a node with SIGKILL.
///
/// # Errors
/// [`LaunchError`].
async fn kill(
    site: &mut DemoSite,
    story: &Story,
    at: usize,
    leader: bool,
) -> Result<(Instant, Vec<HeldClaim>), LaunchError> {
    let (clock, held) = before(site, at).await?;
    let name = site.net.nodes[at].name.clone();
    site.net.kill(at);
    story.record(&StoryRecord::Killed { at_ns: boot_ns(), name, leader, clock, held: held.clone() });
    Ok((Instant::now(), held))
}

/// Kills the node that leads, waits for its successor, and starts it again.
///
/// # Errors
/// [`LaunchError`].
pub(super) async fn kill_leader(site: &mut DemoSite, story: &Story) -> Result<(), LaunchError> {
    let leader = site.net.leader().await?;
    story.say(&format!("SIGKILL to the orchestrator's node {}", site.net.nodes[leader].name));
    let (killed, _) = kill(site, story, leader, true).await?;
    await_leader(site, story, killed).await?;
    restart(site, story, leader)
}

/// Waits until a node answers as a leader with a quorum does.
async fn await_leader(site: &DemoSite, story: &Story, killed: Instant) -> Result<(), LaunchError> {
    let clients: Vec<(String, Client)> = site
        .net
        .nodes
        .iter()
        .filter(|node| node.pid().is_some())
        .map(|node| (node.name.clone(), node.impatient_client()))
        .collect();
    let next = site
        .net
        .wait_for("a new orchestrator", async || {
            for (name, client) in &clients {
                // Only a leader with a quorum answers a linearizable read.
                let Ok(status) = client.shard_status().await else { continue };
                if status.role == "leader"
                    && status.clock > 0
                    && client.task(&[0; 16], Read::Linearizable).await.is_err_and(answered)
                {
                    return Some(name.clone());
                }
            }
            None
        })
        .await?;
    let after_ms = u64::try_from(killed.elapsed().as_millis()).unwrap_or(u64::MAX);
    story.say(&format!("{next} is the new orchestrator after {after_ms} ms"));
    story.record(&StoryRecord::Elected { at_ns: boot_ns(), name: next, after_ms });
    Ok(())
}

/// Whether the shard answered: that it holds no such task.
fn answered(error: skep_client::ClientError) -> bool {
    error.code() == Some(skep_client::Code::NotFound)
}

fn restart(site: &mut DemoSite, story: &Story, at: usize) -> Result<(), LaunchError> {
    site.net.start(at)?;
    let name = site.net.nodes[at].name.clone();
    story.say(&format!("{name} is started again"));
    story.record(&StoryRecord::Restarted { at_ns: boot_ns(), name });
    Ok(())
}

/// Kills a node whose robot holds a task, waits until the task has another holder or has ended, and starts the node
/// again.
///
/// # Errors
/// [`LaunchError`].
pub(super) async fn kill_holder(
    site: &mut DemoSite,
    story: &Story,
    voters: usize,
    random: &mut SmallRng,
) -> Result<(), LaunchError> {
    loop {
        let leader = site.net.leader().await?;
        let client = site.net.nodes[leader].client();
        let at = site
            .net
            .wait_for("a robot that holds a task", async || {
                let busy = held(&client).await?.into_iter().filter_map(|(robot, ..)| site.node_of(&robot));
                let busy: Vec<usize> = busy.filter(|at| *at != leader).collect();
                // A robot's node rather than a voter, if there are such nodes.
                let plain: Vec<usize> = busy.iter().copied().filter(|at| *at >= voters).collect();
                let choice = if plain.is_empty() { &busy } else { &plain };
                choice.get(random.random_range(0..choice.len().max(1))).copied()
            })
            .await?;
        let (killed, claims) = kill(site, story, at, false).await?;
        let name = site.net.nodes[at].name.clone();
        story.say(&format!("SIGKILL to {name}, whose robot holds a task"));
        let mut reassigned = false;
        for claim in &claims {
            reassigned |= follow(site, story, claim, killed).await?;
        }
        restart(site, story, at)?;
        if reassigned {
            return Ok(());
        }
        story.say("its robot had just finished; another one is looked for");
    }
}

/// Waits until a claim has ended; returns whether another robot has the task then.
async fn follow(site: &DemoSite, story: &Story, claim: &HeldClaim, killed: Instant) -> Result<bool, LaunchError> {
    let id: Vec<u8> = (0..claim.task.len() / 2)
        .filter_map(|at| u8::from_str_radix(claim.task.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    let clients = site.clients();
    let task = site
        .net
        .wait_for("another holder of the task", async || {
            for client in &clients {
                let Ok(reply) = client.task(&id, Read::Linearizable).await else { continue };
                let task = reply.task.unwrap_or_default();
                let ended = !matches!(task.status(), TaskStatus::Pending | TaskStatus::Claimed);
                if ended || (task.status() == TaskStatus::Claimed && task.epoch > claim.epoch) {
                    return Some(task);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                return None;
            }
            None
        })
        .await?;
    if task.epoch == claim.epoch {
        return Ok(false);
    }
    let after_ms = u64::try_from(killed.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (to, at_ns) = (task.claimed_by, boot_ns());
    story.say(&format!("the task of {} is with {to} under epoch {} after {after_ms} ms", claim.robot, task.epoch));
    story.record(&StoryRecord::Reassigned { at_ns, task: claim.task.clone(), to, after_ms });
    Ok(true)
}

/// Kills a random process, node or robot, and starts it again.
///
/// # Errors
/// [`LaunchError`].
pub(super) async fn kill_any(site: &mut DemoSite, story: &Story, choice: usize) -> Result<(), LaunchError> {
    let nodes = site.net.nodes.len();
    let at = choice % (nodes + site.robots.len());
    if at < nodes {
        let leader = site.net.leader().await? == at;
        let (killed, _) = kill(site, story, at, leader).await?;
        story.say(&format!("SIGKILL to node {}{}", site.net.nodes[at].name, if leader { ", which led" } else { "" }));
        restart(site, story, at)?;
        if leader {
            await_leader(site, story, killed).await?;
        }
        return Ok(());
    }
    let name = site.robots[at - nodes].name.clone();
    let node = site.node_of(&name).unwrap_or_default();
    let (clock, mut held) = before(site, node).await?;
    held.retain(|claim| claim.robot == name);
    let robot = &mut site.robots[at - nodes];
    robot.kill();
    story.say(&format!("SIGKILL to {name}"));
    story.record(&StoryRecord::Killed { at_ns: boot_ns(), name: name.clone(), leader: false, clock, held });
    robot.start()?;
    story.record(&StoryRecord::Restarted { at_ns: boot_ns(), name });
    Ok(())
}
