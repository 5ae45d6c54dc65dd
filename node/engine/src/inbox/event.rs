//! What is said between the inboxes of a node, its agents' software, its journal and the shard.

use std::collections::BTreeSet;

use skep_protocol::ids::{AttachmentId, CommandId, SessionId, ShardId};
use skep_protocol::journal::JournalReport;
use skep_protocol::lease::Usable;
use skep_protocol::offer::CommandSaid;
use skep_protocol::pressure::DiskPressure;
use skep_protocol::text::{AgentId, GroupName};

use crate::key::StreamKey;

/// An agent whose commands are to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    /// Its stream.
    pub stream: StreamKey,
    /// Its shard.
    pub shard: ShardId,
    /// Who.
    pub agent: AgentId,
    /// The run of its software.
    pub session: SessionId,
    /// Its attachment.
    pub attachment: AttachmentId,
    /// The groups that it is of.
    pub groups: BTreeSet<GroupName>,
    /// The commands that its software has in its hands. Others it will say nothing of.
    pub in_hand: BTreeSet<CommandId>,
    /// Its lease as it was renewed last; none before the first renewal.
    pub lease: Option<Usable>,
}

impl Taker {
    /// Its lease was renewed. None ends sooner for that.
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
    /// The lease of an agent that takes commands was renewed.
    Renewed {
        /// Its stream.
        stream: StreamKey,
        /// Until when it runs now, on the clock of the agent's software.
        lease: Usable,
    },
    /// An agent is not attached by this stream any more.
    Gone {
        /// The stream.
        stream: StreamKey,
    },
    /// The journals did something.
    Journal(JournalReport),
    /// The disk of the journals is so full from now on.
    Pressure(DiskPressure),
    /// An agent's software said something of a command.
    Said {
        /// Its stream.
        stream: StreamKey,
        /// The command.
        command: CommandId,
        /// What.
        said: CommandSaid,
    },
}
