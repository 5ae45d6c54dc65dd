//! Who may send commands.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_protocol::authority::{
    Authority, AuthorityNews, FIRST_SERIAL, KnownFirst, OperatorGrant, OperatorKey, Root, SignedGrant,
    SignedReplacement,
};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{InvalidCommand, Target, VoidCause};
use skep_protocol::entry::Founding;
use skep_protocol::ids::CommandId;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::statement::Place;
use skep_protocol::text::{AgentId, OperatorName, Verb};
use skep_protocol::time::LogInstant;

use crate::state::FleetState;
use crate::state::changes::{Changes, count_dropped};

const MINUTE_MS: u64 = 60_000;

/// An operator and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operator {
    /// As it was stated. What counts of it is less, if whoever stated it has less.
    pub(crate) grant: Arc<OperatorGrant>,
    /// The statement that says so; none for the first operator, and for one that was it.
    pub(crate) signed: Option<Arc<SignedGrant>>,
    /// Until when it has sent as much as it may: every command moves it on by the time that it takes to be granted the
    /// next (the leaky bucket of ITU-T I.371, as a virtual schedule).
    busy_until: LogInstant,
    /// Which of all statements it is that replaced an earlier one; 0 if it replaced none.
    pub(super) order: u64,
    /// When the last of all that was ever granted to it ends; none if something has no end. From then on nothing that was signed of
    /// it gives anybody anything.
    pub(super) ends: Option<LogInstant>,
}

/// Whether a grant lets nobody do anything by now, whoever stated it.
fn is_over(grant: &OperatorGrant, now: LogInstant) -> bool {
    grant.revoked || grant.until.is_some_and(|until| until <= now)
}

/// About how many bytes of statements one answer to a node carries, and those beside what was signed.
const NEWS_BYTES_SOFT_MAX: usize = 64 * 1_024;
const STATEMENT_BYTES: usize = 128;

impl FleetState {
    /// What the shard is from now on. A first operator that did not show that it has its key is none.
    pub(in crate::state) fn found(&mut self, founding: &Founding, changes: &mut Changes) {
        let place = founding.charter.place.clone();
        self.commands.place = Some(place.clone());
        changes.record(self.head.clock, ChangeKind::Founded { place: place.clone() });
        let Some(first) = founding.charter.shown() else { return };
        self.commands.made_first = Some(first.operator);
        self.put_first(KnownFirst { operator: first.operator, replaced: 0 }, &first.name, place, changes);
    }

    /// An operator may do everything from now on.
    pub(super) fn put_first(
        &mut self,
        first: KnownFirst,
        name: &OperatorName,
        place: Place,
        changes: &mut Changes,
    ) -> Receipt {
        let serial = self.commands.operators.get(&first.operator).map_or(0, |known| known.grant.serial);
        let admin_depth = u32::try_from(self.head.limits.authority_chain_max).unwrap_or(u32::MAX);
        let whole = OperatorGrant::of_first(place, first.operator, name.clone());
        self.commands.first = Some(first);
        self.put_operator(OperatorGrant { serial, admin_depth, ..whole }, None, changes)
    }

    /// Another key is the first operator from now on. The one before it may do nothing any more, nor may anybody by its word.
    pub(in crate::state) fn replace_first(
        &mut self,
        signed: &Arc<SignedReplacement>,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        self.check_place(&signed.place)?;
        let first = self.commands.first;
        let expected = first.map_or(1, |first| first.replaced.saturating_add(1));
        if first.is_none_or(|first| first.operator != signed.old) || signed.serial != expected {
            return Err(Refusal::NotFirst { by: signed.old, given: signed.serial, expected });
        }
        if signed.new == signed.old {
            return Err(Refusal::FirstOperator);
        }
        let count = self.commands.replaced.len() as u64;
        if count >= self.head.limits.first_replacements_max {
            return Err(Refusal::ShardFull { what: ShardFullOf::FirstOperators, count });
        }
        // It takes the place of the one before it.
        self.make_operator_room(signed.new, false)?;
        changes.record(self.head.clock, ChangeKind::FirstReplaced { old: signed.old, new: signed.new });
        if let Some(former) = self.commands.operators.get_mut(&signed.old) {
            Arc::make_mut(&mut former.grant).revoked = true;
        }
        self.commands.replaced.push(Arc::clone(signed));
        let now = KnownFirst { operator: signed.new, replaced: signed.serial };
        let receipt = self.put_first(now, &signed.name, signed.place.clone(), changes);
        self.withdraw_commands(changes);
        Ok(receipt)
    }

    pub(in crate::state) fn grant_operator(
        &mut self,
        signed: &SignedGrant,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        let grant = signed.statement();
        let by = grant.by;
        grant.check_within(&self.head.limits)?;
        self.check_place(&grant.place)?;
        if self.active_operator(by)?.admin_depth == 0 {
            return Err(Refusal::NotAdmin(by));
        }
        if self.commands.first.is_some_and(|first| first.operator == grant.operator) {
            return Err(Refusal::FirstOperator);
        }
        let above = self.authority_of(by);
        if above.len() as u64 >= self.head.limits.authority_chain_max {
            return Err(Refusal::NotAdmin(by));
        }
        // Nobody changes what it owes its own place to.
        if grant.operator == by || above.iter().any(|signed| signed.by == grant.operator) {
            return Err(Refusal::NotAdmin(by));
        }
        let known = self.commands.operators.get(&grant.operator);
        let was_known = known.is_some();
        if was_known && !self.is_above(by, grant.operator) {
            return Err(Refusal::NotAbove { by, operator: grant.operator });
        }
        // One that is not known may have been forgotten.
        let last = known.map_or(self.commands.serial_floor, |known| known.grant.serial);
        if grant.serial > last.saturating_add(self.head.limits.serial_step_max) {
            return Err(InvalidCommand::Serial { given: grant.serial, last }.into());
        }
        if grant.serial <= last && (was_known || last > 0) {
            return Err(Refusal::GrantStale { given: grant.serial, known: last });
        }
        self.make_operator_room(grant.operator, !is_over(grant, self.head.clock))?;
        let receipt = self.put_operator(grant.clone(), Some(Arc::new(signed.clone())), changes);
        // One that is new has sent nothing, and nobody is one by its word.
        if was_known {
            self.withdraw_commands(changes);
        }
        Ok(receipt)
    }

    /// Sees to it that there is room for a statement about an operator; `adds`: whether it may do something by it. What takes
    /// something from an operator that is known always has room.
    fn make_operator_room(&mut self, operator: OperatorKey, adds: bool) -> Result<(), Refusal> {
        let (now, limits, operators) = (self.head.clock, self.head.limits, &self.commands.operators);
        let known = operators.get(&operator);
        if adds && known.is_none_or(|known| is_over(&known.grant, now)) {
            let count = operators.values().filter(|of| !is_over(&of.grant, now)).count() as u64;
            if count >= limits.operators_max {
                return Err(Refusal::ShardFull { what: ShardFullOf::Operators, count });
            }
        }
        let count = operators.len() as u64;
        if known.is_some() || count < limits.operators_max.saturating_add(limits.revoked_operators_max) {
            return Ok(());
        }
        if self.forget_operator() {
            return Ok(());
        }
        Err(Refusal::ShardFull { what: ShardFullOf::RevokedOperators, count })
    }

    /// Lets go of the operator of whom everything has ended for longest; whether there was one. What was signed of it has a number
    /// that is not taken any more, here or of a robot's node that remembers it.
    fn forget_operator(&mut self) -> bool {
        let now = self.head.clock;
        let ended = |(key, of): (&OperatorKey, &Operator)| {
            let ends = of.ends.filter(|ends| *ends <= now && is_over(&of.grant, now));
            ends.map(|ends| (ends, *key))
        };
        let Some((_, key)) = self.commands.operators.iter().filter_map(ended).min() else { return false };
        if let Some(forgotten) = self.commands.operators.remove(&key) {
            self.commands.serial_floor = self.commands.serial_floor.max(forgotten.grant.serial);
            count_dropped(&mut self.head.dropped.operators, 1);
        }
        true
    }

    /// Whether an operator granted another one what it has, or is above whoever did.
    fn is_above(&self, by: OperatorKey, operator: OperatorKey) -> bool {
        let is_first = self.commands.first.is_some_and(|first| first.operator == by);
        is_first || self.authority_of(operator).iter().any(|signed| signed.by == by)
    }

    fn put_operator(
        &mut self,
        grant: OperatorGrant,
        signed: Option<Arc<SignedGrant>>,
        changes: &mut Changes,
    ) -> Receipt {
        let (operator, serial, grant) = (grant.operator, grant.serial, Arc::new(grant));
        changes.record(self.head.clock, ChangeKind::OperatorGranted { grant: Arc::clone(&grant) });
        let known = self.commands.operators.get(&operator);
        let busy_until = known.map_or(LogInstant::ZERO, |known| known.busy_until);
        let ended = Some(LogInstant::ZERO);
        let until = if grant.revoked { ended } else { grant.until };
        let ends = known.map_or(ended, |known| known.ends).zip(until).map(|(one, other)| one.max(other));
        // Before the first statement about an operator there was nothing that anybody could still believe.
        let order = if signed.is_some() && serial > FIRST_SERIAL { self.commands.restated + 1 } else { 0 };
        if order > 0 {
            (self.commands.restated, self.commands.restated_at) = (order, Some(self.head.applying.index));
        }
        self.commands.operators.insert(operator, Operator { grant, signed, busy_until, order, ends });
        Receipt::Operator { operator, serial }
    }

    /// An operator and those by whose word it is one, up to the first operator.
    fn line_of(&self, key: OperatorKey) -> Result<Vec<&Operator>, Refusal> {
        let known = |key: OperatorKey| self.commands.operators.get(&key).ok_or(Refusal::NoSuchOperator(key));
        let mut line = vec![known(key)?];
        if line.iter().any(|operator| operator.grant.revoked) {
            return Err(Refusal::OperatorRevoked(key));
        }
        let (mut at, mut by) = (key, line.last().and_then(|operator| operator.signed.as_ref()).map(|signed| signed.by));
        while let Some(above) = by {
            if line.len() as u64 > self.head.limits.authority_chain_max {
                return Err(Refusal::NotAdmin(key));
            }
            let operator = known(above)?;
            if operator.grant.revoked {
                return Err(Refusal::NotAdmin(above));
            }
            (at, by) = (above, operator.signed.as_ref().map(|signed| signed.by));
            line.push(operator);
        }
        let ends_with_first = self.commands.first.is_some_and(|first| first.operator == at);
        if ends_with_first { Ok(line) } else { Err(Refusal::NotAdmin(at)) }
    }

    /// What an operator may do, as far as everybody above it may: whether that has ended is another question.
    fn rights(&self, key: OperatorKey) -> Result<OperatorGrant, Refusal> {
        let mut line = self.line_of(key)?.into_iter().rev().map(|operator| operator.grant.as_ref());
        let mut rights = line.next().cloned().ok_or(Refusal::NoSuchOperator(key))?;
        for grant in line {
            if rights.admin_depth == 0 {
                return Err(Refusal::NotAdmin(rights.operator));
            }
            rights = grant.within(&rights);
        }
        Ok(rights)
    }

    /// What an operator may do now.
    fn active_operator(&self, key: OperatorKey) -> Result<OperatorGrant, Refusal> {
        let (rights, now) = (self.rights(key)?, self.head.clock);
        match rights.until {
            Some(until) if until <= now => Err(Refusal::GrantEnded { operator: key, until, now }),
            _ => Ok(rights),
        }
    }

    /// Whether something was signed for this shard.
    pub(super) fn check_place(&self, place: &Place) -> Result<(), Refusal> {
        if self.commands.place.as_ref() == Some(place) { Ok(()) } else { Err(Refusal::WrongPlace) }
    }

    /// Whether an operator may ask a target for something that is valid until an instant.
    pub(super) fn check_granted(
        &self,
        key: OperatorKey,
        verb: &Verb,
        target: &Target,
        deadline: LogInstant,
    ) -> Result<(), Refusal> {
        let rights = self.active_operator(key)?;
        if rights.allows(verb, target, deadline) {
            return Ok(());
        }
        match rights.until {
            Some(until) if deadline > until => Err(Refusal::OutlivesGrant { operator: key, until, deadline }),
            _ => Err(Refusal::NotGranted { operator: key, verb: verb.clone(), target: target.to_string() }),
        }
    }

    /// Nobody begins any more what its operator may not ask for by now, and no wave of it is let out.
    pub(super) fn withdraw_commands(&mut self, changes: &mut Changes) {
        if is_on(Mutant::RevokedStillSends) {
            return;
        }
        let mut known: BTreeMap<OperatorKey, Option<OperatorGrant>> = BTreeMap::new();
        let mut over: Vec<(CommandId, Vec<AgentId>)> = Vec::new();
        for record in self.commands.records.values().filter(|record| !record.is_ended()) {
            let command = &record.signed;
            let rights = known.entry(command.operator).or_insert_with(|| self.rights(command.operator).ok());
            let may = |rights: &OperatorGrant| rights.allows(&command.verb, &command.target, command.deadline);
            if !rights.as_ref().is_some_and(may) {
                over.push((record.id(), record.deliveries.keys().cloned().collect()));
            }
        }
        for (id, agents) in over {
            self.change_command(id, |record| record.next_wave_at = None);
            agents.iter().for_each(|agent| self.void(id, agent, VoidCause::Revoked, changes));
        }
    }

    /// Whether an operator may send one more command now, and everybody above it; to be noted once it is accepted.
    pub(super) fn check_rate(&self, key: OperatorKey) -> Result<(), Refusal> {
        for operator in self.line_of(key)? {
            let Some(per_minute) = operator.grant.per_minute else { continue };
            let step = MINUTE_MS / u64::from(per_minute.max(1));
            let ahead = operator.busy_until.since_ms(self.head.clock);
            let allowed = (MINUTE_MS / self.head.limits.command_burst_share.max(1)).saturating_sub(step);
            if per_minute == 0 || ahead > allowed {
                let retry_after_ms = ahead.saturating_sub(allowed).max(1);
                let operator = operator.grant.operator;
                return Err(Refusal::TooManyCommands { operator, per_minute, retry_after_ms });
            }
        }
        Ok(())
    }

    /// A command counts for its operator, and for everybody by whose word that is one.
    pub(super) fn count_command(&mut self, key: OperatorKey) {
        let clock = self.head.clock;
        let above: Vec<OperatorKey> = self.authority_of(key).iter().map(|signed| signed.by).collect();
        for key in [key].into_iter().chain(above) {
            let Some(operator) = self.commands.operators.get_mut(&key) else { continue };
            if let Some(per_minute) = operator.grant.per_minute {
                let from = operator.busy_until.max(clock);
                operator.busy_until = from.plus_ms(MINUTE_MS / u64::from(per_minute.max(1)));
            }
        }
    }

    /// What makes an operator one: the statements from its own up to one of the first operator.
    pub(super) fn authority_of(&self, key: OperatorKey) -> Authority {
        let mut chain = Authority::new();
        let mut at = key;
        while let Some(signed) = self.commands.operators.get(&at).and_then(|operator| operator.signed.as_ref()) {
            if chain.len() as u64 >= self.head.limits.authority_chain_max {
                break;
            }
            chain.push(Arc::clone(signed));
            at = signed.by;
        }
        chain
    }

    /// Whether an entry after this one has a statement about an operator that replaced an earlier one. None comes before all.
    pub fn authority_changed_after(&self, index: Option<u64>) -> bool {
        self.commands.restated_at.is_some_and(|at| index.is_none_or(|index| at > index))
    }

    /// How many statements about operators have replaced an earlier one.
    pub fn restated(&self) -> u64 {
        self.commands.restated
    }

    /// The statements about operators that replaced an earlier one, after so many of them, in order, as many as one answer of so many
    /// bytes holds, and one at least; all of them, if there are not so many: nobody knows what whoever asks was told. Of the first
    /// operators, whom nobody granted anything, there is none: see [`root`](Self::root).
    pub fn authority_news(&self, after: u64, bytes_max: usize) -> AuthorityNews {
        let all = self.commands.restated;
        let (mut after, bytes_max) = (if after > all { 0 } else { after }, bytes_max.min(NEWS_BYTES_SOFT_MAX));
        let mut news = AuthorityNews { chains: Vec::new(), up_to: all };
        if after == all {
            return news;
        }
        let stated = self.commands.operators.iter().filter(|(_, of)| of.signed.is_some() && of.order > after);
        let mut stated: Vec<(u64, OperatorKey)> = stated.map(|(key, of)| (of.order, *key)).collect();
        stated.sort_unstable();
        let mut bytes = 0;
        for (order, key) in stated {
            if bytes > bytes_max {
                news.up_to = after;
                break;
            }
            after = order;
            let chain = self.authority_of(key);
            bytes += chain.iter().map(|signed| STATEMENT_BYTES + signed.body().len()).sum::<usize>();
            news.chains.push(Arc::new(chain));
        }
        news
    }

    /// Operators in order of their keys.
    pub fn operators(&self) -> impl Iterator<Item = &OperatorGrant> {
        self.operators_after(None)
    }

    /// Operators in order of their keys, from after one.
    pub fn operators_after(&self, after: Option<OperatorKey>) -> impl Iterator<Item = &OperatorGrant> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.commands.operators.range((from, Unbounded)).map(|(_, operator)| operator.grant.as_ref())
    }

    /// Where statements of operators hold; none before the shard's first entry.
    pub fn place(&self) -> Option<&Place> {
        self.commands.place.as_ref()
    }

    /// The first statement about an operator that is new here has a higher number.
    pub fn serial_floor(&self) -> u64 {
        self.commands.serial_floor
    }

    /// The shard's first operator.
    pub fn first_operator(&self) -> Option<KnownFirst> {
        self.commands.first
    }

    /// Where all authority comes from, for whoever knows so many replacements of the first operator.
    pub fn root(&self, replaced: u64) -> Option<Root> {
        let genesis = self.commands.place.as_ref()?.genesis;
        // They are counted from the shard's last recovery on, and whoever asks may know the shard as it was before.
        let known = if self.commands.past.is_empty() { usize::try_from(replaced).unwrap_or(usize::MAX) } else { 0 };
        let replaced = self.commands.replaced.iter().skip(known).cloned().collect();
        Some(Root { genesis, first: self.commands.made_first, replaced, past: self.commands.past.clone() })
    }
}
