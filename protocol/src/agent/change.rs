//! What changes of agents.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::ids::{AttachmentId, HomeEpoch, JournalId, NodeId};

/// What changed of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentChange {
    /// It was registered, or its role changed.
    Registered {
        /// What it can do.
        role: Role,
    },
    /// It was forgotten: by a request, or, where there is none, because nobody had served it for long.
    Removed,
    /// A node serves it, under a lease.
    Attached {
        /// The node.
        node: NodeId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// Nobody serves it any more.
    Detached {
        /// The attachment that ended.
        attachment: AttachmentId,
        /// Whether its lease ran out; otherwise it stopped by itself.
        expired: bool,
    },
    /// Its commands go to this journal from now on.
    InboxOpened {
        /// The journal.
        journal: JournalId,
        /// Its time.
        home: HomeEpoch,
    },
}
