//! What is wrong with a group: voters that may not vote, leaders that may not lead, voters that are dead, and too few
//! or too many voters.

use std::collections::BTreeSet;

use super::choose::{Need, Supply};
use super::look::{Look, with, without};
use super::step::{Advice, Step, Why};
use super::world::{Seat, Vote};

impl Look<'_> {
    /// The steps that wait for nothing: against voters that may not vote, and leaders that may not lead.
    pub(super) fn enforce(&self) -> Option<Advice> {
        let leader = self.leader();
        if self.is_barred(leader) || self.is_witness(leader) {
            let mut heirs: Vec<Seat> = self.heirs().map(|(seat, _)| seat).collect();
            heirs.retain(|seat| !self.memory.declined_lately(*seat, self.config.settle_ms, self.now));
            // The voter that leads fewest shards goes first.
            heirs.sort_by_key(|seat| (self.candidate(*seat).map_or(0, |candidate| candidate.leads), *seat));
            match heirs.first() {
                Some(heir) => return Some(Advice::of(Step::TransferLead(*heir), Why::MayNotLead(leader.node))),
                // A sole voter that may not lead gets others first.
                None if self.voters().len() == 1 => return None,
                None => return Some(Advice::nothing(Why::NoHeir(leader.node))),
            }
        }
        let barred: Vec<Seat> = self.voters().iter().copied().filter(|seat| self.is_barred(*seat)).collect();
        let first = barred.first()?.node;
        if barred.iter().any(|seat| self.memory.went(*seat, self.config.pause_ms, self.now)) {
            return Some(Advice::nothing(Why::Pause));
        }
        let rest: BTreeSet<Seat> = self.voters().iter().copied().filter(|seat| !barred.contains(seat)).collect();
        // If the others are no quorum, a spare must take its place first.
        self.answers(&rest).then(|| Advice::of(Step::Remove(barred), Why::MayNotVote(first)))
    }

    /// The voters that do not do their part, the worst one first.
    pub(super) fn failed(&self) -> Vec<Seat> {
        let others = self.voters().iter().copied().filter(|seat| *seat != self.leader());
        let mut failed: Vec<Seat> = others.filter(|seat| self.is_dead(*seat) || self.is_behind(*seat)).collect();
        failed.sort_by_key(|seat| (!self.is_gone(*seat), !self.is_dead(*seat), *seat));
        failed
    }

    /// Replaces a voter that is dead, wiped or always behind, once a learner has the log.
    pub(super) fn repair(&self) -> Option<Advice> {
        let out = self.failed().into_iter().find(|seat| self.may_go(*seat))?;
        if self.goal() < self.voters().len() {
            // It leaves, and no node comes.
            return None;
        }
        let rest = without(self.voters(), out);
        let why = if self.is_barred(out) {
            Why::MayNotVote(out.node)
        } else if self.is_gone(out) {
            Why::Wiped(out.node)
        } else if self.is_dead(out) {
            Why::Dead(out.node)
        } else {
            Why::Slow(out.node)
        };
        // A witness takes the place of a witness only.
        let is_full = !self.is_witness(out) || !self.possible(Vote::Full, &rest).is_empty();
        let vote = if is_full { Vote::Full } else { Vote::Witness };
        // A node that lost its disk takes its own place.
        let only = self.usable(vote, &rest).into_iter().find(|seat| seat.node == out.node);
        match self.supply(&Need { seats: 1, beside: &rest, vote, only, urgent: true, why }) {
            // The leader has a quorum, in which a voter that answers takes the place of one that does not, or may not.
            Supply::Ready(ready) => ready.first().map(|into| Advice::of(Step::Replace { out, into: *into }, why)),
            Supply::First(advice) => Some(advice),
            Supply::Nobody => None,
        }
    }

    /// Number of voters that the group is to have.
    pub(super) fn goal(&self) -> usize {
        let (voters, wanted) = (self.voters(), self.config.wanted.voters());
        let lasting = voters.iter().copied().filter(|seat| !self.is_dead(*seat));
        let (witnesses, mut full): (Vec<Seat>, Vec<Seat>) = lasting.partition(|seat| self.is_witness(*seat));
        let living = witnesses.len() + full.len();
        let spares = self.spares().into_iter().filter(|seat| !self.is_slow(*seat));
        let (more_witnesses, more): (Vec<Seat>, Vec<Seat>) = spares.partition(|seat| self.is_witness(*seat));
        full.extend(more);
        let has_witness = !witnesses.is_empty() || !more_witnesses.is_empty();
        let possible = if wanted >= 5 && full.len() >= 5 && self.domains(&full).len() >= 3 {
            5
        } else if full.len() >= 3 || (full.len() == 2 && has_witness) {
            3
        } else {
            1
        };
        let count = voters.len();
        if count > wanted {
            wanted
        } else if count.is_multiple_of(2) {
            // As many must answer as with one more voter, and no more may be lost than with one less.
            if possible > count { count + 1 } else { count.saturating_sub(1) }
        } else if possible > count {
            possible
        } else if count == 5 && living <= 3 {
            3
        } else {
            // Dead voters alone are no reason to have fewer: they may come back.
            count
        }
    }

    /// Takes voters in or out, so that their number stays odd.
    pub(super) fn resize(&self) -> Option<Advice> {
        let (count, goal) = (self.voters().len(), self.goal());
        let step = if count.is_multiple_of(2) { 1 } else { 2 };
        if goal > count {
            self.grow(step, (count + step).min(goal))
        } else if goal < count {
            self.shrink(step.min(count - goal), goal)
        } else {
            None
        }
    }

    fn grow(&self, seats: usize, goal: usize) -> Option<Advice> {
        let (voters, why) = (self.voters(), Why::Grow(goal));
        let full = self.usable(Vote::Full, voters).len().min(seats);
        // One witness votes in place of one voter, in a group of three.
        let is_first_witness = voters.len() <= 2 && !voters.iter().any(|seat| self.is_witness(*seat));
        if full < seats && !(full + 1 == seats && is_first_witness) {
            return None;
        }
        let mut ready = Vec::new();
        for (seats, vote) in [(full, Vote::Full), (seats - full, Vote::Witness)] {
            if seats == 0 {
                continue;
            }
            match self.supply(&Need { seats, beside: voters, vote, only: None, urgent: false, why }) {
                Supply::Ready(more) => ready.extend(more),
                Supply::First(advice) => return Some(advice),
                Supply::Nobody => return None,
            }
        }
        self.answers(&with(voters, &ready)).then(|| Advice::of(Step::Promote(ready), why))
    }

    fn shrink(&self, seats: usize, goal: usize) -> Option<Advice> {
        let others = self.voters().iter().copied().filter(|seat| *seat != self.leader() && self.may_go(*seat));
        let mut out: Vec<Seat> = others.collect();
        out.sort_by_cached_key(|seat| self.worth(*seat));
        out.truncate(seats);
        let rest: BTreeSet<Seat> = self.voters().iter().copied().filter(|seat| !out.contains(seat)).collect();
        let may = out.len() == seats && self.answers(&rest);
        may.then(|| Advice::of(Step::Remove(out), Why::Shrink(goal)))
    }
}
