//! What the inboxes of a node and their agents' software, journals and shards tell each other.

use std::collections::BTreeSet;

use skep_protocol::ids::{AttachmentId, CommandId, SessionId, ShardId};
use skep_protocol::journal::JournalReport;
use skep_protocol::lease::Usable;
use skep_protocol::offer::CommandSaid;
use skep_protocol::pressure::DiskPressure;
use skep_protocol::text::{AgentId, GroupName};

use crate::key::StreamKey;

/// An attached agent that takes commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    /// The agent's stream.
    pub stream: StreamKey,
    /// The agent's shard.
    pub shard: ShardId,
    /// The agent's id.
    pub agent: AgentId,
    /// The run of the agent's software.
    pub session: SessionId,
    /// The agent's attachment.
    pub attachment: AttachmentId,
    /// The groups of the agent.
    pub groups: BTreeSet<GroupName>,
    /// The commands that the software has in its hands. It will say nothing of other commands.
    pub in_hand: BTreeSet<CommandId>,
    /// The lease as the orchestrator renewed it last; none before the first renewal.
    pub lease: Option<Usable>,
}

impl Taker {
    /// The orchestrator renewed the lease. The lease never ends sooner for that.
    pub(super) fn renew(&mut self, lease: Usable) {
        let ends = |lease: Usable| lease.stamp.saturating_add(lease.usable_ms);
        if self.lease.is_none_or(|known| ends(known) < ends(lease)) {
            self.lease = Some(lease);
        }
    }
}

/// What happened to the commands of this node's agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboxEvent {
    /// An attached agent takes commands.
    Takes(Taker),
    /// The orchestrator renewed the lease of an agent that takes commands.
    Renewed {
        /// The agent's stream.
        stream: StreamKey,
        /// The lease, on the clock of the agent's software.
        lease: Usable,
    },
    /// An agent is no longer attached by this stream.
    Gone {
        /// The stream.
        stream: StreamKey,
    },
    /// The journals report what they did.
    Journal(JournalReport),
    /// The disk of the journals is this full from now on.
    Pressure(DiskPressure),
    /// An agent's software said something of a command.
    Said {
        /// The agent's stream.
        stream: StreamKey,
        /// The command.
        command: CommandId,
        /// What the software said.
        said: CommandSaid,
    },
}
