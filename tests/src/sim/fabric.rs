//! The network between hosts, and the clocks on them.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::plan::{Far, FaultKind};

/// The longest delay of a message on a healthy network, in milliseconds.
const DELAY_MS_MAX: u64 = 4;
/// How late a doubled message may be, in milliseconds: later than deadlines and leases.
const ECHO_MS_MAX: u64 = 40_000;

/// How long entries may keep a thin link busy at a time, in milliseconds.
const BULK_MS_MAX: u64 = 500;

/// How much a message loads a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: u64,
    /// Whether the message waits for others of its kind, and delays them. A small message passes beside them.
    pub(super) bulk: bool,
}

/// What is wrong with the network at present. Faults of one kind add up.
#[derive(Clone, Debug, Default)]
pub(super) struct Fabric {
    faults: Vec<FaultKind>,
    far: Option<Far>,
    /// Counts the beginnings and ends of faults.
    version: u64,
    /// Until when the directions of thin links are busy.
    busy: BTreeMap<(usize, usize), u64>,
}

impl Fabric {
    pub(super) fn new(far: Option<Far>) -> Self {
        Self { far, ..Self::default() }
    }

    pub(super) fn begin(&mut self, fault: FaultKind) {
        self.version += 1;
        self.faults.push(fault);
    }

    pub(super) fn end(&mut self, fault: FaultKind) {
        self.version += 1;
        if let Some(at) = self.faults.iter().position(|known| *known == fault) {
            self.faults.swap_remove(at);
        }
    }

    /// A number that changes whenever other hosts may reach each other than before.
    pub(super) fn version(&self) -> u64 {
        self.version
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

    /// How much longer the way from one host to another is than on a healthy network, in milliseconds.
    pub(super) fn far_ms(&self, from: usize, to: usize) -> u64 {
        self.far.filter(|far| far.side.has(from) != far.side.has(to)).map_or(0, |far| far.ms)
    }

    /// How many kilobits a second the link between two hosts carries; none if there is no limit.
    fn kbit(&self, from: usize, to: usize) -> Option<u64> {
        let of = |fault: &FaultKind| match *fault {
            FaultKind::Thin { a, b, kbit } if (from, to) == (a, b) || (from, to) == (b, a) => Some(kbit),
            _ => None,
        };
        self.faults.iter().filter_map(of).min()
    }

    /// How many bytes of entries may be sent on a link at once; none while it is busy with others.
    pub(super) fn bulk_bytes(&self, from: usize, to: usize, now: u64) -> u64 {
        let is_busy = self.busy.get(&(from, to)).is_some_and(|until| *until > now);
        match self.kbit(from, to) {
            None => u64::MAX,
            Some(_) if is_busy => 0,
            Some(kbit) => BULK_MS_MAX * kbit / 8,
        }
    }

    /// How much later a message arrives because of the link that it uses, in milliseconds.
    fn way_ms(&mut self, from: usize, to: usize, load: Load, now: u64) -> u64 {
        let far = self.far_ms(from, to);
        let Some(kbit) = self.kbit(from, to) else { return far };
        let takes = load.bytes * 8 / kbit;
        if !load.bulk {
            return far + takes;
        }
        let busy = self.busy.entry((from, to)).or_default();
        *busy = (*busy).max(now) + takes;
        far + *busy - now
    }

    /// After how long a message arrives, for each time that it arrives.
    pub(super) fn fate(
        &mut self,
        rng: &mut SmallRng,
        (from, to): (usize, usize),
        load: Load,
        now: u64,
    ) -> [Option<u64>; 2] {
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
        let way = self.way_ms(from, to, load, now);
        [first.map(|ms| ms + way), again.map(|ms| ms + way)]
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

    /// What the clock shows.
    pub(super) fn at(&self, now: u64) -> u64 {
        let elapsed = now - self.booted_ms;
        self.shows_ms + scale(elapsed, 1_000_000 + self.ppm, 1_000_000)
    }

    /// The first instant at which the clock shows at least this.
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
    use rand::SeedableRng as _;

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

    #[test]
    fn hosts_that_are_far_are_so_each_way_and_only_from_the_others() {
        let mut fabric = Fabric::new(Some(Far { side: Hosts::of([0, 2]), ms: 300 }));
        assert_eq!([(0, 1), (1, 2), (0, 2), (1, 3)].map(|(from, to)| fabric.far_ms(from, to)), [300, 300, 0, 0]);
        let mut rng = SmallRng::seed_from_u64(1);
        let load = Load { bytes: 1_000_000, bulk: true };
        let [first, _] = fabric.fate(&mut rng, (0, 1), load, 5_000);
        assert!(first.is_some_and(|ms| (301..=300 + DELAY_MS_MAX).contains(&ms)), "it carries any number of bytes");
    }

    #[test]
    fn what_is_large_waits_its_turn_on_a_thin_link_and_what_is_small_goes_beside_it() {
        let mut fabric = Fabric::default();
        fabric.begin(FaultKind::Thin { a: 0, b: 1, kbit: 80 });
        let (large, small) = (Load { bytes: 10_000, bulk: true }, Load { bytes: 100, bulk: false });
        assert_eq!(fabric.bulk_bytes(1, 0, 5_000), 5_000);
        assert_eq!([5_000, 5_100].map(|now| fabric.way_ms(1, 0, large, now)), [1_000, 1_900]);
        assert_eq!(fabric.bulk_bytes(1, 0, 6_999), 0);
        assert_eq!(fabric.way_ms(1, 0, small, 5_200), 10);
        assert_eq!((fabric.way_ms(0, 1, large, 5_200), fabric.way_ms(0, 2, large, 5_200)), (1_000, 0));
    }
}
