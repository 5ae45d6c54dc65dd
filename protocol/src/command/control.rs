//! What operators want of a command that was sent: to have it cancelled, aborted, resolved or discarded.

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::ids::CommandId;
use crate::signing::{OperatorKey, OperatorSecret, Place, Signed};
use crate::text::{AgentId, Reason};

/// What an operator wants of a command that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlKind {
    /// Whoever has not started it does not start it.
    Cancel,
    /// It is released to nobody any more; whoever it was released to goes on.
    Abort,
    /// An agent of which nobody knows whether it did it: this is what happened, on the operator's word.
    Resolve {
        /// Which agent.
        agent: AgentId,
        /// Whether it was done.
        done: bool,
    },
    /// Nobody need look at it any more: what failed of it is settled.
    Discard,
}

/// What an operator states to have a command cancelled, aborted, resolved or discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandControl {
    /// The shard.
    pub place: Place,
    /// Which command.
    pub command: CommandId,
    /// What is wanted.
    pub what: ControlKind,
    /// Why.
    pub reason: Reason,
    /// Who signs it.
    pub operator: OperatorKey,
}

/// What an operator wants of a command, signed.
pub type SignedControl = Signed<CommandControl>;

impl CommandControl {
    /// Signs it; its `operator` is whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedControl, CodecError> {
        Signed::sign(self, by)
    }
}
