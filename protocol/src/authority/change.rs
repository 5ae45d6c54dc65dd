//! What changes of operators.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{OperatorGrant, OperatorKey};
use crate::ids::CommandId;
use crate::outcome::Refusal;

/// What changed of operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorChange {
    /// An operator may do this from now on.
    Granted {
        /// What it says, and who says so: of a shard's first operator it is itself.
        grant: Arc<OperatorGrant>,
    },
    /// Another key is the first operator. What the one before it granted is over.
    FirstReplaced {
        /// The one before it.
        old: OperatorKey,
        /// The one that is it now.
        new: OperatorKey,
    },
    /// What an operator asked for was refused.
    Refused {
        /// Who asked.
        by: OperatorKey,
        /// About which command; none if it was a grant.
        command: Option<CommandId>,
        /// Why it was refused.
        why: Box<Refusal>,
    },
}

impl OperatorChange {
    /// The command that it belongs to.
    pub(crate) fn command(&self) -> Option<CommandId> {
        match self {
            Self::Refused { command, .. } => *command,
            Self::Granted { .. } | Self::FirstReplaced { .. } => None,
        }
    }
}
