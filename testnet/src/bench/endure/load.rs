//! Steady load: tasks and commands that robots do at once, and agents that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skep_client::{AgentOptions, AttachedAgent, Client, ClientError, CommandOffers, Role, Settings, TaskSpec};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::error::LaunchError;
use crate::site::launch::{TestNode, Testnet};
use crate::site::operator::{Operator, ToSend};
use crate::site::warehouse::robot_name;

/// How many robots are attached all the time.
pub(super) const ROBOTS: usize = 10;
/// How many customers, each of which asks for one thing after another. Not a divisor of the numbers below, so that each
/// customer asks for everything.
const CUSTOMERS: usize = 7;
/// One in this many rounds has a command too, and one in this many has an agent that comes and goes.
const COMMAND_EVERY: usize = 4;
const VISIT_EVERY: usize = 10;
/// Bytes of payload in a task, and of arguments in a command.
const PAYLOAD_BYTES: usize = 256;
/// How long a command is valid: longer than any of them takes.
const VALID: Duration = Duration::from_secs(60);
/// How long an agent may take to attach, and how long an agent that comes and goes waits for a task.
const ATTACH_MAX: Duration = Duration::from_secs(60);
const VISIT_MAX: Duration = Duration::from_secs(2);
/// How long the work that is under way at the end may take.
const END_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The results of the load so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rounds: AtomicU64,
    pub(super) created: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) succeeded: AtomicU64,
    pub(super) visits: AtomicU64,
    pub(super) not_done: AtomicU64,
    pub(super) unknown: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    /// Counts a call as done, not done or unknown.
    fn call<T>(&self, counter: &AtomicU64, called: Result<T, ClientError>) -> Option<T> {
        match called {
            Ok(reply) => {
                count(counter);
                return Some(reply);
            }
            Err(ClientError::Unknown { .. }) => count(&self.unknown),
            Err(_) => count(&self.not_done),
        }
        None
    }
}

/// Load that goes on until it is stopped.
pub(super) struct Load {
    pub(super) counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    customers: JoinSet<()>,
    robots: JoinSet<()>,
}

impl Load {
    /// Attaches robots to all nodes in turns, and begins this many rounds a second.
    pub(super) async fn start(testnet: &Testnet, rounds_per_s: u32) -> Result<Self, LaunchError> {
        let pipelined = Settings { pipelined: true, ..Settings::default() };
        let clients: Vec<Client> = testnet.nodes.iter().map(|node| node.client_with(pipelined)).collect();
        let operator = Operator::of(testnet, testnet.nodes.iter().map(TestNode::client).collect())?;
        let operator = Arc::new(operator.with_args(PAYLOAD_BYTES));
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let mut robots = JoinSet::new();
        for (n, client) in clients.iter().cycle().take(ROBOTS).enumerate() {
            let (agent, offers) = attach(client, &robot_name(n)).await?;
            robots.spawn(work(agent, Arc::clone(&counts)));
            robots.spawn(obey(offers));
        }
        let every = Duration::from_secs_f64(CUSTOMERS as f64 / f64::from(rounds_per_s.max(1)));
        let mut customers = JoinSet::new();
        for first in 0..CUSTOMERS {
            let customer = Customer {
                clients: clients.clone(),
                operator: Arc::clone(&operator),
                counts: Arc::clone(&counts),
                stop: Arc::clone(&stop),
                every,
            };
            customers.spawn(customer.run(first));
        }
        Ok(Self { counts, stop, customers, robots })
    }

    /// Lets the work under way end, and ends the robots.
    pub(super) async fn stop(mut self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + END_MAX;
        let ending = async { while self.customers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(END_MAX, ending).await;
        self.customers.shutdown().await;
        let is_open =
            |counts: &Counts| counts.completed.load(Ordering::Relaxed) < counts.created.load(Ordering::Relaxed);
        while is_open(&self.counts) && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.robots.shutdown().await;
        self.counts
    }
}

async fn attach(client: &Client, name: &str) -> Result<(AttachedAgent, CommandOffers), LaunchError> {
    let role = Role { name: "robot".to_owned(), max_concurrent: Some(1), ..Role::default() };
    let options = AgentOptions { patience: ATTACH_MAX, ..AgentOptions::new(name, role) };
    let mut agent = AttachedAgent::attach(client, options, None).await?;
    let taken = || LaunchError::Command { command: "taking commands".to_owned(), output: "taken".to_owned() };
    let offers = agent.take_commands(&[]).ok_or_else(taken)?;
    Ok((agent, offers))
}

/// Does every task that the agent is given.
async fn work(mut agent: AttachedAgent, counts: Arc<Counts>) {
    while let Some(task) = agent.next_task().await {
        counts.call(&counts.completed, task.complete(Vec::new()).await);
    }
}

/// Does every command that the agent is offered.
async fn obey(mut offers: CommandOffers) {
    while let Some(offer) = offers.next().await {
        if let Ok(running) = offer.start().await {
            let _ = running.succeed(Vec::new()).await;
        }
    }
}

/// Asks for one thing after another, at a constant rate.
struct Customer {
    clients: Vec<Client>,
    operator: Arc<Operator>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    every: Duration,
}

impl Customer {
    async fn run(self, first: usize) {
        let mut ticks = tokio::time::interval(self.every);
        // A customer that is late asks for less, and never for all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in (first..).step_by(CUSTOMERS) {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.round(round).await;
            count(&self.counts.rounds);
        }
    }

    async fn round(&self, round: usize) {
        let client = &self.clients[round % self.clients.len()];
        let title = format!("round {round}");
        let spec = TaskSpec { title, payload: vec![7; PAYLOAD_BYTES], ..TaskSpec::default() };
        self.counts.call(&self.counts.created, client.create_task(spec).await);
        if round.is_multiple_of(COMMAND_EVERY) {
            self.command(client, &robot_name(round / COMMAND_EVERY % ROBOTS)).await;
        }
        if round.is_multiple_of(VISIT_EVERY) {
            self.visit(client, &format!("visitor-{round}")).await;
        }
    }

    /// Commands a robot, and waits until the robot has done it.
    async fn command(&self, client: &Client, robot: &str) {
        let to_send = ToSend { target: robot, is_group: false, verb: "goto", valid: VALID, waves: None };
        let Ok(signed) = self.operator.sign(client, &to_send).await else { return count(&self.counts.not_done) };
        if self.counts.call(&self.counts.sent, client.send_command(&signed).await).is_none() {
            return;
        }
        if let Ok(view) = client.command_end(signed.id).await
            && view.deliveries.iter().all(|of| of.outcome == "succeeded")
        {
            count(&self.counts.succeeded);
        }
    }

    /// Attaches an agent with an id of its own, which does a task if there is one, and detaches it for good.
    async fn visit(&self, client: &Client, name: &str) {
        let Ok((mut agent, _offers)) = attach(client, name).await else { return count(&self.counts.not_done) };
        if let Ok(Some(task)) = tokio::time::timeout(VISIT_MAX, agent.next_task()).await {
            self.counts.call(&self.counts.completed, task.complete(Vec::new()).await);
        }
        agent.detach().await;
        count(&self.counts.visits);
    }
}
