//! Leases of agents: the leader renews them beside the log, and ends them in the log.

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

/// The most claims that the expiries of one proposal end: the changes of an entry must fit into a frame. The others
/// wait for the next proposal.
const CLAIMS_ENDED_PER_PROPOSAL_MAX: usize = 2_048;

#[derive(Clone, Copy, Debug)]
struct Lease {
    attachment: AttachmentId,
    terms: LeaseTerms,
    /// When the lease ends unless the leader renews it before; this includes the margin.
    ends: LogInstant,
    /// When the orchestrator proposed to end the lease. From then on the lease is not renewed, whatever becomes of the
    /// proposal.
    expiring: Option<LogInstant>,
}

/// For how long after the last confirmation of a lease no claim is taken back, in milliseconds.
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
    /// Notes how an agent is attached. A new attachment has a full lease.
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

    /// Whether the lease of an attachment runs and no proposal to end it is under way.
    pub(super) fn is_live(&self, agent: &AgentId, attachment: AttachmentId) -> bool {
        self.leases.get(agent).is_some_and(|lease| lease.attachment == attachment && lease.expiring.is_none())
    }

    /// Renews a lease. The caller does so only after a quorum round that began after the node asked for the renewal.
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

    /// The leases that have ended and are to be ended in the log. Agents that are not attached are added to `gone`: the
    /// orchestrator does not hear otherwise of an agent that is removed as soon as it is detached.
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
            // The lease is looked at again later, in case the proposal had no effect.
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
