//! What became of a request: done, definitely not done, or unknown.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, HomeEpoch, NodeId, ShardId, TaskId};
use crate::leader::LeaderHint;
use crate::refusal::Refusal;
use crate::signing::OperatorKey;
use crate::task::TaskStatus;
use crate::text::AgentId;
use crate::time::LogInstant;

/// What `apply` answers to one request. Remembered with its id until its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It was done.
    Done(Receipt),
    /// It was not done.
    Refused(Refusal),
}

/// What a request did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Receipt {
    /// A task was created or changed.
    Task {
        /// Which.
        task: TaskId,
        /// Where it stands after the request.
        status: TaskStatus,
        /// Its latest claim.
        epoch: ClaimEpoch,
        /// Its attempts.
        attempts: u32,
    },
    /// Nothing that suits the agent waits.
    NothingToClaim,
    /// An agent was registered, changed, detached or removed.
    Agent(AgentId),
    /// An agent is served by the node that asked.
    Attached {
        /// Who.
        agent: AgentId,
        /// Its attachment.
        attachment: AttachmentId,
        /// Its lease, which may be longer than it asked for.
        lease: crate::lease::LeaseTerms,
    },
    /// An operator was granted what it may do.
    Operator {
        /// Who.
        operator: OperatorKey,
        /// The statement that holds.
        serial: u64,
    },
    /// A command was accepted, or what an operator wants of it was.
    Command {
        /// Which.
        command: CommandId,
        /// For how many agents it is.
        agents: u32,
        /// At how many of them it has not ended.
        open: u32,
    },
    /// The commands of an agent are delivered to the journal that was named.
    Inbox {
        /// Who.
        agent: AgentId,
        /// The journal's time: deliveries of an earlier one are over.
        home: HomeEpoch,
    },
    /// It is known how far a delivery has come.
    DeliveryReported {
        /// Of which command.
        command: CommandId,
        /// Whether the shard waits for its end. If not, how far it comes is of no interest any more.
        open: bool,
    },
    /// A delivery has ended, now or before.
    DeliveryEnded {
        /// Of which command.
        command: CommandId,
    },
}

/// What became of one attempt to propose a request, as far as the proposing node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposeOutcome {
    /// It was committed and applied at this index.
    Applied {
        /// Its index in the log.
        index: u64,
        /// The shard's clock then.
        stamp: LogInstant,
        /// The answer.
        reply: Reply,
    },
    /// This node does not lead the shard: nothing was proposed. What it knows of who does.
    NotLeader(LeaderHint),
    /// The queue is full: nothing was proposed.
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The leader's disk is too full for new work: nothing was proposed.
    DiskFull,
    /// The node takes no part in this shard: nothing was proposed.
    NoSuchShard,
    /// It was proposed, and nobody knows yet whether it will commit.
    Unknown,
    /// The leader would not propose it: nothing was proposed.
    Refused(Refusal),
    /// The disks of so many voters are full that nothing can be committed: nothing was proposed.
    VotersFull {
        /// One of them.
        node: NodeId,
    },
}

/// Why something was definitely not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// The shard refused it.
    Refused(Refusal),
    /// There was no leader with a quorum to be reached.
    NoQuorum,
    /// Neither this node nor any node that it reached has heard of the shard.
    NoSuchShard {
        /// Which.
        shard: ShardId,
        /// Those that it has heard of.
        known: Vec<ShardId>,
    },
    /// The node that was asked for what its own replica has, has none.
    NoReplica,
    /// There was no room for it.
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// A disk is too full for it: the leader's, or those of so many voters that nothing can be committed.
    DiskFull {
        /// Whose; none if it is this node's own.
        node: Option<NodeId>,
    },
    /// A replica could not read its disk.
    Storage(String),
}

impl NotDone {
    /// What clients know it by.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::NoQuorum => Code::NoQuorum,
            Self::NoSuchShard { .. } => Code::NoSuchShard,
            Self::NoReplica => Code::NoReplica,
            Self::Overloaded { .. } => Code::Overloaded,
            Self::DiskFull { .. } => Code::DiskFull,
            Self::Storage(_) => Code::Storage,
        }
    }
}
