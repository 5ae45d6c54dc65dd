//! The choice of voters in a shard: its leader looks at the nodes that may vote, and takes one step at a time.
//!
//! A shard has five voters if five nodes in three failure domains may vote, or else three, or else one. Two nodes and a
//! witness have three; two nodes alone have one voter and a learner with a copy. A node learns first, then it votes,
//! then the old voter leaves. Placement replaces a voter that is silent or behind for
//! [`dead_for_ms`](PlacementConfig::dead_for_ms) if a spare has the log. It takes no step after which the voters that
//! answer are no quorum. A witness never leads.
//!
//! What changes often does not count: a sound voter leaves for a better one only by what it stores, its failure domain,
//! or mains power, never by the charge of a battery; no step undoes another one within the settle time; and an hour has
//! a limited number of steps. A new leader remembers no step, and waits for the settle time first.
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

    /// Notes a step that was carried out, or tried in vain. A vain step counts, too: placement does not try it without
    /// end.
    pub fn note(&mut self, step: &Step, world: &World, now: LogInstant) {
        self.memory.note(step, world, &self.config, now);
    }

    /// The next step, and its reason.
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

    /// Why no step that could wait is taken at this moment; none if one may be.
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

/// Why no step at all may be taken; none if one may be.
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
