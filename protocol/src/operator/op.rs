//! What operators state of one another.

use serde::{Deserialize, Serialize};

use super::{SignedGrant, SignedReplacement};
use crate::signing::{OperatorKey, Verdicts};

/// What an operator can ask about operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorOp {
    /// Replace the first operator by another key.
    ReplaceFirst {
        /// The statement of the present first operator.
        replacement: Box<SignedReplacement>,
    },
    /// Grant an operator what an admin states, or revoke it.
    Grant {
        /// The admin's statement.
        grant: Box<SignedGrant>,
    },
}

impl OperatorOp {
    /// Key of the operator who asks for it.
    pub(crate) fn operator(&self) -> OperatorKey {
        match self {
            Self::ReplaceFirst { replacement } => replacement.old,
            Self::Grant { grant } => grant.by,
        }
    }

    /// Whether that operator signed it.
    pub(crate) fn is_signed(&self) -> bool {
        match self {
            Self::ReplaceFirst { replacement } => replacement.is_signed(),
            Self::Grant { grant } => grant.is_signed(),
        }
    }

    pub(crate) fn look_up(&self, verdicts: &Verdicts) {
        match self {
            Self::ReplaceFirst { replacement } => replacement.look_up(verdicts),
            Self::Grant { grant } => grant.look_up(verdicts),
        }
    }

    pub(crate) fn unknown_field(&self) -> Option<u32> {
        match self {
            Self::ReplaceFirst { replacement } => replacement.unknown_field(),
            Self::Grant { grant } => grant.unknown_field(),
        }
    }

    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::ReplaceFirst { .. } => false,
            // A revocation ends work.
            Self::Grant { grant } => !grant.revoked,
        }
    }

    /// Bytes of the statement, if no other limit keeps it small.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::ReplaceFirst { .. } => 0,
            Self::Grant { grant } => grant.body().len(),
        }
    }
}
