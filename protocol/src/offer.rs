//! What a node and an agent's software say to each other of a command.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{CommandOutcome, SignedCommand, VoidCause};
use crate::ids::{AttachmentId, HomeEpoch};
use crate::text::Reason;

/// The fencing token of a word to go: of two owners of one agent, the later one's token is greater.
///
/// Home epochs rise whenever another journal takes the agent over, and attachments with every attachment in the shard.
/// Software that acts shows the token to what it acts on, which refuses a lower one than it has seen from this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GoToken {
    /// Home epoch of the journal that had the command.
    pub home: HomeEpoch,
    /// Id of the attachment under which the node gave the word.
    pub attachment: AttachmentId,
}

/// What an agent's software says of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandSaid {
    /// The software will do it.
    Accept,
    /// The software will not do it.
    Reject {
        /// The reason, for people.
        reason: Reason,
    },
    /// The software would begin now.
    Start {
        /// The software's own clock, in milliseconds; it goes on while the machine sleeps.
        stamp: u64,
    },
    /// The software has come so far. The node does not answer, nor keep it: the next word replaces it.
    Progress {
        /// How much of the work is done, in thousandths.
        permille: u16,
        /// What the software says of it, for people.
        note: Reason,
    },
    /// The software has done it.
    Succeeded {
        /// The result; its bytes are opaque to Skep.
        result: Vec<u8>,
    },
    /// The software has begun, and failed.
    Failed {
        /// The reason, for people.
        reason: Reason,
    },
}

impl CommandSaid {
    /// Whether the node answers. The software says once how far it has come, and nothing follows from it.
    pub fn is_answered(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }

    /// Whether it says how a begun command ended.
    pub fn is_outcome(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. })
    }
}

/// What a node tells an agent's software of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandTold {
    /// The software may ask to start it. The next routine offer comes when it has ended; urgent ones come all the same.
    Offer(Arc<SignedCommand>),
    /// The software is to do it now: before the software's own clock shows `stamp` and `within_ms`, or not at all.
    Go {
        /// The stamp of the software's [`CommandSaid::Start`].
        stamp: u64,
        /// For how long from there it may start, in milliseconds: neither beyond the deadline nor beyond the agent's
        /// lease.
        within_ms: u64,
        /// The fencing token: tells this word from that of an earlier owner of the agent.
        token: GoToken,
    },
    /// The software is not to start it, and never will be.
    Void(VoidCause),
    /// It was under way when an earlier run of the software ended, or this one let go of it: how far it came is not
    /// known.
    Interrupted,
    /// Its outcome is in the journal.
    Recorded(CommandOutcome),
    /// What the software said does not fit how far the command has come, or the agent's lease is over: it may say it
    /// again.
    Ignored,
    /// The node holds nothing of it, and takes no word of how it ended any more: that was recorded before, or the node
    /// has let go of the command and its outcome is recorded nowhere.
    Unknown,
}
