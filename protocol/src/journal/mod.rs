//! What a node writes down of the commands of its agents, before it says or does anything about them.

mod serials;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{CommandOutcome, DeliverySeq, PerClass, SignedCommand, Steps};
use crate::ids::{CommandId, Genesis, HomeEpoch, JournalId, SessionId, ShardId};
use crate::operator::KnownFirst;
use crate::signing::OperatorKey;
use crate::text::AgentId;
use crate::time::LogInstant;

pub use serials::Serials;

/// The identity of a journal, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHead {
    /// Id of the journal.
    pub id: JournalId,
    /// The journal's home epoch, as the shard counts it.
    pub home: HomeEpoch,
    /// The last place in each of the agent's orders that it has had. The node never takes a command at or below it
    /// again.
    pub cursor: PerClass<u64>,
    /// The shard's genesis, as the node heard it when it made the journal: a statement for another one is not for this
    /// agent.
    pub genesis: Option<Genesis>,
    /// The shard's first operator, as the node heard it then, or as the first operator replaced itself since: no other
    /// key can make an operator.
    pub first: Option<KnownFirst>,
}

impl JournalHead {
    /// The head of a new journal.
    pub const fn new(id: JournalId) -> Self {
        let cursor = PerClass { routine: 0, urgent: 0 };
        Self { id, home: HomeEpoch(0), cursor, genesis: None, first: None }
    }

    /// Whether the shard goes on as another one than by the head before. Then earlier statements of operators hold no
    /// more, and their numbers do not hold for this journal any more: see [`Serials::follow`].
    pub fn is_of_another_shard(&self, before: &Self) -> bool {
        before.genesis.is_some() && self.genesis != before.genesis
    }
}

/// How far a command has come at its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalPhase {
    /// The command is in the journal, and was not started.
    Received,
    /// The node may have told the agent's software to go.
    Intended {
        /// The session: the run of the software.
        session: SessionId,
    },
    /// The command has ended, and the shard may not know yet.
    Ended {
        /// How it ended.
        outcome: CommandOutcome,
    },
}

/// A command in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its place in the agent's order of its class.
    pub seq: DeliverySeq,
    /// The command, as its operator signed it.
    pub command: Arc<SignedCommand>,
    /// When the node took each step, on the shard's clock.
    pub steps: Steps,
    /// How far it has come.
    pub phase: JournalPhase,
    /// Whether a run of the software that has ended may have begun it. Then only an idempotent command goes on.
    pub begun_before: bool,
}

impl JournalEntry {
    /// Takes a further step.
    pub fn take(&mut self, step: JournalStep) {
        let JournalStep { seq: _, steps, phase, begun_before } = step;
        (self.steps, self.phase, self.begun_before) = (steps, phase, begun_before);
    }
}

/// How far a command of a journal has come, without the command: a step is small whatever the command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStep {
    /// Its place in the agent's order of its class.
    pub seq: DeliverySeq,
    /// When the node took each step, on the shard's clock.
    pub steps: Steps,
    /// How far it has come.
    pub phase: JournalPhase,
    /// Whether a run of the software that has ended may have begun it.
    pub begun_before: bool,
}

/// A journal as the node finds it when it begins to serve the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalState {
    /// The head of the journal.
    pub head: JournalHead,
    /// What all journals of the shard know of the statements of operators: this journal may not have heard yet by whose
    /// word they hold.
    pub stated: Serials,
    /// The entries of the journal, in their order.
    pub entries: Vec<JournalEntry>,
    /// What the shard's clock has surely come to. It never falls: the node begins no command whose deadline is not
    /// after it.
    pub clock_floor: LogInstant,
    /// Commands that were begun and that the node let go of, with their deadlines: it begins none of them again. Kept
    /// until the floor has passed them.
    pub begun: BTreeMap<CommandId, LogInstant>,
}

impl JournalState {
    /// A journal of these entries that let go of no begun command, and saw no later statement than those of the start.
    pub fn new(head: JournalHead, entries: Vec<JournalEntry>) -> Self {
        Self { head, stated: Serials::default(), entries, clock_floor: LogInstant::ZERO, begun: BTreeMap::new() }
    }
}

/// One write to a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalWrite {
    /// The head is this from then on. See [`JournalHead::is_of_another_shard`].
    Head(JournalHead),
    /// An entry is this from then on.
    Put(JournalEntry),
    /// The journal needs an entry no more.
    Remove(DeliverySeq),
    /// An entry has come so far.
    Step(JournalStep),
    /// Nothing needs the journal any more. The keeper of journals writes it, when the journal holds nothing and nothing
    /// uses it.
    Forget,
    /// From then on this journal believes no statement about an operator that has a lower number, nor do the journals
    /// of the shard that take the same word: see [`Serials`].
    Stated {
        /// Key of the operator.
        operator: OperatorKey,
        /// The serial of the statement.
        serial: u64,
    },
    /// The node lets go of a begun command, and does not begin it again.
    Begun {
        /// Id of the command.
        command: CommandId,
        /// The deadline of the command, on the shard's clock: until then an operator could ask for it once more.
        deadline: LogInstant,
    },
    /// The clock's floor is this from then on. The journal no longer needs begun commands whose deadline is not after
    /// it.
    ClockFloor(LogInstant),
}

/// What a node wrote to one agent's journal, as the node keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// Id of the shard.
    pub shard: ShardId,
    /// Id of the agent.
    pub agent: AgentId,
    /// The writes, in their order.
    pub writes: Vec<JournalWrite>,
}

/// What a node wants of its journals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalJob {
    /// Read the journal of an agent, and report it as [`JournalReport::Opened`]; make a new one if there is none.
    Open {
        /// Id of the shard.
        shard: ShardId,
        /// Id of the agent.
        agent: AgentId,
    },
    /// Write all of this, in order for each agent, and report it as [`JournalReport::Written`] once no crash can undo
    /// it. A crash before that may leave the first part of it.
    Write {
        /// A number that the report repeats.
        key: u64,
        /// Id of the shard.
        shard: ShardId,
        /// Id of the agent.
        agent: AgentId,
        /// The writes, in their order.
        writes: Vec<JournalWrite>,
    },
    /// Nothing uses the journal of an agent until it is opened again. The node may forget it if it holds nothing.
    Release {
        /// Id of the shard.
        shard: ShardId,
        /// Id of the agent.
        agent: AgentId,
    },
}

/// What the journals of a node report: for each agent in the order of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReport {
    /// A journal was read, or made.
    Opened {
        /// Id of the shard.
        shard: ShardId,
        /// Id of the agent.
        agent: AgentId,
        /// The journal as it was read.
        journal: Box<JournalState>,
    },
    /// The writes are durable: no crash undoes them.
    Written {
        /// The number that the job gave.
        key: u64,
    },
}
