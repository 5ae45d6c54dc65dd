//! The world of a run: hosts, robots, customers and what is on its way between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_engine::StreamKey;
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::entry::Request;
use skep_protocol::heartbeat::{ClaimsUpdate, Heartbeat, HeartbeatFailure, HeartbeatReply};
use skep_protocol::ids::CommandId;
use skep_protocol::leader::LeaderHint;
use skep_protocol::outcome::{ProposeOutcome, Settled};
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::query::{Query, QueryFailure, QueryReply};
use skep_protocol::time::LogInstant;
use skep_testnet::site::station::{Question, Refused, World};

use super::calls::{Call, Waits};
use super::customer::Customer;
use super::fabric::{Fabric, Load};
use super::host::{Host, Presence};
use super::liar::Lying;
use super::plan::{Fault, Plan};
use super::replica::{Ack, Append, Asker};
use super::robot::Robot;
use super::watch::{Seen, Violation, Watch};

/// How long everything may take to come to its end when nothing goes wrong any more, in milliseconds.
const SETTLE_MS_MAX: u64 = 240_000;
/// How many ways of the farthest hosts longer.
const SETTLE_WAYS: u64 = 300;
/// How often hosts look whom they reach, and invariants are looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// Events after which a run has run away.
const EVENTS_MAX: u64 = 60_000_000;

/// What hosts send each other.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Append(Box<Append>),
    Ack(Ack),
    /// A voter without a clock asks the leader for it: who, in which of its runs, and when on its own clock.
    AskClock {
        from: usize,
        run: u32,
        asked_ms: u64,
    },
    Clock {
        run: u32,
        asked_ms: u64,
        clock: LogInstant,
    },
    Propose {
        asker: Asker,
        request: Box<Request>,
    },
    Proposed {
        asker: Asker,
        outcome: ProposeOutcome,
    },
    Query {
        asker: Asker,
        query: Query,
    },
    Queried {
        asker: Asker,
        reply: Box<Result<QueryReply, QueryFailure>>,
    },
    Heartbeat {
        asker: Asker,
        heartbeat: Heartbeat,
    },
    Heard {
        by: usize,
        asker: Asker,
        result: Result<HeartbeatReply, HeartbeatFailure>,
    },
    /// A leader says that it leads.
    Leads {
        by: usize,
        hint: LeaderHint,
    },
    Claims {
        from: usize,
        term: u64,
        number: u64,
        update: Box<ClaimsUpdate>,
    },
    Noted {
        by: usize,
        term: u64,
        number: u64,
        noted: bool,
    },
    Pull {
        asker: Asker,
        pull: Pull,
    },
    Pulled {
        asker: Asker,
        result: Result<Pulled, PullFailure>,
    },
}

/// About how many bytes an entry takes, and any message that holds none.
pub(super) const ENTRY_BYTES: u64 = 400;
const MESSAGE_BYTES: u64 = 200;

impl Message {
    /// How much it loads a link.
    fn load(&self) -> Load {
        let bytes = match self {
            Self::Append(append) => {
                let snapshot = append.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes.len());
                append.entries.len() as u64 * ENTRY_BYTES + snapshot as u64
            }
            _ => 0,
        };
        Load { bytes: MESSAGE_BYTES + bytes, bulk: bytes > 0 }
    }

    /// Whether it is an answer that only a leader gives.
    pub(super) fn is_of_leader(&self) -> bool {
        match self {
            Self::Proposed { outcome, .. } => matches!(outcome, ProposeOutcome::Applied { .. }),
            Self::Queried { reply, .. } => reply.is_ok(),
            Self::Heard { result, .. } => result.is_ok(),
            Self::Pulled { result, .. } => result.is_ok(),
            _ => false,
        }
    }
}

/// What a robot's software says to its node.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Open(Box<AttachWish>),
    Word(AgentSaid),
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Arrives {
        to: usize,
        message: Message,
    },
    HostWakes {
        host: usize,
    },
    RobotSays {
        host: usize,
        run: u32,
        stream: StreamKey,
        said: Said,
    },
    /// A client calls a node.
    Calls {
        host: usize,
        call: Box<Call>,
        waits: Waits,
    },
    RobotHears {
        robot: usize,
        run: u32,
        stream: StreamKey,
        message: Box<AgentTold>,
    },
    RobotWakes {
        robot: usize,
        run: u32,
    },
    /// A robot acts on its last look at the clock.
    Attempt {
        robot: usize,
        run: u32,
        question: Box<Question>,
    },
    Judged {
        robot: usize,
        run: u32,
        refused: Option<Refused>,
    },
    RobotTold {
        robot: usize,
        run: u32,
        call: u64,
        settled: Box<Settled>,
    },
    /// The disk of a host has done the next thing for its journals.
    Synced {
        host: usize,
        run: u32,
    },
    /// A robot acts on a command, or has done it.
    Acts {
        robot: usize,
        run: u32,
        command: CommandId,
    },
    /// A robot says again what was ignored.
    SaysAgain {
        robot: usize,
        run: u32,
        command: CommandId,
    },
    /// A run of a robot's software that was followed by another ends for good.
    RobotEnds {
        robot: usize,
    },
    CustomerWakes {
        customer: usize,
    },
    CustomerTold {
        customer: usize,
        call: u64,
        settled: Box<Settled>,
    },
    Begins(usize),
    Ends(usize),
    Look,
}

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

/// A run under way.
pub(super) struct Sim {
    pub(super) plan: Plan,
    pub(super) now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<Timed>>,
    pub(super) rng: SmallRng,
    pub(super) fabric: Fabric,
    pub(super) hosts: Vec<Host>,
    pub(super) robots: Vec<Robot>,
    pub(super) customers: Vec<Customer>,
    pub(super) station: World,
    pub(super) watch: Watch,
    /// Whom a fault has hit: the leader is another one when it ends.
    pub(super) hit: Vec<Vec<usize>>,
    /// What hosts found when they looked last whom they reach.
    pub(super) looked: Option<Presence>,
    /// The host that lies, if one does.
    pub(super) liar: Option<Lying>,
}

impl Sim {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x5ce9_0000_0000_0001);
        let hosts = (0..plan.hosts).map(|n| Host::new(n, &plan, &mut rng)).collect();
        let robots = (0..plan.robots).map(|n| Robot::new(n, plan.used(n), &mut rng)).collect();
        let customers = (0..plan.customers).map(|n| Customer::new(n, &plan)).collect();
        let watch = Watch::new(&plan);
        let hit = vec![Vec::new(); plan.faults.len()];
        let liar = plan.liar.map(|liar| Lying::new(liar, plan.seed));
        let mut sim = Self {
            fabric: Fabric::new(plan.far),
            plan,
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            rng,
            hosts,
            robots,
            customers,
            station: World::default(),
            watch,
            hit,
            looked: None,
            liar,
        };
        sim.watch.coverage.far_sites += u64::from(sim.plan.far.is_some());
        sim.watch.coverage.stolen_robots += u64::from(sim.plan.liar.is_some_and(|liar| !liar.votes));
        sim.watch.coverage.lying_voters += u64::from(sim.plan.liar.is_some_and(|liar| liar.votes));
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        for at in 0..self.plan.faults.len() {
            let Fault { at_ms, for_ms, .. } = self.plan.faults[at];
            self.after(at_ms, Event::Begins(at));
            self.after((at_ms + for_ms).min(self.plan.run_ms), Event::Ends(at));
        }
        for host in 0..self.hosts.len() {
            self.after(0, Event::HostWakes { host });
        }
        for robot in 0..self.robots.len() {
            let at = self.rng.random_range(0..1_000);
            self.after(at, Event::RobotWakes { robot, run: 0 });
        }
        for customer in 0..self.customers.len() {
            self.after(500, Event::CustomerWakes { customer });
        }
        self.after(0, Event::Look);
    }

    /// Has something happen later.
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

    /// Whether nothing goes wrong any more.
    pub(super) fn is_calm(&self) -> bool {
        self.now >= self.plan.run_ms
    }

    /// How long everything may take to come to its end.
    fn settle_ms(&self) -> u64 {
        SETTLE_MS_MAX + SETTLE_WAYS * self.far_ms_max()
    }

    /// How far the farthest hosts are from each other, one way, in milliseconds.
    pub(super) fn far_ms_max(&self) -> u64 {
        self.plan.far.map_or(0, |far| far.ms)
    }

    /// Runs until everything has come to its end, or something must not be.
    pub(super) fn run(mut self) -> Watch {
        let mut events = 0;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now = next.at;
            self.handle(next.event);
            events += 1;
            if self.watch.violation.is_some() {
                break;
            }
            if self.is_calm() && self.is_over() {
                self.finish();
                break;
            }
            if self.now > self.plan.run_ms + self.settle_ms() || events > EVENTS_MAX {
                let what = self.what_is_left();
                self.watch.violate(Violation {
                    invariant: "L8",
                    what: format!("it does not come to its end: {what}"),
                    at_ms: self.now,
                });
                break;
            }
        }
        self.watch.virtual_ms = self.now;
        self.watch
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives { to, message } => self.on_arrives(to, message),
            Event::HostWakes { host } => self.on_host_wakes(host),
            Event::Calls { host, call, waits } => self.on_calls(host, call, waits),
            Event::RobotSays { host, run, stream, said } => self.on_robot_says(host, run, stream, said),
            Event::RobotHears { robot, run, stream, message } => self.on_robot_hears(robot, run, stream, message),
            Event::RobotWakes { robot, run } => self.on_robot_wakes(robot, run),
            Event::Attempt { robot, run, question } => self.on_attempt(robot, run, question),
            Event::Judged { robot, run, refused } => self.on_judged(robot, run, refused),
            Event::RobotTold { robot, run, call, settled } => self.on_robot_told(robot, run, call, settled),
            Event::Synced { host, run } => self.on_synced(host, run),
            Event::Acts { robot, run, command } => self.on_acts(robot, run, command),
            Event::SaysAgain { robot, run, command } => self.on_says_again(robot, run, command),
            Event::RobotEnds { robot } => self.on_robot_ends(robot),
            Event::CustomerWakes { customer } => self.on_customer_wakes(customer),
            Event::CustomerTold { customer, call, settled } => self.on_customer_told(customer, call, *settled),
            Event::Begins(fault) => self.on_fault_begins(fault),
            Event::Ends(fault) => self.on_fault_ends(fault),
            Event::Look => {
                self.look_for_peers();
                self.look_for_leases();
                self.liar_wakes();
                self.watch.tick(self.now);
                self.after(LOOK_EVERY_MS, Event::Look);
            }
        }
    }

    /// Whether every customer has its answers, every task has ended, and every voter holds the same. Where a voter lies none of that
    /// may ever be.
    fn is_over(&self) -> bool {
        if let Some(lied_until_ms) = self.plan.lied_until_ms() {
            return self.now >= lied_until_ms;
        }
        self.now.is_multiple_of(10)
            && self.customers.iter().all(|customer| customer.is_done())
            && self.watch.live_tasks() == 0
            && self.watch.live_commands() == 0
            && self.robots.iter().all(Robot::is_idle)
            && self.voters_are_equal()
    }

    fn voters_are_equal(&self) -> bool {
        let heads = |host: &Host| host.replica.as_ref().map(|replica| (replica.applied, replica.state.digest()));
        let first = heads(&self.hosts[0]);
        let all = first.is_some_and(|(applied, _)| applied as u64 == self.watch.applied());
        all && self.hosts[..self.plan.voters].iter().all(|host| heads(host) == first)
    }

    fn what_is_left(&self) -> String {
        let customers = self.customers.iter().filter(|customer| !customer.is_done()).count();
        let robots = self.robots.iter().filter(|robot| !robot.is_idle()).count();
        let equal = self.voters_are_equal();
        let (tasks, leader) = (self.watch.live_tasks(), self.leader());
        let commands = self.watch.live_commands();
        format!(
            "{tasks} tasks and {commands} commands live, {customers} customers and {robots} robots busy, voters equal: {equal}, leader: {leader:?}"
        )
    }

    fn finish(&mut self) {
        let states: Vec<_> = self.hosts.iter().filter_map(|host| host.replica.as_ref()).map(|r| &r.state).collect();
        self.watch.finish(&states, self.now);
    }
}
