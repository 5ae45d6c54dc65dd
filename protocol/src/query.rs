//! Reads of a shard. They change nothing and travel apart from requests.

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

/// What a client can ask of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One task.
    Task(TaskId),
    /// Tasks in order of their ids.
    Tasks {
        /// Tasks of these statuses only; of all if empty.
        statuses: Vec<TaskStatus>,
        /// Tasks whose ids come after this one only; from the first one on if none.
        after: Option<TaskId>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// The transitions of one task, oldest first.
    History {
        /// Id of the task.
        task: TaskId,
        /// Transitions by entries after this index only; all if none.
        after_index: Option<u64>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Registered agents in order of their ids.
    Agents {
        /// Agents whose ids come after this one only; from the first one on if none.
        after: Option<AgentId>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// The changes of entries from this index on, as many as one frame holds.
    Changes {
        /// The first index wanted.
        from: u64,
        /// Number of changes of that entry that the caller does not want: what one entry did can fill several answers.
        skip: u32,
    },
    /// Numbers of tasks and agents.
    Counts,
    /// One command, with as many of its deliveries as one answer holds, in order of their agents.
    Command {
        /// Id of the command.
        command: CommandId,
        /// Deliveries to agents after this one only; from the first one on if none.
        after: Option<AgentId>,
    },
    /// Commands in order of their ids.
    Commands {
        /// Commands whose ids come after this one only; from the first one on if none.
        after: Option<CommandId>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Operators, who may send commands, in order of their keys.
    Operators {
        /// Operators whose keys come after this one only; from the first one on if none.
        after: Option<OperatorKey>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// One command, with the first of its deliveries, once it has ended at all of its agents: or as it is after a
    /// while.
    CommandEnd {
        /// Id of the command.
        command: CommandId,
        /// How long the replica waits for its end at most, in milliseconds. Less if the replica says so.
        wait_ms: u32,
    },
    /// The site, shard and genesis where statements of operators hold, and the first operator.
    Place,
    /// A question to the directory of the site.
    Site(SiteQuery),
}

/// How old an answer is and where it stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// Index of the last entry that the answering replica had applied.
    pub index: u64,
    /// The stamp of that entry.
    pub stamp: LogInstant,
    /// The shard's clock as the replica knew it; none if it has heard no clock since its start.
    pub clock: Option<LogInstant>,
    /// Whether the answer holds every write acknowledged before the query was asked.
    pub linearizable: bool,
    /// How long ago the replica last heard from the shard's leader, or from a quorum if it leads, in milliseconds; none
    /// if it has heard from neither since its start. Zero if the answer is linearizable.
    pub age_ms: Option<u64>,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// How old the answer is, and where it stands in the log.
    pub as_of: AsOf,
    /// What the replica answers.
    pub answer: Answer,
}

/// What a replica answers to a query.
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
        /// Whether the replica has all transitions up to the answer's index that replicas keep. One that was made from
        /// a snapshot fetches the earlier ones from others.
        complete: bool,
        /// The first index whose changes the replica keeps: transitions before it are gone.
        begins: u64,
    },
    /// A page of agents.
    Agents {
        /// The agents.
        agents: Vec<AgentView>,
        /// Where the next page begins; none on the last page.
        next: Option<AgentId>,
    },
    /// Changes of consecutive entries; entries that changed nothing are left out. What one entry did can be in several
    /// sets, one after another, and go on in the next answer.
    Changes {
        /// The changes.
        sets: Vec<ChangeSet>,
        /// The first index that they do not cover.
        next: u64,
        /// Number of changes of that entry that they cover all the same.
        skip: u32,
        /// Where the history of the replica ends: for the caller to look at if the sets cover nothing.
        edge: HistoryEdge,
    },
    /// The numbers of objects.
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
    /// The site, shard and genesis where statements of operators hold.
    Place {
        /// The site, shard and genesis; none before the shard's first entry.
        place: Option<Place>,
        /// The first operator; none if the shard was made without one.
        first: Option<KnownFirst>,
        /// The floor of serials: the first statement about an operator that is new to the shard has a higher serial.
        serial_floor: u64,
    },
    /// What the directory of the site knows.
    Site(SiteAnswer),
}

/// Numbers of objects that a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Number of pending tasks.
    pub pending: u64,
    /// Number of claimed tasks.
    pub claimed: u64,
    /// Number of terminal tasks in memory.
    pub terminal: u64,
    /// Number of registered agents.
    pub agents: u64,
}

/// Numbers of objects that a shard has let go of since it was made, because it keeps no more. The history has all of it
/// but request ids, for as long as replicas keep the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Number of ended tasks.
    pub tasks: u64,
    /// Number of ended commands.
    pub commands: u64,
    /// Number of dead letters: tasks, and commands at one agent each. Those that went with their tasks and commands
    /// count there, too.
    pub dead_letters: u64,
    /// Number of request ids before their deadlines. The shard refuses a request that was first sent as early as one of
    /// them.
    pub request_ids: u64,
    /// Number of agents that no node served and no client had registered.
    pub agents: u64,
    /// Number of operators who could do nothing any more, and of whom everything that was granted had ended.
    pub operators: u64,
}

/// What a peer answers to a forwarded query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// The answer, or why the node gives none.
    pub result: Result<QueryReply, QueryFailure>,
}

/// Why a replica did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum QueryFailure {
    /// This node does not lead the shard. The hint is what it knows of who does.
    #[error("this node does not lead the shard")]
    NotLeader(LeaderHint),
    /// The leader could not reach a quorum to confirm that it still leads.
    #[error("no quorum confirmed the leader in time")]
    NoQuorum,
    /// The replica answers as many queries as it may.
    #[error("the replica answers as many queries as it may at a time")]
    Overloaded,
    /// This node holds no replica of the shard. The hint is what it has learned of who leads it.
    #[error("this node holds no replica of the shard")]
    NoReplica(LeaderHint),
    /// The replica cannot read its own disk.
    #[error("the replica cannot read its history: {0}")]
    Storage(String),
}
