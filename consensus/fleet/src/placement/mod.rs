//! Who votes in a shard: its leader looks at the nodes that may, and takes one step at a time.
//!
//! Five voters if five nodes in three failure domains may vote, or else three, or else one. Two nodes and a witness
//! have three; two nodes alone have one voter and a learner with a copy. A node learns first, then it votes, then the
//! old one leaves. A voter that is silent or behind for [`dead_for_ms`](PlacementConfig::dead_for_ms) is replaced if a
//! spare has the log. No step is taken after which the voters that answer are no quorum. A witness never leads.
//!
//! What swings does not count: a sound voter leaves for a better one only by what it stores, its failure domain, or
//! mains power, never by the charge of a battery; no step undoes another one within the settle time; and an hour has
//! so many steps. A new leader remembers none, and waits for the settle time first.
//!
//! Must not know how a step is carried out. Its driver asks with what the leader sees, carries out the step, and
//! [notes](Placement::note) it whatever came of it.

mod better;
mod choose;
mod look;
mod memory;
mod repair;
mod step;
mod world;

use skep_protocol::time::LogInstant;

use look::Look;
use memory::Memory;

pub use step::{Advice, Step, Why};
pub use world::{Candidate, Copied, Link, Membership, Mode, PlacementConfig, Power, Seat, Vote, Wanted, World};

/// The placement of one shard, under one leader.
#[derive(Clone, Debug)]
pub struct Placement {
    config: PlacementConfig,
    memory: Memory,
}

impl Placement {
    /// The placement of a leader that begins now.
    pub fn new(config: PlacementConfig, now: LogInstant) -> Self {
        Self { config, memory: Memory::new(now) }
    }

    /// A step was carried out, or tried in vain. What is tried in vain counts too: it is not tried without end.
    pub fn note(&mut self, step: &Step, world: &World, now: LogInstant) {
        self.memory.note(step, world, &self.config, now);
    }

    /// What to do next.
    pub fn decide(&mut self, world: &World, now: LogInstant) -> Advice {
        self.memory.look(world, &self.config, now);
        let look = Look { world, config: &self.config, memory: &self.memory, now };
        if let Some(why) = stands_still(world) {
            return Advice::nothing(why);
        }
        if let Some(advice) = look.enforce() {
            return advice;
        }
        if let Some(why) = self.waits(now) {
            return Advice::nothing(why);
        }
        let may_better = self.memory.in_hour(now) < self.config.steps_an_hour_max / 2;
        look.repair()
            .or_else(|| look.resize())
            .or_else(|| if may_better { look.better() } else { None })
            .or_else(|| look.tidy())
            .or_else(|| if may_better { look.spread() } else { None })
            .unwrap_or_else(|| Advice::nothing(look.summary()))
    }

    /// Why nothing is done for the moment that could wait.
    fn waits(&self, now: LogInstant) -> Option<Why> {
        if self.memory.age_ms(now) < self.config.settle_ms {
            Some(Why::JustBegun)
        } else if self.memory.since_last_ms(now).is_some_and(|ms| ms < self.config.pause_ms) {
            Some(Why::Pause)
        } else if self.memory.in_hour(now) >= self.config.steps_an_hour_max {
            Some(Why::HourFull)
        } else {
            None
        }
    }
}

/// Why nothing at all may be done.
fn stands_still(world: &World) -> Option<Why> {
    if world.mode == Mode::Manual {
        Some(Why::Manual)
    } else if world.membership.is_joint {
        Some(Why::UnderWay)
    } else if !world.membership.has_quorum {
        Some(Why::NoQuorum)
    } else {
        None
    }
}
