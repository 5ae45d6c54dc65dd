//! S5: nothing is begun after its deadline, where a voter lies.

use std::collections::BTreeMap;

use skep_protocol::limits;
use skep_protocol::time::LogInstant;

use super::{Invariant, Seen};

/// By how many milliseconds this is stricter than a node about a clock that is ahead. The line after it: the clock that
/// this reckons with goes on slower than the node's own clock, by one part in this many. So this is always a little
/// less than what a node has.
const LESS_MS: u64 = 1_000;
const SLOWER_ONE_IN: u64 = 400;
/// How far ahead of a node's belief a clock may be so that the node surely believes it, and how long an era may have
/// lasted, in milliseconds.
const AHEAD_MS: u64 = limits::CLOCK_LEAD_MS_MAX - LESS_MS;

/// The least time that a clock had reached.
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

    /// What a node that believes this, or more, believes at least after it was told something; none if the node may
    /// doubt it. If an era is said to have lasted for long, the node may take only its beginning.
    fn once_told(self, told: Self) -> Option<Self> {
        let known = self.at(told.at_ms);
        if told.clock <= known || told.clock.checked_since_ms(known).is_some_and(|ahead_ms| ahead_ms <= AHEAD_MS) {
            return Some(told);
        }
        let lasted_ms = told.clock.ms_in_era();
        let begun = LogInstant::from_raw(told.clock.raw() - lasted_ms);
        let clock = if lasted_ms <= AHEAD_MS { told.clock } else { begun };
        (told.clock.era() > known.era()).then_some(Self { clock, ..told })
    }
}

/// What one run of a node was told of the shard's clock.
#[derive(Debug, Default)]
struct Told {
    run: u32,
    /// What the node believes at least, lies included: the node may doubt what is far ahead of that.
    least: Option<Least>,
    /// Whether it is unknown what the node believed first.
    is_unsure: bool,
    /// The true times that the node was told and had no reason to doubt, and those that its journals had, each later
    /// than the one before.
    truly: Vec<Least>,
}

impl Told {
    /// `taken`: whether the node surely heard it. It heard all that is true.
    fn hear(&mut self, told: Least, lie: bool, taken: bool) {
        if !taken {
            // Only the node knows whether it believes this, or what comes next.
            self.is_unsure |= self.least.is_none();
        }
        let believed = self.least.map_or(Some(told), |least| least.once_told(told));
        let Some(believed) = believed.filter(|_| taken && !self.is_unsure) else { return };
        if self.least.is_none_or(|least| believed.clock > least.at(told.at_ms)) {
            self.least = Some(believed);
        }
        if !lie {
            self.know(believed);
        }
    }

    fn know(&mut self, least: Least) {
        if self.truly.last().is_none_or(|known| known.at(least.at_ms) < least.clock) {
            self.truly.push(least);
        }
    }

    /// What the node knew at an instant of its clock.
    fn known_at(&self, boot_ms: u64) -> Option<Least> {
        self.truly.iter().rev().find(|known| known.at_ms <= boot_ms).copied()
    }
}

/// No lie takes back what a node was told truly of the shard's clock, nor what its journals have of it. A robot begins
/// nothing whose deadline has passed by two measures: what its node knew when the robot asked for the go-ahead, and the
/// time since. What a node was not told, it cannot know.
#[derive(Debug, Default)]
pub(super) struct AboveFloor {
    hosts: BTreeMap<usize, Told>,
}

impl AboveFloor {
    /// What a run of a host's node was told. Another run begins with nothing.
    fn of(&mut self, host: usize, run: u32) -> &mut Told {
        let told = self.hosts.entry(host).or_default();
        if told.run != run {
            *told = Told { run, ..Told::default() };
        }
        told
    }
}

impl Invariant for AboveFloor {
    fn name(&self) -> &'static str {
        "S5"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::ClockTold { host, run, boot_ms, clock, lie, taken } => {
                self.of(*host, *run).hear(Least { clock: *clock, at_ms: *boot_ms }, *lie, *taken);
            }
            Seen::FloorFound { host, run, boot_ms, floor } => {
                self.of(*host, *run).know(Least { clock: *floor, at_ms: *boot_ms });
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
        watch.see(&Seen::ClockTold { host: 1, run: 0, boot_ms, clock, lie, taken: true }, 0).unwrap();
    }

    /// The robot begins what it asked for half a second before.
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
    #[test]
    fn of_a_process_that_may_have_heard_a_lie_first_nothing_is_said() {
        let mut watch = AboveFloor::default();
        let lie = |boot_ms| Seen::ClockTold { host: 1, run: 0, boot_ms, clock: at(10), lie: true, taken: false };
        watch.see(&lie(1_000), 0).unwrap();
        told(&mut watch, 2_000, at(50_000), false);
        assert!(begins(&mut watch, 0, 3_000, at(20_000)));
        let mut watch = AboveFloor::default();
        told(&mut watch, 1_000, at(49_000), false);
        watch.see(&lie(1_500), 0).unwrap();
        told(&mut watch, 2_000, at(50_000), false);
        assert!(!begins(&mut watch, 0, 3_000, at(50_500)));
    }

    #[test]
    fn of_an_era_that_has_lasted_for_long_its_beginning_counts() {
        let mut watch = AboveFloor::default();
        let next = at(0).next_era();
        told(&mut watch, 1_000, at(10), true);
        told(&mut watch, 2_000, next.plus_ms(90_000), false);
        assert!(begins(&mut watch, 0, 3_000, next.plus_ms(50_000)));
        assert!(!begins(&mut watch, 0, 3_000, next));
    }

    #[test]
    fn what_a_journal_has_of_the_clock_counts_from_when_it_is_found() {
        let mut watch = AboveFloor::default();
        told(&mut watch, 1_000, at(10), true);
        watch.see(&Seen::FloorFound { host: 1, run: 0, boot_ms: 2_000, floor: at(70_000) }, 0).unwrap();
        assert!(begins(&mut watch, 0, 2_400, at(20_000)), "it asked before that");
        assert!(begins(&mut watch, 0, 3_000, at(71_000)));
        assert!(!begins(&mut watch, 0, 3_000, at(70_900)));
        assert!(begins(&mut watch, 1, 3_000, at(20_000)), "another process has not found it");
    }
}
