//! Telling nodes what their agents hold.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::heartbeat::{AgentClaims, ClaimsUpdate};
use skep_protocol::ids::{AttachmentId, ClaimEpoch, NodeId, TaskId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::AgentId;

use crate::state::FleetState;

/// About how many bytes one claim takes in an update without its task.
const HELD_BYTES: u64 = 32;

type Claims = BTreeSet<(TaskId, ClaimEpoch)>;

/// What the node of an agent is known to know.
#[derive(Clone, Debug)]
struct Told {
    attachment: AttachmentId,
    assigned: u64,
    claims: Claims,
}

/// An update on its way.
#[derive(Clone, Debug)]
struct Underway {
    agents: BTreeMap<AgentId, Told>,
}

/// Keeps nodes informed: one update at a time for each, until each knows what its agents hold.
///
/// It compares what is with what was told, so that an update that was lost, or a leader that is new, needs nothing
/// more than telling it again.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    told: BTreeMap<AgentId, Told>,
    /// Agents that may have to be told something, by node.
    dirty: BTreeMap<NodeId, BTreeSet<AgentId>>,
    underway: BTreeMap<NodeId, Underway>,
    /// Claims in updates of which nobody knows whether they arrived: their nodes may believe in them.
    doubtful: BTreeMap<AgentId, Claims>,
    /// Nodes that could not be told; they are tried again when they are heard of.
    deaf: BTreeSet<NodeId>,
    /// About how many bytes of tasks the way to a node carries at once. Of others nothing is known.
    carries: BTreeMap<NodeId, u64>,
}

impl Delivery {
    /// What an agent holds changed, or how it is attached.
    pub(super) fn note(&mut self, state: &FleetState, agent: &AgentId) {
        if let Some(attachment) = state.agent(agent).and_then(|record| record.attachment) {
            self.dirty.entry(attachment.node).or_default().insert(agent.clone());
        }
    }

    /// Nobody serves an agent any more.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.told.remove(agent);
        self.doubtful.remove(agent);
    }

    /// A node was heard of: what it could not be told is tried again.
    pub(super) fn heard(&mut self, node: NodeId) {
        self.deaf.remove(&node);
    }

    /// The way to a node carries about so many bytes at once.
    pub(super) fn carries(&mut self, node: NodeId, bytes: u64) {
        self.carries.insert(node, bytes);
    }

    /// Whether the node of an agent knows of every claim that the agent has lost. Until it does, a renewal would prolong
    /// what is another's. An update that was sent may have arrived, whatever became of its answer.
    pub(super) fn knows_losses(&self, state: &FleetState, agent: &AgentId, attachment: AttachmentId) -> bool {
        let Some(told) = self.told.get(agent).filter(|told| told.attachment == attachment) else { return false };
        let held: Claims = state.held_by(agent).map(|task| (task.id, task.epoch)).collect();
        let mut sent = self.underway.values().filter_map(|underway| underway.agents.get(agent));
        told.claims.is_subset(&held)
            && sent.all(|sent| sent.claims.is_subset(&held))
            && self.doubtful.get(agent).is_none_or(|doubtful| doubtful.is_subset(&held))
    }

    /// An update arrived, or nobody knows whether it did.
    pub(super) fn ended(&mut self, node: NodeId, arrived: bool) {
        let Some(underway) = self.underway.remove(&node) else { return };
        if !arrived {
            self.deaf.insert(node);
        }
        for (agent, told) in underway.agents {
            // There may be more to tell: what did not fit, or what changed meanwhile.
            self.dirty.entry(node).or_default().insert(agent.clone());
            if arrived {
                // The node takes no earlier update any more.
                self.doubtful.remove(&agent);
                self.told.insert(agent, told);
            } else if !is_on(Mutant::LostUpdateForgotten) {
                self.doubtful.entry(agent).or_default().extend(told.claims);
            }
        }
    }

    /// The next update for some node.
    pub(super) fn poll(&mut self, state: &FleetState) -> Option<(NodeId, ClaimsUpdate)> {
        loop {
            let mut ready = self.dirty.keys().filter(|n| !self.underway.contains_key(n) && !self.deaf.contains(n));
            let node = *ready.next()?;
            let agents = self.dirty.remove(&node).unwrap_or_default();
            let (update, underway, rest) = self.update(state, node, agents);
            if !rest.is_empty() {
                self.dirty.insert(node, rest);
            }
            if !update.agents.is_empty() {
                self.underway.insert(node, underway);
                return Some((node, update));
            }
        }
    }

    fn update(
        &self,
        state: &FleetState,
        node: NodeId,
        agents: BTreeSet<AgentId>,
    ) -> (ClaimsUpdate, Underway, BTreeSet<AgentId>) {
        let mut update = ClaimsUpdate { as_of: state.applied().map_or(0, |p| p.index), agents: Vec::new() };
        let mut underway = Underway { agents: BTreeMap::new() };
        let known = self.carries.get(&node).copied();
        let bytes_max = known.unwrap_or(u64::MAX).min(limits::CLAIMS_UPDATE_BYTES_SOFT_MAX);
        let mut bytes = 0;
        let mut agents = agents.into_iter();
        for agent in agents.by_ref() {
            let attachment = state.agent(&agent).and_then(|record| record.attachment);
            let Some(attachment) = attachment.filter(|a| a.node == node) else { continue };
            // Never told is not the same as told of nothing: what it believes to hold may have ended under a former
            // leader, so that the first update of every attachment is sent, however empty.
            let told = self.told.get(&agent).filter(|told| told.attachment == attachment.id);
            let none = BTreeSet::new();
            let known = told.map_or(&none, |told| &told.claims);
            let held: Claims = state.held_by(&agent).map(|task| (task.id, task.epoch)).collect();
            if told.is_some_and(|told| told.assigned == attachment.assigned) && *known == held {
                continue;
            }
            let mut claims: Claims = known.intersection(&held).copied().collect();
            let mut tasks = Vec::new();
            for task in state.held_by(&agent).filter(|task| !known.contains(&(task.id, task.epoch))) {
                if bytes > bytes_max {
                    break;
                }
                bytes += task.bytes();
                claims.insert((task.id, task.epoch));
                tasks.push(task.clone());
            }
            bytes += HELD_BYTES * held.len() as u64;
            let held = held.into_iter().collect();
            let (id, assigned) = (attachment.id, attachment.assigned);
            update.agents.push(AgentClaims { agent: agent.clone(), attachment: id, assigned, held, tasks });
            underway.agents.insert(agent, Told { attachment: id, assigned, claims });
            if bytes > bytes_max {
                break;
            }
        }
        (update, underway, agents.collect())
    }
}
