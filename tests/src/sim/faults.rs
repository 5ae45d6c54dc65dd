//! What goes wrong, and whom it hits.

use rand::RngExt as _;

use super::plan::FaultKind;
use super::world::Sim;

impl Sim {
    /// The host that leads by the newest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let term = |host: &usize| self.hosts[*host].replica.as_ref()?.lead.as_ref().map(|lead| lead.term);
        (0..self.plan.voters).filter(|host| term(host).is_some()).max_by_key(term)
    }

    /// The robots whose software runs on a host.
    fn robots_of(&self, host: usize) -> Vec<usize> {
        (0..self.robots.len()).filter(|robot| self.robots[*robot].host == host).collect()
    }

    fn victims(&self, kind: FaultKind) -> Vec<usize> {
        match kind {
            FaultKind::Crash { host } | FaultKind::Reboot { host } | FaultKind::Suspend { host } => vec![host],
            FaultKind::CrashLeader | FaultKind::SuspendLeader => self.leader().into_iter().collect(),
            FaultKind::CrashQuorum => (0..self.plan.voters).collect(),
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

    pub(super) fn on_fault_begins(&mut self, at: usize) {
        let kind = self.plan.faults[at].kind;
        self.hit[at] = self.victims(kind);
        self.watch.count_fault(kind);
        for victim in self.hit[at].clone() {
            match kind {
                FaultKind::CrashRobot { .. } => self.crash_robot(victim),
                FaultKind::MoveRobot { to, cut, .. } => self.move_robot(victim, to, cut),
                FaultKind::SuspendRobots { .. } => self.robots[victim].suspended += 1,
                FaultKind::Suspend { .. } | FaultKind::SuspendLeader => self.hosts[victim].suspended += 1,
                FaultKind::Reboot { host } => {
                    self.crash_host(host);
                    // Some come back without what their disk held of journals.
                    let wiped = self.rng.random_ratio(1, 3);
                    self.crash_journals(host, wiped);
                    self.robots_of(host).into_iter().for_each(|robot| self.crash_robot(robot));
                }
                _ => self.crash_host(victim),
            }
        }
        if self.hit[at].is_empty() {
            self.fabric.begin(kind);
        }
    }

    pub(super) fn on_fault_ends(&mut self, at: usize) {
        let kind = self.plan.faults[at].kind;
        let victims = std::mem::take(&mut self.hit[at]);
        if victims.is_empty() {
            return self.fabric.end(kind);
        }
        for victim in victims {
            match kind {
                FaultKind::CrashRobot { .. } => self.start_robot(victim),
                FaultKind::MoveRobot { cut, .. } => self.let_end(victim, cut),
                FaultKind::SuspendRobots { .. } => self.resume_robot(victim),
                FaultKind::Suspend { .. } | FaultKind::SuspendLeader => self.resume_host(victim),
                FaultKind::Reboot { host } => {
                    // Software that another fault's end started meanwhile, on a machine without power, has the clock of before.
                    let is_off = !self.hosts[host].up;
                    let early = self.robots_of(host).into_iter().filter(|robot| is_off && self.robots[*robot].up);
                    early.collect::<Vec<usize>>().into_iter().for_each(|robot| self.crash_robot(robot));
                    self.start_host(host, true);
                    self.robots_of(host).into_iter().for_each(|robot| self.start_robot(robot));
                }
                _ => self.start_host(victim, false),
            }
        }
    }
}
