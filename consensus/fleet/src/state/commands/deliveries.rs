//! How commands end.

use std::collections::BTreeMap;

use skep_protocol::authority::{OperatorGrant, OperatorKey};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandOutcome, Steps, VoidCause};
use skep_protocol::entry::EndedDelivery;
use skep_protocol::ids::{CommandId, NodeId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{Receipt, Refusal};
use skep_protocol::text::{AgentId, Reason};

use super::DeliveryState;
use crate::state::FleetState;
use crate::state::changes::{Changes, count_dropped};

/// Bytes of what came of a command.
fn result_bytes(outcome: &CommandOutcome) -> u64 {
    match outcome {
        CommandOutcome::Succeeded { result } => result.len() as u64,
        CommandOutcome::Failed { .. }
        | CommandOutcome::Rejected { .. }
        | CommandOutcome::Expired
        | CommandOutcome::Cancelled
        | CommandOutcome::Superseded
        | CommandOutcome::Indeterminate { .. } => 0,
    }
}

/// Bytes of what the agent's software said of a command: what came of it, or how far it has come.
pub(super) fn said_bytes(delivery: &DeliveryState) -> u64 {
    let note = delivery.progress.as_ref().map_or(0, |progress| progress.note.as_str().len() as u64);
    note + delivery.outcome.as_ref().map_or(0, result_bytes)
}

impl FleetState {
    pub(super) fn delivery(&self, id: CommandId, agent: &AgentId) -> Option<&DeliveryState> {
        self.commands.records.get(&id)?.deliveries.get(agent)
    }

    /// A command is not to be started at an agent any more. It ends at once where nobody can have it.
    pub(super) fn void(&mut self, id: CommandId, agent: &AgentId, cause: VoidCause, changes: &mut Changes) {
        let Some(delivery) = self.delivery(id, agent).filter(|d| d.outcome.is_none() && d.void.is_none()) else {
            return;
        };
        if delivery.node.is_none() {
            return self.end_delivery(id, agent, cause.outcome(), None, changes);
        }
        let seq = delivery.seq;
        self.change_command(id, |record| {
            if let Some(delivery) = record.deliveries.get_mut(agent) {
                delivery.void = Some(cause);
            }
        });
        if let Some(seq) = seq {
            self.change_outbox(agent, |outbox| outbox.lanes.of_mut(seq.class).voided.insert(seq.n));
        }
        let (agent, trace) = (agent.clone(), self.trace(&id));
        changes.record(self.head.clock, ChangeKind::DeliveryVoided { command: id, trace, agent, cause });
    }

    /// Nobody begins any more what its operator may not ask for by now, and no wave of it is let out.
    pub(in crate::state) fn withdraw_commands(&mut self, changes: &mut Changes) {
        if is_on(Mutant::RevokedStillSends) {
            return;
        }
        let mut known: BTreeMap<OperatorKey, Option<OperatorGrant>> = BTreeMap::new();
        let mut over: Vec<(CommandId, Vec<AgentId>)> = Vec::new();
        for record in self.commands.records.values().filter(|record| !record.is_ended()) {
            let command = &record.signed;
            let rights = known
                .entry(command.operator)
                .or_insert_with(|| self.operators.rights(command.operator, &self.head.limits).ok());
            let may = |rights: &OperatorGrant| rights.allows(&command.verb, &command.target, command.deadline);
            if !rights.as_ref().is_some_and(may) {
                over.push((record.id(), record.deliveries.keys().cloned().collect()));
            }
        }
        for (id, agents) in over {
            self.change_command(id, |record| record.next_wave_at = None);
            agents.iter().for_each(|agent| self.void(id, agent, VoidCause::Revoked, changes));
        }
    }

    /// The deadline of a command passed.
    pub(in crate::state) fn expire_command(&mut self, id: CommandId, changes: &mut Changes) {
        let Some(record) = self.commands.record(&id) else { return };
        if record.deadline() > self.head.clock || record.doubt_at.is_some() || record.is_ended() {
            return;
        }
        let agents: Vec<AgentId> = record.deliveries.keys().cloned().collect();
        let doubt_at = self.head.clock.plus_ms(self.head.limits.doubt_after_ms);
        self.change_command(id, |record| (record.next_wave_at, record.doubt_at) = (None, Some(doubt_at)));
        agents.iter().for_each(|agent| self.void(id, agent, VoidCause::Expired, changes));
    }

    /// A command was not heard of for too long after its deadline.
    pub(in crate::state) fn doubt_command(&mut self, id: CommandId, changes: &mut Changes) {
        let Some(record) = self.commands.record(&id) else { return };
        if record.doubt_at.is_none_or(|at| at > self.head.clock) || record.is_ended() {
            return;
        }
        let open = record.deliveries.iter().filter(|(_, delivery)| delivery.outcome.is_none());
        let (heard, silent): (Vec<_>, Vec<_>) = open
            .map(|(agent, delivery)| (agent.clone(), self.silent_from(record, delivery)))
            .partition(|(_, silent_from)| *silent_from > self.head.clock);
        // Where it is under way, its end is waited for.
        let doubt_at = heard.into_iter().map(|(_, silent_from)| silent_from).min();
        self.change_command(id, |record| record.doubt_at = doubt_at);
        for (agent, _) in silent {
            let reason = Reason::truncated("nothing was heard of it for too long after its deadline");
            self.end_delivery(id, &agent, CommandOutcome::Indeterminate { reason }, None, changes);
        }
    }

    /// How a command ended, as the node of an agent has it in its journal.
    pub(in crate::state) fn report_ended(
        &mut self,
        ended: &EndedDelivery,
        changes: &mut Changes,
    ) -> Result<Receipt, Refusal> {
        let id = ended.command;
        if let CommandOutcome::Succeeded { result } = &ended.outcome {
            skep_protocol::command::check_result_within(result, &self.head.limits)?;
        }
        let delivery = self.delivery(id, &ended.agent).ok_or(Refusal::NoSuchCommand(id))?;
        // A place in the order that it never had: said by mistake, or made up.
        if delivery.seq != Some(ended.seq) && !delivery.was_doubted() {
            return Err(Refusal::NoSuchCommand(id));
        }
        let known = match &delivery.outcome {
            None => false,
            // Nobody knew, and now its journal says so: once, and not against an operator's word.
            Some(CommandOutcome::Indeterminate { .. }) => delivery.refined,
            Some(_) => true,
        };
        if !known {
            let full = self.commands.bytes + result_bytes(&ended.outcome) > self.head.limits.command_bytes_max;
            // What there is no room for is left out, and the rest told.
            let outcome = if full { ended.outcome.without_result() } else { ended.outcome.clone() };
            self.end_delivery(id, &ended.agent, outcome, Some(ended.steps), changes);
        }
        Ok(Receipt::DeliveryEnded { command: id })
    }

    /// What is on record of an outcome that was refused: nothing of what came of it, which may be large.
    pub(in crate::state) fn refused_outcome(&self, ended: &EndedDelivery, why: Box<Refusal>) -> ChangeKind {
        let (outcome, agent) = (ended.outcome.without_result(), ended.agent.clone());
        let (command, trace) = (ended.command, self.trace(&ended.command));
        ChangeKind::OutcomeRefused { command, trace, agent, outcome, why }
    }

    /// Whether a node may say what became of a command at an agent: only the one that may have it knows.
    pub fn may_report(&self, command: CommandId, agent: &AgentId, node: NodeId) -> bool {
        self.delivery(command, agent).is_none_or(|delivery| delivery.node == Some(node))
    }

    pub(super) fn check_dead_letter(&self, id: CommandId) -> Result<(), Refusal> {
        match self.commands.record(&id) {
            Some(record) if !record.is_ended() => Err(Refusal::CommandOpen(id)),
            // Discarded twice is discarded, and so is what was sent again everywhere.
            Some(record) if record.failed > 0 || record.deliveries.values().any(|of| of.redriven.is_some()) => Ok(()),
            _ => Err(Refusal::NotDead(id)),
        }
    }

    pub(super) fn check_indeterminate(&self, id: CommandId, agent: &AgentId) -> Result<(), Refusal> {
        let delivery = self.delivery(id, agent).ok_or_else(|| Refusal::NoSuchAgent(agent.clone()))?;
        match delivery.outcome {
            Some(CommandOutcome::Indeterminate { .. }) => Ok(()),
            _ => Err(Refusal::NotIndeterminate { command: id, agent: agent.clone() }),
        }
    }

    /// Ends a delivery, or mends how it ended.
    pub(super) fn end_delivery(
        &mut self,
        id: CommandId,
        agent: &AgentId,
        outcome: CommandOutcome,
        steps: Option<Steps>,
        changes: &mut Changes,
    ) {
        let Some(record) = self.commands.record(&id) else { return };
        let Some(delivery) = record.deliveries.get(agent) else { return };
        let (first, seq, node, told) = (delivery.outcome.is_none(), delivery.seq, delivery.node, delivery.steps);
        let (class, ended, clock) = (record.class(), outcome.clone(), self.head.clock);
        self.change_command(id, |record| {
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
            self.forget_outbox(agent);
        }
        let steps = steps.map(|steps| steps.since(told)).unwrap_or_default();
        let (agent, trace) = (agent.clone(), self.trace(&id));
        changes.record(
            self.head.clock,
            ChangeKind::DeliveryEnded { command: id, trace, agent, outcome, seq, node, steps },
        );
        self.forget_ended_commands();
    }

    /// Lets go of the oldest commands that ended, while there are too many of them or they take too much, and of the oldest
    /// dead letters, while there are too many. One that could still be sent again is kept: its id is what tells. All of it
    /// is in the history.
    pub(super) fn forget_ended_commands(&mut self) {
        while self.commands.is_crowded(&self.head.limits) {
            let first = |all_dead| self.commands.first_ended(all_dead, self.head.clock);
            // Dead letters last.
            let Some(id) = first(false).or_else(|| first(true)) else { break };
            if self.commands.record(&id).is_some_and(|record| record.is_dead_letter() && !record.is_all_dead()) {
                self.change_command(id, |record| record.keep_dead_letters(0));
            } else {
                self.forget_command(id);
            }
        }
        loop {
            let beyond = self.commands.dead_letters_beyond(&self.head.limits);
            let oldest =
                self.commands.dead.get_min().filter(|(deadline, _)| beyond > 0 && *deadline <= self.head.clock);
            let Some((_, id)) = oldest.copied() else { return };
            if self.commands.record(&id).is_some_and(|record| record.failed as usize > beyond) {
                self.change_command(id, |record| record.keep_dead_letters(beyond));
                count_dropped(&mut self.head.dropped.dead_letters, beyond as u64);
            } else {
                self.forget_command(id);
            }
        }
    }

    fn forget_command(&mut self, id: CommandId) {
        if let Some(record) = self.commands.records.remove(&id) {
            self.commands.unindex(&record);
            count_dropped(&mut self.head.dropped.commands, 1);
            let dead_letters = if record.is_dead_letter() { record.failed } else { 0 };
            count_dropped(&mut self.head.dropped.dead_letters, u64::from(dead_letters));
        }
    }
}

impl DeliveryState {
    /// Whether nobody knew how it ended: its journal may have it under a place that it has no more.
    fn was_doubted(&self) -> bool {
        matches!(self.outcome, Some(CommandOutcome::Indeterminate { .. }))
    }
}
