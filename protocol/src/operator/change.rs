//! What changes of operators.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::OperatorGrant;
use crate::ids::CommandId;
use crate::refusal::Refusal;
use crate::signing::OperatorKey;
use crate::text::OperatorName;

/// What changed of operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorChange {
    /// An operator may do this from now on.
    Granted {
        /// What it says, and who says so: of a shard's first operator it is itself.
        grant: Arc<OperatorGrant>,
    },
    /// An operator who may do nothing any more was forgotten, so that there is room for another one.
    Forgotten {
        /// Which.
        operator: OperatorKey,
        /// Its name, by the last statement about it.
        name: OperatorName,
        /// The number of that statement. One about an operator that is new here has a higher number from now on.
        serial: u64,
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
            Self::Granted { .. } | Self::Forgotten { .. } | Self::FirstReplaced { .. } => None,
        }
    }
}
