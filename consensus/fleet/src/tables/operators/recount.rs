//! Where operators stand, as a walk over all of them finds it: tests compare it with what the table keeps.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::signing::OperatorKey;
use skep_protocol::time::LogInstant;

use super::{Operator, Operators, is_over};

/// Numbers of operators of each kind, and the operator that goes first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    acting: u64,
    /// By operator: number of further operators that may act once it may.
    more: BTreeMap<OperatorKey, u64>,
    /// Number of known operators by branch; of all under none.
    known: BTreeMap<Option<OperatorKey>, u64>,
    /// The operator that the shard forgets first, by branch; of all under none.
    ended: BTreeMap<Option<OperatorKey>, OperatorKey>,
}

impl Operators {
    /// As the table keeps it.
    pub(crate) fn counted(&mut self, now: LogInstant) -> Counts {
        let keys: Vec<OperatorKey> = self.operators.keys().copied().collect();
        let branches = keys.iter().filter_map(|key| self.standings.branch_of(*key));
        let groups: BTreeSet<Option<OperatorKey>> = [None].into_iter().chain(branches.map(Some)).collect();
        let acting = self.standings.acting(now);
        let standings = &self.standings;
        Counts {
            acting,
            more: keys.iter().map(|key| (*key, standings.more_with(*key, now))).collect(),
            known: groups.iter().map(|group| (*group, standings.count(*group))).collect(),
            ended: groups.iter().filter_map(|group| Some((*group, standings.ended(*group, now)?))).collect(),
        }
    }

    /// As a walk over all of them finds it.
    pub(crate) fn recounted(&self, now: LogInstant) -> Counts {
        let keys = || self.operators.keys().copied();
        let acting = |granted| keys().filter(|key| self.acts(*key, granted, now)).count() as u64;
        let of_group = |key, group: Option<OperatorKey>| group.is_none() || self.top_of(key) == group;
        let groups: BTreeSet<Option<OperatorKey>> =
            [None].into_iter().chain(keys().filter_map(|key| self.top_of(key)).map(Some)).collect();
        let known = |group| keys().filter(|key| of_group(*key, group)).count() as u64;
        let ended = |group| {
            let ended = keys().filter(|key| of_group(*key, group)).filter_map(|key| self.ended_at(key, now));
            ended.min().map(|(_, key)| (group, key))
        };
        Counts {
            acting: acting(None),
            more: keys().map(|key| (key, acting(Some(key)) - acting(None))).collect(),
            known: groups.iter().map(|group| (*group, known(*group))).collect(),
            ended: groups.iter().filter_map(|group| ended(*group)).collect(),
        }
    }

    /// An operator and those above it.
    fn line_up(&self, key: OperatorKey) -> Vec<(OperatorKey, &Operator)> {
        let (mut line, mut next) = (Vec::new(), Some(key));
        while let Some((key, operator)) = next.and_then(|key| self.operators.get_key_value(&key)) {
            line.push((*key, operator));
            next = operator.signed.as_ref().map(|signed| signed.by);
        }
        line
    }

    /// Whether an operator and all above it may act, if another one may.
    fn acts(&self, key: OperatorKey, granted: Option<OperatorKey>, now: LogInstant) -> bool {
        for (at, operator) in self.line_up(key) {
            if granted == Some(at) {
                return true;
            }
            if is_over(&operator.grant, now) {
                return false;
            }
            if operator.signed.is_none() {
                return self.first.is_some_and(|first| first.operator == at);
            }
        }
        false
    }

    fn top_of(&self, key: OperatorKey) -> Option<OperatorKey> {
        self.line_up(key).iter().rev().find(|(_, operator)| operator.signed.is_some()).map(|(key, _)| *key)
    }

    /// When everything that was granted to an operator ended; none if it has not, or the operator signed for another
    /// one.
    fn ended_at(&self, key: OperatorKey, now: LogInstant) -> Option<(LogInstant, OperatorKey)> {
        let signs = self.operators.values().any(|of| of.signed.as_ref().is_some_and(|signed| signed.by == key));
        let operator = self.operators.get(&key).filter(|operator| !signs && is_over(&operator.grant, now))?;
        operator.ends.filter(|ends| *ends <= now).map(|ends| (ends, key))
    }
}
