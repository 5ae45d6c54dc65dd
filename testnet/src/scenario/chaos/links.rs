//! Links of a chaos run: each direction between two nodes has a delay of its own, and faults come on top.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::site::relay::{Law, Line, Relay};

/// The shortest and longest time that a datagram is under way, in milliseconds: one way, and always the same between
/// two nodes.
const WAY_MS_MIN: u64 = 5;
pub(super) const WAY_MS_MAX: u64 = 300;
/// What a thin link carries, in bytes a second: 256 kbit/s.
const THIN_BYTES_PER_S: u64 = 32_000;

/// The delays of all directions.
pub(super) struct Delays(BTreeMap<(usize, usize), Law>);

impl Delays {
    /// Draws the delays, and sets them at the relay.
    pub(super) fn draw(relay: &Relay, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0xDE1A);
        let delays =
            Self(relay.pairs().map(|way| (way, Law::delay(rng.random_range(WAY_MS_MIN..=WAY_MS_MAX)))).collect());
        delays.impose(relay, &BTreeSet::new(), &BTreeSet::new());
        delays
    }

    /// Sets the delays at the relay, with these directions cut, and with thin links around these nodes.
    pub(super) fn impose(&self, relay: &Relay, cut: &BTreeSet<(usize, usize)>, thin: &BTreeSet<usize>) {
        for ((from, to), delay) in &self.0 {
            let mut law = *delay;
            if thin.contains(from) || thin.contains(to) {
                law = law.through(Line::of(THIN_BYTES_PER_S));
            }
            if cut.contains(&(*from, *to)) {
                law = law.cut();
            }
            if relay.law(*from, *to) != law {
                relay.set(*from, *to, law);
            }
        }
    }
}
