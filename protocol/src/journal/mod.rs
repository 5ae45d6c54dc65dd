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

/// Whose journal it is, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHead {
    /// The journal.
    pub id: JournalId,
    /// Its time, as the shard counts it.
    pub home: HomeEpoch,
    /// The last place in each of the agent's orders that it has had. What is at or below it is never taken again.
    pub cursor: PerClass<u64>,
    /// The shard's genesis, as it was told when the journal was made: what was signed for another one is not for this agent.
    pub genesis: Option<Genesis>,
    /// The shard's first operator, as it was told then, or as it was replaced by its own word since: nobody else can make an
    /// operator.
    pub first: Option<KnownFirst>,
}

impl JournalHead {
    /// The head of a new journal.
    pub const fn new(id: JournalId) -> Self {
        let cursor = PerClass { routine: 0, urgent: 0 };
        Self { id, home: HomeEpoch(0), cursor, genesis: None, first: None }
    }

    /// Whether the shard goes on as another one than it was by the head before. What operators stated then holds no more, and the
    /// numbers of it do not hold for this journal any more: see [`Serials::follow`].
    pub fn is_of_another_shard(&self, before: &Self) -> bool {
        before.genesis.is_some() && self.genesis != before.genesis
    }
}

/// How far a command has come at its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalPhase {
    /// It is here, and was not started.
    Received,
    /// The agent's software may have been told to go.
    Intended {
        /// Which run of it.
        session: SessionId,
    },
    /// It has ended, and the shard may not know yet.
    Ended {
        /// How.
        outcome: CommandOutcome,
    },
}

/// A command in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its place in the agent's order.
    pub seq: DeliverySeq,
    /// The command.
    pub command: Arc<SignedCommand>,
    /// When each step was taken.
    pub steps: Steps,
    /// How far it has come.
    pub phase: JournalPhase,
    /// Whether a run of the software that has ended may have begun it. Only what may be done again goes on after that.
    pub begun_before: bool,
}

impl JournalEntry {
    /// It has come further.
    pub fn take(&mut self, step: JournalStep) {
        let JournalStep { seq: _, steps, phase, begun_before } = step;
        (self.steps, self.phase, self.begun_before) = (steps, phase, begun_before);
    }
}

/// How far a command of a journal has come, without the command: an end is small whatever was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStep {
    /// Its place in the agent's order.
    pub seq: DeliverySeq,
    /// When each step was taken.
    pub steps: Steps,
    /// How far it has come.
    pub phase: JournalPhase,
    /// Whether a run of the software that has ended may have begun it.
    pub begun_before: bool,
}

/// A journal as it is found when its agent is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalState {
    /// Its head.
    pub head: JournalHead,
    /// What all journals of its shard know of the statements of operators: this one may not have been told yet by whose
    /// word.
    pub stated: Serials,
    /// Its entries, in their order.
    pub entries: Vec<JournalEntry>,
    /// What the shard's clock has surely come to. It never falls: nothing is begun whose deadline is not after it.
    pub clock_floor: LogInstant,
    /// Commands that were begun and are let go of, with their deadlines: none of them is begun again. Kept until the floor has passed
    /// them.
    pub begun: BTreeMap<CommandId, LogInstant>,
}

impl JournalState {
    /// A journal of these entries, by which nothing was begun that is let go of, nor anything seen that was stated later than
    /// at first.
    pub fn new(head: JournalHead, entries: Vec<JournalEntry>) -> Self {
        Self { head, stated: Serials::default(), entries, clock_floor: LogInstant::ZERO, begun: BTreeMap::new() }
    }
}

/// Something that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalWrite {
    /// The head is this from now on. See [`JournalHead::is_of_another_shard`].
    Head(JournalHead),
    /// An entry is this from now on.
    Put(JournalEntry),
    /// An entry is not needed any more.
    Remove(DeliverySeq),
    /// An entry has come so far from now on.
    Step(JournalStep),
    /// The journal is not needed any more. Written by whoever keeps journals, when it holds nothing and nobody uses it.
    Forget,
    /// No statement about an operator is believed from now on that has a lower number, here and in all journals of the
    /// shard that take the same word: see [`Serials`].
    Stated {
        /// Who.
        operator: OperatorKey,
        /// The number.
        serial: u64,
    },
    /// A command that was begun is let go of, and not begun again.
    Begun {
        /// Which.
        command: CommandId,
        /// Until when somebody could ask for it once more.
        deadline: LogInstant,
    },
    /// The clock's floor is this from now on. What was begun with a deadline that is not after it is not needed any more.
    ClockFloor(LogInstant),
}

/// What was written to one agent's journal, as a node keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The shard.
    pub shard: ShardId,
    /// The agent.
    pub agent: AgentId,
    /// What, in order.
    pub writes: Vec<JournalWrite>,
}

/// What is wanted of the journals of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalJob {
    /// Tell the journal of an agent, as [`JournalReport::Opened`]; a new one if there is none.
    Open {
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
    },
    /// Write all of this, in order for each agent, and report it as [`JournalReport::Written`] once no crash can undo it. A
    /// crash before that may leave the first of it.
    Write {
        /// A name for the report.
        key: u64,
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
        /// What.
        writes: Vec<JournalWrite>,
    },
    /// The journal of an agent is of no use until it is opened again. It may be forgotten if it holds nothing.
    Release {
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
    },
}

/// What the journals of a node report. For each agent in the order of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReport {
    /// A journal was read, or made.
    Opened {
        /// The shard.
        shard: ShardId,
        /// The agent.
        agent: AgentId,
        /// The journal.
        journal: Box<JournalState>,
    },
    /// It is written, and no crash undoes it.
    Written {
        /// Its name.
        key: u64,
    },
}
