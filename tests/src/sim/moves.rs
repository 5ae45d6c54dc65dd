//! Robots that move: their software is started on another host while the run before it still goes on.

use rand::RngExt as _;

use super::hosts::Hosts;
use super::parcel::Event;
use super::plan::FaultKind;
use super::robot::Robot;
use super::world::Sim;

/// How long the earlier run goes on after it is back among the others, in milliseconds.
const GOES_ON_MS: std::ops::RangeInclusive<u64> = 500..=5_000;

impl Sim {
    /// The run of a robot's software that was started last.
    pub(super) fn owner(&self, number: usize) -> Option<usize> {
        (0..self.robots.len()).rev().find(|robot| self.robots[*robot].number == number && !self.robots[*robot].over)
    }

    /// The host that a robot moves to. It is up, so that its clock does not begin anew under the software.
    fn destination(&self, from: usize, to: usize) -> Option<usize> {
        let hosts = self.nodes.hosts.len();
        (0..hosts)
            .map(|step| (to + step) % hosts)
            .find(|host| *host != from && self.nodes.ports.machines[*host].up && !self.nodes.ports.plan.is_liar(*host))
    }

    /// The run of a robot's software that is left behind, if the robot has a host to go to.
    pub(super) fn leaves(&self, number: usize, to: usize) -> Option<usize> {
        self.owner(number).filter(|robot| self.destination(self.robots[*robot].host, to).is_some())
    }

    /// The fault that keeps the host of a robot's software from all others.
    fn alone(&self, robot: usize) -> FaultKind {
        FaultKind::Cut { side: Hosts::of([self.robots[robot].host]) }
    }

    /// Keeps a run of a robot's software from renewing its lease, and starts another run on another host.
    pub(super) fn move_robot(&mut self, robot: usize, to: usize, cut: bool) {
        let Some(host) = self.destination(self.robots[robot].host, to) else { return };
        let alone = self.alone(robot);
        if cut {
            self.nodes.ports.fabric.begin(alone);
        } else {
            self.robots[robot].suspended += 1;
        }
        let next = self.robots.len();
        let started = Robot::new(next, self.robots[robot].number, host, &mut self.nodes.ports.rng);
        self.nodes.ports.agents.push(started.agent.clone());
        self.robots.push(started);
        self.nodes.ports.watch.coverage.robot_moves += 1;
        self.nodes.ports.after(0, Event::RobotWakes { robot: next, run: 0 });
    }

    /// The hosts hear the run that was left behind again. It does not know yet that another run has followed it.
    pub(super) fn let_end(&mut self, robot: usize, cut: bool) {
        let alone = self.alone(robot);
        if cut {
            self.nodes.ports.fabric.end(alone);
        } else {
            self.resume_robot(robot);
        }
        let later = self.nodes.ports.rng.random_range(GOES_ON_MS);
        self.nodes.ports.after(later, Event::RobotEnds { robot });
    }
}
