//! Where each operator stands: in whose branch, until when it may act, and whether it may be forgotten.
//!
//! All of it follows from the operators themselves, so that no snapshot has it. It is kept as statements come: one
//! about an operator that is new looks at that one and at who signed for it, and one about an operator that is known at
//! those below it too, but never at all that there are.
//!
//! **Must not know** what an operator may ask for, nor any limit.

use std::collections::BTreeMap;

use imbl::{OrdMap, OrdSet};
use skep_protocol::signing::OperatorKey;
use skep_protocol::time::LogInstant;

#[cfg(test)]
use crate::state::looks;

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Then. At zero: it never began.
    At(LogInstant),
    /// Never.
    Never,
}

impl End {
    /// What is over at any time.
    pub(super) const OVER: Self = Self::At(LogInstant::ZERO);

    /// When something ends that may have no end.
    pub(super) fn of(until: Option<LogInstant>) -> Self {
        until.map_or(Self::Never, Self::At)
    }

    fn is_after(self, now: LogInstant) -> bool {
        self > Self::At(now)
    }
}

/// What counts of an operator by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// Who signed for it; none for the first operator, and for one that was it.
    pub(super) by: Option<OperatorKey>,
    /// Until when it may act, if all above it may.
    pub(super) until: End,
    /// When the last of all that was ever granted to it ends.
    pub(super) ends: End,
}

/// The same with what follows from those above it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    word: Word,
    /// Whom the first operator granted what this one has it from; itself, if it has it from the first one.
    branch: Option<OperatorKey>,
    /// Until when it and all above it may act.
    until: End,
}

impl Standing {
    /// That of an operator below another one; below none if nobody signed for it, or nothing is known of who did.
    fn new(key: OperatorKey, word: Word, above: Option<&Self>) -> Self {
        let branch = word.by.map(|_| above.and_then(|above| above.branch).unwrap_or(key));
        let until = match (word.by, above) {
            (None, _) => word.until,
            (Some(_), Some(above)) => word.until.min(above.until),
            (Some(_), None) => End::OVER,
        };
        Self { word, branch, until }
    }

    /// The groups that it is counted in: that of all operators, and its branch.
    fn groups(&self) -> impl Iterator<Item = Option<OperatorKey>> + use<> {
        [None].into_iter().chain(self.branch.map(Some))
    }
}

/// Operators that are counted together.
#[derive(Clone, Debug, Default)]
struct Group {
    count: u64,
    /// Those of them who signed for no operator that is known, by when everything that was granted to them ends.
    free: OrdSet<(LogInstant, OperatorKey)>,
}

/// All operators, by where they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Standings {
    standings: OrdMap<OperatorKey, Standing>,
    /// Who signed for whom.
    signed: OrdSet<(OperatorKey, OperatorKey)>,
    /// Who may act, by until when. Some may have ended since they were counted last.
    acting: OrdSet<(End, OperatorKey)>,
    /// By branch; under none all of them.
    groups: OrdMap<Option<OperatorKey>, Group>,
}

impl Standings {
    /// Those of so many operators. Operators that signed for each other in a circle, which no entry makes, stand
    /// nowhere.
    pub(super) fn of_all(words: impl Iterator<Item = (OperatorKey, Word)>) -> Self {
        let (words, mut all): (BTreeMap<OperatorKey, Word>, Self) = (words.collect(), Self::default());
        let signed = words.iter().filter_map(|(key, word)| word.by.map(|by| (by, *key)));
        all.signed = signed.collect();
        let is_top = |word: &Word| word.by.is_none_or(|by| !words.contains_key(&by));
        let mut next: Vec<OperatorKey> = words.iter().filter(|(_, word)| is_top(word)).map(|(key, _)| *key).collect();
        while let Some(key) = next.pop() {
            let Some(word) = words.get(&key) else { continue };
            all.stand(key, *word);
            next.extend(all.signed_by(key));
        }
        all
    }

    /// This counts of an operator from now on.
    pub(super) fn put(&mut self, key: OperatorKey, word: Word) {
        let before = self.standings.get(&key).and_then(|standing| standing.word.by);
        if before != word.by {
            self.link(before, key, false);
            self.link(word.by, key, true);
        }
        let mut next = vec![(key, word)];
        // Each is below one other alone, so that there are no more of them.
        for _ in 0..=self.standings.len() {
            let Some((key, word)) = next.pop() else { break };
            self.leave(key);
            self.stand(key, word);
            let below = self.signed_by(key);
            next.extend(below.filter_map(|key| self.standings.get(&key).map(|standing| (key, standing.word))));
        }
    }

    /// Nothing is known of an operator from now on, who signed for none.
    pub(super) fn remove(&mut self, key: OperatorKey) {
        if let Some(standing) = self.leave(key) {
            self.link(standing.word.by, key, false);
        }
    }

    /// Whom the first operator granted what an operator has it from; itself, if it has it from the first one.
    pub(super) fn branch_of(&self, key: OperatorKey) -> Option<OperatorKey> {
        self.standings.get(&key)?.branch
    }

    /// How many operators of a branch are known; of all, if none is named.
    pub(super) fn count(&self, branch: Option<OperatorKey>) -> u64 {
        self.groups.get(&branch).map_or(0, |group| group.count)
    }

    /// How many operators may act. The clock only rises: what has ended is not looked at again.
    pub(super) fn acting(&mut self, now: LogInstant) -> u64 {
        while self.acting.get_min().is_some_and(|(until, _)| !until.is_after(now)) {
            self.acting.remove_min();
        }
        self.acting.len() as u64
    }

    /// How many more operators act once one may: itself, and all below it who may but for it.
    pub(super) fn more_with(&self, key: OperatorKey, now: LogInstant) -> u64 {
        if self.standings.get(&key).is_some_and(|standing| standing.until.is_after(now)) {
            return 0;
        }
        let (mut more, mut next) = (0, vec![key]);
        for _ in 0..=self.standings.len() {
            let Some(key) = next.pop() else { break };
            #[cfg(test)]
            looks::count();
            more += 1;
            let may = |key: &OperatorKey| self.standings.get(key).is_some_and(|of| of.word.until.is_after(now));
            next.extend(self.signed_by(key).filter(may));
        }
        more
    }

    /// The operator of whom everything has ended for longest, of a branch, or of all if none is named. Who signed for
    /// an operator that is known is needed for what is told of that one.
    pub(super) fn ended(&self, branch: Option<OperatorKey>, now: LogInstant) -> Option<OperatorKey> {
        let (ends, key) = self.groups.get(&branch)?.free.get_min()?;
        (*ends <= now).then_some(*key)
    }

    /// Whom an operator signed for.
    fn signed_by(&self, by: OperatorKey) -> impl Iterator<Item = OperatorKey> + '_ {
        let least = OperatorKey::from_bytes([0; 32]);
        self.signed.range((by, least)..).take_while(move |(signer, _)| *signer == by).map(|(_, key)| *key)
    }

    /// Who signed for an operator, or did no more: it may be forgotten or not.
    fn link(&mut self, by: Option<OperatorKey>, key: OperatorKey, signs: bool) {
        let Some(by) = by else { return };
        let standing = self.leave(by);
        if signs {
            self.signed.insert((by, key));
        } else {
            self.signed.remove(&(by, key));
        }
        if let Some(standing) = standing {
            self.enter(by, standing);
        }
    }

    /// An operator stands below who signed for it.
    fn stand(&mut self, key: OperatorKey, word: Word) {
        let above = word.by.and_then(|by| self.standings.get(&by));
        self.enter(key, Standing::new(key, word, above));
    }

    fn enter(&mut self, key: OperatorKey, standing: Standing) {
        #[cfg(test)]
        looks::count();
        let signs = self.signed_by(key).next().is_some();
        for group in standing.groups() {
            let group = self.groups.entry(group).or_default();
            group.count += 1;
            if let (End::At(ends), false) = (standing.word.ends, signs) {
                group.free.insert((ends, key));
            }
        }
        if standing.until > End::OVER {
            self.acting.insert((standing.until, key));
        }
        self.standings.insert(key, standing);
    }

    fn leave(&mut self, key: OperatorKey) -> Option<Standing> {
        let standing = self.standings.remove(&key)?;
        for branch in standing.groups() {
            let Some(group) = self.groups.get_mut(&branch) else { continue };
            group.count = group.count.saturating_sub(1);
            if let End::At(ends) = standing.word.ends {
                group.free.remove(&(ends, key));
            }
            if group.count == 0 {
                self.groups.remove(&branch);
            }
        }
        self.acting.remove(&(standing.until, key));
        Some(standing)
    }
}
