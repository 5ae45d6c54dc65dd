//! Reads of a shard. They change nothing and travel apart from commands.

use serde::{Deserialize, Serialize};

use crate::agent::AgentView;
use crate::change::ChangeSet;
use crate::command::CommandView;
use crate::history::{HistoryEdge, HistoryRecord};
use crate::ids::{CommandId, TaskId};
use crate::leader::LeaderHint;
use crate::operator::{KnownFirst, OperatorGrant};
use crate::signing::{OperatorKey, Place};
use crate::site::{SiteAnswer, SiteQuery};
use crate::task::{Task, TaskStatus, TaskView};
use crate::text::AgentId;
use crate::time::LogInstant;

/// What can be asked of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One task.
    Task(TaskId),
    /// Tasks in order of their ids.
    Tasks {
        /// Only these statuses; all if empty.
        statuses: Vec<TaskStatus>,
        /// Only those after this id.
        after: Option<TaskId>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// The transitions of one task, oldest first.
    History {
        /// Which.
        task: TaskId,
        /// Only those of later entries.
        after_index: Option<u64>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Registered agents in order of their ids.
    Agents {
        /// Only those after this id.
        after: Option<AgentId>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// The changes of entries from this index on, as many as one frame holds.
    Changes {
        /// The first index wanted.
        from: u64,
        /// How many changes of that entry are not wanted: what one entry did can fill several answers.
        skip: u32,
    },
    /// How many tasks and agents there are.
    Counts,
    /// One command, with as many of its deliveries as one answer holds, in order of their agents.
    Command {
        /// Which.
        command: CommandId,
        /// Only those at agents after this one.
        after: Option<AgentId>,
    },
    /// Commands in order of their ids.
    Commands {
        /// Only those after this id.
        after: Option<CommandId>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Who may send commands, in order of their keys.
    Operators {
        /// Only those after this one.
        after: Option<OperatorKey>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// One command, with the first of its deliveries, once it has ended at all of its agents: or as it is after a while.
    CommandEnd {
        /// Which.
        command: CommandId,
        /// How long it is waited for at most, in milliseconds. Less if whoever answers says so.
        wait_ms: u32,
    },
    /// Where statements of operators hold, and who the first operator is.
    Place,
    /// What the directory of the site knows.
    Site(SiteQuery),
}

/// How old an answer is and where it stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// The last entry that the answering replica had applied.
    pub index: u64,
    /// The stamp of that entry.
    pub stamp: LogInstant,
    /// The shard's clock as the replica knew it; none if it has heard no clock since its start.
    pub clock: Option<LogInstant>,
    /// Whether it holds every write acknowledged before the query was asked.
    pub linearizable: bool,
    /// How long ago the replica last heard from the shard's leader, or from a quorum if it leads, in milliseconds; none if
    /// it has heard from neither since its start. Zero if it is linearizable.
    pub age_ms: Option<u64>,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// Where the answer stands.
    pub as_of: AsOf,
    /// The answer.
    pub answer: Answer,
}

/// The answer proper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The task, if the shard holds it.
    Task(Option<Box<TaskView>>),
    /// A page of tasks.
    Tasks {
        /// The tasks.
        tasks: Vec<Task>,
        /// Where the next page begins; none on the last page.
        next: Option<TaskId>,
    },
    /// A page of a task's transitions.
    History {
        /// The transitions.
        records: Vec<HistoryRecord>,
        /// Whether there are more after the last one.
        more: bool,
        /// Whether the replica has all transitions up to the answer's index that are kept. One that was made from a
        /// snapshot fetches the earlier ones from others.
        complete: bool,
        /// The first index whose changes are kept: transitions before it are gone.
        begins: u64,
    },
    /// A page of agents.
    Agents {
        /// The agents.
        agents: Vec<AgentView>,
        /// Where the next page begins; none on the last page.
        next: Option<AgentId>,
    },
    /// Changes of consecutive entries; entries that changed nothing are left out. What one entry did can be in several sets,
    /// one after another, and go on in the next answer.
    Changes {
        /// The changes.
        sets: Vec<ChangeSet>,
        /// The first index not covered by them.
        next: u64,
        /// How many changes of that entry are covered all the same.
        skip: u32,
        /// What there is none of: to be looked at if nothing is covered.
        edge: HistoryEdge,
    },
    /// How many there are.
    Counts(Counts),
    /// The command, if the shard holds it.
    Command {
        /// The command, with a page of its deliveries.
        command: Option<Box<CommandView>>,
        /// Where the next page begins; none on the last page.
        next: Option<AgentId>,
    },
    /// A page of commands.
    Commands {
        /// The commands.
        commands: Vec<CommandView>,
        /// Where the next page begins; none on the last page.
        next: Option<CommandId>,
    },
    /// A page of operators.
    Operators {
        /// The operators.
        operators: Vec<OperatorGrant>,
        /// Where the next page begins; none on the last page.
        next: Option<OperatorKey>,
    },
    /// Where statements of operators hold.
    Place {
        /// That; none before the shard's first entry.
        place: Option<Place>,
        /// The first operator; none if the shard was made without one.
        first: Option<KnownFirst>,
        /// The first statement about an operator that is new to the shard has a higher number.
        serial_floor: u64,
    },
    /// What the directory of the site knows.
    Site(SiteAnswer),
}

/// How many objects a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pending tasks.
    pub pending: u64,
    /// Claimed tasks.
    pub claimed: u64,
    /// Terminal tasks that are kept in memory.
    pub terminal: u64,
    /// Registered agents.
    pub agents: u64,
}

/// What a shard has let go of since it was made, because it keeps no more. The history has all of it but request ids, for as
/// long as the history is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Ended tasks.
    pub tasks: u64,
    /// Ended commands.
    pub commands: u64,
    /// Dead letters: tasks, and commands at one agent each. Those that went with their tasks and commands are counted there too.
    pub dead_letters: u64,
    /// Request ids before their deadlines. What was first sent as early as one of them is refused.
    pub request_ids: u64,
    /// Agents that nobody served any more, and nobody registered.
    pub agents: u64,
    /// Operators who could do nothing any more, and of whom everything that was granted had ended.
    pub operators: u64,
}

/// What a peer answers to a forwarded query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// The answer, or why there is none.
    pub result: Result<QueryReply, QueryFailure>,
}

/// Why a replica did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum QueryFailure {
    /// This node does not lead the shard. What it knows of who does.
    #[error("this node does not lead the shard")]
    NotLeader(LeaderHint),
    /// The leader could not reach a quorum to confirm that it still leads.
    #[error("no quorum confirmed the leader in time")]
    NoQuorum,
    /// Too many queries at a time.
    #[error("the replica answers as many queries as it may at a time")]
    Overloaded,
    /// This node holds no replica of the shard. What it has learned of who leads it.
    #[error("this node holds no replica of the shard")]
    NoReplica(LeaderHint),
    /// The replica cannot read its own disk.
    #[error("the replica cannot read its history: {0}")]
    Storage(String),
}
