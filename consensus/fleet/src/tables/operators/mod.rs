//! Operators, and by whose word they may send commands.

#[cfg(test)]
mod recount;
mod recovery;
mod room;
mod standing;
mod stored;

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use skep_protocol::change::ShardChange;
use skep_protocol::command::Target;
use skep_protocol::entry::Founding;
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::RaftId;
use skep_protocol::operator::{
    Authority, AuthorityNews, FIRST_SERIAL, InvalidGrant, KnownFirst, OperatorChange, OperatorGrant, OperatorOp,
    OperatorRefusal, PastGenesis, Root, SignedGrant, SignedReplacement,
};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::signing::{OperatorKey, Place};
use skep_protocol::text::{OperatorName, Verb};
use skep_protocol::time::LogInstant;

use crate::state::changes::Cx;
use standing::Standings;

pub(crate) use stored::OperatorsHead;

const MINUTE_MS: u64 = 60_000;

/// An operator and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operator {
    /// The grant as it was stated. Less of it counts if its author has less.
    grant: Arc<OperatorGrant>,
    /// The statement that grants it; none for the first operator, and for one that was it.
    signed: Option<Arc<SignedGrant>>,
    /// Until when it has sent as many commands as it may, on the shard's clock: every command moves the instant on by
    /// the time after which the operator may send the next (the leaky bucket of ITU-T I.371, as a virtual schedule).
    busy_until: LogInstant,
    /// Number of the statement among those that replaced an earlier one; 0 if it replaced none.
    order: u64,
    /// When the last of all grants that it ever had ends, on the shard's clock; none if one has no end. From then on
    /// nothing that was signed of it gives an operator any right.
    ends: Option<LogInstant>,
}

/// Whether a grant has ended or is revoked, so that it gives its operator no right.
fn is_over(grant: &OperatorGrant, now: LogInstant) -> bool {
    grant.revoked || grant.until.is_some_and(|until| until <= now)
}

/// About how many bytes of statements one answer to a node carries, and those beside what was signed.
const NEWS_BYTES_SOFT_MAX: usize = 64 * 1_024;
const STATEMENT_BYTES: usize = 128;

/// All operators of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operators {
    /// The site, shard and genesis where statements of operators hold; none before the shard's first entry.
    place: Option<Place>,
    /// The first operator at the shard's first entry, its replacements since, in order, and the present one.
    made_first: Option<OperatorKey>,
    replaced: Vec<Arc<SignedReplacement>>,
    first: Option<KnownFirst>,
    /// What the shard was before it was recovered, in order: the last few recoveries.
    past: Vec<PastGenesis>,
    /// The latest members of the groups before.
    former: Vec<RaftId>,
    /// Number of statements about operators that replaced an earlier one, and index of the entry with the last one.
    restated: u64,
    restated_at: Option<u64>,
    /// The highest serial of a statement about an operator that the shard forgot.
    serial_floor: u64,
    operators: OrdMap<OperatorKey, Operator>,
    /// Where each operator stands.
    standings: Standings,
}

impl Operators {
    /// About how many bytes of a snapshot they take.
    pub(crate) fn bytes(&self) -> u64 {
        const OPERATOR: u64 = 1_024;
        self.operators.len() as u64 * OPERATOR
    }

    /// Whether a statement about an operator came, and the shard did not forget it.
    pub(crate) fn is_known(&self, operator: &OperatorKey) -> bool {
        self.operators.contains_key(operator)
    }

    /// Makes the shard what a founding says. A first operator that did not show that it has its key is none.
    pub(crate) fn found(&mut self, founding: &Founding, cx: &mut Cx<'_>) {
        let place = founding.charter.place.clone();
        self.place = Some(place.clone());
        cx.record(ShardChange::Founded { place: place.clone() });
        let Some(first) = founding.charter.shown() else { return };
        self.made_first = Some(first.operator);
        self.put_first(KnownFirst { operator: first.operator, replaced: 0 }, &first.name, place, cx);
    }

    /// Gives an operator all rights, as the first one.
    fn put_first(&mut self, first: KnownFirst, name: &OperatorName, place: Place, cx: &mut Cx<'_>) -> Receipt {
        // The shard may have forgotten an operator that it does not know.
        let serial = self.operators.get(&first.operator).map_or(self.serial_floor, |known| known.grant.serial);
        let admin_depth = u32::try_from(cx.limits.authority_chain_max).unwrap_or(u32::MAX);
        let whole = OperatorGrant::of_first(place, first.operator, name.clone());
        self.first = Some(first);
        self.put_operator(OperatorGrant { serial, admin_depth, ..whole }, None, cx)
    }

    /// Does what an operator states.
    pub(crate) fn apply(&mut self, op: &OperatorOp, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        match op {
            OperatorOp::ReplaceFirst { replacement } => self.replace_first(replacement, cx),
            OperatorOp::Grant { grant } => self.grant(grant, cx),
        }
    }

    /// Replaces the first operator. The former one loses all rights, and so does each operator whose grant goes back to
    /// it.
    fn replace_first(&mut self, signed: &SignedReplacement, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        self.check_place(&signed.place)?;
        let first = self.first;
        let expected = first.map_or(1, |first| first.replaced.saturating_add(1));
        if first.is_none_or(|first| first.operator != signed.old) || signed.serial != expected {
            return Err(OperatorRefusal::NotFirst { by: signed.old, given: signed.serial, expected }.into());
        }
        if signed.new == signed.old {
            return Err(OperatorRefusal::FirstOperator.into());
        }
        let count = self.replaced.len() as u64;
        if count >= cx.limits.first_replacements_max {
            return Err(Refusal::Full { what: ShardFullOf::FirstOperators, count });
        }
        self.make_room_for_first(signed.new, cx);
        cx.record(OperatorChange::FirstReplaced { old: signed.old, new: signed.new });
        if let Some(former) = self.operators.get_mut(&signed.old) {
            Arc::make_mut(&mut former.grant).revoked = true;
        }
        self.stand_anew(signed.old);
        self.replaced.push(Arc::new(signed.clone()));
        let now = KnownFirst { operator: signed.new, replaced: signed.serial };
        Ok(self.put_first(now, &signed.name, signed.place.clone(), cx))
    }

    /// Does what an admin states of an operator.
    fn grant(&mut self, signed: &SignedGrant, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        let grant = signed.statement();
        let by = grant.by;
        grant.check_within(cx.limits).map_err(OperatorRefusal::from)?;
        self.check_place(&grant.place)?;
        if self.active_operator(by, cx)?.admin_depth == 0 {
            return Err(OperatorRefusal::NotAdmin(by).into());
        }
        if self.first.is_some_and(|first| first.operator == grant.operator) {
            return Err(OperatorRefusal::FirstOperator.into());
        }
        let above = self.authority_of(by, cx.limits);
        if above.len() as u64 >= cx.limits.authority_chain_max {
            return Err(OperatorRefusal::NotAdmin(by).into());
        }
        // No operator changes one to which it owes its own rights.
        if grant.operator == by || above.iter().any(|signed| signed.by == grant.operator) {
            return Err(OperatorRefusal::NotAdmin(by).into());
        }
        let known = self.operators.get(&grant.operator);
        let was_known = known.is_some();
        if was_known && !self.is_above(by, grant.operator, cx.limits) {
            return Err(OperatorRefusal::NotAbove { by, operator: grant.operator }.into());
        }
        // The shard may have forgotten an operator that it does not know.
        let last = known.map_or(self.serial_floor, |known| known.grant.serial);
        if grant.serial > last.saturating_add(cx.limits.serial_step_max) {
            return Err(OperatorRefusal::Invalid(InvalidGrant::Serial { given: grant.serial, last }).into());
        }
        if grant.serial <= last {
            return Err(OperatorRefusal::GrantStale { given: grant.serial, known: last }.into());
        }
        let (operator, depth) = (grant.operator, self.admin_depth(grant.operator, cx.limits));
        self.make_room(operator, by, !is_over(grant, cx.now), cx)?;
        let receipt = self.put_operator(grant.clone(), Some(Arc::new(signed.clone())), cx);
        if was_known && self.admin_depth(operator, cx.limits) > depth {
            self.tell_below_anew(operator, cx);
        }
        Ok(receipt)
    }

    /// To how many levels of operators an operator may grant something, whether its grant has ended or not.
    fn admin_depth(&self, key: OperatorKey, limits: &FleetLimits) -> u32 {
        self.rights(key, limits).map_or(0, |rights| rights.admin_depth)
    }

    /// Makes nodes hear again of the operators below one: they passed over those statements while it was no admin.
    fn tell_below_anew(&mut self, operator: OperatorKey, cx: &Cx<'_>) {
        let restated = self.operators.iter().filter(|(_, of)| of.order > 0).map(|(key, _)| *key);
        let is_below =
            |key: &OperatorKey| self.authority_of(*key, cx.limits).iter().any(|signed| signed.by == operator);
        for key in restated.filter(is_below).collect::<Vec<OperatorKey>>() {
            let order = self.restated + 1;
            if let Some(of) = self.operators.get_mut(&key) {
                of.order = order;
                (self.restated, self.restated_at) = (order, Some(cx.index));
            }
        }
    }

    /// Whether an operator granted another one its rights, or is above the operator that did.
    fn is_above(&self, by: OperatorKey, operator: OperatorKey, limits: &FleetLimits) -> bool {
        let is_first = self.first.is_some_and(|first| first.operator == by);
        is_first || self.authority_of(operator, limits).iter().any(|signed| signed.by == by)
    }

    fn put_operator(&mut self, grant: OperatorGrant, signed: Option<Arc<SignedGrant>>, cx: &mut Cx<'_>) -> Receipt {
        let (operator, serial, grant) = (grant.operator, grant.serial, Arc::new(grant));
        cx.record(OperatorChange::Granted { grant: Arc::clone(&grant) });
        let known = self.operators.get(&operator);
        let busy_until = known.map_or(LogInstant::ZERO, |known| known.busy_until);
        let ended = Some(LogInstant::ZERO);
        let until = if grant.revoked { ended } else { grant.until };
        let ends = known.map_or(ended, |known| known.ends).zip(until).map(|(one, other)| one.max(other));
        // Before the first statement about an operator there was nothing that a node could still believe.
        let order = if signed.is_some() && serial > FIRST_SERIAL { self.restated + 1 } else { 0 };
        if order > 0 {
            (self.restated, self.restated_at) = (order, Some(cx.index));
        }
        self.operators.insert(operator, Operator { grant, signed, busy_until, order, ends });
        self.stand_anew(operator);
        Receipt::Operator { operator, serial }
    }

    /// An operator and those by whose word it is one, up to the first operator.
    fn line_of(&self, key: OperatorKey, limits: &FleetLimits) -> Result<Vec<&Operator>, Refusal> {
        let known = |key: OperatorKey| self.operators.get(&key).ok_or(OperatorRefusal::NoSuchOperator(key));
        let mut line = vec![known(key)?];
        if line.iter().any(|operator| operator.grant.revoked) {
            return Err(OperatorRefusal::Revoked(key).into());
        }
        let (mut at, mut by) = (key, line.last().and_then(|operator| operator.signed.as_ref()).map(|signed| signed.by));
        while let Some(above) = by {
            if line.len() as u64 > limits.authority_chain_max {
                return Err(OperatorRefusal::NotAdmin(key).into());
            }
            let operator = known(above)?;
            if operator.grant.revoked {
                return Err(OperatorRefusal::NotAdmin(above).into());
            }
            (at, by) = (above, operator.signed.as_ref().map(|signed| signed.by));
            line.push(operator);
        }
        let ends_with_first = self.first.is_some_and(|first| first.operator == at);
        if ends_with_first { Ok(line) } else { Err(OperatorRefusal::NotAdmin(at).into()) }
    }

    /// What an operator may do, as far as all operators above it may: whether that has ended is another question.
    pub(crate) fn rights(&self, key: OperatorKey, limits: &FleetLimits) -> Result<OperatorGrant, Refusal> {
        let mut line = self.line_of(key, limits)?.into_iter().rev().map(|operator| operator.grant.as_ref());
        let mut rights = line.next().cloned().ok_or(OperatorRefusal::NoSuchOperator(key))?;
        for grant in line {
            if rights.admin_depth == 0 {
                return Err(OperatorRefusal::NotAdmin(rights.operator).into());
            }
            rights = grant.within(&rights);
        }
        Ok(rights)
    }

    /// What an operator may do at this moment.
    fn active_operator(&self, key: OperatorKey, cx: &Cx<'_>) -> Result<OperatorGrant, Refusal> {
        let (rights, now) = (self.rights(key, cx.limits)?, cx.now);
        match rights.until {
            Some(until) if until <= now => Err(OperatorRefusal::GrantEnded { operator: key, until, now }.into()),
            _ => Ok(rights),
        }
    }

    /// Checks that a statement was signed for this shard.
    pub(crate) fn check_place(&self, place: &Place) -> Result<(), Refusal> {
        if self.place.as_ref() == Some(place) { Ok(()) } else { Err(OperatorRefusal::WrongPlace.into()) }
    }

    /// Checks that an operator may ask a target for something that is valid until an instant.
    pub(crate) fn check_granted(
        &self,
        key: OperatorKey,
        verb: &Verb,
        target: &Target,
        deadline: LogInstant,
        cx: &Cx<'_>,
    ) -> Result<(), Refusal> {
        let rights = self.active_operator(key, cx)?;
        if rights.allows(verb, target, deadline) {
            return Ok(());
        }
        match rights.until {
            Some(until) if deadline > until => {
                Err(OperatorRefusal::OutlivesGrant { operator: key, until, deadline }.into())
            }
            _ => {
                let (verb, target) = (verb.clone(), target.to_string());
                Err(OperatorRefusal::NotGranted { operator: key, verb, target }.into())
            }
        }
    }

    /// Checks that an operator, and all above it, may send one more command; the caller counts it once it is accepted.
    pub(crate) fn check_rate(&self, key: OperatorKey, cx: &Cx<'_>) -> Result<(), Refusal> {
        for operator in self.line_of(key, cx.limits)? {
            let Some(per_minute) = operator.grant.per_minute else { continue };
            let step = MINUTE_MS / u64::from(per_minute.max(1));
            let ahead = operator.busy_until.since_ms(cx.now);
            let allowed = (MINUTE_MS / cx.limits.command_burst_share.max(1)).saturating_sub(step);
            if per_minute == 0 || ahead > allowed {
                let retry_after_ms = ahead.saturating_sub(allowed).max(1);
                let operator = operator.grant.operator;
                return Err(OperatorRefusal::TooManyCommands { operator, per_minute, retry_after_ms }.into());
            }
        }
        Ok(())
    }

    /// Counts a command for its operator, and for all operators by whose word that is one.
    pub(crate) fn count_command(&mut self, key: OperatorKey, cx: &Cx<'_>) {
        let above: Vec<OperatorKey> = self.authority_of(key, cx.limits).iter().map(|signed| signed.by).collect();
        for key in [key].into_iter().chain(above) {
            let Some(operator) = self.operators.get_mut(&key) else { continue };
            if let Some(per_minute) = operator.grant.per_minute {
                let from = operator.busy_until.max(cx.now);
                operator.busy_until = from.plus_ms(MINUTE_MS / u64::from(per_minute.max(1)));
            }
        }
    }

    /// What gives an operator its rights: the statements from its own up to one of the first operator.
    pub(crate) fn authority_of(&self, key: OperatorKey, limits: &FleetLimits) -> Authority {
        let mut chain = Authority::new();
        let mut at = key;
        while let Some(signed) = self.operators.get(&at).and_then(|operator| operator.signed.as_ref()) {
            if chain.len() as u64 >= limits.authority_chain_max {
                break;
            }
            chain.push(Arc::clone(signed));
            at = signed.by;
        }
        chain
    }

    /// Whether an entry after this one has a statement about an operator that replaced an earlier one. None comes
    /// before all entries.
    pub(crate) fn changed_after(&self, index: Option<u64>) -> bool {
        self.restated_at.is_some_and(|at| index.is_none_or(|index| at > index))
    }

    /// Number of statements about operators that have replaced an earlier one.
    pub(crate) fn restated(&self) -> u64 {
        self.restated
    }

    /// The statements about operators that replaced an earlier one, after so many of them, in order: as many as one
    /// answer of so many bytes holds, and one at least. All of them, if there are not so many: then what the caller was
    /// told is not known. Of the first operators, which no operator granted anything, there is none: see
    /// [`root`](Self::root).
    pub(crate) fn news(&self, after: u64, bytes_max: usize, limits: &FleetLimits) -> AuthorityNews {
        let all = self.restated;
        let (mut after, bytes_max) = (if after > all { 0 } else { after }, bytes_max.min(NEWS_BYTES_SOFT_MAX));
        let mut news = AuthorityNews { chains: Vec::new(), up_to: all };
        if after == all {
            return news;
        }
        let stated = self.operators.iter().filter(|(_, of)| of.signed.is_some() && of.order > after);
        let mut stated: Vec<(u64, OperatorKey)> = stated.map(|(key, of)| (of.order, *key)).collect();
        stated.sort_unstable();
        let mut bytes = 0;
        for (order, key) in stated {
            if bytes > bytes_max {
                news.up_to = after;
                break;
            }
            after = order;
            let chain = self.authority_of(key, limits);
            bytes += chain.iter().map(|signed| STATEMENT_BYTES + signed.body().len()).sum::<usize>();
            news.chains.push(Arc::new(chain));
        }
        news
    }

    /// Operators in order of their keys, from after one.
    pub(crate) fn after(&self, after: Option<OperatorKey>) -> impl Iterator<Item = &OperatorGrant> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.operators.range((from, Unbounded)).map(|(_, operator)| operator.grant.as_ref())
    }

    /// The site, shard and genesis where statements of operators hold; none before the shard's first entry.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The floor of serials: the first statement about an operator that is new here has a higher serial.
    pub(crate) fn serial_floor(&self) -> u64 {
        self.serial_floor
    }

    /// The shard's first operator.
    pub(crate) fn first(&self) -> Option<KnownFirst> {
        self.first
    }

    /// Where all authority comes from, for a caller that knows so many replacements of the first operator.
    pub(crate) fn root(&self, replaced: u64) -> Option<Root> {
        let genesis = self.place.as_ref()?.genesis;
        // They are counted from the shard's last recovery on, and the caller may know the shard as it was before.
        let known = if self.past.is_empty() { usize::try_from(replaced).unwrap_or(usize::MAX) } else { 0 };
        let replaced = self.replaced.iter().skip(known).cloned().collect();
        Some(Root { genesis, first: self.made_first, replaced, past: self.past.clone() })
    }
}
