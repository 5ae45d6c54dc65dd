//! What a leader does for hosts that ask: reads and heartbeats; and what its orchestrator wants.

use skep_fleet::{HeartbeatKey, OrchestratorEffect, OrchestratorEvent};
use skep_protocol::entry::EntryBody;
use skep_protocol::heartbeat::{Heartbeat, HeartbeatFailure, HeartbeatReply};
use skep_protocol::query::{Answer, AsOf, Query, QueryFailure, QueryReply};
use skep_protocol::task::TaskView;

use super::host::RPC_TIMEOUT_MS;
use super::names::{host_of, node_id};
use super::nodes::Nodes;
use super::parcel::Message;
use super::replica::{Asker, Awaits, Round, RoundFor};

/// How long the orchestrator waits for its proposal, in milliseconds.
const PROPOSAL_TIMEOUT_MS: u64 = 5_000;

/// How much longer a leader waits for an answer where hosts are far, in ways between the farthest: two round trips.
const WAYS_WAITED: u64 = 4;

impl Nodes {
    /// How long a leader waits, in milliseconds, for what takes at most `least_ms` where no host is far.
    fn patience_ms(&self, least_ms: u64) -> u64 {
        least_ms + WAYS_WAITED * self.ports.far_ms_max()
    }

    pub(super) fn begin_round(&mut self, host: usize, what: RoundFor) {
        let until_ms = self.ports.boot_ms(host) + self.patience_ms(RPC_TIMEOUT_MS);
        let Some(lead) = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut()) else { return };
        lead.round += 1;
        let round = (lead.round, until_ms, what);
        lead.rounds.push(round);
        self.replicate(host);
    }

    pub(super) fn end_rounds(&mut self, host: usize, over: Vec<Round>, confirmed: bool) {
        for (_, _, what) in over {
            match what {
                RoundFor::Orchestrator { .. } => {
                    self.orchestrate(host, Some(OrchestratorEvent::RoundEnded { confirmed }))
                }
                RoundFor::Query { asker, query, next } => self.answer_query(host, asker, query, next, confirmed),
                RoundFor::Pull(pulling) => self.end_round_of_pull(host, *pulling, confirmed),
            }
        }
    }

    pub(super) fn on_query(&mut self, host: usize, asker: Asker, query: Query) {
        let boot_ms = self.ports.boot_ms(host);
        let failure = match &self.hosts[host].replica {
            None => QueryFailure::NoReplica(self.elsewhere(host)),
            Some(replica) if replica.is_ready(host, boot_ms) => {
                // The read shows at least all that is committed by now: the leader knows of all of it.
                let next = replica.committed;
                return self.begin_round(host, RoundFor::Query { asker, query, next });
            }
            Some(_) => QueryFailure::NotLeader(self.elsewhere(host)),
        };
        self.ports.send(host, asker.host, Message::Queried { asker, reply: Box::new(Err(failure)) });
    }

    fn answer_query(&mut self, host: usize, asker: Asker, query: Query, next: usize, confirmed: bool) {
        let boot_ms = self.ports.boot_ms(host);
        let Some(replica) = &self.hosts[host].replica else { return };
        let (state, clock) = (&replica.state, replica.clock.now(boot_ms));
        let (index, stamp) = (replica.applied as u64, state.clock());
        let reply = if confirmed && replica.applied >= next {
            let answer = match query {
                Query::Task(id) => {
                    let view = |task: &skep_protocol::task::Task| TaskView { task: task.clone(), waits: None };
                    Answer::Task(state.task(&id).map(view).map(Box::new))
                }
                _ => Answer::Counts(state.counts()),
            };
            Ok(QueryReply { as_of: AsOf { index, stamp, clock, linearizable: true, age_ms: Some(0) }, answer })
        } else {
            Err(QueryFailure::NoQuorum)
        };
        self.ports.send(host, asker.host, Message::Queried { asker, reply: Box::new(reply) });
    }

    pub(super) fn on_heartbeat(&mut self, host: usize, asker: Asker, heartbeat: Heartbeat) {
        let boot_ms = self.ports.boot_ms(host);
        let ready = self.hosts[host].replica.as_ref().is_some_and(|replica| replica.is_ready(host, boot_ms));
        let lead = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut());
        let Some(lead) = lead.filter(|_| ready) else {
            let result = Err(HeartbeatFailure::NotLeader(self.elsewhere(host)));
            return self.ports.send(host, asker.host, Message::Heard { by: host, asker, result });
        };
        let key = lead.next_key;
        lead.next_key += 1;
        lead.askers.insert(key, asker);
        let node = node_id(asker.host);
        self.orchestrate(host, Some(OrchestratorEvent::Heartbeat { key: HeartbeatKey(key), node, heartbeat }));
    }

    pub(super) fn on_noted(&mut self, host: usize, by: usize, term: u64, number: u64, noted: bool) {
        let Some(lead) = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut()) else { return };
        if lead.term != term || lead.updates.get(&by).is_none_or(|(known, _)| *known != number) {
            return;
        }
        lead.updates.remove(&by);
        self.orchestrate(host, Some(OrchestratorEvent::UpdateEnded { node: node_id(by), arrived: noted }));
    }

    /// Tells the orchestrator what happened, or that time passed, and carries out what it wants.
    pub(super) fn orchestrate(&mut self, host: usize, event: Option<OrchestratorEvent>) {
        let boot_ms = self.ports.boot_ms(host);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let (Some(now), Some(lead)) = (replica.clock.now(boot_ms), replica.lead.as_mut()) else { return };
        let Some(orchestrator) = &mut lead.orchestrator else { return };
        match event {
            Some(event) => orchestrator.handle(event, &replica.state, now),
            None => orchestrator.handle_timeout(&replica.state, now),
        }
        let mut effects = Vec::new();
        while let Some(effect) = orchestrator.poll_effect() {
            effects.push(effect);
        }
        let term = lead.term;
        for effect in effects {
            self.carry_out_for_orchestrator(host, term, effect);
        }
    }

    fn carry_out_for_orchestrator(&mut self, host: usize, term: u64, effect: OrchestratorEffect) {
        let boot_ms = self.ports.boot_ms(host);
        let proposal_until = boot_ms + self.patience_ms(PROPOSAL_TIMEOUT_MS);
        let update_until = boot_ms + self.patience_ms(RPC_TIMEOUT_MS);
        let Some(lead) = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut()) else { return };
        match effect {
            OrchestratorEffect::Propose(decisions) => {
                lead.proposing_until = Some(proposal_until);
                if !self.write(host, EntryBody::Decisions(decisions), Awaits::Decisions)
                    && let Some(lead) = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut())
                {
                    // The orchestrator hears of this with the next look at the time, not within its own turn.
                    lead.proposing_until = Some(boot_ms + 1);
                }
            }
            OrchestratorEffect::BeginRound => {
                let next = self.hosts[host].replica.as_ref().map_or(0, |replica| replica.durable.end());
                self.begin_round(host, RoundFor::Orchestrator { next });
            }
            OrchestratorEffect::Answer { key, reply } => {
                if let Some(asker) = lead.askers.remove(&key.0) {
                    let reply = HeartbeatReply { lead: self.hint(host), ..reply };
                    self.ports.send(host, asker.host, Message::Heard { by: host, asker, result: Ok(reply) });
                }
            }
            OrchestratorEffect::Update { node, update } => {
                let to = host_of(node);
                let number = lead.next_key;
                lead.next_key += 1;
                lead.updates.insert(to, (number, update_until));
                self.ports.send(host, to, Message::Claims { from: host, term, number, update: Box::new(update) });
            }
        }
    }
}
