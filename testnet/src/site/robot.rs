//! A simulated robot: software that takes orders through the public API and walks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_client::v1::{Position, PublishRequest};
use skep_client::{
    AgentOptions, Assignment, AttachedAgent, Client, ClientError, Endpoint, Fenced, LeaseLeft, Role, Settings,
    TaskReceipt,
};

use tokio::sync::mpsc;

use crate::record::{Call, ClientRecord, Op, RecordError, Recorder, boot_ns, hex, run_name};
use crate::site::crew::{Run, obey};
use crate::site::station::{Question, Refused, StationClient, Step};
use crate::workload::{Cell, Floor, OrderPayload};

/// The topic of the robots' positions.
pub const POSE: &str = "robots/pose";
/// The topic of the robots' batteries.
pub const BATTERY: &str = "robots/battery";
/// The group of all robots.
pub const FLEET: &str = "fleet";
/// The verb of a command that takes a robot longer: others wait at its node meanwhile.
pub(crate) const SURVEY: &str = "survey";
const SURVEYS: Duration = Duration::from_secs(2);
/// How long a robot takes for any other command.
const LOOKS: Duration = Duration::from_millis(50);
/// How long the robot tries to attach. An earlier run may have the agent for as long as it is suspended or cut off, and
/// a lease more; and a shard may be without a quorum.
const ATTACH_MAX: Duration = Duration::from_secs(300);
/// The most publications that wait for the node.
const PUBLICATIONS_QUEUED_MAX: usize = 64;

/// How often a robot without an order publishes its position.
const IDLE_TELEMETRY_EVERY: Duration = Duration::from_secs(1);

/// The settings of a robot.
#[derive(Clone, Debug)]
pub struct RobotOptions {
    /// Its name, which is also its agent id.
    pub name: String,
    /// How often its software was started elsewhere before.
    pub run: u32,
    /// The directory of its node.
    pub node: PathBuf,
    /// The path of the floor's map.
    pub floor: PathBuf,
    /// The cell where it starts.
    pub start: Cell,
    /// The path of the station's socket.
    pub station: PathBuf,
    /// The path of its history.
    pub history: PathBuf,
    /// How long it takes to walk one cell.
    pub tick: Duration,
}

/// Why a robot cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RobotError {
    /// One of its files failed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its floor cannot be used.
    #[error(transparent)]
    Floor(#[from] crate::workload::WorkloadError),
    /// Its node refused it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The station, or its own history, failed.
    #[error("the station or the history: {0}")]
    Io(#[from] std::io::Error),
}

/// Why a robot gave up an order.
enum LetGo {
    /// It does not hold the order.
    Fenced(Fenced),
    /// The shard refused, or the outcome is unknown: another holder goes on from the last checkpoint.
    Client(ClientError),
    /// The station refused.
    Refused,
    /// There is no way to a cell.
    NoWay,
}

struct Robot {
    options: RobotOptions,
    floor: Floor,
    at: Cell,
    station: StationClient,
    history: Arc<Recorder>,
    agent: AttachedAgent,
    telemetry: mpsc::Sender<PublishRequest>,
    battery: Battery,
}

/// Thousandths of a full charge. A cell costs one; a robot that is nearly empty charges at once, as only simulated ones
/// do.
#[derive(Clone, Copy, Debug)]
struct Battery(u32);

impl Default for Battery {
    fn default() -> Self {
        Self(1_000)
    }
}

impl Battery {
    fn walk(&mut self) {
        self.0 = if self.0 <= 100 { 1_000 } else { self.0 - 1 };
    }
}

/// Runs a robot until its process ends.
///
/// # Errors
/// [`RobotError`] if the robot cannot begin or go on at all.
pub async fn run(options: RobotOptions) -> Result<(), RobotError> {
    let text = std::fs::read_to_string(&options.floor)
        .map_err(|source| RecordError::Io { path: options.floor.clone(), source })?;
    let floor = Floor::parse(&options.floor, &text)?;
    let history = Arc::new(Recorder::open(&options.history)?);
    let station = StationClient::connect(&options.station).await?;
    // The software waits for a node that restarts, as long as anybody would wait for a robot.
    let settings = Settings { patience: Duration::from_secs(60), ..Settings::default() };
    let client = Client::with_settings(Endpoint::of_dir(&options.node), settings)?;
    let role = Role {
        name: "robot".to_owned(),
        capabilities: vec!["transport".to_owned()],
        stateful: false,
        max_concurrent: Some(1),
    };
    let place = Some(position(&floor, options.start));
    let agent_options = AgentOptions { place, patience: ATTACH_MAX, ..AgentOptions::new(&options.name, role) };
    let keeper = Arc::clone(&history);
    let renewed = move |left: LeaseLeft| {
        let _ = keeper.write(&ClientRecord::Renewed { at_ms: left.at_ms, until_ms: left.until_ms });
    };
    let mut agent = AttachedAgent::attach(&client, agent_options, Some(Box::new(renewed))).await?;
    if let Some(mut offers) = agent.take_commands(&[FLEET]) {
        let run = Run { robot: options.name.clone(), run: options.run };
        let mut world = StationClient::connect(&options.station).await?;
        let takes = |verb: &str| if verb == SURVEY { SURVEYS } else { LOOKS };
        // Beside its orders: a look around needs no walk.
        tokio::spawn(async move { obey(&mut offers, &run, &mut world, takes).await });
    }
    let (telemetry, publications) = mpsc::channel(PUBLICATIONS_QUEUED_MAX);
    tokio::spawn(keep_publishing(client.clone(), publications));
    let battery = Battery::default();
    let mut robot = Robot { at: options.start, options, floor, station, history, agent, telemetry, battery };
    robot.tell_world();
    loop {
        let order = tokio::select! {
            order = robot.agent.next_task() => order,
            // A subscriber that comes while the robot waits hears of it too.
            () = tokio::time::sleep(IDLE_TELEMETRY_EVERY) => {
                robot.tell_world();
                continue;
            }
        };
        let Some(order) = order else { return Ok(()) };
        match robot.work(&order).await? {
            Ok(()) => {}
            Err(LetGo::Fenced(why)) => robot.note_fenced(&order, &why.to_string())?,
            Err(LetGo::Client(why)) => robot.note_fenced(&order, &why.to_string())?,
            Err(LetGo::Refused) => robot.note_fenced(&order, "the station refused it")?,
            Err(LetGo::NoWay) => drop(order.fail("there is no way to one of its cells", true).await),
        }
    }
}

/// Publishes until the robot ends; begins anew when its node does.
async fn keep_publishing(client: Client, mut publications: mpsc::Receiver<PublishRequest>) {
    loop {
        let (queue, stream) = mpsc::channel(PUBLICATIONS_QUEUED_MAX);
        let publishing = client.publish_all(stream);
        let feeding = async {
            while let Some(publication) = publications.recv().await {
                if queue.send(publication).await.is_err() {
                    return true;
                }
            }
            false
        };
        tokio::select! {
            _ = publishing => {}
            goes_on = feeding => if !goes_on { return },
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn position(floor: &Floor, cell: Cell) -> Position {
    let (x_mm, y_mm) = floor.position_mm(cell);
    Position { x_mm, y_mm }
}

impl Robot {
    fn note_fenced(&self, order: &Assignment, why: &str) -> std::io::Result<()> {
        let (task, why) = (hex(&order.task.id), why.to_owned());
        self.history.write(&ClientRecord::Fenced { at_ns: boot_ns(), task, epoch: order.epoch(), why })
    }

    /// Publishes its position and its charge. Latest wins: nothing misses a value that finds no room.
    fn tell_world(&self) {
        let place = position(&self.floor, self.at);
        let pose = serde_json::json!({ "cell": self.at, "x_mm": place.x_mm, "y_mm": place.y_mm });
        let battery = serde_json::json!({ "permille": self.battery.0 });
        for (topic, payload) in [(POSE, pose), (BATTERY, battery)] {
            let (topic, source) = (topic.to_owned(), self.options.name.clone());
            let (content_type, payload) = ("application/json".to_owned(), payload.to_string().into_bytes());
            let _ = self.telemetry.try_send(PublishRequest { topic, source, content_type, payload });
        }
    }

    /// Carries an order out, from its last checkpoint on.
    async fn work(&mut self, order: &Assignment) -> Result<Result<(), LetGo>, RobotError> {
        let payload = order.task.spec.as_ref().map(|spec| spec.payload.as_slice()).unwrap_or_default();
        let errands = serde_json::from_slice::<OrderPayload>(payload).map(|order| order.errands).unwrap_or_default();
        let done = order.task.checkpoint.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        for (n, cell) in errands.iter().enumerate().skip(done as usize) {
            let errand = u32::try_from(n).unwrap_or(u32::MAX);
            match self.errand(order, errand, *cell).await? {
                Ok(()) => {}
                Err(why) => return Ok(Err(why)),
            }
            let permille = u32::try_from((n + 1) * 1_000 / errands.len()).unwrap_or(1_000);
            let progress = order.progress(permille, "", Some((errand + 1).to_be_bytes().to_vec()));
            if let Err(why) = self.recorded(order, Op::Progress, errand + 1, progress).await? {
                return Ok(Err(why));
            }
        }
        let complete = order.complete(Vec::new());
        self.recorded(order, Op::Complete, 0, complete).await
    }

    /// Walks to a cell, between the start and the end that the station grants.
    async fn errand(&mut self, order: &Assignment, errand: u32, to: Cell) -> Result<Result<(), LetGo>, RobotError> {
        match self.ask(order, errand, Step::Start).await? {
            Ok(None) => {}
            // Another holder did it, and its report was lost with its node: there is nothing left to do.
            Ok(Some(Refused::Duplicate)) => return Ok(Ok(())),
            Ok(Some(Refused::Stale | Refused::NotStarted)) => return Ok(Err(LetGo::Refused)),
            Err(fenced) => return Ok(Err(LetGo::Fenced(fenced))),
        }
        let Some(way) = self.floor.way(self.at, to) else { return Ok(Err(LetGo::NoWay)) };
        for cell in way {
            tokio::time::sleep(self.options.tick).await;
            if let Err(fenced) = self.still_mine(order).await? {
                return Ok(Err(LetGo::Fenced(fenced)));
            }
            self.at = cell;
            self.agent.set_place(position(&self.floor, cell));
            self.battery.walk();
            self.tell_world();
        }
        Ok(match self.ask(order, errand, Step::Done).await? {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(LetGo::Refused),
            Err(fenced) => Err(LetGo::Fenced(fenced)),
        })
    }

    /// Checks that the robot still holds the order. A robot whose lease has ended stands still until it knows.
    async fn still_mine(&self, order: &Assignment) -> std::io::Result<Result<LeaseLeft, Fenced>> {
        match order.check() {
            Err(why @ Fenced::LeaseEnded { .. }) => {
                self.note_fenced(order, &why.to_string())?;
                Ok(order.regained().await)
            }
            decided => Ok(decided),
        }
    }

    /// Asks the station, if the robot still holds the order.
    async fn ask(
        &mut self,
        order: &Assignment,
        errand: u32,
        step: Step,
    ) -> Result<Result<Option<Refused>, Fenced>, RobotError> {
        let left = match self.still_mine(order).await? {
            Ok(left) => left,
            Err(fenced) => return Ok(Err(fenced)),
        };
        let question = Question {
            robot: self.options.name.clone(),
            run: self.options.run,
            task: hex(&order.task.id),
            epoch: order.epoch(),
            errand,
            step,
            checked_ms: left.at_ms,
            until_ms: left.until_ms,
            token: None,
        };
        Ok(Ok(self.station.ask(&question).await?))
    }

    /// Makes a call, with a record of how it began and ended.
    async fn recorded(
        &self,
        order: &Assignment,
        op: Op,
        errands: u32,
        call: impl Future<Output = Result<TaskReceipt, ClientError>>,
    ) -> Result<Result<(), LetGo>, RobotError> {
        let (client, task) = (run_name(&self.options.name, self.options.run), hex(&order.task.id));
        let record = Call { client, op, task, epoch: order.epoch(), errands };
        self.history.write(&ClientRecord::Invoke { at_ns: boot_ns(), call: record.clone() })?;
        // Fenced or not, the shard judges the claim, and its answer settles what became of it.
        let result = call.await;
        let at_ns = boot_ns();
        let (line, result) = match result {
            Ok(receipt) => {
                let request = hex(&receipt.request_id);
                (ClientRecord::Ok { at_ns, call: record, request, index: receipt.index }, Ok(()))
            }
            Err(error @ ClientError::Unknown { .. }) => {
                (ClientRecord::Unknown { at_ns, call: record, why: error.to_string() }, Err(LetGo::Client(error)))
            }
            Err(error) => {
                (ClientRecord::Fail { at_ns, call: record, why: error.to_string() }, Err(LetGo::Client(error)))
            }
        };
        self.history.write(&line)?;
        Ok(result)
    }
}
