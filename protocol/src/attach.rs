//! What a node and an agent's software say to each other while the agent is attached. What they say of one command is
//! in [`offer`](crate::offer).

use std::collections::BTreeSet;

use crate::agent::{Grant, Role};
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, SessionId, ShardId, TaskId};
use crate::lease::{LeaseTerms, Usable};
use crate::offer::{CommandSaid, CommandTold};
use crate::outcome::NotDone;
use crate::position::Position;
use crate::text::{AgentId, GroupName};

/// What an agent's software says of the agent when it attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachWish {
    /// Id of the shard for which it works.
    pub shard: ShardId,
    /// Id of the agent.
    pub agent: AgentId,
    /// The agent's role: its capabilities, and how many tasks it takes at a time.
    pub role: Role,
    /// The session: the run of the agent's software.
    pub session: SessionId,
    /// The lease for which it asks; none for the node's default.
    pub lease: Option<LeaseTerms>,
}

/// What an agent's software says after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSaid {
    /// The orchestrator may assign this many more tasks to it.
    Credits(u64),
    /// The software lives.
    KeepAlive {
        /// The software's own clock, in milliseconds; opaque to the node, and never less than before.
        stamp: u64,
        /// The agent's position; none if the agent says none.
        place: Option<Position>,
    },
    /// The software takes commands, once the agent is attached.
    TakesCommands {
        /// The groups of the agent.
        groups: BTreeSet<GroupName>,
        /// Ids of the commands that the software has in its hands.
        in_hand: BTreeSet<CommandId>,
    },
    /// A word about a command that the node offered.
    Command(CommandId, CommandSaid),
    /// The software has stopped, and gives back what the agent holds.
    Detach,
    /// Its stream ended, or cannot take more.
    Closed,
}

/// What a node tells an agent's software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentTold {
    /// The agent is attached.
    Attached {
        /// Id of the attachment.
        attachment: AttachmentId,
        /// The terms of its lease.
        lease: LeaseTerms,
    },
    /// All claims of the agent, with the first word of an attachment. If the software believes that it holds another
    /// one, it has lost that one.
    Holds(Vec<(TaskId, ClaimEpoch)>),
    /// The agent holds a task from now on.
    Grant(Box<Grant>),
    /// The agent does not hold a claim any more.
    Lost {
        /// Id of the task.
        task: TaskId,
        /// Epoch of the claim.
        epoch: ClaimEpoch,
    },
    /// The agent's lease was renewed.
    Lease(Usable),
    /// A word about a command.
    Command(CommandId, CommandTold),
    /// The agent is not attached, or not any more. The last message of a stream; no reason if the software asked for
    /// it.
    Ended(Option<NotDone>),
}
