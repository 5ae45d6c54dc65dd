//! Facts about seats at one moment.

use std::collections::BTreeSet;

use skep_protocol::ids::NodeId;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::time::LogInstant;

use super::memory::Memory;
use super::world::{Candidate, Copied, Link, PlacementConfig, Power, Seat, Vote, World};

/// The world at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) world: &'a World,
    pub(super) config: &'a PlacementConfig,
    pub(super) memory: &'a Memory,
    pub(super) now: LogInstant,
}

impl<'a> Look<'a> {
    pub(super) fn voters(&self) -> &'a BTreeSet<Seat> {
        &self.world.membership.voters
    }

    pub(super) fn learners(&self) -> &'a BTreeSet<Seat> {
        &self.world.membership.learners
    }

    pub(super) fn leader(&self) -> Seat {
        self.world.membership.leader
    }

    /// The candidate of a seat; none if its node may not vote, or has another data directory.
    pub(super) fn candidate(&self, seat: Seat) -> Option<&'a Candidate> {
        let candidate = self.world.candidates.get(&seat.node)?;
        candidate.incarnation.is_none_or(|own| own == seat.incarnation).then_some(candidate)
    }

    pub(super) fn is_barred(&self, seat: Seat) -> bool {
        !self.world.candidates.contains_key(&seat.node)
    }

    /// Whether a seat never answers again, whatever its node does.
    pub(super) fn is_gone(&self, seat: Seat) -> bool {
        self.candidate(seat).is_none()
    }

    pub(super) fn is_witness(&self, seat: Seat) -> bool {
        self.world.candidates.get(&seat.node).is_some_and(|candidate| candidate.vote == Vote::Witness)
    }

    pub(super) fn is_mains(&self, seat: Seat) -> bool {
        self.candidate(seat).is_some_and(|candidate| candidate.power == Power::Mains)
    }

    /// Whether a member answers, and a quorum with it waits for nothing.
    pub(super) fn is_current(&self, seat: Seat) -> bool {
        let is = |candidate: &Candidate| {
            matches!(candidate.link, Link::Connected { .. }) && candidate.log == Copied::Current
        };
        seat == self.leader() || self.candidate(seat).is_some_and(is)
    }

    /// Whether a voter does not come back, as far as the leader can tell.
    pub(super) fn is_dead(&self, seat: Seat) -> bool {
        let is_silent = |candidate: &Candidate| match candidate.link {
            Link::Connected { .. } => false,
            Link::Silent { since } => self.now.since_ms(since) >= self.config.dead_for_ms,
        };
        seat != self.leader() && self.candidate(seat).is_none_or(is_silent)
    }

    /// Whether a voter answers and is behind all the time.
    pub(super) fn is_behind(&self, seat: Seat) -> bool {
        let is = |candidate: &Candidate| match (candidate.link, candidate.log) {
            (Link::Connected { since }, Copied::Behind { since: behind }) => {
                self.now.since_ms(since.max(behind)) >= self.config.dead_for_ms
            }
            (Link::Connected { .. } | Link::Silent { .. }, _) => false,
        };
        seat != self.leader() && self.candidate(seat).is_some_and(is)
    }

    /// Whether more than half of some voters answer at present, without waiting.
    pub(super) fn answers(&self, voters: &BTreeSet<Seat>) -> bool {
        let current = voters.iter().filter(|seat| self.is_current(**seat)).count();
        current > voters.len() / 2 || is_on(Mutant::QuorumNotAwaited)
    }

    /// Whether a seat may come: no step within the settle time took it out.
    fn may_come(&self, seat: Seat) -> bool {
        !self.memory.went(seat, self.config.settle_ms, self.now) || is_on(Mutant::StepsUndone)
    }

    /// Whether a seat may go: no step within the settle time took it in, or it never answers again.
    pub(super) fn may_go(&self, seat: Seat) -> bool {
        let just_came = self.memory.came(seat, self.config.settle_ms, self.now) && !is_on(Mutant::StepsUndone);
        self.is_gone(seat) || !just_came
    }

    pub(super) fn is_slow(&self, seat: Seat) -> bool {
        self.candidate(seat).is_some_and(|candidate| self.memory.is_slow(seat, candidate))
    }

    /// The nodes that are connected for some time and do not vote. Placement does not wait for one that lost its disk.
    pub(super) fn spares(&self) -> Vec<Seat> {
        let spare = |(node, candidate): (&NodeId, &Candidate)| {
            let seat = Seat { node: *node, incarnation: candidate.incarnation? };
            let is_back = self.voters().iter().any(|voter| voter.node == *node);
            let has_settled = match candidate.link {
                Link::Connected { since } => is_back || self.now.since_ms(since) >= self.config.settle_ms,
                Link::Silent { .. } => false,
            };
            (has_settled && !self.voters().contains(&seat)).then_some(seat)
        };
        self.world.candidates.iter().filter_map(spare).collect()
    }

    /// The spares that could vote as this beside some voters, without one that is slow.
    pub(super) fn usable(&self, vote: Vote, beside: &BTreeSet<Seat>) -> Vec<Seat> {
        let mut spares = self.possible(vote, beside);
        spares.retain(|seat| !self.is_slow(*seat));
        spares
    }

    /// The spares that could vote as this beside some voters: a node votes once.
    pub(super) fn possible(&self, vote: Vote, beside: &BTreeSet<Seat>) -> Vec<Seat> {
        let mut spares = self.spares();
        spares.retain(|seat| {
            self.is_witness(*seat) == (vote == Vote::Witness)
                && self.may_come(*seat)
                && beside.iter().all(|voter| voter.node != seat.node)
        });
        spares
    }

    /// The failure domains of some seats. All seats without a known one count as one domain.
    pub(super) fn domains<'s>(&self, seats: impl IntoIterator<Item = &'s Seat>) -> BTreeSet<Option<&'a str>> {
        let candidates = seats.into_iter().filter_map(|seat| self.world.candidates.get(&seat.node));
        candidates.map(|candidate| candidate.domain.as_deref()).collect()
    }
}

/// Some seats without one of them.
pub(super) fn without(seats: &BTreeSet<Seat>, out: Seat) -> BTreeSet<Seat> {
    seats.iter().copied().filter(|seat| *seat != out).collect()
}

/// Some seats and others.
pub(super) fn with(seats: &BTreeSet<Seat>, more: &[Seat]) -> BTreeSet<Seat> {
    seats.iter().chain(more).copied().collect()
}
