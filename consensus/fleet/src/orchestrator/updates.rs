//! Telling nodes what their agents hold.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::heartbeat::{AgentClaims, ClaimsUpdate};
use skep_protocol::ids::{AttachmentId, ClaimEpoch, NodeId, TaskId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::AgentId;

use crate::state::FleetState;

/// About how many bytes one claim takes in an update, its task not counted.
const HELD_BYTES: u64 = 32;

type Claims = BTreeSet<(TaskId, ClaimEpoch)>;

/// What the leader knows that the node of an agent knows.
#[derive(Clone, Debug)]
struct Told {
    attachment: AttachmentId,
    assigned: u64,
    claims: Claims,
}

/// An update that is under way.
#[derive(Clone, Debug)]
struct Underway {
    agents: BTreeMap<AgentId, Told>,
}

/// Keeps nodes informed: sends each node one update at a time, until the node knows what its agents hold.
///
/// It compares what agents hold with what their nodes were told. So after a lost update, or a change of leader, it only
/// has to tell again.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeUpdates {
    /// The attached agents: their nodes, and their attachments. Nothing is kept of other agents.
    attached: BTreeMap<AgentId, (NodeId, AttachmentId)>,
    told: BTreeMap<AgentId, Told>,
    /// Agents of which their node may have to be told something, by that node.
    dirty: BTreeMap<NodeId, BTreeSet<AgentId>>,
    /// The nodes of `dirty` that can be told something: no update to them is under way, and the last one arrived.
    ready: BTreeSet<NodeId>,
    underway: BTreeMap<NodeId, Underway>,
    /// The nodes to which an update is under way, by the agents that it names.
    sent: BTreeMap<AgentId, BTreeSet<NodeId>>,
    /// Claims in updates that may or may not have arrived: the nodes may hold them for true.
    doubtful: BTreeMap<AgentId, Claims>,
    /// Nodes that an update did not reach; they are tried again at their next heartbeat.
    deaf: BTreeSet<NodeId>,
    /// About how many bytes of tasks the connection to a node carries at once. A node that is missing here has no known
    /// bound.
    carries: BTreeMap<NodeId, u64>,
}

impl NodeUpdates {
    /// Notes that what an agent holds, or its attachment, changed.
    pub(super) fn note(&mut self, state: &FleetState, agent: &AgentId) {
        let Some(attachment) = state.agent(agent).and_then(|record| record.attachment) else { return };
        let node = attachment.node;
        let before = self.attached.insert(agent.clone(), (node, attachment.id));
        if let Some((former, _)) = before.filter(|(former, _)| *former != node) {
            self.clean(former, agent);
        }
        self.dirty.entry(node).or_default().insert(agent.clone());
        self.judge(node);
    }

    /// Notes that there is nothing to tell a node of an agent.
    fn clean(&mut self, node: NodeId, agent: &AgentId) {
        if let Some(agents) = self.dirty.get_mut(&node) {
            agents.remove(agent);
            if agents.is_empty() {
                self.dirty.remove(&node);
            }
        }
        self.judge(node);
    }

    /// Works out anew whether a node can be told something.
    fn judge(&mut self, node: NodeId) {
        if self.dirty.contains_key(&node) && !self.underway.contains_key(&node) && !self.deaf.contains(&node) {
            self.ready.insert(node);
        } else {
            self.ready.remove(&node);
        }
    }

    /// Forgets an agent that no node serves.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.told.remove(agent);
        self.doubtful.remove(agent);
        if let Some((node, _)) = self.attached.remove(agent) {
            self.clean(node, agent);
        }
    }

    /// A heartbeat of a node arrived: what did not reach the node is tried again.
    pub(super) fn heard(&mut self, node: NodeId) {
        if self.deaf.remove(&node) {
            self.judge(node);
        }
    }

    /// Notes about how many bytes the connection to a node carries at once.
    pub(super) fn carries(&mut self, node: NodeId, bytes: u64) {
        self.carries.insert(node, bytes);
    }

    /// Whether the node of an agent knows of every claim that the agent has lost. Until the node does, a renewal would
    /// prolong a claim that another agent may hold. An update that was sent may have arrived, whatever became of its
    /// answer.
    pub(super) fn knows_losses(&self, state: &FleetState, agent: &AgentId, attachment: AttachmentId) -> bool {
        let Some(told) = self.told.get(agent).filter(|told| told.attachment == attachment) else { return false };
        let held: Claims = state.held_by(agent).map(|task| (task.id, task.epoch)).collect();
        let mut sent = self.sent_to(agent);
        told.claims.is_subset(&held)
            && sent.all(|sent| sent.claims.is_subset(&held))
            && self.doubtful.get(agent).is_none_or(|doubtful| doubtful.is_subset(&held))
    }

    /// What the updates under way tell of an agent.
    fn sent_to(&self, agent: &AgentId) -> impl Iterator<Item = &Told> {
        let nodes = self.sent.get(agent).into_iter().flatten();
        let updates = nodes.filter_map(move |node| self.underway.get(node)).inspect(|_| {
            #[cfg(test)]
            crate::state::looks::count();
        });
        updates.filter_map(move |underway| underway.agents.get(agent))
    }

    /// An update arrived, or its outcome is unknown.
    pub(super) fn ended(&mut self, node: NodeId, arrived: bool) {
        let Some(underway) = self.underway.remove(&node) else { return };
        if !arrived {
            self.deaf.insert(node);
        }
        for (agent, told) in underway.agents {
            if let Some(nodes) = self.sent.get_mut(&agent) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.sent.remove(&agent);
                }
            }
            // Nothing is kept of an attachment that has ended: a node ignores what it is told of one, and no lease
            // under one is renewed. The agent may have gone for good, or another node may serve it.
            if self.attached.get(&agent) != Some(&(node, told.attachment)) {
                continue;
            }
            // There may be more to tell: what did not fit, or what changed meanwhile.
            self.dirty.entry(node).or_default().insert(agent.clone());
            if arrived {
                // The node takes no earlier update from here on.
                self.doubtful.remove(&agent);
                self.told.insert(agent, told);
            } else if !is_on(Mutant::LostUpdateForgotten) {
                self.doubtful.entry(agent).or_default().extend(told.claims);
            }
        }
        self.judge(node);
    }

    /// Returns the next update, and the node that it is for.
    pub(super) fn poll(&mut self, state: &FleetState) -> Option<(NodeId, ClaimsUpdate)> {
        while let Some(node) = self.ready.pop_first() {
            #[cfg(test)]
            crate::state::looks::count();
            let agents = self.dirty.remove(&node).unwrap_or_default();
            let (update, underway, rest) = self.update(state, node, agents);
            if !rest.is_empty() {
                self.dirty.insert(node, rest);
            }
            if update.agents.is_empty() {
                self.judge(node);
                continue;
            }
            for agent in underway.agents.keys() {
                self.sent.entry(agent.clone()).or_default().insert(node);
            }
            self.underway.insert(node, underway);
            return Some((node, update));
        }
        None
    }

    /// How many entries are kept of agents.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let dirty = self.dirty.values().map(BTreeSet::len).sum::<usize>();
        let of_updates = self.sent.len() + self.underway.len() + self.ready.len() + self.doubtful.len();
        self.attached.len() + self.told.len() + dirty + of_updates
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
            // A node that was never told differs from a node that was told of no claim: what it takes its agent to hold
            // may have ended under a former leader. So the first update of every attachment is sent, even if it is
            // empty.
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

#[cfg(test)]
mod tests {
    use skep_protocol::task::TaskOp;

    use super::*;
    use crate::orchestrator::support::{Served, task};
    use crate::state::looks;

    const AGENTS: u16 = 300;

    #[test]
    fn nodes_that_are_being_told_are_not_looked_at_whatever_happens_to_others() {
        let Served { state, attachments, .. } = Served::new(AGENTS);
        let mut updates = NodeUpdates::default();
        attachments.iter().for_each(|(agent, _, _)| updates.note(&state, agent));
        let told: BTreeSet<NodeId> = std::iter::from_fn(|| updates.poll(&state)).map(|(node, _)| node).collect();
        assert_eq!(told.len(), usize::from(AGENTS));
        looks::take();
        for (agent, node, attachment) in &attachments {
            assert!(!updates.knows_losses(&state, agent, *attachment));
            updates.ended(*node, true);
            assert_eq!(updates.poll(&state), None, "it knows");
            assert!(updates.knows_losses(&state, agent, *attachment));
            // Something else may have changed.
            updates.note(&state, agent);
        }
        assert!(looks::take() <= 2 * usize::from(AGENTS));
        assert_eq!((updates.ready.len(), updates.sent.len(), updates.underway.len()), (1, 0, 0), "the last one");
    }

    #[test]
    fn a_node_that_could_not_be_told_is_told_once_it_is_heard() {
        let Served { state, attachments, .. } = Served::new(2);
        let mut updates = NodeUpdates::default();
        attachments.iter().for_each(|(agent, _, _)| updates.note(&state, agent));
        let (first, _) = updates.poll(&state).unwrap();
        updates.ended(first, false);
        let (second, _) = updates.poll(&state).unwrap();
        assert_ne!(first, second);
        assert_eq!(updates.poll(&state), None);
        updates.heard(first);
        assert_eq!(updates.poll(&state).map(|(node, _)| node), Some(first));
    }

    #[test]
    fn what_became_of_an_update_for_a_former_node_says_nothing_of_the_one_that_serves_the_agent_now() {
        for arrived in [true, false] {
            let mut served = Served::new(1);
            let (agent, former, attachment) = served.attachments[0].clone();
            served.create(1, &[]);
            let (by, attachment) = (agent.clone(), Some(attachment));
            served.ask(TaskOp::Claim { agent: by, task: Some(task(1)), attachment });
            assert_eq!(served.state.held_by(&agent).count(), 1);
            let mut updates = NodeUpdates::default();
            updates.note(&served.state, &agent);
            assert_eq!(updates.poll(&served.state).map(|(node, _)| node), Some(former));

            // The agent gives back what it held, leaves, and returns at another node before the outcome of the update
            // is known.
            served.detach(0);
            updates.forget(&agent);
            served.attach(0, 1);
            let (_, now, attachment) = served.attachments[1].clone();
            updates.note(&served.state, &agent);
            assert_eq!(updates.poll(&served.state).map(|(node, _)| node), Some(now));
            updates.ended(now, true);
            updates.ended(former, arrived);
            assert!(updates.knows_losses(&served.state, &agent, attachment), "arrived: {arrived}");
        }
    }
}
