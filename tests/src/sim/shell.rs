//! The shell around the engine of a node: its time, its peers and its disk, robots that speak to it, and its end.

use std::collections::BTreeSet;

use rand::RngExt as _;
use skep_engine::{AgentEvent, Effect, Event as EngineEvent, StreamKey};
use skep_protocol::attach::{AgentSaid, AgentTold};
use skep_protocol::ids::NodeId;
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::settled::Settled;

use super::fabric::BootClock;
use super::host::engine;
use super::names::{SHARD, node_id};
use super::nodes::Nodes;
use super::parcel::{Event, Message, Said, Waits, Wish};
use super::replica::Replica;
use super::watch::{Seen, Violation};

impl Nodes {
    pub(super) fn crash_host(&mut self, host: usize) {
        let leads = self.leader() == Some(host);
        let machine = &mut self.ports.machines[host];
        if !machine.up {
            return;
        }
        machine.up = false;
        let deferred = std::mem::take(&mut machine.deferred);
        let robots: Vec<_> = std::mem::take(&mut machine.streams).into_iter().collect();
        let at = &mut self.hosts[host];
        at.durable = at.replica.take().map(|replica| replica.durable);
        let calls = std::mem::take(&mut at.waiting);
        at.updates.clear();
        self.ports.watch.coverage.crashes += 1;
        if leads {
            self.ports.see(&Seen::Fell);
        }
        self.crash_journals(host, false);
        // The caller does not know the outcome of its call.
        calls.into_values().for_each(|waits| self.tell_caller(waits, Settled::Unknown));
        for event in deferred {
            if let Event::Calls { waits, .. } = event {
                self.tell_caller(waits, Settled::Unknown);
            }
        }
        // A connected robot sees the connection end.
        for (stream, (robot, run)) in robots {
            let message = Box::new(AgentTold::Ended(None));
            self.ports.after(1, Event::RobotHears { robot, run, stream, message });
        }
    }

    pub(super) fn start_host(&mut self, host: usize, rebooted: bool) {
        let (now, lease_ms, voters) = (self.ports.now, self.ports.plan.lease_ms, self.ports.plan.voters);
        let random = self.ports.rng.random();
        let machine = &mut self.ports.machines[host];
        if machine.up {
            return;
        }
        if rebooted {
            machine.clock = BootClock::new(now, 3_000, machine.ppm);
        }
        (machine.up, machine.run) = (true, machine.run + 1);
        let boot_ms = machine.clock.at(now);
        let at = &mut self.hosts[host];
        at.engine = engine(at.node, lease_ms, voters);
        (at.answered, at.wakes_at, at.known) = (None, u64::MAX, LeaderHint::default());
        at.peers.clear();
        let started = at.durable.take().map(|durable| Replica::start(durable, boot_ms, random));
        match started {
            Some(Ok(replica)) => at.replica = Some(replica),
            Some(Err(why)) => self.ports.watch.violate(Violation { invariant: "S17", what: why, at_ms: now }),
            None => {}
        }
        self.start_journals(host);
        // The new node knows no peer, though nothing else may have changed since the last look.
        self.looked = None;
        self.look_for_peers();
        self.on_host_wakes(host);
    }

    pub(super) fn resume_host(&mut self, host: usize) {
        let machine = &mut self.ports.machines[host];
        machine.suspended = machine.suspended.saturating_sub(1);
        if !machine.is_awake() {
            return;
        }
        for event in std::mem::take(&mut machine.deferred) {
            self.ports.after(0, event);
        }
        self.on_host_wakes(host);
    }

    /// Every host looks which hosts it reaches, if anything has changed since the last look: with hundreds of hosts
    /// that is most of the work.
    pub(super) fn look_for_peers(&mut self) {
        let presence = self.ports.presence();
        if self.looked.as_ref() == Some(&presence) {
            return;
        }
        self.looked = Some(presence);
        for host in 0..self.hosts.len() {
            if !self.ports.machines[host].is_awake() {
                continue;
            }
            // Robots' nodes speak only to voters. In some plans they also know which other hosts there are.
            let listed = if self.ports.plan.lists_all { self.hosts.len() } else { self.ports.plan.voters };
            let peers = (0..listed).filter(|peer| *peer != host && self.ports.machines[*peer].up);
            let up: BTreeSet<NodeId> =
                peers.filter(|peer| self.ports.fabric.connects(host, *peer)).map(node_id).collect();
            if self.hosts[host].peers != up {
                self.hosts[host].peers.clone_from(&up);
                self.tell_engine(host, EngineEvent::Peers { up });
            }
        }
    }

    pub(super) fn tell_engine(&mut self, host: usize, event: EngineEvent) {
        let now = self.ports.boot_ms(host);
        self.hosts[host].engine.handle(event, now);
        self.carry_out(host);
    }

    /// Tells the engine which host leads, as its replica knows.
    pub(super) fn tell_leader(&mut self, host: usize) {
        let boot_ms = self.ports.boot_ms(host);
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
        if !self.ports.takes(host, || Event::HostWakes { host }) {
            return;
        }
        self.hosts[host].wakes_at = u64::MAX;
        let now = self.ports.boot_ms(host);
        if self.hosts[host].engine.poll_timeout().is_some_and(|at| at <= now) {
            self.hosts[host].engine.handle_timeout(now);
            self.carry_out(host);
        }
        if self.hosts[host].replica.is_some() {
            self.on_replica_time(host);
        }
        self.arm(host);
    }

    /// Wakes the host when its engine or replica has something to do next.
    pub(super) fn arm(&mut self, host: usize) {
        if !self.ports.machines[host].up {
            return;
        }
        let engine = self.hosts[host].engine.poll_timeout();
        let replica = self.replica_timeout(host);
        let Some(local) = [engine, replica].into_iter().flatten().min() else { return };
        let at = self.ports.machines[host].clock.when(local).max(self.ports.now + 1);
        if at < self.hosts[host].wakes_at {
            self.hosts[host].wakes_at = at;
            self.ports.at(at, Event::HostWakes { host });
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
                        self.ports.send(host, to, Message::Noted { by: host, term, number, noted });
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
        let Some((robot, run)) = self.ports.machines[host].streams.get(&stream).copied() else { return };
        if matches!(message, AgentTold::Ended(_)) {
            self.ports.machines[host].streams.remove(&stream);
        }
        // The messages come one after the other, as on a stream.
        self.ports.after(1, Event::RobotHears { robot, run, stream, message: Box::new(message) });
    }

    pub(super) fn on_robot_says(&mut self, host: usize, run: u32, stream: StreamKey, said: Said) {
        if self.ports.machines[host].run != run {
            return;
        }
        let kept = said.clone();
        if !self.ports.takes(host, || Event::RobotSays { host, run, stream, said: kept }) {
            return;
        }
        if matches!(said, Said::Word(AgentSaid::Closed)) {
            self.ports.machines[host].streams.remove(&stream);
        }
        let event = match said {
            Said::Open(wish) => AgentEvent::Opened { stream, wish: *wish },
            Said::Word(said) => AgentEvent::Said { stream, said },
        };
        self.tell_engine(host, EngineEvent::Agent(event));
    }
}
