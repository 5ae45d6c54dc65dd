//! What makes a sound group better, and what is left over.

use super::choose::{Need, Supply};
use super::look::{Look, with, without};
use super::step::{Advice, Step, Why};
use super::world::{Link, Seat, Vote};

impl Look<'_> {
    /// Replaces a sound voter by a better one. Each such step raises the score, so that a world that stays as it is
    /// sees few of them.
    pub(super) fn better(&self) -> Option<Advice> {
        let voters = self.voters();
        if !voters.iter().all(|seat| self.is_current(*seat)) {
            return None;
        }
        let (out, into) = self.best_exchange()?;
        let (rest, why) = (without(voters, out), Why::Better(into.node));
        let need = Need { seats: 1, beside: &rest, vote: Vote::Full, only: Some(into), urgent: false, why };
        match self.supply(&need) {
            Supply::Ready(_) if out == self.leader() => {
                self.heir().map(|heir| Advice::of(Step::TransferLead(heir), why))
            }
            Supply::Ready(ready) => {
                self.answers(&with(&rest, &ready)).then(|| Advice::of(Step::Replace { out, into }, why))
            }
            Supply::First(advice) => Some(advice),
            Supply::Nobody => None,
        }
    }

    fn best_exchange(&self) -> Option<(Seat, Seat)> {
        let voters = self.voters();
        let now = self.score(voters);
        let leader_can_go = self.heir().is_some();
        let outs = voters.iter().copied().filter(|out| self.may_go(*out) && (*out != self.leader() || leader_can_go));
        let exchanges = outs.flat_map(|out| {
            let rest = without(voters, out);
            let spares = self.usable(Vote::Full, &rest);
            spares.into_iter().map(move |into| (out, into))
        });
        let scored = exchanges.map(|(out, into)| {
            let score = self.score(&with(&without(voters, out), &[into]));
            // A learner that is on its way goes on, and the leader goes last.
            ((score, out != self.leader(), self.learners().contains(&into), into, out), (out, into))
        });
        let better = scored.filter(|((score, ..), _)| *score > now);
        better.max_by_key(|(key, _)| *key).map(|(_, exchange)| exchange)
    }

    /// The learner that a sole voter is to have, so that there is a second copy.
    pub(super) fn warm(&self) -> Option<Seat> {
        if self.voters().len() != 1 {
            return None;
        }
        let learners = self.learners().iter().copied();
        let kept = learners.filter(|seat| !self.is_dead(*seat) && !self.is_witness(*seat));
        kept.max_by_key(|seat| (self.is_current(*seat), *seat))
            .or_else(|| self.best(self.possible(Vote::Full, self.voters()), self.voters()))
    }

    /// Lets go of learners that nothing needs, and gets the one that a sole voter needs.
    pub(super) fn tidy(&self) -> Option<Advice> {
        let (warm, spares) = (self.warm(), self.spares());
        // A learner that has just connected may be needed yet: a learner outlives a change of leaders.
        let mut left = self.learners().iter().copied().filter(|seat| spares.contains(seat) || self.is_dead(*seat));
        if let Some(seat) = left.find(|seat| Some(*seat) != warm && self.may_go(*seat)) {
            return Some(Advice::of(Step::Remove(vec![seat]), Why::NotNeeded(seat.node)));
        }
        let new = warm.filter(|seat| !self.learners().contains(seat))?;
        Some(Advice::of(Step::AddLearner(new), Why::Warm(new.node)))
    }

    /// Hands the lead to a voter that leads fewer shards, or from a battery to mains.
    pub(super) fn spread(&self) -> Option<Advice> {
        let own = self.candidate(self.leader())?;
        let settled = self.heirs().filter(|(seat, heir)| {
            let has_settled = match heir.link {
                Link::Connected { since } => self.now.since_ms(since) >= self.config.settle_ms,
                Link::Silent { .. } => false,
            };
            has_settled && !self.memory.declined(*seat, heir)
        });
        let better = settled.filter(|(seat, heir)| {
            let is_idler = own.leads >= heir.leads.saturating_add(2);
            // The lead does not go from mains to a battery for the sake of the number of shards alone.
            let is_as_steady = self.is_mains(*seat) || !self.is_mains(self.leader());
            let is_steadier = self.is_mains(*seat) && !self.is_mains(self.leader()) && heir.leads <= own.leads;
            (is_idler && is_as_steady) || is_steadier
        });
        let to = better.min_by_key(|(seat, heir)| (!self.is_mains(*seat), heir.leads, *seat)).map(|(seat, _)| seat)?;
        Some(Advice::of(Step::TransferLead(to), Why::Spread(to.node)))
    }

    /// The reason for a group in which nothing is to be done.
    pub(super) fn summary(&self) -> Why {
        let leader = self.leader();
        if self.is_barred(leader) || self.is_witness(leader) {
            return Why::NoHeir(leader.node);
        }
        if let Some(seat) = self.failed().first() {
            return if self.is_barred(*seat) { Why::KeptForQuorum(seat.node) } else { Why::NoSpare(seat.node) };
        }
        match self.voters().len() {
            1 => {
                let copy = self.learners().iter().find(|seat| self.is_current(**seat));
                copy.map_or(Why::OneVoter, |seat| Why::OneVoterAndLearner(seat.node))
            }
            count => Why::Settled(count),
        }
    }
}
