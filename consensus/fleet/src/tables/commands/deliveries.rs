//! How commands end.

use std::collections::BTreeMap;

use skep_protocol::agent::AgentRefusal;
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandChange, CommandOutcome, CommandRefusal, EndedDelivery, Steps, VoidCause};
use skep_protocol::ids::{CommandId, NodeId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::operator::OperatorGrant;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::OperatorKey;
use skep_protocol::text::{AgentId, Reason};

use super::{Agents, Commands, Cx, DeliveryState, Operators};
use crate::state::changes::count_dropped;

/// Bytes of what the agent's software said of a command: its result, or its progress.
pub(super) fn said_bytes(delivery: &DeliveryState) -> u64 {
    let note = delivery.progress.as_ref().map_or(0, |progress| progress.note.as_str().len() as u64);
    note + delivery.outcome.as_ref().map_or(0, |outcome| outcome.result_bytes() as u64)
}

impl Commands {
    pub(super) fn delivery(&self, id: CommandId, agent: &AgentId) -> Option<&DeliveryState> {
        self.records.get(&id)?.deliveries.get(agent)
    }

    /// Voids a command at an agent: the agent's software is not to start it. The delivery ends at once where no node
    /// can have it.
    pub(super) fn void(&mut self, id: CommandId, agent: &AgentId, cause: VoidCause, peers: &Agents, cx: &mut Cx<'_>) {
        let Some(delivery) = self.delivery(id, agent).filter(|d| d.outcome.is_none() && d.void.is_none()) else {
            return;
        };
        if delivery.node.is_none() {
            return self.end_delivery(id, agent, cause.outcome(), None, peers, cx);
        }
        let seq = delivery.seq;
        self.change(id, |record| {
            if let Some(delivery) = record.deliveries.get_mut(agent) {
                delivery.void = Some(cause);
            }
        });
        if let Some(seq) = seq {
            self.change_outbox(agent, cx.index, |outbox| outbox.lanes.of_mut(seq.class).voided.insert(seq.n));
        }
        let (agent, trace) = (agent.clone(), self.trace(&id));
        cx.record((id, CommandChange::DeliveryVoided { trace, agent, cause }));
    }

    /// Calls off the commands that their operator has lost the right to send: no agent starts them, and no wave of them
    /// is released.
    pub(crate) fn withdraw(&mut self, operators: &Operators, peers: &Agents, cx: &mut Cx<'_>) {
        if is_on(Mutant::RevokedStillSends) {
            return;
        }
        let mut known: BTreeMap<OperatorKey, Option<OperatorGrant>> = BTreeMap::new();
        let mut over: Vec<(CommandId, Vec<AgentId>)> = Vec::new();
        for record in self.records.values().filter(|record| !record.is_ended()) {
            let command = &record.signed;
            let rights =
                known.entry(command.operator).or_insert_with(|| operators.rights(command.operator, cx.limits).ok());
            let may = |rights: &OperatorGrant| rights.allows(&command.verb, &command.target, command.deadline);
            if !rights.as_ref().is_some_and(may) {
                over.push((record.id(), record.deliveries.keys().cloned().collect()));
            }
        }
        for (id, agents) in over {
            self.change(id, |record| record.next_wave_at = None);
            agents.iter().for_each(|agent| self.void(id, agent, VoidCause::Revoked, peers, cx));
        }
    }

    /// The deadline of a command passed.
    pub(crate) fn expire(&mut self, id: CommandId, peers: &Agents, cx: &mut Cx<'_>) {
        let Some(record) = self.record(&id) else { return };
        if record.deadline() > cx.now || record.doubt_at.is_some() || record.is_ended() {
            return;
        }
        let agents: Vec<AgentId> = record.deliveries.keys().cloned().collect();
        let doubt_at = cx.now.plus_ms(cx.limits.doubt_after_ms);
        self.change(id, |record| (record.next_wave_at, record.doubt_at) = (None, Some(doubt_at)));
        agents.iter().for_each(|agent| self.void(id, agent, VoidCause::Expired, peers, cx));
    }

    /// The shard heard nothing of a command for too long after its deadline.
    pub(crate) fn doubt(&mut self, id: CommandId, peers: &Agents, cx: &mut Cx<'_>) {
        let Some(record) = self.record(&id) else { return };
        if record.doubt_at.is_none_or(|at| at > cx.now) || record.is_ended() {
            return;
        }
        let open = record.deliveries.iter().filter(|(_, delivery)| delivery.outcome.is_none());
        let (heard, silent): (Vec<_>, Vec<_>) = open
            .map(|(agent, delivery)| (agent.clone(), self.silent_from(record, delivery, cx)))
            .partition(|(_, silent_from)| *silent_from > cx.now);
        // Where the command is under way, the shard waits for its end.
        let doubt_at = heard.into_iter().map(|(_, silent_from)| silent_from).min();
        self.change(id, |record| record.doubt_at = doubt_at);
        for (agent, _) in silent {
            let reason = Reason::truncated("nothing was heard of it for too long after its deadline");
            self.end_delivery(id, &agent, CommandOutcome::Indeterminate { reason }, None, peers, cx);
        }
    }

    /// Takes the report of how a command ended, as the node of an agent has it in its journal.
    pub(super) fn report_ended(
        &mut self,
        ended: &EndedDelivery,
        peers: &Agents,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        let id = ended.command;
        if let CommandOutcome::Succeeded { result } = &ended.outcome {
            skep_protocol::command::check_result_within(result, cx.limits).map_err(CommandRefusal::from)?;
        }
        let delivery = self.delivery(id, &ended.agent).ok_or(CommandRefusal::NoSuchCommand(id))?;
        // The delivery never had this sequence number: the node is mistaken, or made it up.
        if delivery.seq != Some(ended.seq) && !delivery.was_doubted() {
            return Err(CommandRefusal::NoSuchCommand(id).into());
        }
        let known = match &delivery.outcome {
            None => false,
            // The outcome was unknown, and the journal says it. This is taken once, and never against an operator's
            // word.
            Some(CommandOutcome::Indeterminate { .. }) => delivery.refined,
            Some(_) => true,
        };
        if !known {
            let full = self.bytes + ended.outcome.result_bytes() as u64 > cx.limits.command_bytes_max;
            // What there is no room for is left out, and the rest is told.
            let outcome = if full { ended.outcome.without_result() } else { ended.outcome.clone() };
            self.end_delivery(id, &ended.agent, outcome, Some(ended.steps), peers, cx);
        }
        Ok(Receipt::DeliveryEnded { command: id })
    }

    /// The record of an outcome that was refused: it leaves out the result, which may be large.
    pub(crate) fn refused_outcome(&self, ended: &EndedDelivery, why: Box<Refusal>) -> ChangeKind {
        let (outcome, agent) = (ended.outcome.without_result(), ended.agent.clone());
        let (command, trace) = (ended.command, self.trace(&ended.command));
        ChangeKind::Command { command, change: CommandChange::OutcomeRefused { trace, agent, outcome, why } }
    }

    /// Whether a node may report the outcome of a command at an agent: only the node that may have the command knows.
    pub(crate) fn may_report(&self, command: CommandId, agent: &AgentId, node: NodeId) -> bool {
        self.delivery(command, agent).is_none_or(|delivery| delivery.node == Some(node))
    }

    pub(super) fn check_dead_letter(&self, id: CommandId) -> Result<(), Refusal> {
        match self.record(&id) {
            Some(record) if !record.is_ended() => Err(CommandRefusal::Open(id).into()),
            // A second discard succeeds without effect, and so does a discard of a command that was redriven
            // everywhere.
            Some(record) if record.failed > 0 || record.deliveries.values().any(|of| of.redriven.is_some()) => Ok(()),
            _ => Err(CommandRefusal::NotDead(id).into()),
        }
    }

    pub(super) fn check_indeterminate(&self, id: CommandId, agent: &AgentId) -> Result<(), Refusal> {
        let delivery = self.delivery(id, agent).ok_or_else(|| AgentRefusal::NoSuchAgent(agent.clone()))?;
        match delivery.outcome {
            Some(CommandOutcome::Indeterminate { .. }) => Ok(()),
            _ => Err(CommandRefusal::NotIndeterminate { command: id, agent: agent.clone() }.into()),
        }
    }

    /// Ends a delivery, or refines its outcome.
    pub(super) fn end_delivery(
        &mut self,
        id: CommandId,
        agent: &AgentId,
        outcome: CommandOutcome,
        steps: Option<Steps>,
        peers: &Agents,
        cx: &mut Cx<'_>,
    ) {
        let Some(record) = self.record(&id) else { return };
        let Some(delivery) = record.deliveries.get(agent) else { return };
        let (first, seq, node, told) = (delivery.outcome.is_none(), delivery.seq, delivery.node, delivery.steps);
        let (class, ended, clock) = (record.class(), outcome.clone(), cx.now);
        self.change(id, |record| {
            record.open = record.open.saturating_sub(u32::from(first));
            if record.is_ended() {
                (record.next_wave_at, record.doubt_at) = (None, None);
            }
            if let Some(delivery) = record.deliveries.get_mut(agent) {
                let failed_before = u32::from(delivery.has_failed());
                let before = said_bytes(delivery);
                delivery.refined = !first;
                delivery.steps = steps.unwrap_or(delivery.steps);
                (delivery.outcome, delivery.ended_at, delivery.progress) = (Some(ended), Some(clock), None);
                record.failed = record.failed.saturating_sub(failed_before) + u32::from(delivery.has_failed());
                record.said_bytes = record.said_bytes.saturating_sub(before) + said_bytes(delivery);
            }
        });
        if first {
            self.mind_outbox(agent, |outbox| {
                let (home, lane) = (outbox.home, outbox.lanes.of_mut(class));
                lane.open = lane.open.saturating_sub(1);
                if let Some(seq) = seq.filter(|seq| seq.home == home) {
                    lane.queue.remove(&seq.n);
                    lane.voided.remove(&seq.n);
                }
            });
            self.forget_outbox(agent, peers);
        }
        let steps = steps.map(|steps| steps.since(told)).unwrap_or_default();
        let (agent, trace) = (agent.clone(), self.trace(&id));
        cx.record((id, CommandChange::DeliveryEnded { trace, agent, outcome, seq, node, steps }));
        self.forget_ended(cx);
    }

    /// Forgets the oldest commands that ended, while there are too many of them or they take too many bytes, and the
    /// oldest dead letters, while there are too many. A command that an operator could still send again is kept: its id
    /// shows the repetition. All of it is in the history.
    pub(super) fn forget_ended(&mut self, cx: &mut Cx<'_>) {
        while self.is_crowded(cx.limits) {
            let first = |all_dead| self.first_ended(all_dead, cx.now);
            // Dead letters go last.
            let Some(id) = first(false).or_else(|| first(true)) else { break };
            if self.record(&id).is_some_and(|record| record.is_dead_letter() && !record.is_all_dead()) {
                self.change(id, |record| record.keep_dead_letters(0));
            } else {
                self.forget(id, cx);
            }
        }
        loop {
            let beyond = self.dead_letters_beyond(cx.limits);
            let oldest = self.dead.get_min().filter(|(deadline, _)| beyond > 0 && *deadline <= cx.now);
            let Some((_, id)) = oldest.copied() else { return };
            if self.record(&id).is_some_and(|record| record.failed as usize > beyond) {
                self.change(id, |record| record.keep_dead_letters(beyond));
                count_dropped(&mut cx.dropped.dead_letters, beyond as u64);
            } else {
                self.forget(id, cx);
            }
        }
    }

    fn forget(&mut self, id: CommandId, cx: &mut Cx<'_>) {
        if let Some(record) = self.records.remove(&id) {
            self.unindex(&record);
            count_dropped(&mut cx.dropped.commands, 1);
            let dead_letters = if record.is_dead_letter() { record.failed } else { 0 };
            count_dropped(&mut cx.dropped.dead_letters, u64::from(dead_letters));
        }
    }
}

impl DeliveryState {
    /// Whether the outcome was unknown: the journal may have the command under an earlier sequence number.
    fn was_doubted(&self) -> bool {
        matches!(self.outcome, Some(CommandOutcome::Indeterminate { .. }))
    }
}
