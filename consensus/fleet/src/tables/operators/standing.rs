//! Where each operator stands: in which branch, until when it may act, and whether the shard may forget it.
//!
//! All of it follows from the operators themselves, so that no snapshot has it. The table keeps it as statements come:
//! for a new operator it looks at that one and at the operator who signed for it; for a known one also at those below
//! it, but never at all operators.
//!
//! **Must not know** what an operator may ask for, nor any limit.

use std::collections::BTreeMap;

use imbl::{OrdMap, OrdSet};
use skep_protocol::signing::OperatorKey;
use skep_protocol::time::LogInstant;

#[cfg(test)]
use crate::state::looks;

/// When a right ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// At this instant of the shard's clock. At zero: it never began.
    At(LogInstant),
    /// Never.
    Never,
}

impl End {
    /// The end of a right that is over at any time.
    pub(super) const OVER: Self = Self::At(LogInstant::ZERO);

    /// The end of a right that may have none.
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
    /// Key of the operator who signed for it; none for the first operator, and for one that was it.
    pub(super) by: Option<OperatorKey>,
    /// Until when it may act, if all above it may.
    pub(super) until: End,
    /// When the last of all grants that it ever had ends.
    pub(super) ends: End,
}

/// What counts of an operator, with what follows from those above it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    word: Word,
    /// Key of the operator to whom the first one granted the rights of this branch; its own, if it has them from the
    /// first one.
    branch: Option<OperatorKey>,
    /// Until when it and all above it may act.
    until: End,
}

impl Standing {
    /// The standing of an operator below another one; below none if none signed for it, or the shard does not know who
    /// did.
    fn new(key: OperatorKey, word: Word, above: Option<&Self>) -> Self {
        let branch = word.by.map(|_| above.and_then(|above| above.branch).unwrap_or(key));
        let until = match (word.by, above) {
            (None, _) => word.until,
            (Some(_), Some(above)) => word.until.min(above.until),
            (Some(_), None) => End::OVER,
        };
        Self { word, branch, until }
    }

    /// The groups in which it counts: that of all operators, and its branch.
    fn groups(&self) -> impl Iterator<Item = Option<OperatorKey>> + use<> {
        [None].into_iter().chain(self.branch.map(Some))
    }
}

/// Operators that are counted together.
#[derive(Clone, Debug, Default)]
struct Group {
    count: u64,
    /// Those of them that signed for no known operator, by when everything that was granted to them ends.
    free: OrdSet<(LogInstant, OperatorKey)>,
}

/// All operators, by where they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Standings {
    standings: OrdMap<OperatorKey, Standing>,
    /// Pairs: an operator, and one for whom it signed.
    signed: OrdSet<(OperatorKey, OperatorKey)>,
    /// Operators that may act, by until when. Some may have ended since the last count.
    acting: OrdSet<(End, OperatorKey)>,
    /// Groups by branch; all operators under none.
    groups: OrdMap<Option<OperatorKey>, Group>,
}

impl Standings {
    /// The standings of so many operators. Operators that signed for each other in a circle, which no entry makes,
    /// stand nowhere.
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

    /// Takes what counts of an operator by itself from now on.
    pub(super) fn put(&mut self, key: OperatorKey, word: Word) {
        let before = self.standings.get(&key).and_then(|standing| standing.word.by);
        if before != word.by {
            self.link(before, key, false);
            self.link(word.by, key, true);
        }
        let mut next = vec![(key, word)];
        // Each operator is below one other only, so that there are no more of them.
        for _ in 0..=self.standings.len() {
            let Some((key, word)) = next.pop() else { break };
            self.leave(key);
            self.stand(key, word);
            let below = self.signed_by(key);
            next.extend(below.filter_map(|key| self.standings.get(&key).map(|standing| (key, standing.word))));
        }
    }

    /// Forgets an operator that signed for none.
    pub(super) fn remove(&mut self, key: OperatorKey) {
        if let Some(standing) = self.leave(key) {
            self.link(standing.word.by, key, false);
        }
    }

    /// Key of the operator to whom the first one granted the rights of an operator's branch; its own, if it has them
    /// from the first one.
    pub(super) fn branch_of(&self, key: OperatorKey) -> Option<OperatorKey> {
        self.standings.get(&key)?.branch
    }

    /// Number of known operators of a branch; of all, if none is named.
    pub(super) fn count(&self, branch: Option<OperatorKey>) -> u64 {
        self.groups.get(&branch).map_or(0, |group| group.count)
    }

    /// Number of operators that may act. The clock only rises: this does not look again at what has ended.
    pub(super) fn acting(&mut self, now: LogInstant) -> u64 {
        while self.acting.get_min().is_some_and(|(until, _)| !until.is_after(now)) {
            self.acting.remove_min();
        }
        self.acting.len() as u64
    }

    /// Number of further operators that act once one may: itself, and all below it that may but for it.
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

    /// The operator of whom everything has ended for longest, of a branch, or of all if none is named. It may not have
    /// signed for a known operator: the chain of that one needs it.
    pub(super) fn ended(&self, branch: Option<OperatorKey>, now: LogInstant) -> Option<OperatorKey> {
        let (ends, key) = self.groups.get(&branch)?.free.get_min()?;
        (*ends <= now).then_some(*key)
    }

    /// Keys of the operators for whom an operator signed.
    fn signed_by(&self, by: OperatorKey) -> impl Iterator<Item = OperatorKey> + '_ {
        let least = OperatorKey::from_bytes([0; 32]);
        self.signed.range((by, least)..).take_while(move |(signer, _)| *signer == by).map(|(_, key)| *key)
    }

    /// Notes that an operator signed for another one, or did no more: whether the shard may forget it follows.
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

    /// Puts an operator below the one that signed for it.
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
