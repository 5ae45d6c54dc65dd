//! What goes wrong, and which hosts and robots it hits.

use rand::RngExt as _;

use super::plan::FaultKind;
use super::world::Sim;

impl Sim {
    /// The robots whose software runs on a host.
    fn robots_of(&self, host: usize) -> Vec<usize> {
        (0..self.robots.len()).filter(|robot| self.robots[*robot].host == host).collect()
    }

    fn victims(&self, kind: FaultKind) -> Vec<usize> {
        match kind {
            FaultKind::Crash { host } | FaultKind::Reboot { host } | FaultKind::Suspend { host } => vec![host],
            FaultKind::CrashLeader | FaultKind::SuspendLeader => self.nodes.leader().into_iter().collect(),
            FaultKind::CrashQuorum => (0..self.nodes.ports.plan.voters).collect(),
            FaultKind::CrashRobot { robot } => self.owner(robot).into_iter().collect(),
            FaultKind::MoveRobot { robot, to, .. } => self.leaves(robot, to).into_iter().collect(),
            FaultKind::SuspendRobots { every, from } => (from..self.robots.len()).step_by(every).collect(),
            FaultKind::Cut { .. }
            | FaultKind::OneWay { .. }
            | FaultKind::Pair { .. }
            | FaultKind::Lossy { .. }
            | FaultKind::Slow { .. }
            | FaultKind::Thin { .. } => Vec::new(),
        }
    }

    fn crash_robot(&mut self, robot: usize) {
        self.robots[robot].crash(&mut self.nodes.ports);
    }

    fn start_robot(&mut self, robot: usize) {
        self.robots[robot].start(&mut self.nodes.ports);
    }

    pub(super) fn resume_robot(&mut self, robot: usize) {
        self.robots[robot].resume(&mut self.nodes.ports);
    }

    pub(super) fn on_fault_begins(&mut self, at: usize) {
        let kind = self.nodes.ports.plan.faults[at].kind;
        self.hit[at] = self.victims(kind);
        self.nodes.ports.watch.count_fault(kind);
        for victim in self.hit[at].clone() {
            match kind {
                FaultKind::CrashRobot { .. } => self.crash_robot(victim),
                FaultKind::MoveRobot { to, cut, .. } => self.move_robot(victim, to, cut),
                FaultKind::SuspendRobots { .. } => self.robots[victim].suspended += 1,
                FaultKind::Suspend { .. } | FaultKind::SuspendLeader => {
                    self.nodes.ports.machines[victim].suspended += 1;
                }
                FaultKind::Reboot { host } => {
                    self.nodes.crash_host(host);
                    // Some return without the journals that their disk held.
                    let wiped = self.nodes.ports.rng.random_ratio(1, 3);
                    self.nodes.crash_journals(host, wiped);
                    self.robots_of(host).into_iter().for_each(|robot| self.crash_robot(robot));
                }
                _ => self.nodes.crash_host(victim),
            }
        }
        if self.hit[at].is_empty() {
            self.nodes.ports.fabric.begin(kind);
        }
    }

    pub(super) fn on_fault_ends(&mut self, at: usize) {
        let kind = self.nodes.ports.plan.faults[at].kind;
        let victims = std::mem::take(&mut self.hit[at]);
        if victims.is_empty() {
            return self.nodes.ports.fabric.end(kind);
        }
        for victim in victims {
            match kind {
                FaultKind::CrashRobot { .. } => self.start_robot(victim),
                FaultKind::MoveRobot { cut, .. } => self.let_end(victim, cut),
                FaultKind::SuspendRobots { .. } => self.resume_robot(victim),
                FaultKind::Suspend { .. } | FaultKind::SuspendLeader => self.nodes.resume_host(victim),
                FaultKind::Reboot { host } => {
                    // Software that the end of another fault started meanwhile, on a machine without power, has the
                    // former clock.
                    let is_off = !self.nodes.ports.machines[host].up;
                    let early = self.robots_of(host).into_iter().filter(|robot| is_off && self.robots[*robot].up);
                    early.collect::<Vec<usize>>().into_iter().for_each(|robot| self.crash_robot(robot));
                    self.nodes.start_host(host, true);
                    self.robots_of(host).into_iter().for_each(|robot| self.start_robot(robot));
                }
                _ => self.nodes.start_host(victim, false),
            }
        }
    }
}
