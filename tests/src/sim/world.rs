//! The world of a run: nodes, robots and customers, what goes wrong with them, and how it ends.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::customer::{Customer, Desk};
use super::host::Host;
use super::machine::Machine;
use super::nodes::Nodes;
use super::parcel::Event;
use super::plan::{Fault, Plan};
use super::ports::Ports;
use super::robot::Robot;
use super::watch::{Violation, Watch};

/// How long everything may take to come to its end after the last fault is over, in milliseconds.
const SETTLE_MS_MAX: u64 = 240_000;
/// By how many ways between the farthest hosts that time is longer.
const SETTLE_WAYS: u64 = 300;
/// Interval at which hosts look which hosts they reach, and invariants look at the run, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// The most events of a run: with more it has run away.
const EVENTS_MAX: u64 = 60_000_000;

/// A run under way. It tells its nodes, robots and customers what happens; they act through their ports.
pub(super) struct Sim {
    pub(super) nodes: Nodes,
    pub(super) robots: Vec<Robot>,
    customers: Vec<Customer>,
    /// The hosts that each fault has hit: when the fault ends, another host may lead.
    pub(super) hit: Vec<Vec<usize>>,
}

impl Sim {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x5ce9_0000_0000_0001);
        let host = |n: usize| {
            let machine = Machine::new(plan.drift_ppm[n], &mut rng);
            let host = Host::new(n, &plan, machine.clock.at(0), &mut rng);
            (machine, host)
        };
        let (machines, hosts): (Vec<Machine>, Vec<Host>) = (0..plan.hosts).map(host).unzip();
        let robots: Vec<Robot> = (0..plan.robots).map(|n| Robot::new(n, n, plan.used(n), &mut rng)).collect();
        let customers = (0..plan.customers).map(|n| Customer::new(n, &plan)).collect();
        let hit = vec![Vec::new(); plan.faults.len()];
        let agents = robots.iter().map(|robot| robot.agent.clone()).collect();
        let nodes = Nodes::new(Ports::new(plan, rng, machines, agents), hosts);
        let mut sim = Self { nodes, robots, customers, hit };
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        let ports = &mut self.nodes.ports;
        let coverage = &mut ports.watch.coverage;
        coverage.far_sites += u64::from(ports.plan.far.is_some());
        coverage.stolen_robots += u64::from(ports.plan.liar.is_some_and(|liar| !liar.votes));
        coverage.lying_voters += u64::from(ports.plan.liar.is_some_and(|liar| liar.votes));
        for at in 0..ports.plan.faults.len() {
            let Fault { at_ms, for_ms, .. } = ports.plan.faults[at];
            ports.after(at_ms, Event::Begins(at));
            ports.after((at_ms + for_ms).min(ports.plan.run_ms), Event::Ends(at));
        }
        for host in 0..self.nodes.hosts.len() {
            ports.after(0, Event::HostWakes { host });
        }
        for robot in 0..self.robots.len() {
            let at = ports.rng.random_range(0..1_000);
            ports.after(at, Event::RobotWakes { robot, run: 0 });
        }
        for customer in 0..self.customers.len() {
            ports.after(500, Event::CustomerWakes { customer });
        }
        ports.after(0, Event::Look);
    }

    /// How long everything may take to come to its end, in milliseconds.
    fn settle_ms(&self) -> u64 {
        SETTLE_MS_MAX + SETTLE_WAYS * self.nodes.ports.far_ms_max()
    }

    /// Runs until everything has come to its end, or an invariant is violated.
    pub(super) fn run(mut self) -> Watch {
        let mut events = 0;
        while let Some(next) = self.nodes.ports.next_event() {
            self.handle(next);
            events += 1;
            let (now, run_ms) = (self.nodes.ports.now, self.nodes.ports.plan.run_ms);
            if self.nodes.ports.watch.violation.is_some() {
                break;
            }
            if self.nodes.ports.is_calm() && self.is_over() {
                self.finish();
                break;
            }
            if now > run_ms + self.settle_ms() || events > EVENTS_MAX {
                let what = format!("it does not come to its end: {}", self.what_is_left());
                self.nodes.ports.watch.violate(Violation { invariant: "L8", what, at_ms: now });
                break;
            }
        }
        self.nodes.ports.watch.virtual_ms = self.nodes.ports.now;
        self.nodes.ports.watch
    }

    fn handle(&mut self, event: Event) {
        let (nodes, robots) = (&mut self.nodes, &mut self.robots);
        match event {
            Event::Arrives { to, message } => nodes.on_arrives(to, message),
            Event::HostWakes { host } => nodes.on_host_wakes(host),
            Event::Calls { host, call, waits } => nodes.on_calls(host, call, waits),
            Event::RobotSays { host, run, stream, said } => nodes.on_robot_says(host, run, stream, said),
            Event::Synced { host, run } => nodes.on_synced(host, run),
            Event::RobotHears { robot, run, stream, message } => {
                robots[robot].on_hears(&mut nodes.ports, run, stream, message);
            }
            Event::RobotWakes { robot, run } => robots[robot].on_wakes(&mut nodes.ports, run),
            Event::Attempt { robot, run, question } => robots[robot].on_attempt(&mut nodes.ports, run, question),
            Event::Judged { robot, run, refused } => robots[robot].on_judged(&mut nodes.ports, run, refused),
            Event::RobotTold { robot, run, call, settled } => {
                robots[robot].on_told(&mut nodes.ports, run, call, settled);
            }
            Event::Acts { robot, run, command } => robots[robot].on_acts(&mut nodes.ports, run, command),
            Event::SaysAgain { robot, run, command } => robots[robot].on_says_again(&mut nodes.ports, run, command),
            Event::RobotEnds { robot } => robots[robot].end(&mut nodes.ports),
            Event::CustomerWakes { customer } => self.on_customer_wakes(customer),
            Event::CustomerTold { customer, call, settled } => {
                self.customers[customer].on_told(&mut nodes.ports, call, &settled);
            }
            Event::Begins(fault) => self.on_fault_begins(fault),
            Event::Ends(fault) => self.on_fault_ends(fault),
            Event::Look => {
                nodes.look_for_peers();
                robots.iter_mut().for_each(|robot| robot.look_for_lease(&mut nodes.ports));
                nodes.liar_wakes();
                nodes.ports.watch.tick(nodes.ports.now);
                nodes.ports.after(LOOK_EVERY_MS, Event::Look);
            }
        }
    }

    fn on_customer_wakes(&mut self, customer: usize) {
        let states = customer == 0 && self.nodes.liar.is_some();
        let stated = if states { self.nodes.stated_of_clerk() } else { 0 };
        let clerks = self.nodes.liar.as_mut().map(|lying| &mut lying.rng);
        self.customers[customer].on_wakes(Desk { ports: &mut self.nodes.ports, clerks, stated });
    }

    /// Whether every customer has its answers, every task has ended, and every voter holds the same. Where a voter
    /// lies, this may never happen.
    fn is_over(&self) -> bool {
        if let Some(lied_until_ms) = self.nodes.ports.plan.lied_until_ms() {
            return self.nodes.ports.now >= lied_until_ms;
        }
        self.nodes.ports.now.is_multiple_of(10)
            && self.customers.iter().all(|customer| customer.is_done())
            && self.nodes.ports.watch.live_tasks() == 0
            && self.nodes.ports.watch.live_commands() == 0
            && self.robots.iter().all(Robot::is_idle)
            && self.voters_are_equal()
    }

    fn voters_are_equal(&self) -> bool {
        let heads = |host: &Host| host.replica.as_ref().map(|replica| (replica.applied, replica.state.digest()));
        let first = heads(&self.nodes.hosts[0]);
        let all = first.is_some_and(|(applied, _)| applied as u64 == self.nodes.ports.watch.applied());
        all && self.nodes.hosts[..self.nodes.ports.plan.voters].iter().all(|host| heads(host) == first)
    }

    fn what_is_left(&self) -> String {
        let customers = self.customers.iter().filter(|customer| !customer.is_done()).count();
        let robots = self.robots.iter().filter(|robot| !robot.is_idle()).count();
        let equal = self.voters_are_equal();
        let (tasks, leader) = (self.nodes.ports.watch.live_tasks(), self.nodes.leader());
        let commands = self.nodes.ports.watch.live_commands();
        format!(
            "{tasks} tasks and {commands} commands live, {customers} customers and {robots} robots busy, voters equal: {equal}, leader: {leader:?}"
        )
    }

    fn finish(&mut self) {
        let states: Vec<_> =
            self.nodes.hosts.iter().filter_map(|host| host.replica.as_ref()).map(|r| &r.state).collect();
        self.nodes.ports.watch.finish(&states, self.nodes.ports.now);
    }
}
