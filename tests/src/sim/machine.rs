//! A machine as all others see it.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_engine::StreamKey;

use super::fabric::BootClock;
use super::parcel::Event;

/// One machine: whether its node runs, what its clock shows, and which peers are connected to it.
pub(super) struct Machine {
    pub(super) up: bool,
    /// Counts the starts of its node.
    pub(super) run: u32,
    /// How many faults suspend it at present.
    pub(super) suspended: u32,
    /// What reached it while it was suspended.
    pub(super) deferred: Vec<Event>,
    pub(super) clock: BootClock,
    pub(super) ppm: i64,
    /// Streams of robots' software: the robot, and which of its runs.
    pub(super) streams: BTreeMap<StreamKey, (usize, u32)>,
}

impl Machine {
    /// A running machine. Its clock is off by this many millionths.
    pub(super) fn new(ppm: i64, rng: &mut SmallRng) -> Self {
        let shows = rng.random_range(0..1_000_000);
        Self {
            up: true,
            run: 0,
            suspended: 0,
            deferred: Vec::new(),
            clock: BootClock::new(0, shows, ppm),
            ppm,
            streams: BTreeMap::new(),
        }
    }

    /// Whether its node does anything at present.
    pub(super) fn is_awake(&self) -> bool {
        self.up && self.suspended == 0
    }

    /// Whether its node does anything at present. What reaches it while it is suspended waits.
    pub(super) fn takes(&mut self, event: impl FnOnce() -> Event) -> bool {
        if self.up && self.suspended > 0 {
            self.deferred.push(event());
        }
        self.is_awake()
    }
}
