//! What changes of agents.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::ids::{AttachmentId, HomeEpoch, JournalId, NodeId};

/// What changed of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentChange {
    /// It was registered, or its role changed.
    Registered {
        /// The agent's role: its capabilities, and how many tasks it takes at a time.
        role: Role,
    },
    /// The shard forgot it: by a request, or, where there is none, because no node had served it for long.
    Removed,
    /// A node serves the agent, under a lease.
    Attached {
        /// PeerId of the node.
        node: NodeId,
        /// Id of the attachment.
        attachment: AttachmentId,
    },
    /// No node serves the agent any more.
    Detached {
        /// Id of the attachment that ended.
        attachment: AttachmentId,
        /// Whether the lease ran out; otherwise the agent stopped by itself.
        expired: bool,
    },
    /// The agent's commands go to this journal from then on.
    InboxOpened {
        /// Id of the journal.
        journal: JournalId,
        /// The journal's home epoch.
        home: HomeEpoch,
    },
}
