//! A host: the engine of its node, and the shell around it.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_config::EngineConfig;
use skep_engine::{
    AgentEvent, Effect, Engine, Event as EngineEvent, Outcome, StreamKey, Target, ToAgent, UpdateKey, Work, WorkKey,
};
use skep_protocol::agent::LeaseTerms;
use skep_protocol::entry::{Op, Request};
use skep_protocol::heartbeat::HeartbeatFailure;
use skep_protocol::ids::{NodeId, RequestId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::outcome::{NotDone, ProposeOutcome, Settled};
use skep_protocol::pull::PullFailure;
use skep_protocol::query::{Query, QueryFailure};
use skep_protocol::text::SiteName;
use skep_protocol::time::LogInstant;

use super::commands::Journals;
use super::customer::sealed;
use super::fabric::BootClock;
use super::plan::Plan;
use super::replica::{Asker, Durable, HEARTBEAT_MS, Replica, SILENCE};
use super::watch::Seen;
use super::world::{Event, Message, Said, Sim};

/// The only shard.
pub(super) const SHARD: ShardId = ShardId(1);
/// How long calls are waited for, in milliseconds.
pub(super) const RPC_TIMEOUT_MS: u64 = 1_000;
/// How long an engine waits for a clock that its node does not know, in milliseconds.
const CLOCK_PATIENCE_MS: u64 = 3_000;
/// How long a node tries what a client wants, in milliseconds.
const CALL_PATIENCE_MS: u64 = 5_000;

/// Who waits for a piece of work of this host.
#[derive(Clone, Debug)]
pub(super) enum Waits {
    Robot {
        robot: usize,
        run: u32,
        call: u64,
    },
    Customer {
        customer: usize,
        call: u64,
    },
    /// The engine itself.
    Engine(WorkKey),
    /// Whoever needs a clock for a request.
    Clock(Box<Wish>),
}

/// What a client calls a node for.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// A new request, with a deadline so far ahead.
    Commit { op: Op, valid_ms: u64 },
    /// One that was sent before.
    Again(Request),
    /// A linearizable read.
    Read(Query),
}

/// Something to be committed, before it has a clock.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) op: Op,
    pub(super) valid_ms: u64,
    pub(super) patience_ms: u64,
    pub(super) waits: Waits,
}

/// One machine with a node.
pub(super) struct Host {
    pub(super) node: NodeId,
    pub(super) up: bool,
    pub(super) run: u32,
    /// By how many faults.
    pub(super) suspended: u32,
    pub(super) deferred: Vec<Event>,
    pub(super) clock: BootClock,
    pub(super) ppm: i64,
    pub(super) engine: Engine,
    pub(super) replica: Option<Replica>,
    /// What survives, while the node is down.
    durable: Option<Durable>,
    waiting: BTreeMap<WorkKey, Waits>,
    pub(super) streams: BTreeMap<StreamKey, (usize, u32)>,
    /// Updates that the engine has not answered: who told, in which term, and the number.
    updates: BTreeMap<UpdateKey, (usize, u64, u64)>,
    next_key: u64,
    peers: BTreeSet<NodeId>,
    /// Who last answered as only a leader does.
    answered: Option<usize>,
    /// What its engine has learned of who leads.
    pub(super) known: LeaderHint,
    wakes_at: u64,
    pub(super) journals: Journals,
}

pub(super) fn node_id(host: usize) -> NodeId {
    NodeId::from_public_key([u8::try_from(host).unwrap_or(0) + 1; 32])
}

pub(super) fn host_of(node: NodeId) -> usize {
    usize::from(node.public_key()[0]) - 1
}

pub(super) fn site() -> SiteName {
    SiteName::new("sim").unwrap_or_else(|error| unreachable!("{error}"))
}

fn config(lease_ms: u64) -> EngineConfig {
    EngineConfig {
        no_quorum_after_ms: SILENCE.silence_ms_max * 2,
        retry_ms_min: HEARTBEAT_MS / 5,
        retry_ms_max: SILENCE.silence_ms_min,
        attempt_timeout_ms: RPC_TIMEOUT_MS,
        lease: LeaseTerms { ttl_ms: lease_ms },
        heartbeat_ms: lease_ms / 5,
    }
}

impl Host {
    pub(super) fn new(n: usize, plan: &Plan, rng: &mut SmallRng) -> Self {
        let shows = rng.random_range(0..1_000_000);
        let replica = (n < plan.voters).then(|| Replica::start(Durable::default(), shows, rng.random()).ok()).flatten();
        Self {
            node: node_id(n),
            up: true,
            run: 0,
            suspended: 0,
            deferred: Vec::new(),
            clock: BootClock::new(0, shows, plan.drift_ppm[n]),
            ppm: plan.drift_ppm[n],
            engine: Engine::new(node_id(n), site(), config(plan.lease_ms)),
            replica,
            durable: None,
            waiting: BTreeMap::new(),
            streams: BTreeMap::new(),
            updates: BTreeMap::new(),
            next_key: 1,
            peers: BTreeSet::new(),
            answered: None,
            known: LeaderHint::default(),
            wakes_at: u64::MAX,
            journals: Journals::default(),
        }
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Whether another node leads, as far as this one knows.
    fn knows_leader(&self, host: usize) -> bool {
        self.replica.as_ref().map_or(self.answered, |replica| replica.leader) == Some(host)
    }
}

impl Sim {
    pub(super) fn boot_ms(&self, host: usize) -> u64 {
        self.hosts[host].clock.at(self.now)
    }

    /// Whether a host does anything now. What reaches it while it is suspended waits.
    pub(super) fn takes(&mut self, host: usize, event: impl FnOnce() -> Event) -> bool {
        let host = &mut self.hosts[host];
        if host.up && host.suspended > 0 {
            host.deferred.push(event());
        }
        host.up && host.suspended == 0
    }

    pub(super) fn crash_host(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        if !at.up {
            return;
        }
        at.up = false;
        let deferred = std::mem::take(&mut at.deferred);
        at.durable = at.replica.take().map(|replica| replica.durable);
        let robots: Vec<_> = std::mem::take(&mut at.streams).into_iter().collect();
        let calls = std::mem::take(&mut at.waiting);
        at.updates.clear();
        self.watch.coverage.crashes += 1;
        self.crash_journals(host, false);
        // Whoever waited does not know what became of it.
        calls.into_values().for_each(|waits| self.tell_caller(waits, Settled::Unknown));
        for event in deferred {
            if let Event::Calls { waits, .. } = event {
                self.tell_caller(waits, Settled::Unknown);
            }
        }
        // Whoever was connected sees it end.
        for (stream, (robot, run)) in robots {
            let message = Box::new(ToAgent::Ended(None));
            self.after(1, Event::RobotHears { robot, run, stream, message });
        }
    }

    pub(super) fn start_host(&mut self, host: usize, rebooted: bool) {
        let (now, lease_ms) = (self.now, self.plan.lease_ms);
        let random = self.rng.random();
        let at = &mut self.hosts[host];
        if at.up {
            return;
        }
        if rebooted {
            at.clock = BootClock::new(now, 3_000, at.ppm);
        }
        (at.up, at.run) = (true, at.run + 1);
        at.engine = Engine::new(at.node, site(), config(lease_ms));
        (at.answered, at.wakes_at, at.known) = (None, u64::MAX, LeaderHint::default());
        at.peers.clear();
        let boot_ms = at.clock.at(now);
        let started = at.durable.take().map(|durable| Replica::start(durable, boot_ms, random));
        match started {
            Some(Ok(replica)) => at.replica = Some(replica),
            Some(Err(why)) => self.watch.violate(super::watch::Violation { invariant: "S17", what: why, at_ms: now }),
            None => {}
        }
        self.start_journals(host);
        self.look_for_peers();
        self.on_host_wakes(host);
    }

    pub(super) fn resume_host(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        at.suspended = at.suspended.saturating_sub(1);
        if at.suspended > 0 || !at.up {
            return;
        }
        for event in std::mem::take(&mut at.deferred) {
            self.after(0, event);
        }
        self.on_host_wakes(host);
    }

    /// Every host looks whom it reaches.
    pub(super) fn look_for_peers(&mut self) {
        for host in 0..self.hosts.len() {
            if !self.hosts[host].up || self.hosts[host].suspended > 0 {
                continue;
            }
            // Robots' nodes speak to voters only, or know no more than who else there is.
            let listed = if self.plan.lists_all { self.hosts.len() } else { self.plan.voters };
            let peers = (0..listed).filter(|peer| *peer != host && self.hosts[*peer].up);
            let up: BTreeSet<NodeId> = peers.filter(|peer| self.fabric.connects(host, *peer)).map(node_id).collect();
            if self.hosts[host].peers != up {
                self.hosts[host].peers.clone_from(&up);
                self.tell_engine(host, EngineEvent::Peers { up });
            }
        }
    }

    pub(super) fn tell_engine(&mut self, host: usize, event: EngineEvent) {
        let now = self.boot_ms(host);
        self.hosts[host].engine.handle(event, now);
        self.carry_out(host);
    }

    /// Tells the engine who leads, as its replica knows.
    pub(super) fn tell_leader(&mut self, host: usize) {
        let boot_ms = self.boot_ms(host);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let leads = replica.lead.is_some();
        let ready = replica.is_ready(host, boot_ms);
        let leader = if leads && !replica.has_quorum(host, boot_ms) { None } else { replica.leader };
        if replica.told != Some((leader, ready)) {
            replica.told = Some((leader, ready));
            let hint = LeaderHint { leader: leader.map(node_id), ..self.hint(host) };
            self.tell_engine(host, EngineEvent::Leader { shard: SHARD, hint, ready });
        }
    }

    pub(super) fn on_host_wakes(&mut self, host: usize) {
        if !self.takes(host, || Event::HostWakes { host }) {
            return;
        }
        self.hosts[host].wakes_at = u64::MAX;
        let now = self.boot_ms(host);
        if self.hosts[host].engine.poll_timeout().is_some_and(|at| at <= now) {
            self.hosts[host].engine.handle_timeout(now);
            self.carry_out(host);
        }
        if self.hosts[host].replica.is_some() {
            self.on_replica_time(host);
        }
        self.arm(host);
    }

    /// Has the host woken when its engine or replica has something to do next.
    pub(super) fn arm(&mut self, host: usize) {
        if !self.hosts[host].up {
            return;
        }
        let engine = self.hosts[host].engine.poll_timeout();
        let replica = self.replica_timeout(host);
        let Some(local) = [engine, replica].into_iter().flatten().min() else { return };
        let at = self.hosts[host].clock.when(local).max(self.now + 1);
        if at < self.hosts[host].wakes_at {
            self.hosts[host].wakes_at = at;
            self.at(at, Event::HostWakes { host });
        }
    }

    /// Carries out what the engine wants.
    pub(super) fn carry_out(&mut self, host: usize) {
        while let Some(effect) = self.hosts[host].engine.poll_effect() {
            match effect {
                Effect::Attempt { key, attempt, target, work, .. } => self.attempt(host, key, attempt, target, work),
                Effect::Answer { key, settled } => self.answer(host, key, settled),
                Effect::Request { key, op, clock, patience_ms, .. } => {
                    let valid_ms = limits::REQUEST_DEADLINE_MS_DEFAULT;
                    self.wish(host, Wish { op, valid_ms, patience_ms, waits: Waits::Engine(key) }, clock);
                }
                Effect::Tell { stream, message } => self.tell_robot(host, stream, message),
                Effect::Noted { key, noted } => {
                    if let Some((to, term, number)) = self.hosts[host].updates.remove(&key) {
                        self.send(host, to, Message::Noted { by: host, term, number, noted });
                    }
                }
                Effect::Journal(effect) => self.on_journal(host, effect),
                Effect::Knows { hint, .. } => self.hosts[host].known = hint,
                Effect::Topic(_) | Effect::Connectivity { .. } => {}
            }
        }
        self.arm(host);
    }

    fn tell_robot(&mut self, host: usize, stream: StreamKey, message: ToAgent) {
        let Some((robot, run)) = self.hosts[host].streams.get(&stream).copied() else { return };
        if matches!(message, ToAgent::Ended(_)) {
            self.hosts[host].streams.remove(&stream);
        }
        // One after the other, as on a stream.
        self.after(1, Event::RobotHears { robot, run, stream, message: Box::new(message) });
    }

    pub(super) fn on_robot_says(&mut self, host: usize, run: u32, stream: StreamKey, said: Said) {
        if self.hosts[host].run != run {
            return;
        }
        let kept = said.clone();
        if !self.takes(host, || Event::RobotSays { host, run, stream, said: kept }) {
            return;
        }
        let event = match said {
            Said::Open(wish) => AgentEvent::Opened { stream, wish: *wish },
            Said::KeepAlive { stamp, place } => AgentEvent::KeepAlive { stream, stamp, place },
            Said::Credits(count) => AgentEvent::Credits { stream, count },
            Said::TakesCommands { groups, in_hand } => AgentEvent::TakesCommands { stream, groups, in_hand },
            Said::Command(command, said) => return self.on_says_of_command(host, stream, command, said),
            Said::Closed => {
                self.hosts[host].streams.remove(&stream);
                AgentEvent::Closed { stream }
            }
        };
        self.tell_engine(host, EngineEvent::Agent(event));
    }

    /// Has something committed under a new id, once the host knows what time it is.
    pub(super) fn wish(&mut self, host: usize, wish: Wish, heard: Option<LogInstant>) {
        let boot_ms = self.boot_ms(host);
        let known = self.hosts[host].replica.as_ref().and_then(|replica| replica.clock.now(boot_ms));
        match known.or(heard) {
            Some(clock) => self.request(host, wish, clock),
            None => self.submit(host, Work::Query(Query::Counts), CLOCK_PATIENCE_MS, Waits::Clock(Box::new(wish))),
        }
    }

    fn request(&mut self, host: usize, wish: Wish, clock: LogInstant) {
        let id = RequestId::from_bytes(self.rng.random());
        let op = sealed(wish.op, clock);
        let request = Request { id, first_sent: clock, deadline: clock.plus_ms(wish.valid_ms), op };
        self.see(&Seen::Invoked { request: &request, valid_ms: wish.valid_ms });
        if let Some(kept) = self.requests_of(&wish.waits) {
            *kept = Some(request.clone());
        }
        self.submit(host, Work::Request(request), wish.patience_ms, wish.waits);
    }

    /// Where the software behind a call keeps its request, to send it again.
    fn requests_of(&mut self, waits: &Waits) -> Option<&mut Option<Request>> {
        match *waits {
            Waits::Robot { robot, run, call } => {
                let robot = self.robots.get_mut(robot).filter(|known| known.run == run)?;
                robot.call.as_mut().filter(|known| known.number == call).map(|known| &mut known.request)
            }
            Waits::Customer { customer, call } => {
                let customer = self.customers.get_mut(customer)?;
                customer.call.as_mut().filter(|known| known.number == call).map(|known| &mut known.request)
            }
            Waits::Engine(_) | Waits::Clock(_) => None,
        }
    }

    pub(super) fn submit(&mut self, host: usize, work: Work, patience_ms: u64, waits: Waits) {
        let key = WorkKey(self.hosts[host].key());
        self.hosts[host].waiting.insert(key, waits);
        self.tell_engine(host, EngineEvent::Submit { key, shard: SHARD, work, patience_ms });
    }

    fn answer(&mut self, host: usize, key: WorkKey, settled: Settled) {
        let Some(waits) = self.hosts[host].waiting.remove(&key) else { return };
        match waits {
            Waits::Robot { .. } | Waits::Customer { .. } => self.tell_caller(waits, settled),
            Waits::Engine(key) => {
                self.tell_engine(host, EngineEvent::Agent(AgentEvent::Settled { key, settled }));
            }
            Waits::Clock(wish) => match settled {
                Settled::Read(reply) if reply.as_of.clock.is_some() => {
                    let clock = reply.as_of.clock.unwrap_or_default();
                    self.request(host, *wish, clock);
                }
                _ => {
                    let (key, settled) = (WorkKey(self.hosts[host].key()), Settled::NotDone(NotDone::NoQuorum));
                    self.hosts[host].waiting.insert(key, wish.waits);
                    self.answer(host, key, settled);
                }
            },
        }
    }

    fn tell_caller(&mut self, waits: Waits, settled: Settled) {
        let settled = Box::new(settled);
        match waits {
            Waits::Robot { robot, run, call } => self.after(1, Event::RobotTold { robot, run, call, settled }),
            Waits::Customer { customer, call } => self.after(1, Event::CustomerTold { customer, call, settled }),
            Waits::Clock(wish) => self.tell_caller(wish.waits, *settled),
            Waits::Engine(_) => {}
        }
    }

    /// A client's call reaches its node, or nobody.
    pub(super) fn on_calls(&mut self, host: usize, call: Box<Call>, waits: Waits) {
        if !self.hosts[host].up {
            return self.tell_caller(waits, Settled::NotDone(NotDone::NoQuorum));
        }
        let kept = (call.clone(), waits.clone());
        if !self.takes(host, || Event::Calls { host, call: kept.0, waits: kept.1 }) {
            return;
        }
        match *call {
            Call::Commit { op, valid_ms } => {
                self.wish(host, Wish { op, valid_ms, patience_ms: CALL_PATIENCE_MS, waits }, None);
            }
            Call::Again(request) => self.submit(host, Work::Request(request), CALL_PATIENCE_MS, waits),
            Call::Read(query) => self.submit(host, Work::Query(query), CALL_PATIENCE_MS, waits),
        }
    }

    /// Carries out an attempt of the engine's, or says at once that nobody can be reached.
    fn attempt(&mut self, host: usize, key: WorkKey, attempt: u32, target: Target, work: Work) {
        let asker = Asker { host, run: self.hosts[host].run, key: key.0, attempt };
        let to = match target {
            Target::Local => host,
            Target::Node(node) if self.hosts[host].peers.contains(&node) => host_of(node),
            Target::Node(_) => {
                let nobody = LeaderHint::default();
                let outcome = match work {
                    Work::Request(_) => Outcome::Propose(ProposeOutcome::NotLeader(nobody)),
                    Work::Query(_) => Outcome::Query(Err(QueryFailure::NotLeader(nobody))),
                    Work::Heartbeat(_) => Outcome::Heartbeat(Err(HeartbeatFailure::NotLeader(nobody))),
                    Work::Pull(_) => Outcome::Pull(Err(PullFailure::NotLeader(nobody))),
                };
                return self.tell_engine(host, EngineEvent::Outcome { key, attempt, outcome });
            }
        };
        let message = match work {
            Work::Request(request) => Message::Propose { asker, request: Box::new(request) },
            Work::Query(query) => Message::Query { asker, query },
            Work::Heartbeat(heartbeat) => Message::Heartbeat { asker, heartbeat },
            Work::Pull(pull) => Message::Pull { asker, pull },
        };
        self.send(host, to, message);
    }

    fn on_outcome(&mut self, asker: Asker, outcome: Outcome) {
        if self.hosts[asker.host].run == asker.run {
            let (key, attempt) = (WorkKey(asker.key), asker.attempt);
            self.tell_engine(asker.host, EngineEvent::Outcome { key, attempt, outcome });
        }
    }

    pub(super) fn on_arrives(&mut self, to: usize, message: Message) {
        let kept = message.clone();
        if !self.takes(to, || Event::Arrives { to, message: kept }) {
            return;
        }
        match message {
            Message::Append(append) => self.on_append(to, &append),
            Message::Ack(ack) => self.on_ack(to, ack),
            Message::AskClock { from, run, asked_ms } => self.on_ask_clock(to, from, run, asked_ms),
            Message::Clock { run, asked_ms, clock } => self.on_clock(to, run, asked_ms, clock),
            Message::Propose { asker, request } => self.on_propose(to, asker, *request),
            Message::Query { asker, query } => self.on_query(to, asker, query),
            Message::Pull { asker, pull } => self.on_pull(to, asker, pull),
            Message::Pulled { asker, result } => self.on_outcome(asker, Outcome::Pull(result.map(Box::new))),
            Message::Heartbeat { asker, heartbeat } => self.on_heartbeat(to, asker, heartbeat),
            Message::Leads { by, hint } => {
                self.tell_engine(to, EngineEvent::Leads { shard: SHARD, by: node_id(by), hint });
            }
            Message::Noted { by, term, number, noted } => self.on_noted(to, by, term, number, noted),
            Message::Proposed { asker, outcome } => self.on_outcome(asker, Outcome::Propose(outcome)),
            Message::Queried { asker, reply } => self.on_outcome(asker, Outcome::Query(*reply)),
            Message::Heard { by, asker, result } => {
                if result.is_ok() && self.hosts[to].run == asker.run {
                    self.hosts[to].answered = Some(by);
                }
                self.on_outcome(asker, Outcome::Heartbeat(result));
            }
            Message::Claims { from, term, number, update } => {
                if !self.hosts[to].knows_leader(from) {
                    return self.send(to, from, Message::Noted { by: to, term, number, noted: false });
                }
                let key = UpdateKey(self.hosts[to].key());
                self.hosts[to].updates.insert(key, (from, term, number));
                let event = AgentEvent::Update { key, shard: SHARD, update: *update };
                self.tell_engine(to, EngineEvent::Agent(event));
            }
        }
    }
}
