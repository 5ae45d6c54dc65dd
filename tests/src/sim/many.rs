//! Sites of many hosts of which few vote, and whose leader is killed again and again. Nothing else goes wrong, so that
//! it is plain what hosts that do not vote, and their robots, can expect.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::hosts::HOSTS_MAX;
use super::plan::{Fault, FaultKind, Plan};

/// What tells the draw of such a site from that of others.
const MANY: u64 = 0x3a4e_0000_0000_0003;
/// How often the leader is killed, when first, and how far apart, in milliseconds: far enough to be followed in
/// between.
const KILLS: u64 = 3;
const FIRST_KILL_MS: u64 = 4_000;
const KILL_EVERY_MS: u64 = 7_000;
/// A lease that outlasts an election and the two heartbeats after it, in milliseconds.
const LEASE_MS: u64 = 10_000;

impl Plan {
    /// A site of this many hosts. Two of three have a robot, unless the scale says how many there are; every host lists
    /// all others. In odd seeds new leaders do not announce themselves.
    pub(super) fn many(seed: u64, hosts: usize, robots: Option<usize>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ MANY);
        let hosts = hosts.clamp(5, HOSTS_MAX);
        let faults = (0..KILLS).map(|nth| Fault {
            at_ms: FIRST_KILL_MS + nth * KILL_EVERY_MS + rng.random_range(0..1_000),
            for_ms: rng.random_range(500..=2_500),
            kind: FaultKind::CrashLeader,
        });
        let faults = faults.collect();
        Self {
            seed,
            robots: robots.unwrap_or(hosts * 2 / 3),
            hosts,
            voters: if rng.random_bool(0.5) { 3 } else { 5 },
            lease_ms: LEASE_MS,
            nearest: rng.random_bool(0.5),
            lists_all: true,
            // No robot is busy with a command for a minute.
            hours: true,
            run_ms: FIRST_KILL_MS + KILLS * KILL_EVERY_MS,
            tasks: hosts / 4,
            customers: 4,
            drift_ppm: (0..hosts).map(|_| rng.random_range(-40_000..=40_000)).collect(),
            faults,
            far: None,
            announces: seed.is_multiple_of(2),
            follows: true,
            liar: None,
        }
    }
}
