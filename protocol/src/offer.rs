//! What a node and an agent's software say to each other of a command.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{CommandOutcome, SignedCommand, VoidCause};
use crate::ids::{AttachmentId, HomeEpoch};
use crate::text::Reason;

/// The fencing token of a word to go: of two owners of one agent, the later one's is greater.
///
/// Homes rise whenever another journal takes the agent over, and attachments with every attachment in the shard. Whoever acts
/// shows it to what it acts on, which refuses a lower one than it has seen from this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GoToken {
    /// Whose journal had the command.
    pub home: HomeEpoch,
    /// Under which attachment the word was given.
    pub attachment: AttachmentId,
}

/// What an agent's software says of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandSaid {
    /// It will do it.
    Accept,
    /// It will not.
    Reject {
        /// Why not.
        reason: Reason,
    },
    /// It would begin now.
    Start {
        /// Its own clock in milliseconds, which goes on while the machine sleeps.
        stamp: u64,
    },
    /// It has come so far. Not answered, and not kept: the next word replaces it.
    Progress {
        /// Thousandths of the work.
        permille: u16,
        /// In its own words.
        note: Reason,
    },
    /// It has done it.
    Succeeded {
        /// What came of it.
        result: Vec<u8>,
    },
    /// It has begun, and failed.
    Failed {
        /// Why.
        reason: Reason,
    },
}

impl CommandSaid {
    /// Whether the node answers. How far a command has come is said once, and nothing follows from it.
    pub fn is_answered(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }

    /// Whether it says how something ended that was begun.
    pub fn is_outcome(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. })
    }
}

/// What an agent's software is told of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandTold {
    /// It may be asked for. The next one comes when it has ended, but for urgent ones.
    Offer(Arc<SignedCommand>),
    /// It is to be done now: before the software's own clock shows `stamp` and `within_ms`, or not at all.
    Go {
        /// That of [`CommandSaid::Start`].
        stamp: u64,
        /// How long from there, in milliseconds: neither beyond its deadline nor beyond the agent's lease.
        within_ms: u64,
        /// What tells it from the word of an earlier owner of the agent.
        token: GoToken,
    },
    /// It is not to be started, and never will be.
    Void(VoidCause),
    /// It was under way when an earlier run of the software ended, or this one let go of it: nobody knows how far it came.
    Interrupted,
    /// How it ended is in the journal.
    Recorded(CommandOutcome),
    /// What was said does not fit how far it has come, or the agent's lease is over: it may be said again.
    Ignored,
    /// The node holds nothing of it, and hears no word of how it ended any more: that was recorded before, or the node has let
    /// go of it and it is recorded nowhere.
    Unknown,
}
