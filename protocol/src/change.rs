//! What `apply` changed: the history of every object, and what watchers are told.

use serde::{Deserialize, Serialize};

use crate::agent::AgentChange;
use crate::command::CommandChange;
use crate::fleet::Rules;
use crate::ids::{CommandId, Genesis, RequestId, TaskId};
use crate::operator::OperatorChange;
use crate::signing::{OperatorKey, Place};
use crate::site::SiteChange;
use crate::task::{Feed, TaskChange};
use crate::text::AgentId;
use crate::time::LogInstant;

/// One transition, as the history keeps it. Enough to rebuild the object without the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The shard's clock when the entry was made.
    pub at: LogInstant,
    /// Id of the request that asked for it; none if the orchestrator decided it.
    pub request: Option<RequestId>,
    /// What changed.
    pub what: ChangeKind,
}

/// What changed, by what it is a change of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A task.
    Task {
        /// Id of the task.
        task: TaskId,
        /// What changed.
        change: TaskChange,
    },
    /// An agent.
    Agent {
        /// Id of the agent.
        agent: AgentId,
        /// What changed.
        change: AgentChange,
    },
    /// Operators, and what they asked for.
    Operator(OperatorChange),
    /// A command.
    Command {
        /// Id of the command.
        command: CommandId,
        /// What changed.
        change: CommandChange,
    },
    /// The shard itself.
    Shard(ShardChange),
    /// The directory of the site.
    Site(SiteChange),
}

/// What changed of a shard, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardChange {
    /// The log clock lost its continuity and moved to a new era.
    ClockLost {
        /// The first instant of the new era.
        now: LogInstant,
    },
    /// Entries mean what this version says from now on, within these limits.
    RulesAgreed {
        /// The version and the limits.
        rules: Box<Rules>,
    },
    /// The shard began.
    Founded {
        /// The site, shard and genesis where statements of its operators hold.
        place: Place,
    },
    /// The shard goes on as another group, from what one replica of it held.
    Recovered {
        /// The site, shard and genesis where statements of its operators hold from then on.
        place: Place,
        /// The genesis before.
        from: Genesis,
        /// The last entry that was kept of what it was.
        last_index: u64,
        /// Key of the first operator, who signed the recovery.
        by: OperatorKey,
    },
}

impl From<(TaskId, TaskChange)> for ChangeKind {
    fn from((task, change): (TaskId, TaskChange)) -> Self {
        Self::Task { task, change }
    }
}

impl From<(AgentId, AgentChange)> for ChangeKind {
    fn from((agent, change): (AgentId, AgentChange)) -> Self {
        Self::Agent { agent, change }
    }
}

impl From<OperatorChange> for ChangeKind {
    fn from(change: OperatorChange) -> Self {
        Self::Operator(change)
    }
}

impl From<(CommandId, CommandChange)> for ChangeKind {
    fn from((command, change): (CommandId, CommandChange)) -> Self {
        Self::Command { command, change }
    }
}

impl From<ShardChange> for ChangeKind {
    fn from(change: ShardChange) -> Self {
        Self::Shard(change)
    }
}

impl From<SiteChange> for ChangeKind {
    fn from(change: SiteChange) -> Self {
        Self::Site(change)
    }
}

impl ChangeKind {
    /// The task that it belongs to.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Task { task, .. } => Some(*task),
            Self::Agent { .. } | Self::Operator(_) | Self::Command { .. } | Self::Shard(_) | Self::Site(_) => None,
        }
    }

    /// The command that it belongs to.
    pub fn command(&self) -> Option<CommandId> {
        match self {
            Self::Command { command, .. } => Some(*command),
            Self::Operator(change) => change.command(),
            Self::Task { .. } | Self::Agent { .. } | Self::Shard(_) | Self::Site(_) => None,
        }
    }

    /// Whether it records that something was refused: nothing was changed.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Operator(OperatorChange::Refused { .. })
                | Self::Command { change: CommandChange::OutcomeRefused { .. }, .. }
                | Self::Site(SiteChange::Refused { .. })
        )
    }

    /// The command that ended at an agent with it, if one did.
    pub fn ended_command(&self) -> Option<CommandId> {
        match self {
            Self::Command { command, change: CommandChange::DeliveryEnded { .. } } => Some(*command),
            Self::Command { .. }
            | Self::Task { .. }
            | Self::Agent { .. }
            | Self::Operator(_)
            | Self::Shard(_)
            | Self::Site(_) => None,
        }
    }

    /// The feed in which watchers are told, if there is one.
    pub fn feed(&self) -> Option<Feed> {
        match self {
            Self::Task { change, .. } => Some(change.feed()),
            Self::Agent { .. } | Self::Operator(_) | Self::Command { .. } | Self::Shard(_) | Self::Site(_) => None,
        }
    }
}

/// All changes of one log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// All changes of the entry, in order.
    pub changes: Vec<Change>,
}
