//! Choices: which spare votes next, which voter leaves first, and which one leads.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use skep_protocol::mutant::{Mutant, is_on};

use super::look::{Look, without};
use super::memory::HOUR_MS;
use super::step::{Advice, Step, Why};
use super::world::{Candidate, Power, Seat, Vote};

/// Most learners of a shard at once. One more spare waits until one of them votes, or goes.
const LEARNERS_MAX: usize = 5;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Spares that are to vote.
pub(super) struct Need<'a> {
    /// Number of spares.
    pub(super) seats: usize,
    /// The voters beside them.
    pub(super) beside: &'a BTreeSet<Seat>,
    pub(super) vote: Vote,
    /// The only seat that will do; none if any will.
    pub(super) only: Option<Seat>,
    /// Whether a slow spare is better than none.
    pub(super) urgent: bool,
    pub(super) why: Why,
}

/// The supply for a need.
pub(super) enum Supply {
    /// As many learners as are needed have the log.
    Ready(Vec<Seat>),
    /// The leader has to do this first, or to wait for it.
    First(Advice),
    /// There is no spare.
    Nobody,
}

/// The class of a node's uptime, by hours and days: what is up for longer is not better for some minutes more.
fn uptime_class(candidate: &Candidate) -> u8 {
    match candidate.uptime_ms {
        0..HOUR_MS => 0,
        HOUR_MS..DAY_MS => 1,
        DAY_MS.. => 2,
    }
}

fn charge_class(candidate: &Candidate) -> u8 {
    match candidate.power {
        Power::Mains => 5,
        Power::Battery { percent } => percent.min(99) / 20,
    }
}

impl Look<'_> {
    /// How good a spare is beside some voters: more is better.
    fn rank(&self, seat: Seat, beside: &BTreeSet<Seat>) -> impl Ord + use<> {
        let candidate = self.candidate(seat);
        let domains = self.domains(beside);
        (
            !self.is_slow(seat),
            self.learners().contains(&seat),
            candidate.is_some_and(|candidate| !domains.contains(&candidate.domain.as_deref())),
            candidate.map_or(0, charge_class),
            candidate.map_or(0, uptime_class),
            seat,
        )
    }

    /// The best of some spares.
    pub(super) fn best(&self, spares: Vec<Seat>, beside: &BTreeSet<Seat>) -> Option<Seat> {
        spares.into_iter().max_by_key(|seat| self.rank(*seat, beside))
    }

    /// Finds learners that can vote at once, or says what comes first.
    pub(super) fn supply(&self, need: &Need<'_>) -> Supply {
        let mut spares = self.possible(need.vote, need.beside);
        spares.retain(|seat| need.only.is_none_or(|only| only == *seat));
        spares.sort_by_cached_key(|seat| Reverse(self.rank(*seat, need.beside)));
        let (learners, mut others): (Vec<Seat>, Vec<Seat>) =
            spares.into_iter().partition(|seat| self.learners().contains(seat));
        let ready: Vec<Seat> =
            learners.iter().copied().filter(|seat| self.is_current(*seat)).take(need.seats).collect();
        if ready.len() >= need.seats {
            return Supply::Ready(ready);
        }
        let under_way: Vec<Seat> = learners.iter().copied().filter(|seat| !self.is_slow(*seat)).collect();
        let fresh: Vec<Seat> = others.iter().copied().filter(|seat| !self.is_slow(*seat)).collect();
        if !(need.urgent && learners.is_empty() && fresh.is_empty()) {
            others = fresh;
        }
        if under_way.len() < need.seats
            && let Some(next) = others.first()
        {
            let has_room = self.learners().len() < LEARNERS_MAX;
            let mut leavers = self.learners().iter().filter(|seat| self.is_slow(**seat) && self.may_go(**seat));
            match leavers.next().filter(|_| !has_room) {
                Some(leaver) => {
                    let why = Why::NotNeeded(leaver.node);
                    return Supply::First(Advice::of(Step::Remove(vec![*leaver]), why));
                }
                None if has_room => return Supply::First(Advice::of(Step::AddLearner(*next), need.why)),
                None => {}
            }
        }
        let awaited = under_way.iter().find(|seat| !self.is_current(**seat)).or(under_way.first());
        match awaited.or(learners.first().filter(|_| need.urgent)) {
            Some(seat) => Supply::First(Advice::nothing(Why::CatchingUp(seat.node))),
            None => Supply::Nobody,
        }
    }

    /// How much is lost with a voter: the voter with least leaves first.
    pub(super) fn worth(&self, seat: Seat) -> impl Ord + use<> {
        let others = without(self.voters(), seat);
        (
            !self.is_gone(seat),
            !self.is_dead(seat),
            self.is_current(seat),
            !self.is_witness(seat),
            self.domains(&others) != self.domains(self.voters()),
            self.is_mains(seat),
            self.candidate(seat).map_or(0, uptime_class),
            seat,
        )
    }

    /// How good some voters are: copies, failure domains, and mains power. Nothing in it changes from hour to hour.
    pub(super) fn score(&self, voters: &BTreeSet<Seat>) -> (usize, usize, usize) {
        let copies = voters.iter().filter(|seat| !self.is_witness(**seat)).count();
        let mains = voters.iter().filter(|seat| self.is_mains(**seat)).count();
        (copies, self.domains(voters).len(), mains)
    }

    /// The voters that could take the lead.
    pub(super) fn heirs(&self) -> impl Iterator<Item = (Seat, &Candidate)> {
        let others = self.voters().iter().copied().filter(move |seat| *seat != self.leader());
        let able = others
            .filter(move |seat| self.is_current(*seat) && (!self.is_witness(*seat) || is_on(Mutant::WitnessLeads)));
        able.filter_map(move |seat| Some((seat, self.candidate(seat)?)))
    }

    /// The voter that takes the lead best, of those that did not decline it.
    pub(super) fn heir(&self) -> Option<Seat> {
        let willing = self.heirs().filter(|(seat, candidate)| !self.memory.declined(*seat, candidate));
        willing.min_by_key(|(seat, candidate)| (candidate.leads, !self.is_mains(*seat), *seat)).map(|(seat, _)| seat)
    }
}
