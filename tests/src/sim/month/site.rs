//! A leader without followers, a few nodes, and the messages between them: they arrive at once, and none is lost.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_config::EngineConfig;
use skep_engine::{
    AgentEvent, Effect, Engine, Event as EngineEvent, InboxEvent, Outcome, StreamKey, UpdateKey, Work, WorkKey,
};
use skep_fleet::{
    Applied, FleetState, HeartbeatKey, LogPosition, Orchestrator, OrchestratorConfig, OrchestratorEffect,
    OrchestratorEvent,
};
use skep_protocol::attach::AgentTold;
use skep_protocol::entry::{Decision, Entry, EntryBody, Op, Request};
use skep_protocol::heartbeat::HeartbeatReply;
use skep_protocol::ids::{JournalId, NodeId, RequestId};
use skep_protocol::journal::{JournalJob, JournalReport, Serials};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::limits;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::pull::{Pull, Pulled};
use skep_protocol::query::QueryFailure;
use skep_protocol::settled::Settled;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::MonthOptions;
use super::agents::{Session, Step};
use crate::sim::journal::Journal;
use crate::sim::names::{SHARD, founded, host_of, node_id, site};

/// Number of nodes that serve agents. The leader is not among them.
pub(super) const NODES: usize = 4;
const LEADER: usize = NODES;
const TERM: u64 = 1;
/// The longest possible lease: it needs the fewest heartbeats.
pub(super) const LEASE: LeaseTerms = LeaseTerms { ttl_ms: limits::LEASE_TTL_MS_MAX };
/// How long the leader holds a pull if there is nothing for it, in milliseconds: much longer than in production, where
/// a node asks every second. An answer still comes as soon as there is something.
const PULL_HELD_MS: u64 = 10 * 60 * 1_000;

/// What waits for a piece of work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    /// The engine itself.
    Engine(WorkKey),
    /// An agent that has done a task, and takes another one. The number of its session.
    Session(u64),
    Nobody,
}

/// What happens.
enum Event {
    /// A node asks the leader.
    Asked {
        node: usize,
        key: WorkKey,
        attempt: u32,
        work: Work,
    },
    /// An input reaches a node.
    Node {
        node: usize,
        event: EngineEvent,
    },
    NodeWakes {
        node: usize,
    },
    LeaderWakes,
    Decided(Vec<Decision>),
    RoundEnded,
    Updated {
        node: usize,
        arrived: bool,
    },
    Told {
        stream: StreamKey,
        message: Box<AgentTold>,
    },
    /// The disk of a node does something for journals.
    Disk {
        node: usize,
        effect: JournalJob,
    },
    /// Agents and customers do something by themselves.
    Step(Step),
}

/// A node that serves agents.
pub(super) struct Node {
    pub(super) engine: Engine,
    /// The journals on the node's disk.
    pub(super) journals: BTreeMap<AgentId, Journal>,
    serials: Serials,
    waiting: BTreeMap<WorkKey, Waits>,
    wakes_at: u64,
}

/// A pull that the leader holds.
struct Held {
    node: usize,
    key: WorkKey,
    attempt: u32,
    pull: Pull,
    clock: LogInstant,
    until_ms: u64,
    looked: Option<u64>,
}

/// The whole site. All hosts have the same clock: milliseconds since the site was made.
pub(super) struct Site {
    pub(super) options: MonthOptions,
    pub(super) now: u64,
    pub(super) rng: SmallRng,
    /// What will happen, by its time and its order.
    queue: BTreeMap<(u64, u64), Event>,
    seq: u64,
    next_key: u64,
    pub(super) state: FleetState,
    pub(super) orchestrator: Orchestrator,
    /// Number of entries in the log.
    pub(super) entries: u64,
    leader_wakes_at: u64,
    /// Heartbeats that the orchestrator has not answered.
    asked: BTreeMap<u64, (usize, WorkKey, u32)>,
    held: Vec<Held>,
    held_looked: Option<u64>,
    pub(super) nodes: Vec<Node>,
    /// Agents that are here, by the number of their session.
    pub(super) sessions: BTreeMap<u64, Session>,
    /// Number of agents that came.
    pub(super) came: u64,
    /// Whether customers and operators have stopped ordering.
    pub(super) closing: bool,
}

fn hint() -> LeaderHint {
    LeaderHint { leader: Some(node_id(LEADER)), term: TERM, voters: Voters::of([node_id(LEADER)]) }
}

impl Node {
    fn new(n: usize) -> Self {
        let config = EngineConfig {
            no_quorum_after_ms: 60_000,
            retry_ms_min: 1_000,
            retry_ms_max: 10_000,
            // This is longer than a pull is held.
            attempt_timeout_ms: 2 * PULL_HELD_MS,
            lease: LEASE,
            heartbeat_ms: LEASE.ttl_ms / 5,
        };
        let engine = Engine::new(node_id(n), site(), config).believing([node_id(LEADER)].into());
        Self {
            engine,
            journals: BTreeMap::new(),
            serials: Serials::default(),
            waiting: BTreeMap::new(),
            wakes_at: u64::MAX,
        }
    }
}

impl Site {
    pub(super) fn new(options: MonthOptions) -> Self {
        let state = founded(TERM);
        let orchestrator = Orchestrator::new(OrchestratorConfig::default(), &state, LogInstant::ZERO);
        let mut site = Self {
            options,
            now: 0,
            rng: SmallRng::seed_from_u64(options.seed),
            queue: BTreeMap::new(),
            seq: 0,
            next_key: 0,
            state,
            orchestrator,
            entries: 1,
            leader_wakes_at: u64::MAX,
            asked: BTreeMap::new(),
            held: Vec::new(),
            held_looked: None,
            nodes: (0..NODES).map(Node::new).collect(),
            sessions: BTreeMap::new(),
            came: 0,
            closing: false,
        };
        for node in 0..NODES {
            site.tell_node(node, EngineEvent::Peers { up: [node_id(LEADER)].into() });
            site.tell_node(node, EngineEvent::Leads { shard: SHARD, by: node_id(LEADER), hint: hint() });
        }
        site.begin();
        site
    }

    /// Lets time pass until an instant.
    pub(super) fn run_until(&mut self, until_ms: u64) {
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until_ms) {
            let Some(((at, _), event)) = self.queue.pop_first() else { break };
            self.now = at;
            self.handle(event);
        }
        self.now = until_ms;
    }

    /// The shard's clock.
    pub(super) fn clock(&self) -> LogInstant {
        LogInstant::from_raw(self.now)
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now + ms, self.seq), event);
    }

    /// Lets an agent or a customer do something later.
    pub(super) fn step_after(&mut self, ms: u64, step: Step) {
        self.after(ms, Event::Step(step));
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked { node, key, attempt, work } => self.on_asked(node, key, attempt, work),
            Event::Node { node, event } => self.tell_node(node, event),
            // A wake-up counts only if it is the one that the node waits for: an earlier one may have replaced it.
            Event::NodeWakes { node } if self.nodes[node].wakes_at != self.now => {}
            Event::LeaderWakes if self.leader_wakes_at != self.now => {}
            Event::NodeWakes { node } => {
                self.nodes[node].wakes_at = u64::MAX;
                self.nodes[node].engine.handle_timeout(self.now);
                self.carry_out(node);
            }
            Event::LeaderWakes => {
                self.leader_wakes_at = u64::MAX;
                self.answer_pulls();
                self.orchestrate(None);
            }
            Event::Decided(decisions) => {
                self.commit(EntryBody::Decisions(decisions));
                self.orchestrate(Some(OrchestratorEvent::ProposalEnded { applied: true }));
            }
            Event::RoundEnded => self.orchestrate(Some(OrchestratorEvent::RoundEnded { confirmed: true })),
            Event::Updated { node, arrived } => {
                self.orchestrate(Some(OrchestratorEvent::UpdateEnded { node: node_id(node), arrived }));
            }
            Event::Told { stream, message } => self.on_told(stream, *message),
            Event::Disk { node, effect } => self.on_disk(node, effect),
            Event::Step(step) => self.on_step(step),
        }
    }

    /// Writes an entry and applies it.
    fn commit(&mut self, body: EntryBody) -> Applied {
        let (position, stamp) = (LogPosition { index: self.entries, term: TERM }, self.clock());
        self.entries += 1;
        let applied = self.state.apply(position, &Entry { stamp, term: TERM, body });
        self.answer_pulls();
        self.orchestrate(Some(OrchestratorEvent::Applied));
        applied
    }

    fn orchestrate(&mut self, event: Option<OrchestratorEvent>) {
        let now = self.clock();
        match event {
            Some(event) => self.orchestrator.handle(event, &self.state, now),
            None => self.orchestrator.handle_timeout(&self.state, now),
        }
        while let Some(effect) = self.orchestrator.poll_effect() {
            match effect {
                OrchestratorEffect::Propose(decisions) => self.after(0, Event::Decided(decisions)),
                OrchestratorEffect::BeginRound => self.after(0, Event::RoundEnded),
                OrchestratorEffect::Answer { key, reply } => {
                    if let Some((node, key, attempt)) = self.asked.remove(&key.0) {
                        let reply = HeartbeatReply { lead: hint(), ..reply };
                        self.outcome(node, key, attempt, Outcome::Heartbeat(Ok(reply)));
                    }
                }
                OrchestratorEffect::Update { node, update } => {
                    let key = UpdateKey(self.key());
                    let event = AgentEvent::Update { key, shard: SHARD, update };
                    self.tell_later(node, EngineEvent::Agent(event));
                }
            }
        }
        let due = self.orchestrator.poll_timeout(&self.state, now).map(|at| self.now + at.since_ms(now));
        let held = self.held.iter().map(|held| held.until_ms).min();
        let Some(at) = due.into_iter().chain(held).min().map(|at| at.max(self.now + 1)) else { return };
        if at < self.leader_wakes_at {
            self.leader_wakes_at = at;
            self.after(at - self.now, Event::LeaderWakes);
        }
    }

    fn tell_later(&mut self, node: NodeId, event: EngineEvent) {
        self.after(0, Event::Node { node: host_of(node), event });
    }

    fn outcome(&mut self, node: usize, key: WorkKey, attempt: u32, outcome: Outcome) {
        self.after(0, Event::Node { node, event: EngineEvent::Outcome { key, attempt, outcome } });
    }

    fn on_asked(&mut self, node: usize, key: WorkKey, attempt: u32, work: Work) {
        match work {
            Work::Request(request) => {
                let (index, stamp) = (self.entries, self.clock());
                let reply = self.commit(EntryBody::Requests(vec![request])).replies.into_iter().next();
                let outcome = match reply {
                    Some(reply) => ProposeOutcome::Applied { index, stamp, reply },
                    None => ProposeOutcome::Unknown,
                };
                self.outcome(node, key, attempt, Outcome::Propose(outcome));
            }
            // No client reads in this model.
            Work::Query(_) => self.outcome(node, key, attempt, Outcome::Query(Err(QueryFailure::NoQuorum))),
            Work::Heartbeat(heartbeat) => {
                let asked = self.key();
                self.asked.insert(asked, (node, key, attempt));
                let (key, node) = (HeartbeatKey(asked), node_id(node));
                self.orchestrate(Some(OrchestratorEvent::Heartbeat { key, node, heartbeat }));
            }
            Work::Pull(pull) => {
                // A node that asks again has given up its earlier pull.
                self.held.retain(|held| held.node != node);
                let (clock, until_ms) = (self.clock(), self.now + PULL_HELD_MS);
                self.held.push(Held { node, key, attempt, pull, clock, until_ms, looked: None });
                self.answer_pulls();
                self.orchestrate(None);
            }
        }
    }

    /// Answers pulls for which there is something, and those that were held long enough.
    fn answer_pulls(&mut self) {
        let (now, state) = (self.now, &self.state);
        let news: Vec<&AgentId> = state.inboxes_changed_after(self.held_looked).collect();
        self.held_looked = state.applied().map(|position| position.index);
        let mut answers = Vec::new();
        self.held.retain_mut(|held| {
            let concerned = held.pull.agents.iter().any(|asked| news.contains(&&asked.agent));
            if held.looked.is_some() && !concerned && held.until_ms > now {
                return true;
            }
            let agents = state.pull(node_id(held.node), &held.pull, held.looked, usize::MAX);
            held.looked = state.applied().map(|position| position.index);
            let over = !agents.is_empty() || held.until_ms <= now;
            if over {
                let (root, authority) =
                    (state.root(held.pull.replaced), state.authority_news(held.pull.authority, usize::MAX));
                let pulled = Pulled { clock: held.clock, root, agents, authority };
                answers.push((held.node, held.key, held.attempt, pulled));
            }
            !over
        });
        for (node, key, attempt, pulled) in answers {
            self.outcome(node, key, attempt, Outcome::Pull(Ok(Box::new(pulled))));
        }
    }

    pub(super) fn tell_node(&mut self, node: usize, event: EngineEvent) {
        self.nodes[node].engine.handle(event, self.now);
        self.carry_out(node);
    }

    /// Commits an operation by way of a node.
    pub(super) fn request(&mut self, node: usize, op: Op, waits: Waits) {
        let (id, clock) = (RequestId::from_bytes(self.rng.random()), self.clock());
        let deadline = clock.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT);
        let request = Request { id, first_sent: clock, deadline, op };
        let key = WorkKey(self.key());
        self.nodes[node].waiting.insert(key, waits);
        let (work, patience_ms) = (Work::Request(request), limits::REQUEST_DEADLINE_MS_DEFAULT);
        self.after(0, Event::Node { node, event: EngineEvent::Submit { key, shard: SHARD, work, patience_ms } });
    }

    fn carry_out(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].engine.poll_effect() {
            match effect {
                Effect::Attempt { key, attempt, work, .. } => self.after(0, Event::Asked { node, key, attempt, work }),
                Effect::Answer { key, settled } => self.answer(node, key, settled),
                Effect::Request { key, op, .. } => self.request(node, op, Waits::Engine(key)),
                Effect::Tell { stream, message } => self.after(0, Event::Told { stream, message: Box::new(message) }),
                Effect::Noted { noted, .. } => self.after(0, Event::Updated { node, arrived: noted }),
                Effect::Journal(effect) => self.after(0, Event::Disk { node, effect }),
                Effect::Knows { .. } | Effect::Topic(_) | Effect::Connectivity { .. } => {}
            }
        }
        let Some(at) = self.nodes[node].engine.poll_timeout().map(|at| at.max(self.now + 1)) else { return };
        if at < self.nodes[node].wakes_at {
            self.nodes[node].wakes_at = at;
            self.after(at - self.now, Event::NodeWakes { node });
        }
    }

    fn answer(&mut self, node: usize, key: WorkKey, settled: Settled) {
        match self.nodes[node].waiting.remove(&key) {
            Some(Waits::Engine(key)) => {
                let event = EngineEvent::Settled { key, settled };
                self.after(0, Event::Node { node, event });
            }
            Some(Waits::Session(session)) => self.take_another(session),
            Some(Waits::Nobody) | None => {}
        }
    }

    fn on_disk(&mut self, node: usize, effect: JournalJob) {
        let Node { journals, serials, .. } = &mut self.nodes[node];
        let event = match effect {
            JournalJob::Open { agent, .. } => {
                let id = JournalId::from_bytes(self.rng.random());
                let journal = journals.entry(agent.clone()).or_insert_with(|| Journal::new(id)).state(serials);
                InboxEvent::Journal(JournalReport::Opened { shard: SHARD, agent, journal: Box::new(journal) })
            }
            JournalJob::Write { key, agent, writes, .. } => {
                if let Some(journal) = journals.get_mut(&agent) {
                    journal.apply(writes, serials);
                }
                InboxEvent::Journal(JournalReport::Written { key })
            }
            // A node keeps a number for journals that hold nothing, in case their agents come back: in this model none
            // does.
            JournalJob::Release { agent, .. } => {
                if journals.get(&agent).is_some_and(Journal::is_empty) {
                    journals.remove(&agent);
                }
                return;
            }
        };
        self.tell_node(node, EngineEvent::Inbox(event));
    }
}
