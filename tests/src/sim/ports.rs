//! The world as robots, customers and nodes have it: they send, let things happen later, and tell the watch what is to
//! be seen.
//!
//! The ports hold time and chance, machines and the network, the queue of events, and the watch.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::SmallRng;
use skep_protocol::entry::Request;
use skep_protocol::text::AgentId;
use skep_testnet::site::station::World;

use super::fabric::Fabric;
use super::machine::Machine;
use super::parcel::{Caller, Event, Message, Waits};
use super::plan::Plan;
use super::watch::{Seen, Watch};

struct Timed {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// All that decides which hosts reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Presence {
    fabric: u64,
    /// For each host, whether it is up, and whether it is suspended.
    hosts: Vec<(bool, bool)>,
}

/// What all parts of a run share.
pub(super) struct Ports {
    pub(super) plan: Plan,
    pub(super) now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<Timed>>,
    pub(super) rng: SmallRng,
    pub(super) fabric: Fabric,
    pub(super) machines: Vec<Machine>,
    /// The robot of each run of a robot's software.
    pub(super) agents: Vec<AgentId>,
    /// The world that robots act on.
    pub(super) station: World,
    pub(super) watch: Watch,
    /// The request of each caller's last call, to be sent again.
    kept: BTreeMap<Caller, (u64, Request)>,
}

impl Ports {
    pub(super) fn new(plan: Plan, rng: SmallRng, machines: Vec<Machine>, agents: Vec<AgentId>) -> Self {
        let (watch, fabric) = (Watch::new(&plan), Fabric::new(plan.far));
        Self {
            plan,
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            rng,
            fabric,
            machines,
            agents,
            station: World::default(),
            watch,
            kept: BTreeMap::new(),
        }
    }

    /// Takes the next event, and moves the time to it.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let Reverse(next) = self.queue.pop()?;
        self.now = next.at;
        Some(next.event)
    }

    /// Lets something happen later.
    pub(super) fn after(&mut self, ms: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Timed { at: self.now + ms, seq: self.seq, event }));
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.after(at.saturating_sub(self.now), event);
    }

    /// Puts a message on its way.
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        self.watch.coverage.messages += 1;
        let [first, again] = self.fabric.fate(&mut self.rng, (from, to), message.load(), self.now);
        if let Some(delay) = again {
            self.watch.coverage.doubled += 1;
            self.after(delay, Event::Arrives { to, message: message.clone() });
        }
        match first {
            Some(delay) => self.after(delay, Event::Arrives { to, message }),
            None => self.watch.coverage.lost += 1,
        }
    }

    pub(super) fn see(&mut self, seen: &Seen) {
        self.watch.see(seen, self.now);
    }

    /// Keeps the request of a call. A request of an earlier call comes too late.
    pub(super) fn keep(&mut self, waits: &Waits, request: &Request) {
        let Some((caller, call)) = waits.call() else { return };
        if self.kept.get(&caller).is_none_or(|(known, _)| *known <= call) {
            self.kept.insert(caller, (call, request.clone()));
        }
    }

    /// The request of a call; none if the call has none yet.
    pub(super) fn kept(&self, caller: Caller, call: u64) -> Option<&Request> {
        self.kept.get(&caller).filter(|(known, _)| *known == call).map(|(_, request)| request)
    }

    pub(super) fn presence(&self) -> Presence {
        let hosts = self.machines.iter().map(|machine| (machine.up, machine.suspended > 0)).collect();
        Presence { fabric: self.fabric.version(), hosts }
    }

    /// Whether all faults are over.
    pub(super) fn is_calm(&self) -> bool {
        self.now >= self.plan.run_ms
    }

    /// How far the farthest hosts are from each other, one way, in milliseconds.
    pub(super) fn far_ms_max(&self) -> u64 {
        self.plan.far.map_or(0, |far| far.ms)
    }

    /// What the clock of a host shows, in milliseconds.
    pub(super) fn boot_ms(&self, host: usize) -> u64 {
        self.machines[host].clock.at(self.now)
    }

    /// Whether a host does anything at this instant. What reaches a suspended host waits.
    pub(super) fn takes(&mut self, host: usize, event: impl FnOnce() -> Event) -> bool {
        self.machines[host].takes(event)
    }
}
