//! What a run is made of: everything that its seed decides before it begins.

use std::fmt;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::hosts::Hosts;

/// Most hosts of a run that does not say how many.
const HOSTS_DRAWN_MAX: usize = 50;
/// Fewest and most robots of a run.
const ROBOTS: std::ops::RangeInclusive<usize> = 20..=200;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The node of a host ends without warning, and is started again.
    Crash { host: usize },
    /// So does that of the leader, whoever it is then.
    CrashLeader,
    /// All voters end at once.
    CrashQuorum,
    /// The whole machine starts anew: its clock too.
    Reboot { host: usize },
    /// A robot's software ends and is started again, as another run.
    CrashRobot { robot: usize },
    /// The node of a host is suspended.
    Suspend { host: usize },
    /// So is that of the leader.
    SuspendLeader,
    /// The software of every so manyth robot is suspended.
    SuspendRobots { every: usize, from: usize },
    /// Some hosts and the others do not hear each other.
    Cut { side: Hosts },
    /// What some hosts say does not reach others.
    OneWay { from: Hosts, to: Hosts },
    /// Two voters do not hear each other; everybody else hears both.
    Pair { a: usize, b: usize },
    /// Messages are lost and doubled, in thousandths.
    Lossy { lost: u32, doubled: u32 },
    /// Messages take up to this long, in milliseconds, and overtake each other.
    Slow { ms: u64 },
    /// A robot's software is started on another host, as another run. The one before it goes on for a while: on a host that
    /// is cut off, or suspended.
    MoveRobot { robot: usize, to: usize, cut: bool },
}

/// One thing that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at_ms: u64,
    pub(super) for_ms: u64,
    pub(super) kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.at_ms as f64 / 1e3, (self.at_ms + self.for_ms) as f64 / 1e3);
        write!(f, "{from:.3} s to {to:.3} s: {:?}", self.kind)
    }
}

/// A run before it begins.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) robots: usize,
    pub(super) hosts: usize,
    pub(super) voters: usize,
    pub(super) lease_ms: u64,
    pub(super) nearest: bool,
    /// Whether every host lists all others, and not only those that vote.
    pub(super) lists_all: bool,
    /// Whether most commands are valid for hours: no deadline ends what something else should.
    pub(super) hours: bool,
    /// How long things go wrong, in milliseconds.
    pub(super) run_ms: u64,
    pub(super) tasks: usize,
    pub(super) customers: usize,
    /// How far each host's clock is off, in millionths.
    pub(super) drift_ppm: Vec<i64>,
    pub(super) faults: Vec<Fault>,
}

impl Plan {
    /// The plan of a seed. `robots` overrides how many there are.
    pub(super) fn of(seed: u64, robots: Option<usize>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        // Most runs are small: what goes wrong with 200 robots mostly does with 30, and those are many more runs.
        let drawn = if rng.random_ratio(1, 8) { rng.random_range(ROBOTS) } else { rng.random_range(20..=45) };
        let robots = robots.unwrap_or(drawn);
        let hosts = rng.random_range(5..=HOSTS_DRAWN_MAX.min(robots.max(5)));
        let voters = if rng.random_bool(0.5) { 3 } else { 5 };
        let run_ms = rng.random_range(25_000..=60_000);
        let drift_ppm = (0..hosts).map(|_| rng.random_range(-40_000..=40_000)).collect();
        let count = rng.random_range(2..=10);
        let faults = (0..count).map(|_| fault(&mut rng, run_ms, hosts, voters, robots)).collect();
        Self {
            seed,
            robots,
            hosts,
            voters,
            lease_ms: rng.random_range(2_000..=6_000),
            nearest: rng.random_bool(0.5),
            lists_all: seed.is_multiple_of(2),
            hours: rng.random_ratio(1, 4),
            run_ms,
            tasks: robots + rng.random_range(0..=robots),
            customers: rng.random_range(2..=5),
            drift_ppm,
            faults,
        }
    }

    /// The same, with only some of its faults.
    pub(super) fn with_faults(&self, kept: &[usize]) -> Self {
        let faults = kept.iter().filter_map(|at| self.faults.get(*at).copied()).collect();
        Self { faults, ..self.clone() }
    }
}

fn side(rng: &mut SmallRng, hosts: usize) -> Hosts {
    Hosts::of((0..hosts).filter(|_| rng.random_bool(0.5)))
}

fn fault(rng: &mut SmallRng, run_ms: u64, hosts: usize, voters: usize, robots: usize) -> Fault {
    let host = if rng.random_bool(0.5) { rng.random_range(0..voters) } else { rng.random_range(0..hosts) };
    let robot = rng.random_range(0..robots);
    let kind = match rng.random_range(0..29) {
        0..3 => FaultKind::Crash { host },
        3..6 => FaultKind::CrashLeader,
        6..8 => FaultKind::CrashQuorum,
        8 => FaultKind::Reboot { host },
        9..12 => FaultKind::CrashRobot { robot },
        12..14 => FaultKind::Suspend { host },
        14..16 => FaultKind::SuspendLeader,
        16..18 => FaultKind::SuspendRobots { every: rng.random_range(1..=8), from: robot % 8 },
        18..20 => FaultKind::Cut { side: side(rng, hosts) },
        20..22 => FaultKind::OneWay { from: side(rng, hosts), to: side(rng, hosts) },
        22 => FaultKind::Pair { a: host % voters, b: (host % voters + 1) % voters },
        23..25 => FaultKind::Lossy { lost: rng.random_range(10..=300), doubled: rng.random_range(0..=300) },
        25 => FaultKind::Slow { ms: rng.random_range(50..=700) },
        _ => FaultKind::MoveRobot { robot, to: rng.random_range(0..hosts), cut: rng.random_bool(0.7) },
    };
    // Long ones outlast leases and deadlines. A robot that moves waits for the lease of the run before it to end.
    let long = matches!(kind, FaultKind::MoveRobot { .. }) || rng.random_bool(0.3);
    let for_ms = if long { rng.random_range(8_000..=25_000) } else { rng.random_range(200..=8_000) };
    Fault { at_ms: rng.random_range(1_000..run_ms), for_ms, kind }
}
