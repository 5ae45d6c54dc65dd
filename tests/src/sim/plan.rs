//! The plan of a run: everything that its seed decides before the run begins.

use std::fmt;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::limits;

use super::Scale;
use super::hosts::Hosts;
use super::lying::{LIARS, Liar, Lies};

/// The most hosts of a run that does not say how many.
const HOSTS_DRAWN_MAX: usize = 50;
/// The fewest and most robots of a run.
const ROBOTS: std::ops::RangeInclusive<usize> = 20..=200;

/// Mixed into the seed for the draw of links, so that it differs from the other draws.
const LINKS: u64 = 0x11c5_0000_0000_0002;
/// One run in this many has hosts that are far; and how far they can be, one way, in milliseconds.
const FAR_ONE_IN: u32 = 4;
const FAR_MS: [u64; 5] = [30, 60, 140, 300, 600];
/// The share of the hosts that are on the far side.
const FAR_SHARES: [f64; 3] = [0.2, 0.5, 0.8];
/// The least length of a lease, in ways between the sides. A renewal takes four: to the leader, to a quorum and back,
/// and back to the node. And a node tells of a new attachment twice before its first heartbeat counts.
const WAYS_PER_LEASE: u64 = 12;
/// Number of tasks that a customer orders of a site that is far.
const FAR_TASKS_PER_CUSTOMER: usize = 12;
/// One run in this many has a thin link; and how many kilobits a second it carries.
const THIN_ONE_IN: u32 = 6;
const THIN_KBIT: std::ops::RangeInclusive<u64> = 64..=256;

/// One run in this many has a liar; and one liar in how many has clocks that are far ahead now and then.
const LIAR_ONE_IN: u32 = 5;
const WILD_ONE_IN: u32 = 3;
/// How long a run with a voter that lies goes on after all else has stopped going wrong, in milliseconds. The promises
/// of such a voter come to no end, so the run waits for none.
const VOTER_LIES_ON_MS: u64 = 10_000;
/// For runs that go on for long, in milliseconds: how long after a node can be sure of the shard's clock some nodes
/// end. The lines after it: how many nodes, within which time, and for how long each.
const SURE_FOR_MS: u64 = 15_000;
const RESTARTS: usize = 6;
const RESTARTS_WITHIN_MS: u64 = 30_000;
const RESTART_MS: std::ops::RangeInclusive<u64> = 500..=3_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The node of a host ends without warning, and is started again.
    Crash { host: usize },
    /// The node of the leader does the same, whichever host leads then.
    CrashLeader,
    /// All voters end at once.
    CrashQuorum,
    /// The whole machine starts anew: its clock too.
    Reboot { host: usize },
    /// A robot's software ends and is started again, as another run.
    CrashRobot { robot: usize },
    /// The node of a host is suspended.
    Suspend { host: usize },
    /// The node of the leader is suspended.
    SuspendLeader,
    /// The software of every n-th robot is suspended.
    SuspendRobots { every: usize, from: usize },
    /// Some hosts and the others do not hear each other.
    Cut { side: Hosts },
    /// The messages of some hosts do not reach others.
    OneWay { from: Hosts, to: Hosts },
    /// Two voters do not hear each other; all other hosts hear both.
    Pair { a: usize, b: usize },
    /// Messages are lost and doubled, each in this many thousandths.
    Lossy { lost: u32, doubled: u32 },
    /// Messages take up to this many milliseconds, and overtake each other.
    Slow { ms: u64 },
    /// The link between two hosts carries this many kilobits a second, each way.
    Thin { a: usize, b: usize, kbit: u64 },
    /// A robot's software is started on another host, as another run. The run before it goes on for a while, on a host
    /// that is cut off or suspended.
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

/// Hosts that are far from all others: each message between the two sides takes this much longer, for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Far {
    pub(super) side: Hosts,
    /// One way, in milliseconds.
    pub(super) ms: u64,
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
    /// Whether every host lists all others, and not only the voters.
    pub(super) lists_all: bool,
    /// Whether most commands are valid for hours: then no deadline ends what something else should end.
    pub(super) hours: bool,
    /// How long things go wrong, in milliseconds.
    pub(super) run_ms: u64,
    pub(super) tasks: usize,
    pub(super) customers: usize,
    /// How far each host's clock is off, in millionths.
    pub(super) drift_ppm: Vec<i64>,
    pub(super) faults: Vec<Fault>,
    pub(super) far: Option<Far>,
    /// Whether new leaders tell all hosts that they lead. Otherwise hosts find them by asking.
    pub(super) announces: bool,
    /// Whether hosts that do not vote must follow each new leader at once (L5): then nothing else goes wrong.
    pub(super) follows: bool,
    /// The host that lies, if there is one.
    pub(super) liar: Option<Liar>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, voters, robots, lease_ms, .. } = self;
        write!(f, "{hosts} hosts of which {voters} vote, {robots} robots, leases of {lease_ms} ms")?;
        if let Some(Far { side, ms }) = self.far {
            write!(f, ", {ms} ms one way between {side:?} and the others")?;
        }
        self.liar.map_or(Ok(()), |liar| write!(f, "; {liar}"))
    }
}

impl Plan {
    /// The plan of a seed. `scale` overrides its numbers; that of hosts only in [sites of many](Self::many).
    pub(super) fn of(seed: u64, scale: Scale) -> Self {
        let Scale { robots, hosts, lies } = scale;
        if let Some(hosts) = hosts {
            return Self::many(seed, hosts, robots).with_liar(lies.or(Some(Lies::Nobody)));
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        // Most runs are small: most of what goes wrong with 200 robots goes wrong with 30 too, and small runs are many
        // more.
        let drawn = if rng.random_ratio(1, 8) { rng.random_range(ROBOTS) } else { rng.random_range(20..=45) };
        let robots = robots.unwrap_or(drawn);
        let hosts = rng.random_range(5..=HOSTS_DRAWN_MAX.min(robots.max(5)));
        let voters = if rng.random_bool(0.5) { 3 } else { 5 };
        let run_ms = rng.random_range(25_000..=60_000);
        let drift_ppm = (0..hosts).map(|_| rng.random_range(-40_000..=40_000)).collect();
        let count = rng.random_range(2..=10);
        let faults = (0..count).map(|_| fault(&mut rng, run_ms, hosts, voters, robots)).collect();
        let plan = Self {
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
            far: None,
            announces: true,
            follows: false,
            liar: None,
        };
        plan.with_links().with_liar(lies)
    }

    /// The same with far or thin links, in some seeds. These are drawn from a sequence of their own, so that the rest
    /// of the plan stays the same.
    fn with_links(mut self) -> Self {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ LINKS);
        if rng.random_ratio(1, FAR_ONE_IN) {
            let ms = FAR_MS[rng.random_range(0..FAR_MS.len())];
            let share = FAR_SHARES[rng.random_range(0..FAR_SHARES.len())];
            let side = Hosts::of((0..self.hosts).filter(|_| rng.random_bool(share)));
            self.far = Some(Far { side, ms });
            self.lease_ms = self.lease_ms.max(WAYS_PER_LEASE * ms);
            // Each call takes several times the way, and a customer makes one call at a time.
            self.customers = self.customers.max(self.tasks.div_ceil(FAR_TASKS_PER_CUSTOMER));
        }
        if rng.random_ratio(1, THIN_ONE_IN) {
            let (a, b) = (rng.random_range(0..self.voters), rng.random_range(1..self.hosts));
            let kind = FaultKind::Thin { a, b: (a + b) % self.hosts, kbit: rng.random_range(THIN_KBIT) };
            let at_ms = rng.random_range(1_000..self.run_ms / 5);
            self.faults.push(Fault { at_ms, for_ms: self.run_ms * 3 / 4, kind });
        }
        self
    }

    /// The same, with only some of its faults.
    pub(super) fn with_faults(&self, kept: &[usize]) -> Self {
        let faults = kept.iter().filter_map(|at| self.faults.get(*at).copied()).collect();
        Self { faults, ..self.clone() }
    }

    /// The same with a liar, in some seeds, or as `lies` says. The liar is drawn from a sequence of its own, so that
    /// the rest of the plan stays the same.
    pub(super) fn with_liar(mut self, lies: Option<Lies>) -> Self {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ LIARS);
        let is_one = rng.random_ratio(1, LIAR_ONE_IN);
        let drawn = match (is_one, rng.random_bool(0.5)) {
            (false, _) => Lies::Nobody,
            (true, true) => Lies::Robot,
            (true, false) => Lies::Voter,
        };
        let (lies, wild) = (lies.unwrap_or(drawn), rng.random_ratio(1, WILD_ONE_IN));
        let host = match lies {
            Lies::Nobody => return self,
            Lies::Voter => rng.random_range(0..self.voters),
            Lies::Robot => {
                // The liar is one more host, which all others list.
                self.hosts += 1;
                self.drift_ppm.push(rng.random_range(-40_000..=40_000));
                self.lists_all = true;
                self.hosts - 1
            }
        };
        let votes = lies == Lies::Voter;
        self.liar = Some(Liar { host, votes, wild });
        if votes && rng.random_bool(0.5) { self.restarted(&mut rng) } else { self }
    }

    /// The same, but long enough for journals to say how far the shard's clock has surely come. Then some nodes start
    /// again: what those nodes were told before, only their journals know.
    fn restarted(mut self, rng: &mut SmallRng) -> Self {
        let from_ms = self.run_ms.max(limits::FLOOR_SETTLES_MS) + SURE_FOR_MS;
        for _ in 0..RESTARTS {
            let kind = FaultKind::Crash { host: self.used(rng.random_range(0..self.hosts)) };
            let (at_ms, for_ms) = (from_ms + rng.random_range(0..RESTARTS_WITHIN_MS), rng.random_range(RESTART_MS));
            self.faults.push(Fault { at_ms, for_ms, kind });
        }
        self.run_ms = from_ms + RESTARTS_WITHIN_MS + RESTART_MS.end();
        self
    }

    /// Whether this host lies.
    pub(super) fn is_liar(&self, host: usize) -> bool {
        self.liar.is_some_and(|liar| liar.host == host)
    }

    /// The host that robots and customers use: this one, or the next one if this one lies.
    pub(super) fn used(&self, host: usize) -> usize {
        let host = host % self.hosts;
        if self.is_liar(host) { (host + 1) % self.hosts } else { host }
    }

    /// When a run with a voter that lies is over, in milliseconds.
    pub(super) fn lied_until_ms(&self) -> Option<u64> {
        self.liar.filter(|liar| liar.votes).map(|_| self.run_ms + VOTER_LIES_ON_MS)
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
    // Long faults outlast leases and deadlines. A robot that moves waits until the lease of the earlier run ends.
    let long = matches!(kind, FaultKind::MoveRobot { .. }) || rng.random_bool(0.3);
    let for_ms = if long { rng.random_range(8_000..=25_000) } else { rng.random_range(200..=8_000) };
    Fault { at_ms: rng.random_range(1_000..run_ms), for_ms, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liar_changes_nothing_else_that_a_seed_says_and_is_used_by_nobody() {
        for seed in 0..50 {
            let of = |lies| Plan::of(seed, Scale { lies: Some(lies), ..Scale::default() });
            let (none, robot, voter) = (of(Lies::Nobody), of(Lies::Robot), of(Lies::Voter));
            for plan in [&robot, &voter] {
                assert_eq!(plan.faults[..none.faults.len()], none.faults);
                assert_eq!((plan.tasks, plan.voters), (none.tasks, none.voters));
                assert!((0..2 * plan.hosts).all(|host| !plan.is_liar(plan.used(host))));
            }
            assert_eq!(robot.hosts, none.hosts + 1);
            assert!(robot.is_liar(none.hosts) && (0..voter.voters).any(|host| voter.is_liar(host)));
            assert!(none.lied_until_ms().is_none() && robot.lied_until_ms().is_none());
        }
    }

    #[test]
    fn some_seeds_have_a_liar_of_each_kind_and_most_have_none() {
        let liars = (0..100).map(|seed| Plan::of(seed, Scale::default()).liar);
        let votes: Vec<bool> = liars.flatten().map(|liar| liar.votes).collect();
        assert!(votes.len() < 50 && votes.contains(&true) && votes.contains(&false), "{votes:?}");
    }
}
