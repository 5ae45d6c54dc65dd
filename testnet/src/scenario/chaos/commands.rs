//! An operator that commands robots while things go wrong.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_client::{Client, v1};
use skep_protocol::limits;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::LaunchError;
use crate::record::{StoryRecord, boot_ns};
use crate::site::launch::TestNode;
use crate::site::operator::{Operator, Sent, ToSend};
use crate::site::robot::{FLEET, SURVEY};
use crate::site::warehouse::{DemoSite, robot_name};
use crate::verify::Pause;

/// The pause between two commands.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a command is valid, in milliseconds.
const VALID_MS: std::ops::Range<u64> = 1_000..20_000;
/// One in this many commands is valid for hours: no deadline hides a fault in what should end it, and a command that a
/// robot's node had when the robot moved would still be valid after that.
const GOOD_FOR_HOURS: u32 = 4;
const HOURS_MS: std::ops::Range<u64> = 2 * 3_600_000..6 * 3_600_000;
/// One in this many commands is for all robots.
const FOR_ALL: u32 = 5;
/// One in this many commands takes longer, so that the next ones wait at the robot's node.
const SURVEYS: u32 = 8;
/// How long the operator sends a command that may not have been accepted, if it is valid for that long.
const SEND_MAX: Duration = Duration::from_secs(20);
/// How long the last commands may take to end, once everything is mended, whatever their deadlines: robots are
/// attached, and do what they are told, or their nodes know that they never will. A command that is valid for hours and
/// still open is in limbo.
const ENDS_WITHIN: Duration = Duration::from_secs(180);
/// How long after a deadline the shard's clock reaches it at the latest, in milliseconds.
const LAG_MS: u64 = 5_000;
/// How many commands are read at a time, at the end: each read takes two round trips.
const LOOKS_AT_A_TIME: usize = 32;

/// An operator at work.
pub(super) struct Commander {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<(Operator, Vec<Sent>)>,
}

impl Commander {
    /// `args_bytes`: how many bytes of arguments each command carries.
    pub(super) async fn start(
        site: &DemoSite,
        robots: usize,
        seed: u64,
        args_bytes: usize,
    ) -> Result<Self, LaunchError> {
        // A question that is asked once has more time than one that is tried at one node after another.
        let operator = Operator::of(&site.net, site.net.nodes.iter().map(TestNode::client).collect())?;
        let operator = operator.with_args(args_bytes);
        let (stop, stopped) = watch::channel(false);
        let clients = site.clients();
        let task = tokio::spawn(async move {
            let sent = command(&operator, &clients, robots, seed, stopped).await;
            (operator, sent)
        });
        Ok(Self { stop, task })
    }

    /// The commands that were accepted, and the state of each once all of them have ended, or after a generous time.
    pub(super) async fn stop(self) -> Result<Vec<(Sent, v1::CommandView)>, LaunchError> {
        self.stop.send_replace(true);
        let failed = |e: tokio::task::JoinError| LaunchError::Command {
            command: "the operator of a chaos run".to_owned(),
            output: e.to_string(),
        };
        let (operator, sent) = self.task.await.map_err(failed)?;
        let (operator, looks) = (Arc::new(operator), Arc::new(Semaphore::new(LOOKS_AT_A_TIME)));
        let until = Instant::now() + ENDS_WITHIN;
        let mut looking = JoinSet::new();
        for sent in sent {
            let (operator, looks) = (Arc::clone(&operator), Arc::clone(&looks));
            looking.spawn(async move { end_of(&operator, &looks, &sent, until).await.map(|view| (sent, view)) });
        }
        let mut ended: Vec<(Sent, v1::CommandView)> = Vec::new();
        while let Some(looked) = looking.join_next().await {
            let (sent, view) = looked.map_err(failed)??;
            ended.extend(view.map(|view| (sent, view)));
        }
        ended.sort_by_key(|(sent, _)| sent.id);
        Ok(ended)
    }
}

/// The state of a command once it has ended, or when no time is left; none if it was never accepted.
async fn end_of(
    operator: &Operator,
    looks: &Semaphore,
    sent: &Sent,
    until: Instant,
) -> Result<Option<v1::CommandView>, LaunchError> {
    // From then on no node accepts it: its deadline has passed, or that of the last request that asked for it.
    let asked_for_ms = u64::try_from(SEND_MAX.as_millis()).unwrap_or(0) + limits::REQUEST_DEADLINE_MS_DEFAULT;
    let settled_ns = sent.at_ns + (sent.valid_ms.min(asked_for_ms) + LAG_MS) * 1_000_000;
    loop {
        let looked = {
            let _one_of_them = looks.acquire().await;
            operator.show(sent.id).await
        };
        match looked {
            Ok(view) if view.open == 0 || Instant::now() > until => return Ok(Some(view)),
            // The command was never accepted, or is forgotten: ended, and its deadline past.
            Err(error) if error.is_not_found() && boot_ns() > settled_ns => return Ok(None),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// How long a command is valid, whether it is for all robots, its verb, and its robot otherwise.
fn draw(rng: &mut SmallRng, robots: usize) -> (Duration, bool, &'static str, String) {
    let valid_ms = if rng.random_ratio(1, GOOD_FOR_HOURS) { HOURS_MS } else { VALID_MS };
    let valid = Duration::from_millis(rng.random_range(valid_ms));
    let verb = if rng.random_ratio(1, SURVEYS) { SURVEY } else { "look" };
    (valid, rng.random_ratio(1, FOR_ALL), verb, robot_name(rng.random_range(0..robots)))
}

/// Sends commands until it is told to stop. Its result includes commands that may have been accepted.
async fn command(
    operator: &Operator,
    clients: &[Client],
    robots: usize,
    seed: u64,
    stopped: watch::Receiver<bool>,
) -> Vec<Sent> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xC0);
    let mut sent = Vec::new();
    while !*stopped.borrow() {
        tokio::time::sleep(PAUSE).await;
        let client = &clients[rng.random_range(0..clients.len())];
        let (valid, is_group, verb, robot) = draw(&mut rng, robots);
        let target = if is_group { FLEET } else { &robot };
        let to_send = ToSend { target, is_group, verb, valid, waves: None };
        let Ok(signed) = operator.sign(client, &to_send).await else { continue };
        // The deadline comes from a clock that was read by then, and not long before.
        let (id, at_ns) = (signed.id, boot_ns());
        let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        // It sends the same command through any node that answers, as long as the command is valid.
        let until = Instant::now() + valid.min(SEND_MAX);
        let mut may_be_accepted = false;
        for client in clients.iter().cycle() {
            match client.send_command(&signed).await {
                Ok(_) => may_be_accepted = true,
                Err(error) if error.leaves_open() && Instant::now() <= until => {
                    may_be_accepted = true;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => may_be_accepted |= error.leaves_open(),
            }
            break;
        }
        if may_be_accepted {
            sent.push(Sent { id, at_ns, valid_ms, agents: 0 });
        }
    }
    sent
}

/// When runs of robots' software were suspended.
pub(super) fn pauses(story: &[StoryRecord]) -> Vec<Pause> {
    let mut pauses = Vec::new();
    for (at, record) in story.iter().enumerate() {
        let StoryRecord::Paused { at_ns, name } = record else { continue };
        let resumed = story[at..].iter().find_map(|later| match later {
            StoryRecord::Resumed { at_ns, name: of } if of == name => Some(*at_ns),
            _ => None,
        });
        pauses.push(Pause { run: name.clone(), from_ns: *at_ns, to_ns: resumed.unwrap_or(u64::MAX) });
    }
    pauses
}
