//! S5: nothing is begun after its deadline, where a voter lies.

use std::collections::BTreeMap;

use skep_protocol::limits;
use skep_protocol::time::LogInstant;

use super::{Invariant, Seen};

/// How much less a clock may be ahead than a node believes at once, in milliseconds, and how much slower than the node's own
/// clock what it was told goes on: one part in so many. So it is always a little less than what a node has.
const LESS_MS: u64 = 1_000;
const SLOWER_ONE_IN: u64 = 400;

/// What a clock had come to at least.
#[derive(Clone, Copy, Debug)]
struct Least {
    clock: LogInstant,
    at_ms: u64,
}

impl Least {
    fn at(self, boot_ms: u64) -> LogInstant {
        let since = boot_ms.saturating_sub(self.at_ms);
        self.clock.plus_ms(since - since.div_ceil(SLOWER_ONE_IN))
    }
}

/// What one run of a node was told of the shard's clock.
#[derive(Debug, Default)]
struct Told {
    run: u32,
    /// The most that it may have believed, lies included.
    believed: Option<Least>,
    /// What it was told truly and had no reason to doubt, each later than the one before.
    truly: Vec<Least>,
}

impl Told {
    fn hear(&mut self, clock: LogInstant, at_ms: u64, lie: bool) {
        let before = self.believed.map(|believed| believed.at(at_ms));
        let is_later = before.is_none_or(|before| clock > before);
        // That an era began only a true answer shows: what lies say of that is not held to anything.
        let is_near = before.is_none_or(|before| match clock.checked_since_ms(before) {
            Some(ahead_ms) => ahead_ms <= limits::CLOCK_LEAD_MS_MAX - LESS_MS,
            None => !lie,
        });
        if is_later && !is_near {
            return;
        }
        let heard = Least { clock, at_ms };
        if is_later {
            self.believed = Some(heard);
        }
        if !lie && self.truly.last().is_none_or(|known| known.at(at_ms) < clock) {
            self.truly.push(heard);
        }
    }

    /// What it knew at an instant of its clock.
    fn known_at(&self, boot_ms: u64) -> Option<Least> {
        self.truly.iter().rev().find(|known| known.at_ms <= boot_ms).copied()
    }
}

/// What a node was told truly of the shard's clock no lie takes back: a robot begins nothing whose deadline has passed by what
/// its node knew when the robot asked for the word to go, and the time since. What a node was not told, it cannot know.
#[derive(Debug, Default)]
pub(super) struct AboveFloor {
    hosts: BTreeMap<usize, Told>,
}

impl Invariant for AboveFloor {
    fn name(&self) -> &'static str {
        "S5"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::ClockTold { host, run, boot_ms, clock, lie } => {
                let told = self.hosts.entry(*host).or_default();
                if told.run != *run {
                    *told = Told { run: *run, ..Told::default() };
                }
                told.hear(*clock, *boot_ms, *lie);
            }
            Seen::Began { host, run, boot_ms, asked_ms, agent, command, deadline } => {
                let told = self.hosts.get(host).filter(|told| told.run == *run);
                let Some(known) = told.and_then(|told| told.known_at(*asked_ms)) else { return Ok(()) };
                let least = known.at(*boot_ms);
                if least > *deadline {
                    return Err(format!(
                        "{agent} on host {host} begins {command}, which was valid until {deadline}, at {least} or later"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::ids::CommandId;
    use skep_protocol::text::AgentId;

    fn at(ms: u64) -> LogInstant {
        LogInstant::from_raw(ms)
    }

    fn told(watch: &mut AboveFloor, boot_ms: u64, clock: LogInstant, lie: bool) {
        watch.see(&Seen::ClockTold { host: 1, run: 0, boot_ms, clock, lie }, 0).unwrap();
    }

    /// Has the robot begin what it asked for half a second before.
    fn begins(watch: &mut AboveFloor, run: u32, boot_ms: u64, deadline: LogInstant) -> bool {
        let (agent, command) = (AgentId::new("robot-1").unwrap(), CommandId::from_bytes([1; 16]));
        let (asked_ms, agent) = (boot_ms - 500, &agent);
        let seen = Seen::Began { host: 1, run, boot_ms, asked_ms, agent, command, deadline };
        watch.see(&seen, 0).is_ok()
    }

    #[test]
    fn a_deadline_that_has_passed_by_what_was_told_truly_is_found_whatever_is_said_after_it() {
        let mut watch = AboveFloor::default();
        told(&mut watch, 1_000, at(50_000), false);
        told(&mut watch, 2_000, at(10), true);
        told(&mut watch, 2_100, at(10), true);
        assert!(begins(&mut watch, 0, 5_000, at(54_000)));
        assert!(!begins(&mut watch, 0, 5_000, at(53_900)));
        assert!(!begins(&mut watch, 0, 2_200, at(20_000)));
        assert!(begins(&mut watch, 1, 2_200, at(20_000)), "another process was not told");
        let next = at(50_000).next_era();
        told(&mut watch, 6_000, next.plus_ms(9_000), false);
        told(&mut watch, 6_100, next.plus_ms(10), true);
        assert!(!begins(&mut watch, 0, 7_000, next.plus_ms(9_000)));
    }

    #[test]
    fn only_what_was_known_when_it_was_asked_for_and_could_be_believed_counts() {
        let mut watch = AboveFloor::default();
        told(&mut watch, 1_000, at(10), true);
        told(&mut watch, 2_000, at(90_000), false);
        assert!(begins(&mut watch, 0, 3_000, at(20_000)), "it was told that the clock was far behind that");
        told(&mut watch, 2_900, at(50_000), false);
        assert!(begins(&mut watch, 0, 3_000, at(20_000)), "it asked before that");
        assert!(!begins(&mut watch, 0, 3_400, at(20_000)));
        let mut watch = AboveFloor::default();
        told(&mut watch, 1_000, at(0).next_era(), true);
        told(&mut watch, 2_000, at(50_000), false);
        assert!(!begins(&mut watch, 0, 3_000, at(20_000)), "a lie from far ahead takes nothing back");
    }
}
