//! What goes wrong with robots: their software is killed, suspended, and started at another node though the run before
//! it may continue.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::faults::Faults;
use super::wrong::{Kind, Mend, Wrong};
use super::{Begun, Step};
use crate::record::{StoryRecord, boot_ns};
use crate::site::child::{Child, suspend};
use crate::site::warehouse::DemoSite;

/// How long a run that was left behind continues after nothing separates it from the others, in milliseconds. It does
/// not know yet that another run has followed it.
const GOES_ON_MS: std::ops::Range<u64> = 500..5_000;

/// What happens to the run of a robot's software that is left behind when the robot moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It ends before the other run is started.
    Ended,
    /// It is suspended.
    Suspended,
    /// Its node is cut off from all others.
    CutOff,
    /// It just continues: it owns the robot, and the other run does not, until it is ended.
    Running,
}

impl Left {
    const ALL: [Self; 4] = [Self::Ended, Self::Suspended, Self::CutOff, Self::Running];

    fn name(self) -> &'static str {
        match self {
            Self::Ended => "where it has ended",
            Self::Suspended => "where it is suspended",
            Self::CutOff => "which is cut off",
            Self::Running => "where it goes on",
        }
    }
}

impl Faults {
    /// A robot with which nothing is wrong.
    fn sound_robot(&mut self, site: &DemoSite) -> Option<usize> {
        let at = self.rng.random_range(0..site.robots.len());
        let is_busy = self.wrong.iter().any(|wrong| wrong.mend.robot() == Some(at));
        (!is_busy).then_some(at)
    }

    /// Kills or suspends a robot's software.
    pub(super) fn trouble_robot(&mut self, site: &mut DemoSite, kind: Kind) -> Begun {
        let Some(at) = self.sound_robot(site) else { return Ok(None) };
        self.tell(kind, &site.robots[at].name);
        if kind == Kind::KillRobot {
            self.killed(site.robots[at].name.clone());
            site.robots[at].kill();
            return Ok(Some((Mend::StartRobot(at), None)));
        }
        self.put_to_sleep(&site.robots[at])?;
        Ok(Some((Mend::ResumeRobot(at), None)))
    }

    fn put_to_sleep(&self, robot: &Child) -> Step {
        self.story.record(&StoryRecord::Paused { at_ns: boot_ns(), name: robot.name.clone() });
        robot.pid().map_or(Ok(()), |pid| suspend(pid, true))
    }

    pub(super) fn wake(&self, robot: &Child) -> Step {
        robot.pid().map_or(Ok(()), |pid| suspend(pid, false))?;
        self.story.record(&StoryRecord::Resumed { at_ns: boot_ns(), name: robot.name.clone() });
        Ok(())
    }

    /// Where a robot goes: a node with which nothing is wrong, other than its present one.
    fn destination(&mut self, site: &DemoSite, from: usize) -> Option<usize> {
        let count = site.net.nodes.len();
        let first = self.rng.random_range(0..count);
        (0..count).map(|step| (first + step) % count).find(|at| *at != from && self.is_sound(site, *at))
    }

    /// Starts a robot's software at another node. The run before has ended; or it cannot know of the new run, since it
    /// is suspended or its node is cut off; or it just continues. At the end it is ended.
    pub(super) fn move_robot(&mut self, site: &mut DemoSite, until: Instant) -> Begun {
        let Some(at) = self.sound_robot(site) else { return Ok(None) };
        let Some(from) = site.node_at(at) else { return Ok(None) };
        let Some(to) = self.destination(site, from) else { return Ok(None) };
        let mut left = Left::ALL[self.rng.random_range(0..Left::ALL.len())];
        if left == Left::CutOff && !(self.may_cut(site, Kind::MoveRobot) && self.is_sound(site, from)) {
            left = Left::Suspended;
        }
        let name = |node: usize| site.net.nodes[node].name.as_str();
        self.tell(
            Kind::MoveRobot,
            &format!("{} to {} from {}, {}", site.robots[at].name, name(to), name(from), left.name()),
        );
        let begun = match left {
            Left::Ended => {
                self.killed(site.robots[at].name.clone());
                site.robots[at].kill();
                return Ok(Some((Mend::StartElsewhere(at, to), None)));
            }
            Left::Suspended => {
                self.put_to_sleep(&site.robots[at])?;
                (Mend::ResumeFormer(at), None)
            }
            Left::CutOff => {
                let others = (0..site.net.nodes.len()).filter(|other| *other != from);
                let pairs = others.flat_map(|other| [(from, other), (other, from)]).collect();
                (self.sever(site, Kind::MoveRobot, pairs)?, Some(from))
            }
            Left::Running => (Mend::EndFormer(at), None),
        };
        self.start_elsewhere(site, at, to)?;
        if left != Left::Running {
            let later = until + Duration::from_millis(self.rng.random_range(GOES_ON_MS));
            self.wrong.push(Wrong { until: later, mend: Mend::EndFormer(at), node: None });
        }
        Ok(Some(begun))
    }

    /// Starts a robot's software at another node.
    fn start_elsewhere(&self, site: &mut DemoSite, at: usize, to: usize) -> Step {
        site.start_elsewhere(at, to)?;
        self.story.record(&site.placed(at));
        Ok(())
    }

    /// Starts a robot's software at another node, where the run before has ended.
    pub(super) fn arrive(&self, site: &mut DemoSite, at: usize, to: usize) -> Step {
        self.start_elsewhere(site, at, to)?;
        site.end_former(at);
        self.story.say(&format!("{} is started", site.robots[at].name));
        Ok(())
    }

    /// Ends the run of a robot's software that was left behind.
    pub(super) fn end_former(&self, site: &mut DemoSite, at: usize) {
        if let Some(former) = site.former(at) {
            self.story.say(&format!("{} is ended", former.name));
            self.killed(former.name.clone());
        }
        site.end_former(at);
    }
}
