//! Accepting commands, and releasing them.

use std::sync::Arc;

use imbl::OrdMap;
use skep_protocol::agent::AgentRefusal;
use skep_protocol::command::{
    Command, CommandChange, CommandControl, CommandOutcome, CommandRefusal, ControlKind, DeliverySeq, SignedCommand,
    Steps, Target, VoidCause, Waves,
};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::CommandId;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::text::{AgentId, Reason};

use super::{Agents, CommandState, Commands, Cx, DeliveryState, Operators};

fn receipt(record: &CommandState) -> Receipt {
    Receipt::Command { command: record.id(), agents: record.agents, open: record.open }
}

fn check_valid(command: &Command, cx: &Cx<'_>) -> Result<(), Refusal> {
    let (id, deadline, now) = (command.id, command.deadline, cx.now);
    // The deadline is signed, so that an old command that is sent again is refused however long ago the shard forgot
    // its id.
    if deadline <= now {
        return Err(CommandRefusal::Expired { command: id, deadline, now }.into());
    }
    let valid_ms = deadline.since_ms(now);
    let max_ms = cx.limits.command_valid_ms_max;
    if valid_ms > max_ms.saturating_add(cx.limits.clock_lead_ms_max) {
        return Err(CommandRefusal::TooLong { command: id, valid_ms, max_ms }.into());
    }
    Ok(())
}

fn new_command(signed: &SignedCommand, agents: &[AgentId], cx: &Cx<'_>) -> CommandState {
    let waves = signed.waves;
    let size = waves.map_or(usize::MAX, |waves| waves.agents as usize);
    let delivery = |(at, agent): (usize, &AgentId)| {
        let wave = u32::try_from(at / size).unwrap_or(u32::MAX);
        let state = DeliveryState {
            wave,
            seq: None,
            node: None,
            void: None,
            outcome: None,
            refined: false,
            redriven: None,
            steps: Steps::default(),
            progress: None,
            progress_told: None,
            heard_at: None,
            released_at: None,
            ended_at: None,
        };
        (agent.clone(), state)
    };
    let deliveries: OrdMap<_, _> = agents.iter().enumerate().map(delivery).collect();
    CommandState {
        signed: Arc::new(signed.clone()),
        accepted_at: cx.now,
        accepted_by: (cx.index, cx.term),
        agents: u32::try_from(deliveries.len()).unwrap_or(u32::MAX),
        open: u32::try_from(deliveries.len()).unwrap_or(u32::MAX),
        deliveries,
        failed: 0,
        said_bytes: 0,
        released: 0,
        next_wave_at: waves.map(|Waves { every_ms, .. }| cx.now.plus_ms(every_ms)),
        doubt_at: None,
        discarded: false,
    }
}

impl Commands {
    /// Accepts a command from an operator.
    pub(super) fn send(
        &mut self,
        signed: &SignedCommand,
        peers: &Agents,
        operators: &mut Operators,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        let command = signed.statement();
        if let Some(known) = self.records.get(&command.id) {
            // The same command under another request id: its sender has lost track of the first request.
            let same = known.signed.body() == signed.body();
            return if same { Ok(receipt(known)) } else { Err(CommandRefusal::Exists(command.id).into()) };
        }
        command.check_within(cx.limits).map_err(CommandRefusal::from)?;
        operators.check_place(&command.place)?;
        check_valid(command, cx)?;
        operators.check_granted(command.operator, &command.verb, &command.target, command.deadline, cx)?;
        // A command that supersedes another one calls that one off.
        if let Some(former) = command.supersedes.and_then(|former| self.record(&former)) {
            let former = Arc::clone(&former.signed);
            operators.check_granted(command.operator, &former.verb, &former.target, cx.now, cx)?;
        }
        let agents = self.resolve(&command.target, peers)?;
        self.check_not_redriven(command, &agents)?;
        self.forget_ended(cx);
        let full = self.check_room(signed, &agents, cx.limits)?;
        operators.check_rate(command.operator, cx)?;
        operators.count_command(command.operator, cx);
        let record = new_command(signed, &agents, cx);
        self.redrive(command, &agents);
        let (id, announced, at_once) = (record.id(), receipt(&record), record.next_wave_at.is_none());
        cx.record((id, CommandChange::Accepted { signed: Arc::clone(&record.signed), agents: record.open }));
        self.index(&record);
        self.records.insert(id, Arc::new(record));
        for agent in &agents {
            self.mind_outbox(agent, |outbox| outbox.lanes.of_mut(command.class).open += 1);
        }
        for agent in &full {
            let reason = Reason::truncated("its outbox is full: too many commands of this class to it have not ended");
            self.end_delivery(id, agent, CommandOutcome::Rejected { reason }, None, peers, cx);
        }
        let receipt = self.record(&id).map_or(announced, receipt);
        if at_once {
            self.let_out(id, 0, peers, cx);
        }
        Ok(receipt)
    }

    /// A command that was sent in the place of a dead letter is known by the note there for as long as the dead letter
    /// is kept: its own record may be forgotten first.
    fn check_not_redriven(&self, command: &Command, agents: &[AgentId]) -> Result<(), Refusal> {
        let Some(parent) = command.parent else { return Ok(()) };
        let is_it = |agent: &AgentId| self.delivery(parent, agent).is_some_and(|of| of.redriven == Some(command.id));
        if agents.iter().any(is_it) { Err(CommandRefusal::Exists(command.id).into()) } else { Ok(()) }
    }

    /// A command that names a parent with the same verb takes the place of the parent's dead letters at its agents. An
    /// operator who may command an agent to do this may settle the dead letter there.
    fn redrive(&mut self, command: &Command, agents: &[AgentId]) {
        let Some(parent) = command.parent else { return };
        let record = self.record(&parent).filter(|record| record.signed.verb == command.verb);
        let Some(record) = record else { return };
        let has_failed = |agent: &&AgentId| record.deliveries.get(*agent).is_some_and(DeliveryState::has_failed);
        let failed: Vec<&AgentId> = agents.iter().filter(has_failed).collect();
        if failed.is_empty() {
            return;
        }
        self.change(parent, |record| {
            for agent in failed {
                if let Some(delivery) = record.deliveries.get_mut(agent) {
                    delivery.redriven = Some(command.id);
                    record.failed = record.failed.saturating_sub(1);
                }
            }
        });
    }

    /// The agents that a command is for.
    fn resolve(&self, target: &Target, peers: &Agents) -> Result<Vec<AgentId>, Refusal> {
        let agents: Vec<AgentId> = match target {
            // An agent that is away gets the command when it returns.
            Target::Agent(agent) if peers.is_known(agent) => vec![agent.clone()],
            Target::Agent(agent) => return Err(AgentRefusal::NoSuchAgent(agent.clone()).into()),
            Target::Group(group) => self.groups.get(group).into_iter().flatten().cloned().collect(),
            Target::All => {
                let takers = self.outboxes.iter().filter(|(_, outbox)| outbox.journal.is_some());
                takers.map(|(agent, _)| agent.clone()).collect()
            }
        };
        if agents.is_empty() { Err(CommandRefusal::NoAgents(format!("of {target}")).into()) } else { Ok(agents) }
    }

    /// The agents that a command cannot go to, since too many commands like it have not ended there. An agent that is
    /// away for long does not keep a command from the other agents: the shard refuses the command only if there is room
    /// at none of them.
    fn check_room(
        &self,
        signed: &SignedCommand,
        agents: &[AgentId],
        limits: &FleetLimits,
    ) -> Result<Vec<AgentId>, Refusal> {
        let full = |what, count: u64| Err(Refusal::Full { what, count });
        if self.records.len() as u64 >= limits.commands_max {
            return full(ShardFullOf::Commands, self.records.len() as u64);
        }
        if self.deliveries + agents.len() as u64 > limits.deliveries_max {
            return full(ShardFullOf::Deliveries, self.deliveries);
        }
        if self.bytes + signed.args.len() as u64 > limits.command_bytes_max {
            return full(ShardFullOf::CommandBytes, self.bytes);
        }
        let class = signed.class;
        let open = |agent: &AgentId| self.outboxes.get(agent).map_or(0, |outbox| outbox.lanes.of(class).open);
        let is_full = |agent: &&AgentId| open(agent) >= limits.outbox_max_of(class);
        let full: Vec<AgentId> = agents.iter().filter(is_full).cloned().collect();
        match full.first() {
            Some(agent) if full.len() == agents.len() => {
                Err(CommandRefusal::OutboxFull { agent: agent.clone(), count: open(agent) }.into())
            }
            _ => Ok(full),
        }
    }

    /// Releases the next wave of a command, if this is still the next.
    pub(crate) fn release_wave(&mut self, id: CommandId, wave: u32, peers: &Agents, cx: &mut Cx<'_>) {
        let Some(record) = self.record(&id) else { return };
        let next = record.next_wave_at.is_some() && record.released == wave && !record.is_ended();
        // What is not released by the deadline ends with it.
        if next && record.deadline() > cx.now {
            self.let_out(id, wave, peers, cx);
        }
    }

    fn let_out(&mut self, id: CommandId, wave: u32, peers: &Agents, cx: &mut Cx<'_>) {
        let Some(record) = self.record(&id) else { return };
        let class = record.class();
        let of_wave = |delivery: &DeliveryState| delivery.wave == wave && delivery.outcome.is_none();
        let agents: Vec<AgentId> =
            record.deliveries.iter().filter(|(_, d)| of_wave(d)).map(|(agent, _)| agent.clone()).collect();
        let mut to = Vec::with_capacity(agents.len());
        for agent in agents {
            let attachment = peers.attachment(&agent);
            let (seq, takes) = self.change_outbox(&agent, cx.index, |outbox| {
                let (home, takes, lane) = (outbox.home, outbox.journal.is_some(), outbox.lanes.of_mut(class));
                lane.last += 1;
                lane.queue.insert(lane.last, id);
                (DeliverySeq { home, class, n: lane.last }, takes)
            });
            to.push((agent, seq, attachment.filter(|_| takes).map(|attachment| attachment.node)));
        }
        let clock = cx.now;
        self.change(id, |record| {
            for (agent, seq, node) in &to {
                if let Some(delivery) = record.deliveries.get_mut(agent) {
                    (delivery.seq, delivery.node) = (Some(*seq), *node);
                    delivery.released_at = Some(clock);
                }
            }
            record.released = wave + 1;
            let last = record.deliveries.values().all(|delivery| delivery.wave <= wave);
            let every_ms = record.signed.waves.filter(|_| !last).map(|waves| waves.every_ms);
            record.next_wave_at = every_ms.map(|ms| clock.plus_ms(ms));
        });
        let to: Vec<_> = to.into_iter().map(|(agent, seq, _)| (agent, seq)).collect();
        let agents: Vec<AgentId> = to.iter().map(|(agent, _)| agent.clone()).collect();
        cx.record((id, CommandChange::Released { trace: self.trace(&id), to }));
        let former = self.record(&id).and_then(|record| record.signed.supersedes);
        if let Some(former) = former {
            agents.iter().for_each(|agent| self.void(former, agent, VoidCause::Superseded, peers, cx));
        }
    }

    /// Applies a control to a command that was sent.
    pub(super) fn control(
        &mut self,
        control: &CommandControl,
        peers: &Agents,
        operators: &Operators,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        let id = control.command;
        operators.check_place(&control.place)?;
        let record = self.record(&id).ok_or(CommandRefusal::NoSuchCommand(id))?;
        let command = Arc::clone(&record.signed);
        let agents: Vec<AgentId> = record.deliveries.keys().cloned().collect();
        let before = receipt(record);
        operators.check_granted(control.operator, &command.verb, &command.target, cx.now, cx)?;
        if let ControlKind::Resolve { agent, .. } = &control.what {
            self.check_indeterminate(id, agent)?;
        }
        if control.what == ControlKind::Discard {
            self.check_dead_letter(id)?;
        }
        let (what, by, reason) = (control.what.clone(), control.operator, control.reason.clone());
        cx.record((id, CommandChange::Controlled { trace: self.trace(&id), what, by, reason }));
        match &control.what {
            ControlKind::Cancel => {
                self.change(id, |record| record.next_wave_at = None);
                agents.iter().for_each(|agent| self.void(id, agent, VoidCause::Cancelled, peers, cx));
            }
            ControlKind::Discard => drop(self.change(id, |record| record.discarded = true)),
            ControlKind::Abort if is_on(Mutant::AbortIgnored) => {}
            ControlKind::Abort => {
                self.change(id, |record| record.next_wave_at = None);
                let kept_back = |agent: &&AgentId| self.delivery(id, agent).is_some_and(|d| d.seq.is_none());
                let kept_back: Vec<&AgentId> = agents.iter().filter(kept_back).collect();
                kept_back.into_iter().for_each(|agent| self.void(id, agent, VoidCause::Cancelled, peers, cx));
            }
            ControlKind::Resolve { agent, done } => {
                let outcome = if *done {
                    CommandOutcome::Succeeded { result: Vec::new() }
                } else {
                    CommandOutcome::Failed { reason: Reason::truncated("resolved by an operator: it was not done") }
                };
                self.end_delivery(id, agent, outcome, None, peers, cx);
            }
        }
        // The record that this ended may be forgotten already.
        Ok(self.record(&id).map_or(before, receipt))
    }
}
