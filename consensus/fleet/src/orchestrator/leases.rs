//! Leases of agents: renewed beside the log, ended in it.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::agent::Attachment;
use skep_protocol::entry::Decision;
use skep_protocol::heartbeat::Renewal;
use skep_protocol::ids::AttachmentId;
use skep_protocol::lease::LeaseTerms;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::{DECISIONS_PER_PROPOSAL_MAX, RETRY_AFTER_MS};
use crate::state::FleetState;

/// Claims that the expiries of one proposal end: what an entry changes must fit into a frame. More wait for the next.
const CLAIMS_ENDED_PER_PROPOSAL_MAX: usize = 2_048;

#[derive(Clone, Copy, Debug)]
struct Lease {
    attachment: AttachmentId,
    terms: LeaseTerms,
    /// When it ends unless it is renewed before, margin included.
    ends: LogInstant,
    /// When its expiry was proposed. From then on nobody renews it, whatever becomes of the proposal.
    expiring: Option<LogInstant>,
}

/// How long nothing is taken back after a lease was last confirmed.
fn wait_ms(terms: LeaseTerms) -> u64 {
    if is_on(Mutant::ExpiryWithoutMargin) { terms.holder_ms() } else { terms.orchestrator_ms() }
}

/// The leases of all attached agents of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<AgentId, Lease>,
    ends: BTreeSet<(LogInstant, AgentId)>,
}

impl Leases {
    /// Takes note of how an agent is attached now. A new attachment has a full lease.
    pub(super) fn note(&mut self, agent: &AgentId, attachment: Option<&Attachment>, now: LogInstant) {
        let known = self.leases.get(agent).map(|lease| lease.attachment);
        match attachment {
            Some(attachment) if known == Some(attachment.id) => {}
            Some(attachment) => {
                self.remove(agent);
                let ends = now.plus_ms(wait_ms(attachment.lease));
                let lease = Lease { attachment: attachment.id, terms: attachment.lease, ends, expiring: None };
                self.ends.insert((ends, agent.clone()));
                self.leases.insert(agent.clone(), lease);
            }
            None => self.remove(agent),
        }
    }

    fn remove(&mut self, agent: &AgentId) {
        if let Some(lease) = self.leases.remove(agent) {
            self.ends.remove(&(lease.ends, agent.clone()));
        }
    }

    /// Whether the lease of an attachment runs and nobody is ending it.
    pub(super) fn is_live(&self, agent: &AgentId, attachment: AttachmentId) -> bool {
        self.leases.get(agent).is_some_and(|lease| lease.attachment == attachment && lease.expiring.is_none())
    }

    /// Renews a lease. To be called only after a quorum round that began after the renewal was asked for.
    pub(super) fn renew(&mut self, agent: &AgentId, attachment: AttachmentId, now: LogInstant) -> Renewal {
        let Some(lease) = self.leases.get_mut(agent).filter(|lease| lease.attachment == attachment) else {
            return Renewal::NotAttached;
        };
        if lease.expiring.is_some() {
            return Renewal::NotConfirmed;
        }
        self.ends.remove(&(lease.ends, agent.clone()));
        lease.ends = lease.ends.max(now.plus_ms(wait_ms(lease.terms)));
        self.ends.insert((lease.ends, agent.clone()));
        Renewal::Confirmed
    }

    /// The leases that have ended by now, to be ended in the log. Agents that are attached no more are added to `gone`: that
    /// one was removed as soon as it was detached is not heard otherwise.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant, gone: &mut Vec<AgentId>) -> Vec<Decision> {
        let due: Vec<AgentId> = self
            .ends
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(DECISIONS_PER_PROPOSAL_MAX)
            .map(|(_, agent)| agent.clone())
            .collect();
        let mut decisions = Vec::new();
        let mut claims = 0;
        for agent in due {
            if claims > CLAIMS_ENDED_PER_PROPOSAL_MAX {
                break;
            }
            claims += state.held_by(&agent).count();
            let attachment = state.agent(&agent).and_then(|record| record.attachment).map(|known| known.id);
            if attachment.is_none() || attachment != self.leases.get(&agent).map(|lease| lease.attachment) {
                self.remove(&agent);
                if attachment.is_none() {
                    gone.push(agent);
                }
                continue;
            }
            let Some(lease) = self.leases.get_mut(&agent) else { continue };
            // Looked at again, in case the proposal came to nothing.
            self.ends.remove(&(lease.ends, agent.clone()));
            lease.ends = now.plus_ms(RETRY_AFTER_MS);
            lease.expiring = Some(now);
            self.ends.insert((lease.ends, agent.clone()));
            decisions.push(Decision::ExpireLease { agent, attachment: lease.attachment });
        }
        decisions
    }

    pub(super) fn poll_timeout(&self) -> Option<LogInstant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// How many entries are kept of agents.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.leases.len() + self.ends.len()
    }
}
