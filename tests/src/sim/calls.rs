//! What clients and the engine make a host do, and the messages that follow from that.

use rand::RngExt as _;
use skep_engine::{AgentEvent, AttemptTarget, Event as EngineEvent, Outcome, UpdateKey, Work, WorkKey};
use skep_protocol::entry::Request;
use skep_protocol::heartbeat::HeartbeatFailure;
use skep_protocol::ids::RequestId;
use skep_protocol::leader::LeaderHint;
use skep_protocol::outcome::{NotDone, ProposeOutcome};
use skep_protocol::pull::PullFailure;
use skep_protocol::query::{Query, QueryFailure};
use skep_protocol::settled::Settled;
use skep_protocol::time::LogInstant;

use super::clerk::sealed;
use super::names::{SHARD, host_of, node_id};
use super::nodes::Nodes;
use super::parcel::{Call, Event, Message, Waits, Wish};
use super::replica::Asker;
use super::watch::Seen;

/// How long an engine waits for a clock that its node does not know, in milliseconds.
const CLOCK_PATIENCE_MS: u64 = 3_000;
/// How long a node tries what a client wants, in milliseconds.
const CALL_PATIENCE_MS: u64 = 5_000;

impl Nodes {
    /// Proposes something under a new request id, once the host knows the shard's clock.
    pub(super) fn wish(&mut self, host: usize, wish: Wish, heard: Option<LogInstant>) {
        let boot_ms = self.ports.boot_ms(host);
        let known = self.hosts[host].replica.as_ref().and_then(|replica| replica.clock.now(boot_ms));
        match known.or(heard) {
            Some(clock) => self.request(host, wish, clock),
            None => self.submit(host, Work::Query(Query::Counts), CLOCK_PATIENCE_MS, Waits::Clock(Box::new(wish))),
        }
    }

    fn request(&mut self, host: usize, wish: Wish, clock: LogInstant) {
        let id = RequestId::from_bytes(self.ports.rng.random());
        let op = sealed(wish.op, clock);
        let request = Request { id, first_sent: clock, deadline: clock.plus_ms(wish.valid_ms), op };
        self.liar_reads(&request.op);
        self.ports.see(&Seen::Invoked { request: &request, valid_ms: wish.valid_ms });
        self.ports.keep(&wish.waits, &request);
        self.submit(host, Work::Request(request), wish.patience_ms, wish.waits);
    }

    pub(super) fn submit(&mut self, host: usize, work: Work, patience_ms: u64, waits: Waits) {
        let key = WorkKey(self.hosts[host].key());
        self.hosts[host].waiting.insert(key, waits);
        self.tell_engine(host, EngineEvent::Submit { key, shard: SHARD, work, patience_ms });
    }

    pub(super) fn answer(&mut self, host: usize, key: WorkKey, settled: Settled) {
        let Some(waits) = self.hosts[host].waiting.remove(&key) else { return };
        match waits {
            Waits::Robot { .. } | Waits::Customer { .. } => self.tell_caller(waits, settled),
            Waits::Engine(key) => {
                self.tell_engine(host, EngineEvent::Settled { key, settled });
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

    pub(super) fn tell_caller(&mut self, waits: Waits, settled: Settled) {
        let settled = Box::new(settled);
        match waits {
            Waits::Robot { robot, run, call } => self.ports.after(1, Event::RobotTold { robot, run, call, settled }),
            Waits::Customer { customer, call } => self.ports.after(1, Event::CustomerTold { customer, call, settled }),
            Waits::Clock(wish) => self.tell_caller(wish.waits, *settled),
            Waits::Engine(_) => {}
        }
    }

    /// A client's call reaches its node, or is lost.
    pub(super) fn on_calls(&mut self, host: usize, call: Box<Call>, waits: Waits) {
        if !self.ports.machines[host].up {
            return self.tell_caller(waits, Settled::NotDone(NotDone::NoQuorum));
        }
        let kept = (call.clone(), waits.clone());
        if !self.ports.takes(host, || Event::Calls { host, call: kept.0, waits: kept.1 }) {
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

    /// Carries out an attempt of the engine, or says at once that no node can be reached.
    pub(super) fn attempt(&mut self, host: usize, key: WorkKey, attempt: u32, target: AttemptTarget, work: Work) {
        let asker = Asker { host, run: self.ports.machines[host].run, key: key.0, attempt };
        self.ports.see(&Seen::Tried { host, key: key.0 });
        if matches!(work, Work::Pull(_)) {
            self.hosts[host].pulls_by = Some(key.0);
        }
        let to = match target {
            AttemptTarget::Local => host,
            AttemptTarget::Node(node) if self.hosts[host].peers.contains(&node) => host_of(node),
            AttemptTarget::Node(_) => {
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
        self.ports.send(host, to, message);
    }

    pub(super) fn on_outcome(&mut self, asker: Asker, outcome: Outcome) {
        if self.ports.machines[asker.host].run == asker.run {
            let (key, attempt) = (WorkKey(asker.key), asker.attempt);
            self.tell_engine(asker.host, EngineEvent::Outcome { key, attempt, outcome });
        }
    }

    pub(super) fn on_arrives(&mut self, to: usize, message: Message) {
        let machine = &mut self.ports.machines[to];
        if machine.up && machine.suspended > 0 {
            // Not by way of `takes`, which would copy every message.
            return machine.deferred.push(Event::Arrives { to, message });
        }
        if !machine.up {
            return;
        }
        if message.is_of_leader() {
            self.ports.see(&Seen::Reached { host: to });
        }
        let Some(message) = self.lie_about(to, message) else { return };
        match message {
            Message::Append(append) => self.on_append(to, &append),
            Message::Ack(ack) => self.on_ack(to, ack),
            Message::AskClock { from, run, asked_ms } => self.on_ask_clock(to, from, run, asked_ms),
            Message::Clock { run, asked_ms, clock } => self.on_clock(to, run, asked_ms, clock),
            Message::Propose { asker, request } => self.on_propose(to, asker, *request),
            Message::Query { asker, query } => self.on_query(to, asker, query),
            Message::Pull { asker, pull } => self.on_pull(to, asker, pull),
            Message::Pulled { asker, result } => self.on_pulled(to, asker, result),
            Message::Heartbeat { asker, heartbeat } => self.on_heartbeat(to, asker, heartbeat),
            Message::Leads { by, hint } => {
                self.tell_engine(to, EngineEvent::Leads { shard: SHARD, by: node_id(by), hint });
            }
            Message::Noted { by, term, number, noted } => self.on_noted(to, by, term, number, noted),
            Message::Proposed { asker, outcome } => self.on_outcome(asker, Outcome::Propose(outcome)),
            Message::Queried { asker, reply } => self.on_outcome(asker, Outcome::Query(*reply)),
            Message::Heard { by, asker, result } => {
                if result.is_ok() && self.ports.machines[to].run == asker.run {
                    self.hosts[to].answered = Some(by);
                }
                self.on_outcome(asker, Outcome::Heartbeat(result));
            }
            Message::Claims { from, term, number, update } => {
                if !self.hosts[to].knows_leader(from) {
                    return self.ports.send(to, from, Message::Noted { by: to, term, number, noted: false });
                }
                let key = UpdateKey(self.hosts[to].key());
                self.hosts[to].updates.insert(key, (from, term, number));
                let event = AgentEvent::Update { key, shard: SHARD, update: *update };
                self.tell_engine(to, EngineEvent::Agent(event));
            }
        }
    }
}
