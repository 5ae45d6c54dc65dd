//! A shard that goes on as another group, from what one replica of it held.

use std::sync::Arc;

use skep_protocol::change::ShardChange;
use skep_protocol::entry::Recovered;
use skep_protocol::ids::RaftId;
use skep_protocol::operator::{KnownFirst, PastGenesis};
use skep_protocol::recovery::{Lineage, SignedRecovery};
use skep_protocol::signing::{OperatorKey, Place};
use skep_protocol::time::LogInstant;

use super::Operators;
use crate::state::changes::Cx;

/// Number of recoveries that the shard tells nodes that knew it before. It is a part of what an entry means: another
/// number needs another fleet version.
const RECOVERIES_KEPT: usize = 4;
/// Number of members of earlier groups that the shard knows. It is a part of what an entry means, too.
const FORMER_MEMBERS_KEPT: usize = 64;

impl Operators {
    /// Whether an entry makes the shard go on as another group: its first operator signed so, of what the shard holds
    /// and no more. Between the last entry of the group before and this one is the entry that names the members of the
    /// new group. `applied`: the index of the entry before this one.
    pub(crate) fn is_recovery(&self, recovered: &Recovered, applied: Option<u64>) -> bool {
        let signed = &recovered.statement;
        let first = self.first.map(|first| first.operator);
        applied == signed.last_index.checked_add(1)
            && self.place.as_ref() == Some(&signed.place)
            && signed.genesis != signed.place.genesis
            && first.is_some_and(|first| signed.is_by(first))
    }

    /// Gives the shard another genesis. What operators signed under the one before is over: the first one may do
    /// everything, and must grant the others anew what they may.
    pub(crate) fn recover(&mut self, recovered: &Recovered, cx: &mut Cx<'_>) {
        let signed = &recovered.statement;
        let place = Place { genesis: signed.genesis, ..signed.place.clone() };
        let (from, last_index, by) = (signed.place.genesis, signed.last_index, signed.by);
        cx.record(ShardChange::Recovered { place: place.clone(), from, last_index, by });
        let replaced = std::mem::take(&mut self.replaced);
        self.past.push(PastGenesis { replaced, recovery: Arc::new(signed.clone()) });
        keep_last(&mut self.past, RECOVERIES_KEPT);
        self.former.extend_from_slice(&recovered.former);
        keep_last(&mut self.former, FORMER_MEMBERS_KEPT);
        (self.place, self.made_first) = (Some(place.clone()), Some(by));
        self.revoke_all_but(by);
        if let Some(name) = self.operators.get(&by).map(|first| first.grant.name.clone()) {
            self.put_first(KnownFirst { operator: by, replaced: 0 }, &name, place, cx);
        }
    }

    /// The serials of their last statements stay: robots' nodes believe none with a lower one. Under another genesis no
    /// earlier statement holds, so that all of it has ended.
    fn revoke_all_but(&mut self, first: OperatorKey) {
        let others: Vec<OperatorKey> = self.operators.keys().filter(|key| **key != first).copied().collect();
        for key in others {
            let Some(operator) = self.operators.get_mut(&key) else { continue };
            Arc::make_mut(&mut operator.grant).revoked = true;
            (operator.signed, operator.order, operator.ends) = (None, 0, Some(LogInstant::ZERO));
        }
        self.stand_all_anew();
    }

    /// The statement by which the shard goes on as another group than it was; none if it never did.
    pub(crate) fn recovery(&self) -> Option<&SignedRecovery> {
        self.past.last().map(|past| past.recovery.as_ref())
    }

    /// The lineage of the shard; none before its first entry.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        let Place { shard, genesis, .. } = self.place.as_ref()?;
        let past = self.past.iter().map(|past| past.recovery.place.genesis).collect();
        Some(Lineage { shard: *shard, genesis: *genesis, past })
    }

    /// Whether a member was one of an earlier group: what goes on may lack entries that it holds.
    pub(crate) fn is_former(&self, member: RaftId) -> bool {
        self.former.contains(&member)
    }
}

/// Lets go of the oldest beyond this number.
fn keep_last<T>(all: &mut Vec<T>, count: usize) {
    all.drain(..all.len().saturating_sub(count));
}
