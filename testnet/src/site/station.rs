//! The station: a process that stands for the physical world.
//!
//! Robots ask the station about every start and every end of an errand. The station keeps the actuator log: what really
//! happened, whatever nodes and robots believe. It refuses what the world would not let happen: an effect of a claim
//! below one that it has seen, an errand that is done already, and a command that a robot's earlier owner begins after
//! a later one has. It logs refusals too.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::offer::GoToken;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::record::{RecordError, Recorder, boot_ns, run_name};

/// The longest question, in bytes.
const QUESTION_BYTES_MAX: usize = 4 * 1024;

/// The two halves of an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The start.
    Start,
    /// The end.
    Done,
}

/// A question of a robot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The robot's name.
    pub robot: String,
    /// The run of its software: how often that was started elsewhere before.
    #[serde(default, skip_serializing_if = "is_first")]
    pub run: u32,
    /// The task's id.
    pub task: String,
    /// The epoch of the claim.
    pub epoch: u64,
    /// The number of the errand in the task, from 0.
    pub errand: u32,
    /// The half of the errand.
    pub step: Step,
    /// When the robot last checked that it still may act, on the boot clock, in milliseconds.
    pub checked_ms: u64,
    /// Until when it might act, by that check, on the boot clock, in milliseconds.
    pub until_ms: u64,
    /// The fencing token of its "go", if the question is about a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<GoToken>,
}

fn is_first(run: &u32) -> bool {
    *run == 0
}

impl Question {
    /// The run of the robot's software that asks, by the name of its process and its history.
    pub fn run_name(&self) -> String {
        run_name(&self.robot, self.run)
    }
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// A later claim has acted on the task, or a later owner of the robot has begun a command.
    Stale,
    /// The errand is done already.
    Duplicate,
    /// The errand was not started under this claim.
    NotStarted,
}

/// One line of the actuator log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// When, on the boot clock, in nanoseconds.
    pub at_ns: u64,
    /// The question.
    #[serde(flatten)]
    pub question: Question,
    /// Why the station refused it; none if it happened.
    pub refused: Option<Refused>,
}

/// The answer of the station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Why the station refused it; none if it happened.
    pub refused: Option<Refused>,
}

/// What the world knows of one task.
#[derive(Debug, Default)]
struct TaskWorld {
    epoch: u64,
    /// The errands that were started, and under which claim last.
    started: BTreeMap<u32, u64>,
    done: std::collections::BTreeSet<u32>,
}

/// The state of the world: what was begun and done, and under which claims.
#[derive(Debug, Default)]
pub struct World {
    tasks: BTreeMap<String, TaskWorld>,
    /// The greatest fencing token with which each robot has begun a command.
    owners: BTreeMap<String, GoToken>,
}

impl World {
    /// Reads the world from its log, to go on where it stood.
    fn remember(log: &Path) -> Result<Self, RecordError> {
        let mut world = Self::default();
        for effect in crate::record::read::<Effect>(log)? {
            world.judge(&effect.question);
        }
        Ok(world)
    }

    /// Whether a later owner of the robot has begun a command. What was begun before that may end.
    fn has_later_owner(&mut self, question: &Question) -> bool {
        let Some(token) = question.token.filter(|_| question.step == Step::Start) else { return false };
        let greatest = self.owners.entry(question.robot.clone()).or_default();
        let later = *greatest > token;
        *greatest = token.max(*greatest);
        later
    }

    /// Lets an effect happen, or says why not.
    pub fn judge(&mut self, question: &Question) -> Option<Refused> {
        if self.has_later_owner(question) && !is_on(Mutant::NoFenceAtStation) {
            return Some(Refused::Stale);
        }
        let task = self.tasks.entry(question.task.clone()).or_default();
        if question.epoch < task.epoch && !is_on(Mutant::NoFenceAtStation) {
            return Some(Refused::Stale);
        }
        task.epoch = question.epoch;
        if task.done.contains(&question.errand) {
            return Some(Refused::Duplicate);
        }
        match question.step {
            Step::Start => {
                task.started.insert(question.errand, question.epoch);
                None
            }
            Step::Done if task.started.get(&question.errand) == Some(&question.epoch) => {
                task.done.insert(question.errand);
                None
            }
            Step::Done => Some(Refused::NotStarted),
        }
    }
}

/// Serves robots until the process ends.
///
/// # Errors
/// Those of the socket and of the log, if they cannot be opened.
pub async fn serve(socket: &Path, log: &Path) -> Result<(), RecordError> {
    let io = |source| RecordError::Io { path: socket.to_owned(), source };
    let recorder = Arc::new(Recorder::open(log)?);
    let world = Arc::new(Mutex::new(World::remember(log)?));
    match std::fs::remove_file(socket) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(io(source)),
    }
    let listener = UnixListener::bind(socket).map_err(io)?;
    loop {
        let (stream, _) = listener.accept().await.map_err(io)?;
        let (world, recorder) = (Arc::clone(&world), Arc::clone(&recorder));
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &world, &recorder).await {
                let _ = writeln!(std::io::stderr(), "station: {error}");
            }
        });
    }
}

async fn answer(stream: UnixStream, world: &Mutex<World>, recorder: &Recorder) -> std::io::Result<()> {
    let (receive, mut send) = stream.into_split();
    let mut receive = BufReader::new(receive);
    let mut line = String::new();
    loop {
        line.clear();
        if receive.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line.len() > QUESTION_BYTES_MAX {
            return Err(std::io::Error::other("a question is too long"));
        }
        let question: Question = serde_json::from_str(&line).map_err(std::io::Error::other)?;
        let refused = {
            // Effects are judged and logged in one order, which is that of the world.
            let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
            let refused = world.judge(&question);
            recorder.write(&Effect { at_ns: boot_ns(), question, refused })?;
            refused
        };
        let mut reply = serde_json::to_vec(&Answer { refused }).map_err(std::io::Error::other)?;
        reply.push(b'\n');
        send.write_all(&reply).await?;
    }
}

/// A robot's connection to the station.
pub struct StationClient {
    receive: BufReader<tokio::net::unix::OwnedReadHalf>,
    send: tokio::net::unix::OwnedWriteHalf,
}

impl StationClient {
    /// Connects to the station.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn connect(socket: &Path) -> std::io::Result<Self> {
        let (receive, send) = UnixStream::connect(socket).await?.into_split();
        Ok(Self { receive: BufReader::new(receive), send })
    }

    /// Asks for an effect; returns why the station refused it, if it did.
    ///
    /// # Errors
    /// Those of the socket: the effect may have happened.
    pub async fn ask(&mut self, question: &Question) -> std::io::Result<Option<Refused>> {
        let mut line = serde_json::to_vec(question).map_err(std::io::Error::other)?;
        line.push(b'\n');
        self.send.write_all(&line).await?;
        let mut reply = String::new();
        self.receive.read_line(&mut reply).await?;
        let answer: Answer = serde_json::from_str(&reply).map_err(std::io::Error::other)?;
        Ok(answer.refused)
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{AttachmentId, HomeEpoch};

    use super::*;

    fn question(epoch: u64, errand: u32, step: Step) -> Question {
        let (robot, task) = ("r".to_owned(), "t".to_owned());
        Question { robot, run: 0, task, epoch, errand, step, checked_ms: 0, until_ms: 1, token: None }
    }

    #[test]
    fn the_world_refuses_what_an_earlier_owner_of_a_robot_begins_and_lets_end_what_it_began() {
        let mut world = World::default();
        let mut ask = |robot: &str, task: &str, (home, attachment), step| {
            let token = GoToken { home: HomeEpoch(home), attachment: AttachmentId(attachment) };
            let (robot, task) = (robot.to_owned(), task.to_owned());
            world.judge(&Question { robot, task, token: Some(token), ..question(1, 0, step) })
        };
        assert_eq!(ask("r", "a@r", (1, 7), Step::Start), None);
        assert_eq!(ask("r", "b@r", (2, 3), Step::Start), None, "another home, whatever the attachment");
        assert_eq!(ask("r", "c@r", (1, 9), Step::Start), Some(Refused::Stale));
        assert_eq!(ask("r", "a@r", (1, 7), Step::Done), None);
        assert_eq!(ask("r", "d@r", (2, 3), Step::Start), None, "the same owner goes on");
        assert_eq!(ask("s", "c@s", (1, 1), Step::Start), None, "another robot has owners of its own");
    }

    #[test]
    fn the_world_refuses_lower_epochs_and_errands_that_are_done() {
        let mut world = World::default();
        let mut ask = |epoch, errand, step| world.judge(&question(epoch, errand, step));
        assert_eq!(ask(1, 0, Step::Start), None);
        assert_eq!(ask(1, 0, Step::Done), None);
        assert_eq!(ask(2, 0, Step::Start), Some(Refused::Duplicate));
        assert_eq!(ask(2, 1, Step::Start), None);
        assert_eq!(ask(1, 1, Step::Done), Some(Refused::Stale));
        assert_eq!(ask(3, 1, Step::Done), Some(Refused::NotStarted), "what another claim began is not its own");
        assert_eq!(ask(3, 1, Step::Start), None);
        assert_eq!(ask(3, 1, Step::Done), None);
    }

    #[tokio::test]
    async fn everything_that_is_asked_is_in_the_log_refusals_too() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, log) = (dir.path().join("s.sock"), dir.path().join("actuator.jsonl"));
        let serving = tokio::spawn({
            let (socket, log) = (socket.clone(), log.clone());
            async move { serve(&socket, &log).await }
        });
        let mut client = loop {
            if let Ok(client) = StationClient::connect(&socket).await {
                break client;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(client.ask(&question(2, 0, Step::Start)).await.unwrap(), None);
        assert_eq!(client.ask(&question(1, 0, Step::Done)).await.unwrap(), Some(Refused::Stale));
        serving.abort();
        let log: Vec<Effect> = crate::record::read(&log).unwrap();
        let refusals: Vec<_> = log.iter().map(|effect| effect.refused).collect();
        assert_eq!(refusals, [None, Some(Refused::Stale)]);
    }
}
