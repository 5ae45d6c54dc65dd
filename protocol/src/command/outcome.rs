//! How far a command has come at a robot, and how it ended.

use serde::{Deserialize, Serialize};

use crate::text::Reason;
use crate::time::LogInstant;

/// How a command ended at one robot. Each command that the shard accepted ends in exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// The robot's software did it.
    Succeeded {
        /// The result; its bytes are opaque to Skep.
        result: Vec<u8>,
    },
    /// The robot's software began it and failed.
    Failed {
        /// The reason, for people.
        reason: Reason,
    },
    /// The robot's software, or its node, would not do it; or too many commands to the robot had not ended.
    Rejected {
        /// The reason, for people.
        reason: Reason,
    },
    /// The robot did not start it by its deadline.
    Expired,
    /// An operator called it off before the robot started it.
    Cancelled,
    /// Another command took its place before the robot started it.
    Superseded,
    /// Nothing shows whether the robot did it.
    Indeterminate {
        /// Why that is not known.
        reason: Reason,
    },
}

impl CommandOutcome {
    /// Name of the outcome.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Rejected { .. } => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Indeterminate { .. } => "indeterminate",
        }
    }

    /// Length of the result, in bytes.
    pub const fn result_bytes(&self) -> usize {
        match self {
            Self::Succeeded { result } => result.len(),
            Self::Failed { .. }
            | Self::Rejected { .. }
            | Self::Expired
            | Self::Cancelled
            | Self::Superseded
            | Self::Indeterminate { .. } => 0,
        }
    }

    /// The same outcome, without its result.
    #[must_use]
    pub fn without_result(&self) -> Self {
        match self {
            Self::Succeeded { .. } => Self::Succeeded { result: Vec::new() },
            Self::Failed { .. }
            | Self::Rejected { .. }
            | Self::Expired
            | Self::Cancelled
            | Self::Superseded
            | Self::Indeterminate { .. } => self.clone(),
        }
    }

    /// Whether an operator may have to look at it: it was wanted, and is not known to be done.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Rejected { .. } | Self::Expired | Self::Indeterminate { .. })
    }

    /// Whether the robot may have moved by it.
    pub const fn may_have_acted(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. } | Self::Indeterminate { .. })
    }
}

/// Why robots are not to start a command any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoidCause {
    /// Its deadline passed.
    Expired,
    /// An operator called it off.
    Cancelled,
    /// Another one took its place.
    Superseded,
    /// Its operator lost the right to it.
    Revoked,
}

impl VoidCause {
    /// Name of the cause.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
        }
    }

    /// The outcome at a robot that did not start it.
    pub const fn outcome(self) -> CommandOutcome {
        match self {
            Self::Expired => CommandOutcome::Expired,
            Self::Cancelled | Self::Revoked => CommandOutcome::Cancelled,
            Self::Superseded => CommandOutcome::Superseded,
        }
    }
}

/// When a robot's node took each step, on the shard's clock as the node knew it; none for a step that it did not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// The node wrote the command to its journal.
    pub received: Option<LogInstant>,
    /// The robot's software accepted it.
    pub accepted: Option<LogInstant>,
    /// The node wrote the intent to its journal, and told the software to go.
    pub started: Option<LogInstant>,
    /// The node wrote the outcome to its journal.
    pub ended: Option<LogInstant>,
}

impl Steps {
    /// These steps, and for those that were not taken the other ones.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            received: self.received.or(other.received),
            accepted: self.accepted.or(other.accepted),
            started: self.started.or(other.started),
            ended: self.ended.or(other.ended),
        }
    }

    /// The steps that differ from the earlier ones.
    #[must_use]
    pub fn since(self, were: Self) -> Self {
        let new = |now: Option<LogInstant>, was| if now == was { None } else { now };
        Self {
            received: new(self.received, were.received),
            accepted: new(self.accepted, were.accepted),
            started: new(self.started, were.started),
            ended: new(self.ended, were.ended),
        }
    }
}

/// How far a robot's software says it has come with a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandProgress {
    /// How much of the work is done, in thousandths.
    pub permille: u16,
    /// What the software says of it, for people.
    pub note: Reason,
    /// When the software said it, on the shard's clock as the robot's node knew it; none if the node did not know it.
    pub at: Option<LogInstant>,
}
