//! Room for operators, and which one the shard forgets for want of it.

use skep_protocol::fleet::FleetLimits;
use skep_protocol::operator::OperatorChange;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::signing::OperatorKey;

use super::standing::{End, Standings, Word};
use super::{Operator, Operators};
use crate::state::changes::{Cx, count_dropped};

impl Operators {
    /// Makes room for a statement about an operator; `adds`: whether the operator may do something by it. A statement
    /// that takes rights from a known operator always has room.
    pub(super) fn make_room(
        &mut self,
        operator: OperatorKey,
        by: OperatorKey,
        adds: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        let (now, limits) = (cx.now, cx.limits);
        let kept = if self.is_first(by) { 0 } else { limits.operator_places_of_first };
        if adds {
            let max = limits.operators_max.saturating_sub(kept);
            let (count, more) = (self.standings.acting(now), self.standings.more_with(operator, now));
            if more > 0 && count.saturating_add(more) > max {
                return Err(Refusal::Full { what: ShardFullOf::Operators, count });
            }
        }
        if self.is_known(&operator) {
            return Ok(());
        }
        if let Some(branch) = self.standings.branch_of(by) {
            let count = self.standings.count(Some(branch));
            if count >= limits.operator_branch_max && !self.forget_one(Some(branch), cx) {
                return Err(Refusal::Full { what: ShardFullOf::OperatorBranch, count });
            }
        }
        if self.is_full(kept, limits) && !self.forget_one(None, cx) {
            let count = self.operators.len() as u64;
            return Err(Refusal::Full { what: ShardFullOf::RevokedOperators, count });
        }
        Ok(())
    }

    /// Makes room for another first operator however many operators there are: an admin that fills all places does not
    /// keep the first one's word out.
    pub(super) fn make_room_for_first(&mut self, operator: OperatorKey, cx: &mut Cx<'_>) {
        if !self.is_known(&operator) && self.is_full(0, cx.limits) {
            self.forget_one(None, cx);
        }
    }

    /// Whether the shard can remember no more operators, if it keeps so many places free.
    fn is_full(&self, kept: u64, limits: &FleetLimits) -> bool {
        let max = limits.operators_max.saturating_add(limits.revoked_operators_max);
        self.operators.len() as u64 >= max.saturating_sub(kept)
    }

    /// Notes that something else counts of an operator, and so of those below it.
    pub(super) fn stand_anew(&mut self, key: OperatorKey) {
        if let Some(operator) = self.operators.get(&key) {
            let word = operator.word(self.is_first(key));
            self.standings.put(key, word);
        }
    }

    /// Works out where all operators stand, from the operators themselves.
    pub(crate) fn stand_all_anew(&mut self) {
        let words = self.operators.iter().map(|(key, operator)| (*key, operator.word(self.is_first(*key))));
        self.standings = Standings::of_all(words);
    }

    fn is_first(&self, key: OperatorKey) -> bool {
        self.first.is_some_and(|first| first.operator == key)
    }

    /// Forgets the operator of whom everything has ended for longest, of one branch or of any; returns whether there
    /// was one. What was signed of it has a serial that is not taken any more, neither here nor by a robot's node that
    /// remembers it.
    fn forget_one(&mut self, branch: Option<OperatorKey>, cx: &mut Cx<'_>) -> bool {
        let Some(key) = self.standings.ended(branch, cx.now) else { return false };
        self.standings.remove(key);
        if let Some(forgotten) = self.operators.remove(&key) {
            let (name, serial) = (forgotten.grant.name.clone(), forgotten.grant.serial);
            self.serial_floor = self.serial_floor.max(serial);
            count_dropped(&mut cx.dropped.operators, 1);
            cx.record(OperatorChange::Forgotten { operator: key, name, serial });
        }
        true
    }
}

impl Operator {
    /// What counts of it by itself. An operator for whom none signed may do something as the first operator only.
    fn word(&self, is_first: bool) -> Word {
        let by = self.signed.as_ref().map(|signed| signed.by);
        let is_none = self.grant.revoked || (by.is_none() && !is_first);
        let until = if is_none { End::OVER } else { End::of(self.grant.until) };
        Word { by, until, ends: End::of(self.ends) }
    }
}
