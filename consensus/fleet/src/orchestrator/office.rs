//! Voters that are to be revoked: the directory hears when they have left their office.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::entry::Decision;
use skep_protocol::ids::NodeId;
use skep_protocol::site::SiteKey;
use skep_protocol::time::LogInstant;

use super::RETRY_AFTER_MS;
use crate::state::FleetState;

/// Proposes that a voter has left its office, once a revocation waits for that and the voter votes nowhere. It says
/// nothing before it hears who votes.
#[derive(Clone, Debug, Default)]
pub(super) struct Office {
    voters: Option<BTreeSet<SiteKey>>,
    /// When each voter's leave was proposed last, on the shard's clock.
    proposed: BTreeMap<SiteKey, LogInstant>,
}

impl Office {
    /// Takes the voters of all shards: these nodes vote, and no others.
    pub(super) fn note(&mut self, voters: &[NodeId]) {
        self.voters = Some(voters.iter().copied().map(SiteKey::from).collect());
    }

    /// What to propose at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        self.proposed.retain(|_, at| now.since_ms(*at) < RETRY_AFTER_MS);
        let due: BTreeSet<SiteKey> = self.due(state).filter(|voter| !self.proposed.contains_key(voter)).collect();
        self.proposed.extend(due.iter().map(|voter| (*voter, now)));
        due.into_iter().map(|voter| Decision::LeftOffice { voter }).collect()
    }

    /// When there is something to decide next, if nothing else happens before.
    pub(super) fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        let proposed = self.due(state).filter_map(|voter| self.proposed.get(&voter));
        proposed.min().map(|at| at.plus_ms(RETRY_AFTER_MS))
    }

    /// Keys of the voters for which revocations wait, and that vote nowhere.
    fn due(&self, state: &FleetState) -> impl Iterator<Item = SiteKey> {
        let known = self.voters.iter();
        known.flat_map(move |voters| state.to_leave_office().filter(move |voter| !voters.contains(voter)))
    }
}
