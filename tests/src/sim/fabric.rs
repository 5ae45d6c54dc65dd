//! The network between hosts, and the clocks on them.

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::plan::FaultKind;

/// Longest delay of a message on a healthy network, in milliseconds.
const DELAY_MS_MAX: u64 = 4;
/// How late a doubled message may be, in milliseconds: later than deadlines and leases.
const ECHO_MS_MAX: u64 = 40_000;

/// What is wrong with the network now. Faults of one kind add up.
#[derive(Clone, Debug, Default)]
pub(super) struct Fabric {
    faults: Vec<FaultKind>,
}

impl Fabric {
    pub(super) fn begin(&mut self, fault: FaultKind) {
        self.faults.push(fault);
    }

    pub(super) fn end(&mut self, fault: FaultKind) {
        if let Some(at) = self.faults.iter().position(|known| *known == fault) {
            self.faults.swap_remove(at);
        }
    }

    /// Whether what one host says can reach another.
    pub(super) fn carries(&self, from: usize, to: usize) -> bool {
        from == to
            || !self.faults.iter().any(|fault| match *fault {
                FaultKind::Cut { side } => side.has(from) != side.has(to),
                FaultKind::OneWay { from: said, to: heard } => said.has(from) && heard.has(to),
                FaultKind::Pair { a, b } => (from, to) == (a, b) || (from, to) == (b, a),
                _ => false,
            })
    }

    /// Whether two hosts hear each other.
    pub(super) fn connects(&self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    /// After how long a message arrives, each time that it does.
    pub(super) fn fate(&self, rng: &mut SmallRng, from: usize, to: usize) -> [Option<u64>; 2] {
        if from == to {
            return [Some(0), None];
        }
        if !self.carries(from, to) {
            return [None, None];
        }
        let (mut lost, mut doubled, mut slow) = (0, 0, DELAY_MS_MAX);
        for fault in &self.faults {
            match *fault {
                FaultKind::Lossy { lost: l, doubled: d } => (lost, doubled) = (lost.max(l), doubled.max(d)),
                FaultKind::Slow { ms } => slow = slow.max(ms),
                _ => {}
            }
        }
        let first = (!rng.random_ratio(lost, 1_000)).then(|| rng.random_range(1..=slow));
        let again = rng.random_ratio(doubled, 1_000).then(|| {
            let late = if rng.random_ratio(1, 50) { ECHO_MS_MAX } else { slow * 4 };
            rng.random_range(1..=late)
        });
        [first, again]
    }
}

/// The boot clock of a host: it runs too fast or too slow, and begins anew when the machine does.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootClock {
    booted_ms: u64,
    shows_ms: u64,
    ppm: i64,
}

impl BootClock {
    pub(super) fn new(now: u64, shows_ms: u64, ppm: i64) -> Self {
        Self { booted_ms: now, shows_ms, ppm }
    }

    /// What it shows.
    pub(super) fn at(&self, now: u64) -> u64 {
        let elapsed = now - self.booted_ms;
        self.shows_ms + scale(elapsed, 1_000_000 + self.ppm, 1_000_000)
    }

    /// The first instant at which it shows at least this.
    pub(super) fn when(&self, local_ms: u64) -> u64 {
        let elapsed = local_ms.saturating_sub(self.shows_ms).min(u64::MAX / 4_000_000);
        let mut at = self.booted_ms + scale(elapsed, 1_000_000, 1_000_000 + self.ppm);
        while self.at(at) < local_ms.min(u64::MAX / 4_000_000) {
            at += 1;
        }
        at
    }
}

fn scale(ms: u64, by: i64, of: i64) -> u64 {
    u64::try_from(i128::from(ms) * i128::from(by) / i128::from(of)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::hosts::Hosts;

    #[test]
    fn a_clock_that_runs_wrong_is_inverted_exactly() {
        for ppm in [-40_000, -1, 0, 7, 40_000] {
            let clock = BootClock::new(1_000, 77, ppm);
            for local in (77..60_000).step_by(371) {
                let at = clock.when(local);
                assert!(clock.at(at) >= local && (at == 1_000 || clock.at(at - 1) < local), "{ppm} {local}");
            }
        }
    }

    #[test]
    fn a_cut_in_one_direction_carries_the_other() {
        let mut fabric = Fabric::default();
        let one_way = FaultKind::OneWay { from: Hosts::of([0]), to: Hosts::of([1, 2]) };
        fabric.begin(one_way);
        assert!(!fabric.carries(0, 1) && fabric.carries(1, 0) && !fabric.connects(0, 2));
        fabric.end(one_way);
        assert!(fabric.connects(0, 1));
    }
}
