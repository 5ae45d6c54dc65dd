//! A host: the engine of its node, and the shell around it.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_config::EngineConfig;
use skep_engine::{AgentEvent, Effect, Engine, Event as EngineEvent, StreamKey, UpdateKey, WorkKey};
use skep_protocol::agent::LeaseTerms;
use skep_protocol::attach::{AgentSaid, AgentTold};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::outcome::Settled;
use skep_protocol::text::SiteName;

use super::calls::{Waits, Wish};
use super::commands::Journals;
use super::fabric::BootClock;
use super::plan::Plan;
use super::replica::{Durable, HEARTBEAT_MS, Replica, SILENCE};
use super::watch::Seen;
use super::world::{Event, Message, Said, Sim};

/// The only shard.
pub(super) const SHARD: ShardId = ShardId(1);
/// How long calls are waited for, in milliseconds.
pub(super) const RPC_TIMEOUT_MS: u64 = 1_000;

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
    pub(super) waiting: BTreeMap<WorkKey, Waits>,
    pub(super) streams: BTreeMap<StreamKey, (usize, u32)>,
    /// Updates that the engine has not answered: who told, in which term, and the number.
    pub(super) updates: BTreeMap<UpdateKey, (usize, u64, u64)>,
    next_key: u64,
    pub(super) peers: BTreeSet<NodeId>,
    /// Who last answered as only a leader does.
    pub(super) answered: Option<usize>,
    /// What its engine has learned of who leads.
    pub(super) known: LeaderHint,
    wakes_at: u64,
    pub(super) journals: Journals,
    /// What its engine asks for commands by.
    pub(super) pulls_by: Option<u64>,
}

/// All that decides which hosts reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Presence {
    fabric: u64,
    /// Of each host, whether it is up, and whether it is suspended.
    hosts: Vec<(bool, bool)>,
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

/// The engine of a host: the first so many hosts vote, and are marked in the configuration of all.
fn engine(node: NodeId, lease_ms: u64, voters: usize) -> Engine {
    Engine::new(node, site(), config(lease_ms)).believing((0..voters).map(node_id).collect())
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
            engine: engine(node_id(n), plan.lease_ms, plan.voters),
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
            pulls_by: None,
        }
    }

    pub(super) fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Whether another node leads, as far as this one knows.
    pub(super) fn knows_leader(&self, host: usize) -> bool {
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
        let leads = self.leader() == Some(host);
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
        if leads {
            self.see(&Seen::Fell);
        }
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
            let message = Box::new(AgentTold::Ended(None));
            self.after(1, Event::RobotHears { robot, run, stream, message });
        }
    }

    pub(super) fn start_host(&mut self, host: usize, rebooted: bool) {
        let (now, lease_ms, voters) = (self.now, self.plan.lease_ms, self.plan.voters);
        let random = self.rng.random();
        let at = &mut self.hosts[host];
        if at.up {
            return;
        }
        if rebooted {
            at.clock = BootClock::new(now, 3_000, at.ppm);
        }
        (at.up, at.run) = (true, at.run + 1);
        at.engine = engine(at.node, lease_ms, voters);
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
        // It knows nobody, though nothing else may have changed since the last look.
        self.looked = None;
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

    /// Every host looks whom it reaches, if anything has changed since all did: with hundreds of them that is most of the work.
    pub(super) fn look_for_peers(&mut self) {
        let presence = Presence {
            fabric: self.fabric.version(),
            hosts: self.hosts.iter().map(|host| (host.up, host.suspended > 0)).collect(),
        };
        if self.looked.as_ref() == Some(&presence) {
            return;
        }
        self.looked = Some(presence);
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

    fn tell_robot(&mut self, host: usize, stream: StreamKey, message: AgentTold) {
        let Some((robot, run)) = self.hosts[host].streams.get(&stream).copied() else { return };
        if matches!(message, AgentTold::Ended(_)) {
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
        if matches!(said, Said::Word(AgentSaid::Closed)) {
            self.hosts[host].streams.remove(&stream);
        }
        let event = match said {
            Said::Open(wish) => AgentEvent::Opened { stream, wish: *wish },
            Said::Word(said) => AgentEvent::Said { stream, said },
        };
        self.tell_engine(host, EngineEvent::Agent(event));
    }
}
