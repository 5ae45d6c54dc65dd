//! L5: hosts that do not vote follow.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Seen};
use crate::sim::plan::Plan;

/// The attempts of one piece of work within which a host reaches a new leader that has announced itself: at the host
/// that it asks when the leader begins to lead, at another voter, and at the host that this voter names.
const ATTEMPTS_MAX: u32 = 3;
/// The same for a leader that has not announced itself. Every third turn is that of a host that does not vote; it may
/// name a deposed leader, which the asking host follows up to three times. And a voter that has just started knows no
/// leader.
const SILENT_ATTEMPTS_MAX: u32 = ATTEMPTS_MAX + 5;
/// How long attempts may go on, in milliseconds: a host has no time for more attempts than that.
const TRIES_MS_MAX: u64 = 5_000;

/// What a host has tried since the present leader began to lead.
#[derive(Debug)]
struct Tries {
    since_ms: u64,
    /// The attempts of each piece of work.
    attempts: BTreeMap<u64, u32>,
}

/// From when a new leader begins to lead, every host that does not vote and has something to ask reaches it within a
/// number of attempts, however many hosts there are. If the election did not take too long, no robot of such a host is
/// without a lease meanwhile.
pub(super) struct Followed {
    judged: bool,
    voters: usize,
    attempts_max: u32,
    /// How long a site may be without a leader so that leases outlast it, in milliseconds; none if the leader does not
    /// announce itself.
    bridged_ms: Option<u64>,
    fell_at: Option<u64>,
    leads_since: Option<u64>,
    reached: BTreeSet<usize>,
    tries: BTreeMap<usize, Tries>,
}

impl Followed {
    pub(super) fn new(plan: &Plan) -> Self {
        // Of nine tenths of a lease, the last renewal is up to a fifth and a keep-alive old, and a new leader confirms
        // the third heartbeat, a fifth apart, at the latest: before it has, it learns which hosts ask, and tells of
        // what it holds. All that is on clocks that run wrong.
        let bridged_ms = (plan.lease_ms * 24 / 100).saturating_sub(600);
        Self {
            judged: plan.follows,
            voters: plan.voters,
            attempts_max: if plan.announces { ATTEMPTS_MAX } else { SILENT_ATTEMPTS_MAX },
            bridged_ms: plan.announces.then_some(bridged_ms),
            fell_at: None,
            leads_since: None,
            reached: BTreeSet::new(),
            tries: BTreeMap::new(),
        }
    }

    fn tried(&mut self, host: usize, key: u64, now: u64) -> Result<(), String> {
        // How hosts find the very first leader is another matter: no host knows yet which ones vote.
        if self.fell_at.is_none() || self.leads_since.is_none() || host < self.voters || self.reached.contains(&host) {
            return Ok(());
        }
        let tries = self.tries.entry(host).or_insert_with(|| Tries { since_ms: now, attempts: BTreeMap::new() });
        let attempts = tries.attempts.entry(key).or_default();
        *attempts += 1;
        if *attempts > self.attempts_max {
            return Err(format!("host {host} tries one thing {attempts} times and does not reach the new leader"));
        }
        Ok(())
    }

    fn lapsed(&self, robot: usize, host: usize, now: u64) -> Result<(), String> {
        let Some(bridged_ms) = self.bridged_ms.filter(|_| host >= self.voters) else { return Ok(()) };
        let gap_ms = self.fell_at.map_or(0, |fell| self.leads_since.unwrap_or(now).saturating_sub(fell));
        if gap_ms > bridged_ms {
            return Ok(());
        }
        Err(format!("robot-{robot} on host {host} is without a lease, though no host led for only {gap_ms} ms"))
    }
}

impl Invariant for Followed {
    fn name(&self) -> &'static str {
        "L5"
    }

    fn see(&mut self, seen: &Seen, now: u64) -> Result<(), String> {
        if !self.judged {
            return Ok(());
        }
        match seen {
            Seen::Fell => {
                (self.fell_at, self.leads_since) = (Some(now), None);
                self.tries.clear();
            }
            Seen::Leads => {
                self.leads_since = Some(now);
                self.reached.clear();
                self.tries.clear();
            }
            Seen::Tried { host, key } => return self.tried(*host, *key, now),
            Seen::Reached { host } => {
                self.reached.insert(*host);
                self.tries.remove(host);
            }
            Seen::Lapsed { robot, host } => return self.lapsed(*robot, *host, now),
            _ => {}
        }
        Ok(())
    }

    fn tick(&mut self, now: u64) -> Result<(), String> {
        let late = self.tries.iter().find(|(_, tries)| now.saturating_sub(tries.since_ms) > TRIES_MS_MAX);
        match late {
            Some((host, tries)) => Err(format!("host {host} does not reach the new leader: {tries:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER_MS: u64 = 500;

    /// A site whose leader fell at 1,000 ms, and was followed by another at 1,500 ms.
    fn failed_over(seed: u64) -> Followed {
        let mut watch = Followed::new(&Plan::many(seed, 20, None));
        watch.see(&Seen::Leads, 100).unwrap();
        watch.see(&Seen::Reached { host: 10 }, 150).unwrap();
        watch.see(&Seen::Fell, 1_000).unwrap();
        (0..50).for_each(|_| watch.see(&Seen::Tried { host: 10, key: 7 }, 1_200).unwrap());
        watch.see(&Seen::Leads, 1_000 + AFTER_MS).unwrap();
        watch
    }

    fn try_times(watch: &mut Followed, key: u64, times: u32) -> Result<(), String> {
        (0..times).try_for_each(|_| watch.see(&Seen::Tried { host: 10, key }, 2_000))
    }

    #[test]
    fn one_attempt_more_than_the_hints_promise_is_found_whatever_else_is_tried() {
        for (seed, most) in [(2, ATTEMPTS_MAX), (1, SILENT_ATTEMPTS_MAX)] {
            let mut watch = failed_over(seed);
            try_times(&mut watch, 1, most).unwrap();
            try_times(&mut watch, 2, most).unwrap();
            assert!(try_times(&mut watch, 1, 1).is_err());
            let mut watch = failed_over(seed);
            try_times(&mut watch, 1, most).unwrap();
            watch.see(&Seen::Reached { host: 10 }, 2_010).unwrap();
            try_times(&mut watch, 1, 100).unwrap();
            watch.tick(60_000).unwrap();
        }
    }

    #[test]
    fn a_host_that_asks_and_never_reaches_the_leader_is_found() {
        let mut watch = failed_over(2);
        try_times(&mut watch, 1, 1).unwrap();
        watch.tick(2_000 + TRIES_MS_MAX).unwrap();
        assert!(watch.tick(2_001 + TRIES_MS_MAX).is_err());
    }

    #[test]
    fn a_lease_that_lapses_is_found_unless_nobody_led_for_too_long_or_nobody_was_told() {
        let lapsed = Seen::Lapsed { robot: 10, host: 10 };
        assert!(failed_over(2).see(&lapsed, 6_000).is_err());
        assert!(failed_over(2).see(&Seen::Lapsed { robot: 1, host: 1 }, 6_000).is_ok(), "it may have been killed");
        assert!(failed_over(1).see(&lapsed, 6_000).is_ok());
        let mut watch = failed_over(2);
        watch.see(&Seen::Fell, 8_000).unwrap();
        watch.see(&Seen::Leads, 14_000).unwrap();
        assert!(watch.see(&lapsed, 15_000).is_ok());
    }
}
