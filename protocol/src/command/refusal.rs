//! Why a shard refuses what a client asks of a command.

use serde::{Deserialize, Serialize};

use super::InvalidCommand;
use crate::code::Code;
use crate::ids::CommandId;
use crate::text::AgentId;
use crate::time::LogInstant;

/// Why a shard did not do what a client asked of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CommandRefusal {
    /// A field of a command, or of what an agent takes, is out of bounds.
    #[error("invalid: {0}")]
    Invalid(#[from] InvalidCommand),
    /// The command's deadline has passed.
    #[error("command {command} was valid until {deadline}; the shard's clock is {now}")]
    Expired {
        /// Id of the command.
        command: CommandId,
        /// Its deadline, on the shard's clock.
        deadline: LogInstant,
        /// The shard's clock.
        now: LogInstant,
    },
    /// The command would be valid for too long.
    #[error("command {command} would be valid for {valid_ms} ms; at most {max_ms} are allowed")]
    TooLong {
        /// Id of the command.
        command: CommandId,
        /// For how long it would be valid, in milliseconds.
        valid_ms: u64,
        /// The longest that it may be valid, in milliseconds.
        max_ms: u64,
    },
    /// Another command with this id exists.
    #[error("another command with id {0} exists already")]
    Exists(CommandId),
    /// There is no such command, or it ended long ago.
    #[error("the shard holds no command {0} that could be changed")]
    NoSuchCommand(CommandId),
    /// No agent that takes commands belongs to the target.
    #[error("no agent that takes commands is {0}")]
    NoAgents(String),
    /// Too many commands to an agent have not ended.
    #[error("{count} commands to agent {agent} have not ended")]
    OutboxFull {
        /// Id of the agent.
        agent: AgentId,
        /// Number of its commands that have not ended.
        count: u64,
    },
    /// There is nothing to settle yet.
    #[error("command {0} has not ended at all of its agents")]
    Open(CommandId),
    /// There is nothing to settle: it was done, or called off, everywhere.
    #[error("command {0} failed at no agent")]
    NotDead(CommandId),
    /// There is nothing to resolve: it is known how it ended.
    #[error("command {command} is not indeterminate at agent {agent}")]
    NotIndeterminate {
        /// Id of the command.
        command: CommandId,
        /// Id of the agent.
        agent: AgentId,
    },
}

impl CommandRefusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidCommand,
            Self::Expired { .. } => Code::CommandExpired,
            Self::TooLong { .. } => Code::CommandTooLong,
            Self::Exists(_) => Code::CommandExists,
            Self::NoSuchCommand(_) => Code::NoSuchCommand,
            Self::NoAgents(_) => Code::NoAgents,
            Self::OutboxFull { .. } => Code::OutboxFull,
            Self::Open(_) => Code::CommandOpen,
            Self::NotDead(_) => Code::NotDead,
            Self::NotIndeterminate { .. } => Code::NotIndeterminate,
        }
    }
}
