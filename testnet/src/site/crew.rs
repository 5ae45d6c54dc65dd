//! A crew: the software of several robots that share a node. Each does what it is commanded, one thing after another,
//! and asks the station before and after.

use std::path::PathBuf;
use std::time::Duration;

use skep_client::{
    AgentOptions, AttachedAgent, Client, ClientError, CommandOffers, Endpoint, NotStarted, Role, RunningCommand,
    Settings,
};

use crate::record::hex;
use crate::site::station::{Question, Refused, StationClient, Step};

/// The settings of a crew.
#[derive(Clone, Debug)]
pub struct CrewOptions {
    /// The robots' names, which are also their agent ids.
    pub robots: Vec<String>,
    /// The directory of their node.
    pub node: PathBuf,
    /// The group that they belong to.
    pub group: String,
    /// The path of the station's socket.
    pub station: PathBuf,
    /// How long a robot takes for a command.
    pub works: Duration,
}

/// Why a robot of a crew cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CrewError {
    /// Its node refused it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The station failed.
    #[error("the station: {0}")]
    Station(#[from] std::io::Error),
    /// A robot's software failed.
    #[error("a robot's software failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

/// A run of a robot's software, as the station knows it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The robot's name.
    pub(crate) robot: String,
    /// How often the software was started elsewhere before.
    pub(crate) run: u32,
}

/// The name under which the station knows a command at a robot.
pub(crate) fn deed(command: &[u8], robot: &str) -> String {
    format!("{}@{robot}", hex(command))
}

/// Whether this name means a command, and not a task.
pub(crate) fn is_deed(task: &str) -> bool {
    task.contains('@')
}

/// Runs a crew until its process ends.
///
/// # Errors
/// [`CrewError`] if one of its robots cannot begin or go on at all.
pub async fn run(options: CrewOptions) -> Result<(), CrewError> {
    // The software waits for a node that restarts, as long as anybody would wait for a robot.
    let settings = Settings { patience: Duration::from_secs(60), ..Settings::default() };
    let client = Client::with_settings(Endpoint::of_dir(&options.node), settings)?;
    let mut crew = tokio::task::JoinSet::new();
    for name in options.robots.clone() {
        crew.spawn(robot(client.clone(), name, options.clone()));
    }
    while let Some(ended) = crew.join_next().await {
        ended??;
    }
    Ok(())
}

async fn robot(client: Client, name: String, options: CrewOptions) -> Result<(), CrewError> {
    let mut station = StationClient::connect(&options.station).await?;
    let run = Run { robot: name.clone(), run: 0 };
    loop {
        let role = Role { name: "inspector".to_owned(), max_concurrent: Some(1), ..Role::default() };
        let attach = AgentOptions { patience: Duration::from_secs(300), ..AgentOptions::new(&name, role) };
        let mut agent = AttachedAgent::attach(&client, attach, None).await?;
        let Some(mut offers) = agent.take_commands(&[&options.group]) else { return Ok(()) };
        obey(&mut offers, &run, &mut station, |_| options.works).await?;
    }
}

/// Does what a robot is commanded, one thing after another, until the agent has ended. The command decides how long
/// each takes.
pub(crate) async fn obey(
    offers: &mut CommandOffers,
    run: &Run,
    station: &mut StationClient,
    works: impl Fn(&str) -> Duration,
) -> std::io::Result<()> {
    while let Some(offer) = offers.next().await {
        offer.accept();
        if let Ok(running) = offer.start().await {
            let takes = works(&running.command.verb);
            // If its node does not know a command, the node reports the command as it knows it.
            let _ = carry_out(running, run, station, takes).await?;
        }
    }
    Ok(())
}

/// Does a command, between the start and the end that the station grants.
async fn carry_out(
    running: RunningCommand,
    of: &Run,
    station: &mut StationClient,
    takes: Duration,
) -> std::io::Result<Result<(), NotStarted>> {
    let (task, token) = (deed(&running.command.id, &of.robot), Some(running.token()));
    let mut ask = async |step, left: skep_client::StartLeft| {
        let (Run { robot, run }, task) = (of.clone(), task.clone());
        let (checked_ms, until_ms) = (left.at_ms, left.until_ms);
        station.ask(&Question { robot, run, task, epoch: 1, errand: 0, step, checked_ms, until_ms, token }).await
    };
    let left = match running.check() {
        Ok(left) => left,
        Err(late) => return Ok(running.fail(&late.to_string()).await),
    };
    match ask(Step::Start, left).await? {
        None => {}
        Some(Refused::Stale | Refused::Duplicate | Refused::NotStarted) => {
            return Ok(running.fail("the station refused it").await);
        }
    }
    running.progress(500, "at it");
    tokio::time::sleep(takes).await;
    Ok(match ask(Step::Done, left).await? {
        None => running.succeed(Vec::new()).await,
        Some(_) => running.fail("the station refused its end").await,
    })
}
