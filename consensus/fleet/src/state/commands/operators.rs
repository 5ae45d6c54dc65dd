//! Who may send commands.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_protocol::authority::{Authority, OperatorGrant, OperatorKey, SignedGrant};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{InvalidCommand, Target};
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::{Receipt, Refusal, ShardFullOf};
use skep_protocol::text::{SiteName, Verb};
use skep_protocol::time::LogInstant;

use crate::state::FleetState;
use crate::state::apply::Journal;

const MINUTE_MS: u64 = 60_000;

/// An operator and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operator {
    pub(crate) grant: Arc<OperatorGrant>,
    /// The statement that says so; none for the first operator.
    pub(crate) signed: Option<Arc<SignedGrant>>,
    /// Until when it has sent as much as it may: every command moves it on by the time that it takes to be granted the
    /// next (the leaky bucket of ITU-T I.371, as a virtual schedule).
    busy_until: LogInstant,
}

impl FleetState {
    pub(in crate::state) fn install_operator(
        &mut self,
        grant: &OperatorGrant,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        if !self.commands.operators.is_empty() {
            return Err(Refusal::OperatorsExist);
        }
        let (site, shard, name) = (grant.site.clone(), grant.shard, grant.name.clone());
        let whole = OperatorGrant::of_first(site, shard, grant.operator, name);
        self.commands.first = Some(grant.operator);
        Ok(self.put_operator(whole, None, journal))
    }

    pub(in crate::state) fn grant_operator(
        &mut self,
        signed: &SignedGrant,
        journal: &mut Journal,
    ) -> Result<Receipt, Refusal> {
        let SignedGrant { grant, by, .. } = signed;
        grant.check_within(&self.limits)?;
        self.check_place(&grant.site, grant.shard)?;
        if !self.active_operator(*by)?.grant.admin {
            return Err(Refusal::NotAdmin(*by));
        }
        if self.commands.first == Some(grant.operator) {
            return Err(Refusal::FirstOperator);
        }
        let above = self.authority_of(*by);
        if above.len() as u64 >= self.limits.authority_chain_max {
            return Err(Refusal::NotAdmin(*by));
        }
        // Nobody changes what it owes its own place to.
        if grant.operator == *by || above.iter().any(|signed| signed.by == grant.operator) {
            return Err(Refusal::NotAdmin(*by));
        }
        let known = self.commands.operators.get(&grant.operator);
        let last = known.map_or(0, |known| known.grant.serial);
        if grant.serial > last.saturating_add(self.limits.serial_step_max) {
            return Err(InvalidCommand::Serial { given: grant.serial, last }.into());
        }
        if let Some(known) = known.filter(|known| grant.serial <= known.grant.serial) {
            return Err(Refusal::GrantStale { given: grant.serial, known: known.grant.serial });
        }
        let count = self.commands.operators.len() as u64;
        if known.is_none() && count >= self.limits.operators_max {
            return Err(Refusal::ShardFull { what: ShardFullOf::Operators, count });
        }
        Ok(self.put_operator(grant.clone(), Some(Arc::new(signed.clone())), journal))
    }

    fn put_operator(
        &mut self,
        grant: OperatorGrant,
        signed: Option<Arc<SignedGrant>>,
        journal: &mut Journal,
    ) -> Receipt {
        let (operator, serial, grant) = (grant.operator, grant.serial, Arc::new(grant));
        let by = signed.as_ref().map(|signed| signed.by);
        journal.record(self.clock, ChangeKind::OperatorGranted { grant: Arc::clone(&grant), by });
        let busy_until = self.commands.operators.get(&operator).map_or(LogInstant::ZERO, |known| known.busy_until);
        self.commands.operators.insert(operator, Operator { grant, signed, busy_until });
        Receipt::Operator { operator, serial }
    }

    /// An operator that may do something.
    fn active_operator(&self, key: OperatorKey) -> Result<&Operator, Refusal> {
        let operator = self.commands.operators.get(&key).ok_or(Refusal::NoSuchOperator(key))?;
        if operator.grant.revoked {
            return Err(Refusal::OperatorRevoked(key));
        }
        // Whoever made it one must still be an admin, up to the first.
        let mut at = operator;
        for _ in 0..=self.limits.authority_chain_max {
            let Some(by) = at.signed.as_ref().map(|signed| signed.by) else { return Ok(operator) };
            at = self.commands.operators.get(&by).ok_or(Refusal::NoSuchOperator(by))?;
            if at.grant.revoked || !at.grant.admin {
                return Err(Refusal::NotAdmin(by));
            }
        }
        Err(Refusal::NotAdmin(key))
    }

    /// Whether something was signed for this shard.
    pub(super) fn check_place(&self, site: &SiteName, shard: ShardId) -> Result<(), Refusal> {
        let first = self.commands.first.and_then(|first| self.commands.operators.get(&first));
        let here = first.is_some_and(|first| first.grant.site == *site && first.grant.shard == shard);
        if here || first.is_none() { Ok(()) } else { Err(Refusal::WrongPlace) }
    }

    /// Whether an operator may ask a target for something.
    pub(super) fn check_granted(&self, key: OperatorKey, verb: &Verb, target: &Target) -> Result<(), Refusal> {
        if self.active_operator(key)?.grant.allows(verb, target) {
            return Ok(());
        }
        Err(Refusal::NotGranted { operator: key, verb: verb.clone(), target: target.to_string() })
    }

    /// Whether an operator may send one more command now; to be noted once it is accepted.
    pub(super) fn check_rate(&self, key: OperatorKey) -> Result<(), Refusal> {
        let operator = self.active_operator(key)?;
        let Some(per_minute) = operator.grant.per_minute else { return Ok(()) };
        let step = MINUTE_MS / u64::from(per_minute.max(1));
        let ahead = operator.busy_until.since_ms(self.clock);
        let allowed = (MINUTE_MS / self.limits.command_burst_share.max(1)).saturating_sub(step);
        if per_minute == 0 || ahead > allowed {
            let retry_after_ms = ahead.saturating_sub(allowed).max(1);
            return Err(Refusal::TooManyCommands { operator: key, per_minute, retry_after_ms });
        }
        Ok(())
    }

    pub(super) fn count_command(&mut self, key: OperatorKey) {
        let clock = self.clock;
        let Some(operator) = self.commands.operators.get_mut(&key) else { return };
        if let Some(per_minute) = operator.grant.per_minute {
            let from = operator.busy_until.max(clock);
            operator.busy_until = from.plus_ms(MINUTE_MS / u64::from(per_minute.max(1)));
        }
    }

    /// What makes an operator one: the statements from its own up to one of the first operator.
    pub(super) fn authority_of(&self, key: OperatorKey) -> Authority {
        let mut chain = Authority::new();
        let mut at = key;
        while let Some(signed) = self.commands.operators.get(&at).and_then(|operator| operator.signed.as_ref()) {
            if chain.len() as u64 >= self.limits.authority_chain_max {
                break;
            }
            chain.push(Arc::clone(signed));
            at = signed.by;
        }
        chain
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

    /// The shard's first operator.
    pub fn first_operator(&self) -> Option<OperatorKey> {
        self.commands.first
    }
}
