//! How many operators there is room for, and who is forgotten for want of it.

use skep_protocol::fleet::FleetLimits;
use skep_protocol::operator::OperatorChange;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::signing::OperatorKey;

use super::standing::{End, Standings, Word};
use super::{Operator, Operators};
use crate::state::changes::{Cx, count_dropped};

impl Operators {
    /// Sees to it that there is room for what somebody states about an operator; `adds`: whether it may do something by it. What
    /// takes something from an operator that is known always has room.
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

    /// There is room for another first operator however many operators there are: who fills all places does not keep the first
    /// one's word out.
    pub(super) fn make_room_for_first(&mut self, operator: OperatorKey, cx: &mut Cx<'_>) {
        if !self.is_known(&operator) && self.is_full(0, cx.limits) {
            self.forget_one(None, cx);
        }
    }

    /// Whether no more operators are remembered, if so many places are kept free.
    fn is_full(&self, kept: u64, limits: &FleetLimits) -> bool {
        let max = limits.operators_max.saturating_add(limits.revoked_operators_max);
        self.operators.len() as u64 >= max.saturating_sub(kept)
    }

    /// Something else counts of an operator, and so of those below it.
    pub(super) fn stand_anew(&mut self, key: OperatorKey) {
        if let Some(operator) = self.operators.get(&key) {
            let word = operator.word(self.is_first(key));
            self.standings.put(key, word);
        }
    }

    /// Where all operators stand, made of the operators themselves.
    pub(crate) fn stand_all_anew(&mut self) {
        let words = self.operators.iter().map(|(key, operator)| (*key, operator.word(self.is_first(*key))));
        self.standings = Standings::of_all(words);
    }

    fn is_first(&self, key: OperatorKey) -> bool {
        self.first.is_some_and(|first| first.operator == key)
    }

    /// Lets go of the operator of whom everything has ended for longest, of one branch or of any; whether there was one. What was
    /// signed of it has a number that is not taken any more, here or of a robot's node that remembers it.
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
    /// What counts of it by itself. One for whom nobody signed may do something as the first operator alone.
    fn word(&self, is_first: bool) -> Word {
        let by = self.signed.as_ref().map(|signed| signed.by);
        let is_none = self.grant.revoked || (by.is_none() && !is_first);
        let until = if is_none { End::OVER } else { End::of(self.grant.until) };
        Word { by, until, ends: End::of(self.ends) }
    }
}
