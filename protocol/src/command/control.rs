//! What operators want of a command that was sent: to have it cancelled, aborted, resolved or discarded.

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::ids::CommandId;
use crate::signing::{OperatorKey, OperatorSecret, Place, Signed};
use crate::text::{AgentId, Reason};

/// What an operator wants of a command that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlKind {
    /// A robot that has not started it does not start it.
    Cancel,
    /// The shard releases it to no more robots; a robot to which it was released goes on.
    Abort,
    /// Nothing shows whether an agent did it: the operator says what happened.
    Resolve {
        /// Id of the agent.
        agent: AgentId,
        /// Whether the agent did it.
        done: bool,
    },
    /// An operator need not look at it any more: what failed of it is settled.
    Discard,
}

/// What an operator states to have a command cancelled, aborted, resolved or discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandControl {
    /// The site, shard and genesis where the statement holds.
    pub place: Place,
    /// Id of the command.
    pub command: CommandId,
    /// What the operator wants: to cancel, abort, resolve or discard it.
    pub what: ControlKind,
    /// The reason, for people.
    pub reason: Reason,
    /// Key of the operator who signs it.
    pub operator: OperatorKey,
}

/// What an operator wants of a command, signed.
pub type SignedControl = Signed<CommandControl>;

impl CommandControl {
    /// Signs it; the signer becomes its `operator`.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedControl, CodecError> {
        Signed::sign(self, by)
    }
}
