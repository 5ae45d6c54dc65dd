//! How far a command has come at a robot, and how it ended.

use serde::{Deserialize, Serialize};

use crate::text::Reason;
use crate::time::LogInstant;

/// How a command ended at one robot. Exactly one of these, for every command that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// The robot's software did it.
    Succeeded {
        /// What came of it; opaque to Skep.
        result: Vec<u8>,
    },
    /// The robot's software began, and it failed.
    Failed {
        /// Why.
        reason: Reason,
    },
    /// The robot's software, or its node, would not do it; or too many commands to it had not ended.
    Rejected {
        /// Why.
        reason: Reason,
    },
    /// It was not started by its deadline.
    Expired,
    /// It was called off before it was started.
    Cancelled,
    /// Another command took its place before it was started.
    Superseded,
    /// Nobody knows whether it was done.
    Indeterminate {
        /// Why not.
        reason: Reason,
    },
}

impl CommandOutcome {
    /// Its name.
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

    /// Bytes of what came of it.
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

    /// The same, without what came of it.
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

    /// Whether somebody may have to look at it: it was wanted, and it is not known to be done.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Rejected { .. } | Self::Expired | Self::Indeterminate { .. })
    }

    /// Whether the robot may have moved by it.
    pub const fn may_have_acted(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. } | Self::Indeterminate { .. })
    }
}

/// Why a command is not to be started any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoidCause {
    /// Its deadline passed.
    Expired,
    /// An operator called it off.
    Cancelled,
    /// Another one took its place.
    Superseded,
    /// Its operator may not ask for it any more.
    Revoked,
}

impl VoidCause {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
        }
    }

    /// How it ends where it was not started.
    pub const fn outcome(self) -> CommandOutcome {
        match self {
            Self::Expired => CommandOutcome::Expired,
            Self::Cancelled | Self::Revoked => CommandOutcome::Cancelled,
            Self::Superseded => CommandOutcome::Superseded,
        }
    }
}

/// When a robot's node took each step, on the shard's clock as the node knew it; none for steps that were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// The command is in the node's journal.
    pub received: Option<LogInstant>,
    /// The robot's software took it on.
    pub accepted: Option<LogInstant>,
    /// The intent is in the journal, and the software was told to go.
    pub started: Option<LogInstant>,
    /// The outcome is in the journal.
    pub ended: Option<LogInstant>,
}

impl Steps {
    /// These steps, and others where these were not taken.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            received: self.received.or(other.received),
            accepted: self.accepted.or(other.accepted),
            started: self.started.or(other.started),
            ended: self.ended.or(other.ended),
        }
    }

    /// Those of them that are other than they were.
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
    /// Thousandths of the work.
    pub permille: u16,
    /// In the software's words.
    pub note: Reason,
    /// When it was said, on the shard's clock as the robot's node knew it; none if it did not.
    pub at: Option<LogInstant>,
}
