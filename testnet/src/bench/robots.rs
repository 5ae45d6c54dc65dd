//! Robots of a benchmark: identities of one process, each with a stream of its own, that do at once what they are told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use skep_client::{AgentOptions, AttachedAgent, Client, CommandOffers, Role};
use tokio::sync::{mpsc, watch};

use super::{layout, scratch};
use crate::error::LaunchError;
use crate::site::launch::{Layout, Testnet};
use crate::site::warehouse::robot_name;

/// The group of all robots.
pub(super) const GROUP: &str = "fleet";
/// The most events of commands that wait to be read.
const SEEN_QUEUED_MAX: usize = 65_536;
/// How long a robot may take to attach.
const ATTACH_MAX: Duration = Duration::from_secs(120);

/// A command at a robot.
pub(super) struct Seen {
    pub(super) robot: usize,
    pub(super) command: Vec<u8>,
    /// When its software was offered the command, and when it was told to go.
    pub(super) offered: Instant,
    pub(super) started: Option<Instant>,
    /// When the outcome was in its node's journal; none before that.
    pub(super) recorded: Option<Instant>,
}

/// Nodes, and the robots on them.
pub(super) struct Fleet {
    pub(super) dir: PathBuf,
    pub(super) testnet: Testnet,
    /// The node that leads, by its place in the list.
    pub(super) leader: usize,
    pub(super) robots: Robots,
}

impl Fleet {
    /// Starts voters and other nodes, and attaches robots: to the other nodes if there are any, or else to the voters.
    pub(super) async fn up(
        name: &str,
        binary: PathBuf,
        (voters, others): (usize, usize),
        robots: usize,
    ) -> Result<Self, LaunchError> {
        let dir = scratch(name)?;
        let nodes = voters + others;
        let mut testnet = Testnet::create(Layout { nodes, ..layout(binary, dir.clone(), voters) })?;
        testnet.up().await?;
        let leader = testnet.leader().await?;
        let hosts = if others > 0 { voters..nodes } else { 0..nodes };
        let clients: Vec<Client> = testnet.nodes[hosts].iter().map(|node| node.client()).collect();
        let robots = Robots::attach(&clients, robots).await?;
        Ok(Self { dir, testnet, leader, robots })
    }
}

/// The robots at work.
pub(super) struct Robots {
    pub(super) seen: mpsc::Receiver<Seen>,
    /// Robots with numbers below this one stand still.
    pub(super) stopped: watch::Sender<usize>,
    tasks: tokio::task::JoinSet<()>,
}

impl Robots {
    /// Attaches this many robots to nodes in turns.
    async fn attach(clients: &[Client], count: usize) -> Result<Self, LaunchError> {
        let (sender, seen) = mpsc::channel(SEEN_QUEUED_MAX);
        let (stopped, _) = watch::channel(0);
        let mut attaching = tokio::task::JoinSet::new();
        for (robot, client) in clients.iter().cycle().take(count).enumerate() {
            let client = client.clone();
            attaching.spawn(async move { attach(&client, robot).await.map(|attached| (robot, attached)) });
        }
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(attached) = attaching.join_next().await {
            let failed = |output: String| LaunchError::Command { command: "attaching a robot".to_owned(), output };
            let (robot, (agent, offers)) = attached.map_err(|e| failed(e.to_string()))??;
            let (sender, stopped) = (sender.clone(), stopped.subscribe());
            tasks.spawn(async move {
                let _agent = agent;
                obey(robot, offers, sender, stopped).await;
            });
        }
        Ok(Self { seen, stopped, tasks })
    }

    /// Ends the robots.
    pub(super) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn attach(client: &Client, robot: usize) -> Result<(AttachedAgent, CommandOffers), LaunchError> {
    let role = Role { name: "robot".to_owned(), max_concurrent: Some(1), ..Role::default() };
    let options = AgentOptions { patience: ATTACH_MAX, ..AgentOptions::new(&robot_name(robot), role) };
    let mut agent = AttachedAgent::attach(client, options, None).await?;
    let offers = agent.take_commands(&[GROUP]);
    let taken = || LaunchError::Command { command: "taking commands".to_owned(), output: "taken".to_owned() };
    Ok((agent, offers.ok_or_else(taken)?))
}

async fn obey(
    robot: usize,
    mut offers: CommandOffers,
    sender: mpsc::Sender<Seen>,
    mut stopped: watch::Receiver<usize>,
) {
    loop {
        let Some(offer) = offers.next().await else { return };
        if stopped.wait_for(|stopped| robot >= *stopped).await.is_err() {
            return;
        }
        let (offered, command) = (Instant::now(), offer.command.id.clone());
        let running = offer.start().await.ok();
        let started = running.as_ref().map(|_| Instant::now());
        let recorded = match running {
            Some(running) => running.succeed(Vec::new()).await.ok().map(|()| Instant::now()),
            None => None,
        };
        let _ = sender.send(Seen { robot, command, offered, started, recorded }).await;
    }
}
