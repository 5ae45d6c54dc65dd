//! What the leader of a shard decides by itself.

mod commands;
mod crew;
mod due;
mod idle;
mod leases;
mod office;
mod policy;
mod proposed;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;
mod updates;
mod work;

use std::collections::VecDeque;

use skep_protocol::entry::Decision;
use skep_protocol::heartbeat::{AgentHeartbeat, AgentRenewal, ClaimsUpdate, Heartbeat, HeartbeatReply, Renewal};
use skep_protocol::ids::NodeId;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use crate::state::FleetState;
use commands::CommandDues;
use due::Endings;
use idle::IdleAgents;
use leases::Leases;
use office::Office;
pub use policy::Policy;
use updates::NodeUpdates;
use work::Work;

/// The most decisions of one kind in one proposal; the others wait for the next.
const DECISIONS_PER_PROPOSAL_MAX: usize = 256;
/// Wait before a decision that had no effect is proposed again, in milliseconds.
const RETRY_AFTER_MS: u64 = 2_000;

/// How an orchestrator decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrchestratorConfig {
    /// How the orchestrator chooses the agent that gets a task.
    pub policy: Policy,
}

/// Names a heartbeat between the orchestrator and its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeartbeatKey(pub u64);

/// What happened, as the caller tells the orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node reported the state of its agents.
    Heartbeat {
        /// The name of the heartbeat; no other heartbeat that waits has it.
        key: HeartbeatKey,
        /// The node that sent the heartbeat.
        node: NodeId,
        /// What the node said.
        heartbeat: Heartbeat,
    },
    /// A quorum round ended.
    RoundEnded {
        /// Whether a quorum confirmed that this node still leads, and this node has applied all entries written before.
        confirmed: bool,
    },
    /// A proposal came to an end.
    ProposalEnded {
        /// Whether the proposal was applied; if false, its outcome is unknown.
        applied: bool,
    },
    /// An update for a node came to an end.
    UpdateEnded {
        /// The node that the update was for.
        node: NodeId,
        /// Whether the node took the update.
        arrived: bool,
    },
    /// The caller learned how many bytes of tasks the connection to a node carries at once: the orchestrator cuts its
    /// updates to that size.
    Carries {
        /// The node at the other end of the connection.
        node: NodeId,
        /// How many bytes, about.
        bytes: u64,
    },
    /// All nodes that have a vote in a shard of the site, as far as this node knows, with those of a change that is
    /// under way.
    InOffice {
        /// The nodes.
        voters: Vec<NodeId>,
    },
    /// Entries were applied.
    Applied,
}

/// What the caller of the orchestrator has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Propose these decisions, in the orchestrator's own term, and report the end. At most one is under way.
    Propose(Vec<Decision>),
    /// Ask a quorum whether this node still leads, wait until this node has applied all entries written before, and
    /// report the end. At most one is under way.
    BeginRound,
    /// Answer a heartbeat. Emitted exactly once for each.
    Answer {
        /// The name of the heartbeat.
        key: HeartbeatKey,
        /// The answer.
        reply: HeartbeatReply,
    },
    /// Tell a node what its agents hold, and report the end. At most one is under way for each node.
    Update {
        /// The node to tell.
        node: NodeId,
        /// What to tell the node.
        update: ClaimsUpdate,
    },
}

/// A heartbeat that waits for a quorum.
#[derive(Clone, Debug)]
struct Asked {
    key: HeartbeatKey,
    node: NodeId,
    heartbeat: Heartbeat,
}

/// The orchestrator of a shard: it hears what happens, reads the state and the clock, and says what to do.
///
/// The caller drives it only while its node leads the shard, from when the first entry of its term was applied. A new
/// leader starts with a new orchestrator, which counts every lease in full. The orchestrator holds nothing that it
/// cannot learn again: its latest proposals, which agents want work, which leases were renewed, what each node knows.
/// Each decision names the state that it was based on, and is judged again where it is applied.
///
/// # Contract
/// - `now` never runs back between calls, and the state never goes back.
/// - After every `handle` and `handle_timeout` the caller drains [`poll_effect`](Self::poll_effect) and then reads
///   [`poll_timeout`](Self::poll_timeout).
/// - A renewal is confirmed only after a round that began after its heartbeat arrived, and that waited for all entries
///   written before. For a claim that is being taken back there are then two cases. Either the node knows that the
///   claim is lost; or its fence, which counts from an entry's stamp, ends after the renewed lease, which counts from
///   before the heartbeat.
#[derive(Clone, Debug)]
pub struct Orchestrator {
    endings: Endings,
    commands: CommandDues,
    idle: IdleAgents,
    leases: Leases,
    office: Office,
    work: Work,
    updates: NodeUpdates,
    /// Heartbeats that wait for the next round, and those that wait for the round under way.
    waiting: Vec<Asked>,
    in_round: Option<Vec<Asked>>,
    proposing: bool,
    /// The last entry whose changes the orchestrator has read.
    seen: Option<u64>,
    effects: VecDeque<Effect>,
}

impl Orchestrator {
    /// Returns the orchestrator of a new leader: every lease counts in full from `now`.
    pub fn new(config: OrchestratorConfig, state: &FleetState, now: LogInstant) -> Self {
        let mut orchestrator = Self {
            endings: Endings::default(),
            commands: CommandDues::default(),
            idle: IdleAgents::default(),
            leases: Leases::default(),
            office: Office::default(),
            work: Work::new(config.policy),
            updates: NodeUpdates::default(),
            waiting: Vec::new(),
            in_round: None,
            proposing: false,
            seen: None,
            effects: VecDeque::new(),
        };
        orchestrator.look(state, now);
        orchestrator.decide(state, now);
        orchestrator
    }

    /// Tells the orchestrator that something happened.
    pub fn handle(&mut self, event: Event, state: &FleetState, now: LogInstant) {
        match event {
            Event::Heartbeat { key, node, heartbeat } => self.on_heartbeat(key, node, heartbeat, state, now),
            Event::RoundEnded { confirmed } => self.on_round_ended(confirmed, state, now),
            Event::ProposalEnded { applied } => {
                self.proposing = false;
                self.look(state, now);
                self.work.proposal_ended(applied, now);
            }
            Event::UpdateEnded { node, arrived } => {
                self.look(state, now);
                self.updates.ended(node, arrived);
            }
            // No decision follows from this.
            Event::Carries { node, bytes } => return self.updates.carries(node, bytes),
            Event::InOffice { voters } => self.office.note(&voters),
            Event::Applied => self.look(state, now),
        }
        self.decide(state, now);
    }

    /// Tells the orchestrator that time passed.
    pub fn handle_timeout(&mut self, state: &FleetState, now: LogInstant) {
        self.decide(state, now);
    }

    /// Returns the next thing to do; none when everything is done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing else happens before.
    pub fn poll_timeout(&self, state: &FleetState, now: LogInstant) -> Option<LogInstant> {
        if self.proposing {
            return None;
        }
        let gate = state.next_gate(now).filter(|_| self.work.is_anybody_hungry());
        let (endings, commands) = (self.endings.poll_timeout(state), self.commands.poll_timeout(state));
        let (idle, leases) = (self.idle.poll_timeout(state), self.leases.poll_timeout());
        let office = self.office.poll_timeout(state);
        let timeouts = [endings, commands, idle, leases, office, self.work.poll_timeout(), gate];
        timeouts.into_iter().flatten().min()
    }

    fn on_heartbeat(
        &mut self,
        key: HeartbeatKey,
        node: NodeId,
        mut heartbeat: Heartbeat,
        state: &FleetState,
        now: LogInstant,
    ) {
        self.look(state, now);
        self.updates.heard(node);
        let attached = |agent: &AgentId| state.agent(agent).and_then(|record| record.attachment);
        for said in &heartbeat.agents {
            // A node speaks for the agents that it serves, and for no others.
            if attached(&said.agent).is_some_and(|known| known.node == node && known.id == said.attachment) {
                self.work.hear(said, now);
            }
        }
        heartbeat.agents.retain(|said| {
            said.renew || attached(&said.agent).is_none_or(|a| a.id != said.attachment || a.node != node)
        });
        let asked = Asked { key, node, heartbeat };
        if asked.heartbeat.agents.is_empty() {
            return self.answer(asked, false, state, now);
        }
        if is_on(Mutant::RenewalWithoutQuorum) {
            return self.answer(asked, true, state, now);
        }
        self.waiting.push(asked);
        if self.in_round.is_none() {
            self.begin_round();
        }
    }

    fn begin_round(&mut self) {
        self.in_round = Some(std::mem::take(&mut self.waiting));
        self.effects.push_back(Effect::BeginRound);
    }

    fn on_round_ended(&mut self, confirmed: bool, state: &FleetState, now: LogInstant) {
        for asked in self.in_round.take().unwrap_or_default() {
            self.answer(asked, confirmed, state, now);
        }
        if !self.waiting.is_empty() {
            self.begin_round();
        }
    }

    fn answer(&mut self, asked: Asked, confirmed: bool, state: &FleetState, now: LogInstant) {
        let updates = &self.updates;
        let renew = |said: AgentHeartbeat, leases: &mut Leases| {
            let attachment = state.agent(&said.agent).and_then(|record| record.attachment);
            let attached = attachment.is_some_and(|known| known.id == said.attachment && known.node == asked.node);
            let told = updates.knows_losses(state, &said.agent, said.attachment);
            let renewal = match (confirmed, attached, told) {
                // Without a quorum the leader knows nothing, not even that an attachment has ended.
                (false, ..) | (true, true, false) => Renewal::NotConfirmed,
                (true, false, _) => Renewal::NotAttached,
                (true, true, true) => leases.renew(&said.agent, said.attachment, now),
            };
            AgentRenewal { agent: said.agent, attachment: said.attachment, renewal }
        };
        let agents = asked.heartbeat.agents.into_iter().map(|said| renew(said, &mut self.leases)).collect();
        // The node fills in who leads.
        let reply = HeartbeatReply { agents, ..HeartbeatReply::default() };
        self.effects.push_back(Effect::Answer { key: asked.key, reply });
    }

    /// Reads what changed in the state since the last look.
    fn look(&mut self, state: &FleetState, now: LogInstant) {
        let changed: Vec<AgentId> = state.changed_after(self.seen).cloned().collect();
        for agent in changed {
            let attachment = state.agent(&agent).and_then(|record| record.attachment);
            self.leases.note(&agent, attachment.as_ref(), now);
            if attachment.is_some() {
                self.updates.note(state, &agent);
                self.work.note(&agent);
            } else {
                self.forget(&agent);
            }
        }
        self.seen = state.applied().map(|position| position.index).or(self.seen);
    }

    /// Forgets an agent that no node serves.
    fn forget(&mut self, agent: &AgentId) {
        self.updates.forget(agent);
        self.work.forget(agent);
    }

    /// Makes the decisions that are due, unless a proposal is under way: then the effect of that proposal is not known
    /// yet.
    fn decide(&mut self, state: &FleetState, now: LogInstant) {
        while let Some((node, update)) = self.updates.poll(state) {
            self.effects.push_back(Effect::Update { node, update });
        }
        if self.proposing {
            return;
        }
        // Endings come first: they outrank new work.
        let mut gone = Vec::new();
        let mut decisions = self.leases.poll(state, now, &mut gone);
        gone.iter().for_each(|agent| self.forget(agent));
        decisions.extend(self.endings.poll(state, now));
        decisions.extend(self.commands.poll(state, now));
        decisions.extend(self.office.poll(state, now));
        decisions.extend(self.work.poll(state, &self.leases, now));
        decisions.extend(self.idle.poll(state, now));
        if !decisions.is_empty() {
            self.proposing = true;
            self.effects.push_back(Effect::Propose(decisions));
        }
    }
}
