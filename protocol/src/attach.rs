//! What a node and an agent's software say to each other while the agent is attached. What they say of one command is in
//! [`offer`](crate::offer).

use std::collections::BTreeSet;

use crate::agent::{Grant, Role};
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, SessionId, ShardId, TaskId};
use crate::lease::{LeaseTerms, Usable};
use crate::offer::{CommandSaid, CommandTold};
use crate::outcome::NotDone;
use crate::position::Position;
use crate::text::{AgentId, GroupName};

/// What an agent says of itself when it attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachWish {
    /// The shard that it works for.
    pub shard: ShardId,
    /// Who.
    pub agent: AgentId,
    /// What it can do.
    pub role: Role,
    /// The run of its software.
    pub session: SessionId,
    /// The lease it asks for; none for the node's default.
    pub lease: Option<LeaseTerms>,
}

/// What an agent says after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSaid {
    /// So many more tasks may be assigned to it.
    Credits(u64),
    /// It lives.
    KeepAlive {
        /// Its own clock; opaque, and never less than before.
        stamp: u64,
        /// Where it is.
        place: Option<Position>,
    },
    /// It takes commands, once it is attached.
    TakesCommands {
        /// The groups that it is of.
        groups: BTreeSet<GroupName>,
        /// The commands that its software has in its hands.
        in_hand: BTreeSet<CommandId>,
    },
    /// Something of a command that it was offered.
    Command(CommandId, CommandSaid),
    /// It has stopped, and gives back what it holds.
    Detach,
    /// Its stream ended, or cannot take more.
    Closed,
}

/// What an agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentTold {
    /// It is attached.
    Attached {
        /// Its attachment.
        attachment: AttachmentId,
        /// Its lease.
        lease: LeaseTerms,
    },
    /// All that it holds, with the first word of an attachment: what it believes to hold beside it, it has lost.
    Holds(Vec<(TaskId, ClaimEpoch)>),
    /// It holds a task from now on.
    Grant(Box<Grant>),
    /// It does not hold a claim any more.
    Lost {
        /// The task.
        task: TaskId,
        /// The claim.
        epoch: ClaimEpoch,
    },
    /// Its lease was renewed.
    Lease(Usable),
    /// Something of a command.
    Command(CommandId, CommandTold),
    /// It is not attached, or not any more. The last message of a stream; none if it asked for it.
    Ended(Option<NotDone>),
}
