//! The one place where consensus, engine, mesh and API meet.
//!
//! The driver waits for something to happen, tells the engine, and carries out what the engine wants. It decides
//! nothing. Attempts for one target that arise together travel together.

mod agents;
mod attempts;
mod journals;
mod local;
mod shards;
mod topics;
mod waiting;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use skep_api::{Call, CallQueue, Calls, MemberChange, ShardFailure, ShardRow, Submission};
use skep_config::Config;
use skep_consensus::{ConsensusHandle, FromLeader, JournalReport, Journals, MembershipError, ShardView};
use skep_engine::{AgentEvent, Connectivity, Effect, Engine, Event, TopicEvent, UpdateKey, Work, WorkKey};
use skep_mesh::MeshHandle;
use skep_protocol::entry::Request;
use skep_protocol::ids::ShardId;
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::Settled;
use skep_protocol::query::Query;
use skep_protocol::telemetry::{Envelope, Publication};
use tokio::sync::{mpsc, oneshot, watch};

use crate::views::{node_view, row};
use agents::AgentsPort;
use attempts::{AttemptsPort, Ended};
use journals::JournalsPort;
use local::{changes, not_done};
use shards::follow_shards;
use topics::TopicsPort;
use waiting::Waiting;

/// Calls taken from the API before their effects are carried out.
const CALLS_PER_TURN: usize = 512;
/// How often callers that went away are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a clock that is not known here is asked for, in milliseconds.
const CLOCK_PATIENCE_MS: u64 = 3_000;

/// What the driver waited for.
enum Step {
    Call(Box<Call>),
    Ended(Ended),
    View(ShardId, ShardView),
    FromLeader(FromLeader),
    Settled(WorkKey, Settled),
    Journal(Box<JournalReport>),
    Pressure,
    Received(Box<Envelope>),
    Published(Box<Publication>),
    Peers,
    Time,
    Stop,
}

fn boot_ms() -> u64 {
    if is_on(Mutant::DeadlineFromWallClock) {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return u64::try_from(wall.as_millis()).unwrap_or(0);
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Meets everyone.
pub(crate) struct Driver {
    engine: Engine,
    consensus: ConsensusHandle,
    mesh: MeshHandle,
    config: Config,
    calls: mpsc::Receiver<Call>,
    attempts: AttemptsPort,
    agents: AgentsPort,
    topics: TopicsPort,
    journals: JournalsPort,
    views: mpsc::Sender<(ShardId, ShardView)>,
    views_in: mpsc::Receiver<(ShardId, ShardView)>,
    /// The way that the engine's own commands take, beside those of the API.
    own_calls: Calls,
    settled: mpsc::Sender<(WorkKey, Settled)>,
    settled_in: mpsc::Receiver<(WorkKey, Settled)>,
    updates: BTreeMap<UpdateKey, oneshot::Sender<bool>>,
    updates_in: mpsc::Receiver<FromLeader>,
    waiting: BTreeMap<WorkKey, (ShardId, Waiting)>,
    next_key: u64,
    started: Instant,
    swept: Instant,
    ready: watch::Sender<bool>,
}

impl Driver {
    /// A driver for these parts. Also tells when the node can serve: when a shard has a leader.
    pub(crate) fn new(
        config: Config,
        (consensus, updates_in): (ConsensusHandle, mpsc::Receiver<FromLeader>),
        (mesh, received): (MeshHandle, mpsc::Receiver<Envelope>),
        (own_calls, CallQueue { calls, publications }): (Calls, CallQueue),
        journals: (Journals, mpsc::Receiver<JournalReport>),
    ) -> (Self, watch::Receiver<bool>) {
        let (views, views_in) = mpsc::channel(limits::SHARDS_PER_NODE_MAX);
        let (settled, settled_in) = mpsc::channel(limits::AGENTS_PER_NODE_MAX);
        let (ready, readiness) = watch::channel(false);
        let driver = Self {
            engine: Engine::new(consensus.node(), config.node.site.clone(), config.engine)
                .believing(config.control.marked_voters()),
            attempts: AttemptsPort::new(consensus.clone()),
            agents: AgentsPort::default(),
            topics: TopicsPort::new((mesh.clone(), received), publications),
            journals: JournalsPort::new(journals),
            consensus,
            mesh,
            config,
            calls,
            views,
            views_in,
            own_calls,
            settled,
            settled_in,
            updates: BTreeMap::new(),
            updates_in,
            waiting: BTreeMap::new(),
            next_key: 1,
            started: Instant::now(),
            swept: Instant::now(),
            ready,
        };
        (driver, readiness)
    }

    /// Milliseconds of CLOCK_BOOTTIME: it goes on while the machine sleeps, and so do deadlines.
    fn now_ms(&self) -> u64 {
        boot_ms()
    }

    /// Serves until it is told to stop. Calls that still wait are dropped: their callers hear "unknown".
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        tokio::spawn(follow_shards(self.consensus.clone(), self.views.clone()));
        let mut peers = self.consensus.peer_changes();
        self.on_peers();
        self.apply(Step::Pressure);
        self.carry_out();
        loop {
            match self.select(&mut peers, &mut stop).await {
                Step::Stop => return,
                step => self.apply(step),
            }
            // Take what else is there before carrying out, so that it travels together.
            for _ in 0..CALLS_PER_TURN {
                if let Ok(said) = self.updates_in.try_recv() {
                    self.on_leader_said(said);
                } else if let Ok((key, settled)) = self.settled_in.try_recv() {
                    self.on_settled(key, settled);
                } else if let Ok(report) = self.journals.reports.try_recv() {
                    self.hear([journals::reported(report)]);
                } else if let Ok(call) = self.calls.try_recv() {
                    self.on_call(call);
                } else if let Ok(ended) = self.attempts.ended_in.try_recv() {
                    self.on_ended(ended);
                } else {
                    break;
                }
            }
            // Under a steady flow of calls the timer's own turn may never come.
            if self.engine.poll_timeout().is_some_and(|at| at <= self.now_ms()) || self.swept.elapsed() >= SWEEP_EVERY {
                self.on_time();
            }
            self.carry_out();
        }
    }

    async fn select(&mut self, peers: &mut watch::Receiver<u64>, stop: &mut oneshot::Receiver<()>) -> Step {
        let sweep = SWEEP_EVERY.saturating_sub(self.swept.elapsed());
        let timeout = self.engine.poll_timeout().map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
        let wait = timeout.map_or(sweep, |timeout| timeout.min(sweep));
        tokio::select! {
            biased;
            _ = stop => Step::Stop,
            Some((shard, view)) = self.views_in.recv() => Step::View(shard, view),
            Ok(()) = peers.changed() => Step::Peers,
            Ok(()) = self.journals.pressure.changed() => Step::Pressure,
            Some(ended) = self.attempts.ended_in.recv() => Step::Ended(ended),
            Some(said) = self.updates_in.recv() => Step::FromLeader(said),
            Some((key, settled)) = self.settled_in.recv() => Step::Settled(key, settled),
            Some(report) = self.journals.reports.recv() => Step::Journal(Box::new(report)),
            call = self.calls.recv() => call.map_or(Step::Stop, |call| Step::Call(Box::new(call))),
            // The lowest class comes last.
            Some(envelope) = self.topics.received.recv() => Step::Received(Box::new(envelope)),
            Some(publication) = self.topics.publications.recv() => Step::Published(Box::new(publication)),
            () = tokio::time::sleep(wait) => Step::Time,
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Call(call) => self.on_call(*call),
            Step::Ended(ended) => self.on_ended(ended),
            Step::View(shard, view) => self.on_view(shard, view),
            Step::FromLeader(said) => self.on_leader_said(said),
            Step::Settled(key, settled) => self.on_settled(key, settled),
            Step::Journal(report) => self.hear([journals::reported(*report)]),
            Step::Pressure => {
                let event = self.journals.pressed();
                self.hear([event]);
            }
            Step::Received(envelope) => self.hear([Event::Topic(TopicEvent::Received(*envelope))]),
            Step::Published(publication) => self.hear([Event::Topic(TopicEvent::Published(*publication))]),
            Step::Peers => self.on_peers(),
            Step::Time => self.on_time(),
            Step::Stop => {}
        }
    }

    fn on_time(&mut self) {
        let now = self.now_ms();
        self.engine.handle_timeout(now);
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            let gone: Vec<WorkKey> =
                self.waiting.iter().filter(|(_, (_, w))| w.is_gone()).map(|(key, _)| *key).collect();
            for key in gone {
                self.waiting.remove(&key);
                self.engine.handle(Event::Abandon { key }, now);
            }
        }
    }

    fn on_ended(&mut self, ended: Ended) {
        let now = self.now_ms();
        for (key, attempt, outcome) in ended {
            self.engine.handle(Event::Outcome { key, attempt, outcome }, now);
        }
    }

    fn on_view(&mut self, shard: ShardId, view: ShardView) {
        let ready = view.ready || view.leader.is_some_and(|leader| leader != self.consensus.node());
        self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
        let event = if view.member {
            let known = self.consensus.leader_hint(shard).unwrap_or_default();
            Event::Leader {
                shard,
                hint: LeaderHint { leader: view.leader, term: view.term, ..known },
                ready: view.ready,
            }
        } else {
            Event::NotMember { shard }
        };
        self.engine.handle(event, self.now_ms());
    }

    fn on_peers(&mut self) {
        let up = self.consensus.peers().into_iter().filter(|peer| peer.up).map(|peer| peer.node).collect();
        self.engine.handle(Event::Peers { up }, self.now_ms());
    }

    fn on_call(&mut self, call: Call) {
        match call {
            Call::Submit { submission, answer } => {
                let Submission { shard, id, first_sent, deadline, op, patience_ms } = *submission;
                let work = Work::Request(Request { id, first_sent, deadline, op });
                self.submit(Waiting::Submit(answer), shard, work, patience_ms);
            }
            Call::Query { shard, query, stale: false, patience_ms, answer } => {
                self.submit(Waiting::Query(answer), shard, Work::Query(query), patience_ms);
            }
            Call::Query { shard, query, stale: true, answer, .. } => {
                let consensus = self.consensus.clone();
                tokio::spawn(async move {
                    let reply = consensus.query(shard, query, true).await;
                    let _ = answer.send(reply.map_err(not_done));
                });
            }
            Call::Changes { shard, from, answer } => {
                tokio::spawn(changes(self.consensus.clone(), shard, from, answer));
            }
            Call::Clock { shard, answer } => match self.consensus.clock(shard) {
                Some(clock) => drop(answer.send(Ok(clock))),
                // Whoever leads knows it.
                None => self.submit(Waiting::Clock(answer), shard, Work::Query(Query::Counts), CLOCK_PATIENCE_MS),
            },
            Call::ShardStatus { shard, answer } => drop(answer.send(self.shard_row(shard).map(Box::new))),
            Call::Members { shard, change, answer } => self.on_members(shard, change, answer),
            Call::NodeStatus { answer } => {
                let up_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let journals = (*self.journals.pressure.borrow(), self.engine.takes_urgent_commands());
                let view = node_view(&self.consensus, &self.mesh, &self.config.node, up_ms, journals);
                let _ = answer.send(view);
            }
            Call::AgentOpened { stream, wish, told } => {
                let event = self.agents.opened(stream, *wish, told);
                self.hear([event]);
            }
            Call::AgentSaid { stream, said } => {
                let event = self.agents.said(stream, said);
                self.hear([event]);
            }
            Call::Subscribe { subscriber, topics, values } => {
                let event = self.topics.subscribed(subscriber, topics, values);
                self.hear([event]);
            }
            Call::Unsubscribe { subscriber } => {
                let event = self.topics.unsubscribed(subscriber);
                self.hear([event]);
            }
        }
    }

    /// The engine hears what happened.
    fn hear(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.engine.handle(event, self.now_ms());
        }
    }

    /// A request that the engine asked for ended.
    fn on_settled(&mut self, key: WorkKey, settled: Settled) {
        self.hear([Event::Settled { key, settled }]);
    }

    fn on_leader_said(&mut self, said: FromLeader) {
        let update = match said {
            FromLeader::Claims(update) => update,
            FromLeader::Leads { shard, by, hint } => {
                return self.engine.handle(Event::Leads { shard, by, hint }, self.now_ms());
            }
        };
        let key = UpdateKey(self.next_key);
        self.next_key += 1;
        self.updates.insert(key, update.noted);
        self.hear([Event::Agent(AgentEvent::Update { key, shard: update.shard, update: update.update })]);
    }

    fn on_members(
        &mut self,
        shard: ShardId,
        change: MemberChange,
        answer: oneshot::Sender<Result<Box<ShardRow>, ShardFailure>>,
    ) {
        let consensus = self.consensus.clone();
        let connectivity = self.engine.connectivity(shard);
        tokio::spawn(async move {
            let changed = match change {
                MemberChange::Init { voters, genesis, first } => {
                    consensus.init_shard(shard, voters, genesis, first.map(|first| *first)).await
                }
                MemberChange::Transfer(to) => consensus.transfer_leader(shard, to).await.map(drop),
                MemberChange::Add(node) => consensus.add_voter(shard, node).await,
                MemberChange::Remove(node) => consensus.remove_voter(shard, node).await,
            };
            let row = || consensus.status(shard).map(|status| row(status, connectivity)).unwrap_or_default();
            let _ = answer.send(match changed {
                Ok(()) => Ok(Box::new(row())),
                Err(error) => {
                    let retryable = matches!(error, MembershipError::Unreachable { .. });
                    let unknown = matches!(error, MembershipError::Unknown(_));
                    Err(ShardFailure { message: error.to_string(), retryable, unknown })
                }
            });
        });
    }

    fn shard_row(&self, shard: ShardId) -> Option<ShardRow> {
        let status = self.consensus.status(shard)?;
        Some(row(status, self.engine.connectivity(shard)))
    }

    /// Carries out what the engine wants.
    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Attempt { key, attempt, shard, target, work } => {
                    self.attempts.begin((key, attempt), shard, target, work);
                }
                Effect::Request { key, shard, op, clock, patience_ms } => {
                    self.request(key, shard, op, clock, patience_ms);
                }
                Effect::Tell { stream, message } => {
                    let event = self.agents.tell(stream, message);
                    self.hear(event);
                }
                Effect::Topic(effect) => self.topics.carry_out(effect),
                Effect::Journal(effect) => self.journals.carry_out(effect),
                Effect::Noted { key, noted } => {
                    let _ = self.updates.remove(&key).map(|answer| answer.send(noted));
                }
                Effect::Answer { key, settled } => self.answer(key, settled),
                Effect::Knows { shard, hint } => self.consensus.learned(shard, hint),
                Effect::Connectivity { shard, state } => {
                    tracing::info!(%shard, %state, "connectivity changed");
                    self.consensus.lost(shard, state != Connectivity::Connected);
                }
            }
        }
        self.attempts.propose();
    }
}
