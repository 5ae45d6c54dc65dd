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
    /// An operator may do this from then on.
    Granted {
        /// The grant, with its author: the grant of a shard's first operator is its own.
        grant: Arc<OperatorGrant>,
    },
    /// The shard forgot an operator who may do nothing any more, to make room for another one.
    Forgotten {
        /// Key of the operator.
        operator: OperatorKey,
        /// The operator's name, by the last statement about it.
        name: OperatorName,
        /// The serial of that statement. A statement about an operator that is new here has a higher serial from then
        /// on.
        serial: u64,
    },
    /// Another key is the first operator. What the one before it granted is over.
    FirstReplaced {
        /// Key of the first operator before.
        old: OperatorKey,
        /// Key of the first operator from then on.
        new: OperatorKey,
    },
    /// The shard refused what an operator asked for.
    Refused {
        /// Key of the operator who asked.
        by: OperatorKey,
        /// Id of the command that it was about; none if it was a grant.
        command: Option<CommandId>,
        /// The refusal.
        why: Box<Refusal>,
    },
}

impl OperatorChange {
    /// Id of the command to which the change belongs.
    pub(crate) fn command(&self) -> Option<CommandId> {
        match self {
            Self::Refused { command, .. } => *command,
            Self::Granted { .. } | Self::Forgotten { .. } | Self::FirstReplaced { .. } => None,
        }
    }
}
