//! Commands, and the outboxes of the agents that they are for.
//!
//! A command is accepted once and ends exactly once at each of its agents. It has its sequence number in the agent's
//! order of its class from its release to that agent. From then on the agent's node may have it, so that only that node
//! can say that the command was not started. A command that is called off then is _void_. It ends when the node has
//! written that down. If the shard hears nothing of it for too long, it ends as indeterminate.

mod deliveries;
mod inbox;
mod reports;
mod send;
mod stored;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skep_protocol::command::{
    CommandClass, CommandOp, CommandOutcome, CommandProgress, DeliverySeq, PerClass, SignedCommand, Steps, VoidCause,
};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::ids::{CommandId, HomeEpoch, JournalId, NodeId};
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::text::{AgentId, GroupName, TraceParent};
use skep_protocol::time::LogInstant;

use super::agents::Agents;
use super::operators::Operators;
use crate::state::changes::Cx;
use deliveries::said_bytes;
pub(crate) use stored::{CommandsHead, OutboxHead};

/// Why the orchestrator has to look at a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CommandDue {
    /// Its next wave is due.
    Wave,
    /// Its deadline passed.
    Deadline,
    /// The shard heard nothing of it for too long after its deadline.
    Doubt,
}

/// A command at one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryState {
    /// The number of the wave in which the command is released to the agent.
    pub(crate) wave: u32,
    /// Its sequence number in the agent's order of its class; none before its release.
    pub(crate) seq: Option<DeliverySeq>,
    /// The node that may have had it; none while no node can have had it.
    pub(crate) node: Option<NodeId>,
    /// Why the agent's software is not to start it; none if it may.
    pub(crate) void: Option<VoidCause>,
    /// How it ended; none before that.
    pub(crate) outcome: Option<CommandOutcome>,
    /// Whether the outcome was refined once: it was indeterminate, and then became known.
    pub(crate) refined: bool,
    /// The command by which an operator sent it to its agent again after it had failed.
    pub(crate) redriven: Option<CommandId>,
    pub(crate) steps: Steps,
    /// Its progress, as the agent's software said; none once it has ended.
    pub(crate) progress: Option<CommandProgress>,
    /// The progress that the history has of it, in thousandths.
    pub(crate) progress_told: Option<u16>,
    /// When its node last said that it is under way.
    pub(crate) heard_at: Option<LogInstant>,
    pub(crate) released_at: Option<LogInstant>,
    pub(crate) ended_at: Option<LogInstant>,
}

impl DeliveryState {
    /// Whether it failed, and no command was sent to its agent in its place.
    fn has_failed(&self) -> bool {
        self.redriven.is_none() && self.outcome.as_ref().is_some_and(CommandOutcome::is_failure)
    }
}

/// A command, and its state at each of its agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CommandState {
    pub(crate) signed: Arc<SignedCommand>,
    pub(crate) accepted_at: LogInstant,
    /// The index and term of the entry that accepted it.
    pub(crate) accepted_by: (u64, u64),
    /// For how many agents it was accepted.
    pub(crate) agents: u32,
    /// Its state at each agent; of a delivery that ended long ago only if that is a dead letter.
    #[serde(serialize_with = "entries", deserialize_with = "map")]
    pub(crate) deliveries: OrdMap<AgentId, DeliveryState>,
    /// How many deliveries have not ended.
    #[serde(skip)]
    pub(crate) open: u32,
    /// How many deliveries ended, failed, and were not sent again.
    #[serde(skip)]
    pub(crate) failed: u32,
    /// Bytes of what the software of its agents said of it.
    #[serde(skip)]
    pub(crate) said_bytes: u64,
    /// How many waves were released.
    pub(crate) released: u32,
    pub(crate) next_wave_at: Option<LogInstant>,
    pub(crate) doubt_at: Option<LogInstant>,
    /// Whether an operator discarded its dead letters.
    pub(crate) discarded: bool,
}

fn entries<S: Serializer>(deliveries: &OrdMap<AgentId, DeliveryState>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(deliveries)
}

/// Reads a map without belief in the length that the bytes claim.
fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OrdMap<AgentId, DeliveryState>, D::Error> {
    BTreeMap::deserialize(deserializer).map(|deliveries| deliveries.into_iter().collect())
}

impl CommandState {
    pub(crate) fn id(&self) -> CommandId {
        self.signed.id
    }

    pub(crate) fn deadline(&self) -> LogInstant {
        self.signed.deadline
    }

    fn class(&self) -> CommandClass {
        self.signed.class
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.open == 0
    }

    /// Whether an operator may have to settle it.
    fn is_dead_letter(&self) -> bool {
        self.is_ended() && self.failed > 0 && !self.discarded
    }

    /// Whether all that it holds are dead letters.
    fn is_all_dead(&self) -> bool {
        self.is_dead_letter() && self.failed as usize == self.deliveries.len()
    }

    /// Drops every delivery that is not a dead letter, and the first of those that are, in the order of their agents.
    fn keep_dead_letters(&mut self, but_first: usize) {
        let dead = self.deliveries.iter().filter(|(_, delivery)| delivery.has_failed()).skip(but_first);
        self.deliveries = dead.map(|(agent, delivery)| (agent.clone(), delivery.clone())).collect();
        self.count();
    }

    /// Counts anew what follows from the deliveries themselves.
    fn count(&mut self) {
        let open = self.deliveries.values().filter(|delivery| delivery.outcome.is_none()).count();
        self.open = u32::try_from(open).unwrap_or(u32::MAX);
        let failed = self.deliveries.values().filter(|delivery| delivery.has_failed()).count();
        self.failed = u32::try_from(failed).unwrap_or(u32::MAX);
        self.said_bytes = self.deliveries.values().map(said_bytes).sum();
    }

    fn bytes(&self) -> u64 {
        const FIXED: u64 = 1_024;
        FIXED + self.signed.args.len() as u64 + self.said_bytes
    }
}

/// The deliveries to one agent.
#[derive(Clone, Debug, Default)]
struct Outbox {
    /// The journal that they go to; none before the agent's node has opened one.
    journal: Option<JournalId>,
    home: HomeEpoch,
    /// The groups of an agent that takes commands; empty for other agents.
    groups: Arc<BTreeSet<GroupName>>,
    lanes: PerClass<Lane>,
    /// The last entry that changed what there is to deliver, or to which node.
    changed_at: u64,
}

/// The deliveries to one agent of one class.
#[derive(Clone, Debug, Default)]
struct Lane {
    /// The last sequence number that was given under the present home epoch.
    last: u64,
    /// The commands that were released and have not ended, by their sequence numbers under the present home epoch.
    queue: OrdMap<u64, CommandId>,
    /// The sequence numbers of those that are void.
    voided: OrdSet<u64>,
    /// How many commands have not ended, released or not.
    open: u64,
}

impl Outbox {
    /// All commands that were released and have not ended, in the order of each class.
    fn queued(&self) -> impl Iterator<Item = CommandId> {
        CommandClass::URGENT_FIRST.into_iter().flat_map(move |class| self.lanes.of(class).queue.values().copied())
    }

    /// Whether all that was sent has ended.
    fn is_empty(&self) -> bool {
        self.lanes.routine.open == 0 && self.lanes.urgent.open == 0
    }
}

/// When the orchestrator has to look at a command that has not ended.
fn dues(record: &CommandState) -> impl Iterator<Item = (LogInstant, CommandDue, CommandId)> + use<> {
    let id = record.id();
    let deadline = record.doubt_at.is_none().then(|| (record.deadline(), CommandDue::Deadline, id));
    let wave = record.next_wave_at.map(|at| (at, CommandDue::Wave, id));
    let doubt = record.doubt_at.map(|at| (at, CommandDue::Doubt, id));
    [deadline, wave, doubt].into_iter().flatten()
}

/// All commands, and the outbox of each agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands {
    records: OrdMap<CommandId, Arc<CommandState>>,
    outboxes: OrdMap<AgentId, Arc<Outbox>>,
    /// The agents that take commands, by their groups.
    groups: OrdMap<GroupName, OrdSet<AgentId>>,
    /// The agents of outboxes, by the entry that last changed what there is to deliver, or to which node. None comes
    /// before all.
    changed: OrdSet<(u64, Option<AgentId>)>,
    /// The home epoch of a new outbox: higher than that of every outbox that was dropped.
    homes_from: HomeEpoch,
    /// The term of the present leader, and the stamp of its first entry.
    led_since: (u64, LogInstant),
    due: OrdSet<(LogInstant, CommandDue, CommandId)>,
    /// Commands that ended, by their deadlines; those that hold nothing but dead letters come last. A shard may forget
    /// the id of a command once its deadline has passed.
    ended: OrdSet<(bool, LogInstant, CommandId)>,
    /// The commands among them that have dead letters, by their deadlines.
    dead: OrdSet<(LogInstant, CommandId)>,
    /// How many dead letters there are.
    dead_letters: u64,
    deliveries: u64,
    bytes: u64,
}

impl Commands {
    /// Applies an operation to a command: an operator's request, or a node's report.
    pub(crate) fn apply(
        &mut self,
        op: &CommandOp,
        peers: &Agents,
        operators: &mut Operators,
        cx: &mut Cx<'_>,
    ) -> Result<Receipt, Refusal> {
        match op {
            CommandOp::Send { command } => self.send(command, peers, operators, cx),
            CommandOp::Control { control } => self.control(control, peers, operators, cx),
            CommandOp::OpenInbox { agent, attachment, journal, groups } => {
                self.open_inbox(agent, *attachment, *journal, groups, peers, cx)
            }
            CommandOp::Report { report } => self.report_delivery(report, cx),
            CommandOp::End { ended } => self.report_ended(ended, peers, cx),
        }
    }

    /// About how many bytes it takes in a snapshot.
    pub(crate) fn bytes(&self) -> u64 {
        const DELIVERY: u64 = 192;
        const OUTBOX: u64 = 512;
        self.bytes + self.deliveries * DELIVERY + self.outboxes.len() as u64 * OUTBOX
    }

    /// Moves an agent from its former groups to others.
    fn regroup(&mut self, agent: &AgentId, before: &BTreeSet<GroupName>, now: &BTreeSet<GroupName>) {
        for left in before.difference(now) {
            if let Some(agents) = self.groups.get_mut(left) {
                agents.remove(agent);
                if agents.is_empty() {
                    self.groups.remove(left);
                }
            }
        }
        for joined in now.difference(before) {
            self.groups.entry(joined.clone()).or_default().insert(agent.clone());
        }
    }

    /// Whether ended commands are to be forgotten.
    fn is_crowded(&self, limits: &FleetLimits) -> bool {
        self.ended.len() as u64 > limits.ended_commands_kept
            || self.records.len() as u64 > limits.commands_max / 2
            || self.deliveries > limits.deliveries_max / 2
            || self.bytes > limits.command_bytes_max / 2
    }

    /// How many dead letters there are beyond the number that is kept.
    fn dead_letters_beyond(&self, limits: &FleetLimits) -> usize {
        usize::try_from(self.dead_letters.saturating_sub(limits.ended_commands_kept)).unwrap_or(usize::MAX)
    }

    /// The first ended command of this kind, if its deadline has passed.
    fn first_ended(&self, all_dead: bool, now: LogInstant) -> Option<CommandId> {
        let from = (all_dead, LogInstant::ZERO, CommandId::from_bytes([0; 16]));
        let (kind, deadline, id) = self.ended.range(from..).next()?;
        (*kind == all_dead && *deadline <= now).then_some(*id)
    }

    /// Puts a record into the indexes.
    fn index(&mut self, record: &CommandState) {
        let id = record.id();
        self.deliveries += record.deliveries.len() as u64;
        self.bytes += record.bytes();
        if record.is_ended() {
            self.ended.insert((record.is_all_dead(), record.deadline(), id));
        } else {
            self.due.extend(dues(record));
        }
        if record.is_dead_letter() {
            self.dead.insert((record.deadline(), id));
            self.dead_letters += u64::from(record.failed);
        }
    }

    /// Takes a record out of the indexes.
    fn unindex(&mut self, record: &CommandState) {
        let id = record.id();
        self.deliveries = self.deliveries.saturating_sub(record.deliveries.len() as u64);
        self.bytes = self.bytes.saturating_sub(record.bytes());
        self.ended.remove(&(record.is_all_dead(), record.deadline(), id));
        if self.dead.remove(&(record.deadline(), id)).is_some() {
            self.dead_letters = self.dead_letters.saturating_sub(u64::from(record.failed));
        }
        for due in dues(record) {
            self.due.remove(&due);
        }
    }

    /// All that will be due, soonest first.
    pub(crate) fn dues(&self) -> impl Iterator<Item = (LogInstant, CommandDue, CommandId)> + '_ {
        self.due.iter().copied().inspect(|_| {
            #[cfg(test)]
            crate::state::looks::count();
        })
    }

    /// Whether this is still to be done, due already or not.
    pub(crate) fn is_due(&self, due: &(LogInstant, CommandDue, CommandId)) -> bool {
        self.due.contains(due)
    }

    pub(crate) fn record(&self, id: &CommandId) -> Option<&CommandState> {
        self.records.get(id).map(AsRef::as_ref)
    }

    fn trace(&self, id: &CommandId) -> TraceParent {
        self.record(id).map(|record| record.signed.trace.clone()).unwrap_or_default()
    }

    /// Changes a record, and the indexes with it.
    fn change<T>(&mut self, id: CommandId, change: impl FnOnce(&mut CommandState) -> T) -> Option<T> {
        let mut record = self.records.remove(&id)?;
        self.unindex(&record);
        let changed = change(Arc::make_mut(&mut record));
        self.index(&record);
        self.records.insert(id, record);
        Some(changed)
    }

    /// Changes the outbox of an agent by the entry at this index. An outbox exists from the agent's first command or
    /// inbox on.
    fn change_outbox<T>(&mut self, agent: &AgentId, index: u64, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let (before, changed) = self.mind_outbox(agent, |outbox| {
            let before = std::mem::replace(&mut outbox.changed_at, index);
            (before, change(outbox))
        });
        self.changed.remove(&(before, Some(agent.clone())));
        self.changed.insert((index, Some(agent.clone())));
        changed
    }

    /// Drops the outbox of an agent.
    fn remove_outbox(&mut self, agent: &AgentId) {
        if let Some(outbox) = self.outboxes.remove(agent) {
            self.changed.remove(&(outbox.changed_at, Some(agent.clone())));
            self.regroup(agent, &outbox.groups, &BTreeSet::new());
        }
    }

    /// Changes what is remembered of an outbox, where that gives no node anything new to deliver: waiting nodes
    /// continue to wait.
    fn mind_outbox<T>(&mut self, agent: &AgentId, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let home = self.homes_from;
        let begin = || Arc::new(Outbox { home, ..Outbox::default() });
        change(Arc::make_mut(self.outboxes.entry(agent.clone()).or_insert_with(begin)))
    }
}
