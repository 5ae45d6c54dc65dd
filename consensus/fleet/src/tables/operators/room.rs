//! How many operators there is room for, and who is forgotten for want of it.

use std::collections::BTreeSet;

use skep_protocol::fleet::FleetLimits;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::signing::OperatorKey;
use skep_protocol::time::LogInstant;

use super::{Operator, Operators, is_over};
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
        let of_first = self.first.is_some_and(|first| first.operator == by);
        let kept = if of_first { 0 } else { limits.operator_places_of_first };
        if adds {
            let max = limits.operators_max.saturating_sub(kept);
            let after = self.active_count(Some(operator), now, limits);
            let count = if after > max { self.active_count(None, now, limits) } else { after };
            if after > max && after > count {
                return Err(Refusal::Full { what: ShardFullOf::Operators, count });
            }
        }
        if self.is_known(&operator) {
            return Ok(());
        }
        if let Some(branch) = self.branch_of(by, limits) {
            let count =
                self.operators.keys().filter(|key| self.branch_of(**key, limits) == Some(branch)).count() as u64;
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

    /// Operators who may do something, also once one is granted that.
    fn active_count(&self, granted: Option<OperatorKey>, now: LogInstant, limits: &FleetLimits) -> u64 {
        let is_new = granted.is_some_and(|key| !self.is_known(&key));
        let active = self.operators.keys().filter(|key| self.is_active(**key, granted, now, limits)).count();
        (active + usize::from(is_new)) as u64
    }

    /// Whether an operator, and everybody above it, may do something; `granted` is taken for one that may.
    fn is_active(&self, key: OperatorKey, granted: Option<OperatorKey>, now: LogInstant, limits: &FleetLimits) -> bool {
        let mut at = key;
        for _ in 0..=limits.authority_chain_max {
            if granted == Some(at) {
                return true;
            }
            match self.operators.get(&at) {
                Some(operator) if !is_over(&operator.grant, now) => match &operator.signed {
                    Some(signed) => at = signed.by,
                    None => return self.first.is_some_and(|first| first.operator == at),
                },
                Some(_) | None => return false,
            }
        }
        false
    }

    /// Whom the first operator granted what an operator has it from; itself, if it has it from the first one.
    fn branch_of(&self, key: OperatorKey, limits: &FleetLimits) -> Option<OperatorKey> {
        self.authority_of(key, limits).last().map(|signed| signed.operator)
    }

    /// Lets go of the operator of whom everything has ended for longest, of one branch or of any; whether there was one. What was
    /// signed of it has a number that is not taken any more, here or of a robot's node that remembers it. Whoever signed for an
    /// operator that is known is needed for what is told of that one.
    fn forget_one(&mut self, branch: Option<OperatorKey>, cx: &mut Cx<'_>) -> bool {
        let (now, limits, operators) = (cx.now, cx.limits, &self.operators);
        let signers: BTreeSet<OperatorKey> =
            operators.values().filter_map(|of| of.signed.as_ref().map(|signed| signed.by)).collect();
        let ended = |(key, of): (&OperatorKey, &Operator)| {
            let is_free = !signers.contains(key) && (branch.is_none() || self.branch_of(*key, limits) == branch);
            let ends = of.ends.filter(|ends| is_free && *ends <= now && is_over(&of.grant, now));
            ends.map(|ends| (ends, *key))
        };
        let Some((_, key)) = operators.iter().filter_map(ended).min() else { return false };
        if let Some(forgotten) = self.operators.remove(&key) {
            self.serial_floor = self.serial_floor.max(forgotten.grant.serial);
            count_dropped(&mut cx.dropped.operators, 1);
        }
        true
    }
}
