//! An operator that tells robots what to do while things go wrong.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_client::{Client, v1};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::demo::{DemoSite, StoryRecord, robot_name};
use crate::launch::LaunchError;
use crate::operator::{Operator, Order, Sent};
use crate::robot::FLEET;
use crate::verify::Pause;

/// Pause between two commands.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one is good for, in milliseconds.
const VALID_MS: std::ops::Range<u64> = 1_000..20_000;
/// One in so many is for all robots.
const FOR_ALL: u32 = 5;
/// How long the last of them may take to its end, once everything is mended.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

/// An operator at work.
pub(super) struct Commander {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<(Operator, Vec<Sent>)>,
}

impl Commander {
    pub(super) async fn start(site: &DemoSite, robots: usize, seed: u64) -> Result<Self, LaunchError> {
        let operator = Operator::install(site.clients(), seed).await?;
        let (stop, stopped) = watch::channel(false);
        let clients = site.clients();
        let task = tokio::spawn(async move {
            let sent = command(&operator, &clients, robots, seed, stopped).await;
            (operator, sent)
        });
        Ok(Self { stop, task })
    }

    /// What was sent and accepted, and how it stands once all of it has ended, or after a generous time.
    pub(super) async fn stop(self) -> Result<Vec<(Sent, v1::CommandView)>, LaunchError> {
        self.stop.send_replace(true);
        let failed = |e: tokio::task::JoinError| LaunchError::Command {
            command: "the operator of a chaos run".to_owned(),
            output: e.to_string(),
        };
        let (operator, sent) = self.task.await.map_err(failed)?;
        let until = Instant::now() + ENDS_WITHIN;
        let mut ended = Vec::new();
        for sent in sent {
            loop {
                match operator.show(sent.id).await {
                    Ok(view) if view.open == 0 || Instant::now() > until => break ended.push((sent, view)),
                    // It was never accepted, or is forgotten: ended, and its deadline past.
                    Err(error) if error.is_not_found() => break,
                    Err(error) if Instant::now() > until => return Err(error.into()),
                    Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }
        Ok(ended)
    }
}

/// Sends commands until it is told to stop. What may have been accepted is among what it tells, too.
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
        let valid = Duration::from_millis(rng.random_range(VALID_MS));
        let is_group = rng.random_ratio(1, FOR_ALL);
        let robot = robot_name(rng.random_range(0..robots));
        let target = if is_group { FLEET } else { &robot };
        let order = Order { target, is_group, verb: "look", valid, waves: None };
        let at_ns = crate::record::boot_ns();
        let Ok(signed) = operator.sign(client, &order).await else { continue };
        let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        sent.push(Sent { id: signed.command.id, at_ns, valid_ms, agents: 0 });
        // The same command, through whoever answers, as long as it is good for anything.
        let until = Instant::now() + valid;
        for client in clients.iter().cycle() {
            match client.send_command(&signed).await {
                Ok(_) => break,
                Err(error) if !error.leaves_open() || Instant::now() > until => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
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
