//! Placement's memory of the steps of its term, which keeps it from undoing them.

use std::collections::BTreeMap;

use skep_protocol::time::LogInstant;

use super::step::Step;
use super::world::{Candidate, Copied, Link, PlacementConfig, Seat, World};

pub(super) const HOUR_MS: u64 = 3_600_000;

/// What happened since the leader began. Entries are of the last hour, or of a node that may vote.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    begun: LogInstant,
    steps: Vec<(LogInstant, Step)>,
    /// Learners that did not catch up, with the connection under which they did not.
    slow: BTreeMap<Seat, LogInstant>,
    /// Voters to which the lead was handed and that did not take it: when, and under which connection.
    handed: BTreeMap<Seat, (LogInstant, LogInstant)>,
}

impl Memory {
    pub(super) fn new(now: LogInstant) -> Self {
        Self { begun: now, steps: Vec::new(), slow: BTreeMap::new(), handed: BTreeMap::new() }
    }

    /// Notes a step that was carried out, or tried.
    pub(super) fn note(&mut self, step: &Step, world: &World, config: &PlacementConfig, now: LogInstant) {
        let kept_ms = HOUR_MS.max(config.settle_ms);
        self.steps.retain(|(at, _)| now.since_ms(*at) < kept_ms);
        self.steps.push((now, step.clone()));
        if let Step::TransferLead(to) = step
            && let Some(candidate) = world.candidates.get(&to.node)
        {
            self.handed.insert(*to, (now, candidate.link.since()));
        }
    }

    /// Notes which learners are slow, and forgets nodes that may not vote any longer.
    pub(super) fn look(&mut self, world: &World, config: &PlacementConfig, now: LogInstant) {
        for seat in &world.membership.learners {
            let Some(candidate) = world.candidates.get(&seat.node) else { continue };
            if let (Link::Connected { since }, Copied::Behind { since: behind }) = (candidate.link, candidate.log)
                && now.since_ms(since.max(behind)) >= config.catch_up_ms
            {
                self.slow.insert(*seat, since);
            }
        }
        let is_known =
            |seat: &Seat| world.candidates.get(&seat.node).is_some_and(|c| c.incarnation == Some(seat.incarnation));
        self.slow.retain(|seat, _| is_known(seat));
        self.handed.retain(|seat, _| is_known(seat));
    }

    /// For how long this leader leads, in milliseconds.
    pub(super) fn age_ms(&self, now: LogInstant) -> u64 {
        now.since_ms(self.begun)
    }

    /// How long ago the last step was, in milliseconds; none if there was none.
    pub(super) fn since_last_ms(&self, now: LogInstant) -> Option<u64> {
        self.steps.last().map(|(at, _)| now.since_ms(*at))
    }

    /// Number of steps in the last hour.
    pub(super) fn in_hour(&self, now: LogInstant) -> usize {
        self.steps.iter().filter(|(at, _)| now.since_ms(*at) < HOUR_MS).count()
    }

    /// Whether a seat came, by a step within some time.
    pub(super) fn came(&self, seat: Seat, within_ms: u64, now: LogInstant) -> bool {
        self.steps.iter().any(|(at, step)| now.since_ms(*at) < within_ms && step.comes().contains(&seat))
    }

    /// Whether a seat went, by a step within some time.
    pub(super) fn went(&self, seat: Seat, within_ms: u64, now: LogInstant) -> bool {
        self.steps.iter().any(|(at, step)| now.since_ms(*at) < within_ms && step.goes().contains(&seat))
    }

    /// Whether a node did not catch up since it connected.
    pub(super) fn is_slow(&self, seat: Seat, candidate: &Candidate) -> bool {
        self.slow.get(&seat) == Some(&candidate.link.since())
    }

    /// Whether a voter did not take the lead since it connected.
    pub(super) fn declined(&self, seat: Seat, candidate: &Candidate) -> bool {
        self.handed.get(&seat).is_some_and(|(_, since)| *since == candidate.link.since())
    }

    /// Whether a voter was handed the lead within some time, and did not take it.
    pub(super) fn declined_lately(&self, seat: Seat, within_ms: u64, now: LogInstant) -> bool {
        self.handed.get(&seat).is_some_and(|(at, _)| now.since_ms(*at) < within_ms)
    }
}
