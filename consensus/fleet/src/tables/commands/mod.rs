//! Commands, and the outboxes of the agents that they are for.
//!
//! A command is accepted once and ends exactly once at each of its agents. It stands in an agent's order of its class
//! from when it is released to it. From then on the agent's node may have it, so that only that node can say that it was
//! not started: what is called off then is _void_, and ends when the node has taken that down, or when nothing was heard
//! of it for too long, as indeterminate.

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
    /// Its next wave.
    Wave,
    /// Its deadline.
    Deadline,
    /// It was not heard of for too long after its deadline.
    Doubt,
}

/// A command at one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryState {
    /// In which wave it is released.
    pub(crate) wave: u32,
    /// Its place in the agent's order of its class; none before it is released.
    pub(crate) seq: Option<DeliverySeq>,
    /// The node that may have had it; none as long as nobody can.
    pub(crate) node: Option<NodeId>,
    /// Why it is not to be started, if it is not.
    pub(crate) void: Option<VoidCause>,
    /// How it ended.
    pub(crate) outcome: Option<CommandOutcome>,
    /// Whether the outcome was mended once: nobody knew it, and then somebody did.
    pub(crate) refined: bool,
    /// The command by which it was sent to its agent again after it had failed.
    pub(crate) redriven: Option<CommandId>,
    pub(crate) steps: Steps,
    /// How far the agent's software says it has come; none once it has ended.
    pub(crate) progress: Option<CommandProgress>,
    /// How far it had come when that was kept in the history last, in thousandths.
    pub(crate) progress_told: Option<u16>,
    /// When its node said last that it is under way.
    pub(crate) heard_at: Option<LogInstant>,
    pub(crate) released_at: Option<LogInstant>,
    pub(crate) ended_at: Option<LogInstant>,
}

impl DeliveryState {
    /// Whether it failed, and nothing was sent to its agent in its place.
    fn has_failed(&self) -> bool {
        self.redriven.is_none() && self.outcome.as_ref().is_some_and(CommandOutcome::is_failure)
    }
}

/// A command, and how far it has come at each of its agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CommandState {
    pub(crate) signed: Arc<SignedCommand>,
    pub(crate) accepted_at: LogInstant,
    /// The entry that accepted it.
    pub(crate) accepted_by: (u64, u64),
    /// For how many agents it was accepted.
    pub(crate) agents: u32,
    /// How it stands at each agent; of one that ended long ago only where it is a dead letter.
    #[serde(serialize_with = "entries", deserialize_with = "map")]
    pub(crate) deliveries: OrdMap<AgentId, DeliveryState>,
    /// Deliveries that have not ended.
    #[serde(skip)]
    pub(crate) open: u32,
    /// Those that ended, failed, and were not sent again.
    #[serde(skip)]
    pub(crate) failed: u32,
    /// Bytes of what was said of it by its agents.
    #[serde(skip)]
    pub(crate) said_bytes: u64,
    /// Waves that were released.
    pub(crate) released: u32,
    pub(crate) next_wave_at: Option<LogInstant>,
    pub(crate) doubt_at: Option<LogInstant>,
    /// Whether somebody settled what failed of it.
    pub(crate) discarded: bool,
}

fn entries<S: Serializer>(deliveries: &OrdMap<AgentId, DeliveryState>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(deliveries)
}

/// By way of a map that does not believe the length that stands in the bytes.
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

    /// Whether somebody may have to look at it.
    fn is_dead_letter(&self) -> bool {
        self.is_ended() && self.failed > 0 && !self.discarded
    }

    /// Whether it has nothing but dead letters.
    fn is_all_dead(&self) -> bool {
        self.is_dead_letter() && self.failed as usize == self.deliveries.len()
    }

    /// Lets go of all that is no dead letter, and of so many of those that are, in the order of their agents.
    fn keep_dead_letters(&mut self, but_first: usize) {
        let dead = self.deliveries.iter().filter(|(_, delivery)| delivery.has_failed()).skip(but_first);
        self.deliveries = dead.map(|(agent, delivery)| (agent.clone(), delivery.clone())).collect();
        self.count();
    }

    /// Counts anew what is told by the deliveries themselves.
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

/// What is on its way to one agent.
#[derive(Clone, Debug, Default)]
struct Outbox {
    /// The journal that it goes to; none before the agent's node has opened one.
    journal: Option<JournalId>,
    home: HomeEpoch,
    /// Those of an agent that takes commands; empty for others.
    groups: Arc<BTreeSet<GroupName>>,
    lanes: PerClass<Lane>,
    /// The last entry that changed what there is to deliver, or to whom.
    changed_at: u64,
}

/// What is on its way to one agent of one class.
#[derive(Clone, Debug, Default)]
struct Lane {
    /// The place of the last delivery in the present home.
    last: u64,
    /// What was released and has not ended, by its place in the present home.
    queue: OrdMap<u64, CommandId>,
    /// Those of it that are not to be started.
    voided: OrdSet<u64>,
    /// Commands that have not ended, released or not.
    open: u64,
}

impl Outbox {
    /// All that was released and has not ended, in the order of each class.
    fn queued(&self) -> impl Iterator<Item = CommandId> {
        CommandClass::URGENT_FIRST.into_iter().flat_map(move |class| self.lanes.of(class).queue.values().copied())
    }

    /// Whether all that was sent has ended.
    fn is_empty(&self) -> bool {
        self.lanes.routine.open == 0 && self.lanes.urgent.open == 0
    }
}

/// When somebody has to look at a command that has not ended.
fn dues(record: &CommandState) -> impl Iterator<Item = (LogInstant, CommandDue, CommandId)> + use<> {
    let id = record.id();
    let deadline = record.doubt_at.is_none().then(|| (record.deadline(), CommandDue::Deadline, id));
    let wave = record.next_wave_at.map(|at| (at, CommandDue::Wave, id));
    let doubt = record.doubt_at.map(|at| (at, CommandDue::Doubt, id));
    [deadline, wave, doubt].into_iter().flatten()
}

/// All commands, and what is on its way to each agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands {
    records: OrdMap<CommandId, Arc<CommandState>>,
    outboxes: OrdMap<AgentId, Arc<Outbox>>,
    /// The agents that take commands, by their groups.
    groups: OrdMap<GroupName, OrdSet<AgentId>>,
    /// The agents of outboxes, by the entry that changed last what there is to deliver, or to whom. None comes before all.
    changed: OrdSet<(u64, Option<AgentId>)>,
    /// Where the home of a new outbox begins: behind that of every outbox that was let go of.
    homes_from: HomeEpoch,
    /// The term of the present leader, and when its first entry was stamped.
    led_since: (u64, LogInstant),
    due: OrdSet<(LogInstant, CommandDue, CommandId)>,
    /// Commands that ended, by their deadlines; those that hold nothing but dead letters come last. A shard may forget the id
    /// of a command once its deadline has passed.
    ended: OrdSet<(bool, LogInstant, CommandId)>,
    /// Those of them that have dead letters, by their deadlines.
    dead: OrdSet<(LogInstant, CommandId)>,
    /// How many dead letters they have.
    dead_letters: u64,
    deliveries: u64,
    bytes: u64,
}

impl Commands {
    /// Does what an operator asks of a command, or takes what the node of an agent says of one.
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

    /// About how many bytes of a snapshot it takes.
    pub(crate) fn bytes(&self) -> u64 {
        const DELIVERY: u64 = 192;
        const OUTBOX: u64 = 512;
        self.bytes + self.deliveries * DELIVERY + self.outboxes.len() as u64 * OUTBOX
    }

    /// An agent is of other groups than before.
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

    /// How many dead letters there are beyond those that are kept.
    fn dead_letters_beyond(&self, limits: &FleetLimits) -> usize {
        usize::try_from(self.dead_letters.saturating_sub(limits.ended_commands_kept)).unwrap_or(usize::MAX)
    }

    /// The first of the commands that ended, of these kinds, if its deadline has passed.
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

    /// Takes a record out of them.
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

    /// Whether that is still to come, or has come and was not done.
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

    /// Changes the outbox of an agent by the entry at this index. It is there from the agent's first command or inbox on.
    fn change_outbox<T>(&mut self, agent: &AgentId, index: u64, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let (before, changed) = self.mind_outbox(agent, |outbox| {
            let before = std::mem::replace(&mut outbox.changed_at, index);
            (before, change(outbox))
        });
        self.changed.remove(&(before, Some(agent.clone())));
        self.changed.insert((index, Some(agent.clone())));
        changed
    }

    /// Lets go of the outbox of an agent.
    fn remove_outbox(&mut self, agent: &AgentId) {
        if let Some(outbox) = self.outboxes.remove(agent) {
            self.changed.remove(&(outbox.changed_at, Some(agent.clone())));
            self.regroup(agent, &outbox.groups, &BTreeSet::new());
        }
    }

    /// Changes what is remembered of an outbox, which gives nobody anything new to deliver: nodes that wait go on waiting.
    fn mind_outbox<T>(&mut self, agent: &AgentId, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let home = self.homes_from;
        let begin = || Arc::new(Outbox { home, ..Outbox::default() });
        change(Arc::make_mut(self.outboxes.entry(agent.clone()).or_insert_with(begin)))
    }
}
