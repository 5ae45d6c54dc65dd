//! Why a shard refuses what an operator states.

use serde::{Deserialize, Serialize};

use super::InvalidGrant;
use crate::code::Code;
use crate::signing::OperatorKey;
use crate::text::Verb;
use crate::time::LogInstant;

/// Why a shard did not do what an operator states: the statement is not its own, or it has no right to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum OperatorRefusal {
    /// The signature is not that of the operator that the statement names.
    #[error("the statement is not signed by operator {0}")]
    NotSigned(OperatorKey),
    /// It was signed for another site, shard or genesis.
    #[error("the statement was signed for another site or shard")]
    WrongPlace,
    /// There is no such operator.
    #[error("this shard does not know operator {0}; have an admin run 'skep operator add {0}'")]
    NoSuchOperator(OperatorKey),
    /// The operator was revoked: it has no rights.
    #[error("operator {0} was revoked")]
    Revoked(OperatorKey),
    /// The operator makes statements and is not an admin.
    #[error("operator {0} is not an admin")]
    NotAdmin(OperatorKey),
    /// The grant is not newer than the one that holds, or than one that the shard may have forgotten.
    #[error("serial {given} is not above {known}, the last serial that this operator's grants may have had")]
    GrantStale {
        /// The serial that was given.
        given: u64,
        /// The highest serial that the shard knows, or may have forgotten.
        known: u64,
    },
    /// The first operator has all rights, and takes no grant.
    #[error("the first operator of a shard takes no grant; it signs itself which key replaces it")]
    FirstOperator,
    /// The operator may not ask this of the target.
    #[error("operator {operator} is not granted {verb} for {target}")]
    NotGranted {
        /// Key of the operator.
        operator: OperatorKey,
        /// The verb of its command.
        verb: Verb,
        /// The target of its command.
        target: String,
    },
    /// The operator sends more than it is granted.
    #[error("operator {operator} is granted {per_minute} commands a minute; try again in {retry_after_ms} ms")]
    TooManyCommands {
        /// Key of the operator.
        operator: OperatorKey,
        /// Number of commands that it may send in a minute.
        per_minute: u32,
        /// After how long to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The operator neither granted the other one its rights, nor is above the one that did.
    #[error("operator {by} did not grant operator {operator} its rights, and is not above the operator that did")]
    NotAbove {
        /// The operator who states it.
        by: OperatorKey,
        /// The operator whose rights the statement is about.
        operator: OperatorKey,
    },
    /// The operator's grant has ended.
    #[error("the grant of operator {operator} ended at {until}; the shard's clock is {now}")]
    GrantEnded {
        /// Key of the operator.
        operator: OperatorKey,
        /// When the grant ended, on the shard's clock.
        until: LogInstant,
        /// The shard's clock.
        now: LogInstant,
    },
    /// The command would be valid for longer than its operator's grant.
    #[error("the command would be valid until {deadline}, and the grant of operator {operator} ends at {until}")]
    OutlivesGrant {
        /// Key of the operator.
        operator: OperatorKey,
        /// When its grant ends, on the shard's clock.
        until: LogInstant,
        /// The command's deadline.
        deadline: LogInstant,
    },
    /// The replacement of the first operator is not the next one, or is not made by the first operator.
    #[error("operator {by} is not the first operator, or {given} is not the number of its replacement, {expected}")]
    NotFirst {
        /// The operator who states it.
        by: OperatorKey,
        /// The number of the replacement that was given.
        given: u64,
        /// The number of the next replacement.
        expected: u64,
    },
    /// A field of a grant is out of bounds.
    #[error("invalid: {0}")]
    Invalid(#[from] InvalidGrant),
}

impl OperatorRefusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::NotSigned(_) => Code::NotSigned,
            Self::WrongPlace => Code::WrongPlace,
            Self::NoSuchOperator(_) => Code::NoSuchOperator,
            Self::Revoked(_) => Code::OperatorRevoked,
            Self::NotAdmin(_) => Code::NotAdmin,
            Self::GrantStale { .. } => Code::GrantStale,
            Self::FirstOperator => Code::FirstOperator,
            Self::NotGranted { .. } => Code::NotGranted,
            Self::TooManyCommands { .. } => Code::TooManyCommands,
            Self::NotAbove { .. } => Code::NotAbove,
            Self::GrantEnded { .. } => Code::GrantEnded,
            Self::OutlivesGrant { .. } => Code::OutlivesGrant,
            Self::NotFirst { .. } => Code::NotFirst,
            Self::Invalid(_) => Code::InvalidCommand,
        }
    }

    /// After how many milliseconds the shard may answer the same request otherwise; none if it will not.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::TooManyCommands { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::NotSigned(_)
            | Self::WrongPlace
            | Self::NoSuchOperator(_)
            | Self::Revoked(_)
            | Self::NotAdmin(_)
            | Self::GrantStale { .. }
            | Self::FirstOperator
            | Self::NotGranted { .. }
            | Self::NotAbove { .. }
            | Self::GrantEnded { .. }
            | Self::OutlivesGrant { .. }
            | Self::NotFirst { .. }
            | Self::Invalid(_) => self.code().again().after_ms(),
        }
    }
}
