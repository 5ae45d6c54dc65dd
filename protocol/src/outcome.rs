//! The outcome of a request: done, definitely not done, or unknown.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, HomeEpoch, NodeId, ShardId, TaskId};
use crate::leader::LeaderHint;
use crate::refusal::Refusal;
use crate::signing::OperatorKey;
use crate::site::SiteReceipt;
use crate::task::TaskStatus;
use crate::text::AgentId;
use crate::time::LogInstant;

/// What `apply` answers to one request. The shard remembers it with the request's id until its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The shard did it.
    Done(Receipt),
    /// The shard did not do it.
    Refused(Refusal),
}

/// What a request did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Receipt {
    /// A task was created or changed.
    Task {
        /// Id of the task.
        task: TaskId,
        /// The task's status after the request.
        status: TaskStatus,
        /// Epoch of its latest claim.
        epoch: ClaimEpoch,
        /// Number of attempts begun since it was created or requeued.
        attempts: u32,
    },
    /// No pending task suits the agent.
    NothingToClaim,
    /// An agent was registered, changed, detached or removed.
    Agent(AgentId),
    /// The node that asked serves an agent.
    Attached {
        /// Id of the agent.
        agent: AgentId,
        /// Id of the agent's attachment.
        attachment: AttachmentId,
        /// The terms of its lease, which may be longer than the agent asked for.
        lease: crate::lease::LeaseTerms,
    },
    /// An operator was granted what it may do.
    Operator {
        /// Key of the operator.
        operator: OperatorKey,
        /// The serial of the statement that holds.
        serial: u64,
    },
    /// The shard accepted a command, or a control of one.
    Command {
        /// Id of the command.
        command: CommandId,
        /// Number of its agents.
        agents: u32,
        /// Number of its agents at which it has not ended.
        open: u32,
    },
    /// The shard delivers the commands of an agent to the journal that was named.
    Inbox {
        /// Id of the agent.
        agent: AgentId,
        /// The journal's home epoch: deliveries of an earlier one are over.
        home: HomeEpoch,
    },
    /// The shard knows how far a delivery has come.
    DeliveryReported {
        /// Id of the command.
        command: CommandId,
        /// Whether the shard waits for its end. If not, the node need not report how far it comes.
        open: bool,
    },
    /// A delivery has ended, now or before.
    DeliveryEnded {
        /// Id of the command.
        command: CommandId,
    },
    /// The directory of the site did something.
    Site(SiteReceipt),
}

/// The outcome of one attempt to propose a request, as far as the proposing node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposeOutcome {
    /// The request was committed and applied.
    Applied {
        /// Index of its entry in the log.
        index: u64,
        /// The stamp of that entry, on the shard's clock.
        stamp: LogInstant,
        /// The shard's answer.
        reply: Reply,
    },
    /// This node does not lead the shard: nothing was proposed. The hint is what it knows of who does.
    NotLeader(LeaderHint),
    /// The queue is full: nothing was proposed.
    Overloaded {
        /// After how long to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The leader's disk is too full for new work: nothing was proposed.
    DiskFull,
    /// The node takes no part in this shard: nothing was proposed.
    NoSuchShard,
    /// The leader proposed it, and does not know yet whether it will commit.
    Unknown,
    /// The leader would not propose it: nothing was proposed.
    Refused(Refusal),
    /// The disks of so many voters are full that nothing can be committed: nothing was proposed.
    VotersFull {
        /// PeerId of one of them.
        node: NodeId,
    },
}

/// Why something was definitely not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// The shard refused it.
    Refused(Refusal),
    /// The node reached no leader with a quorum.
    NoQuorum,
    /// Neither this node nor any node that it reached has heard of the shard.
    NoSuchShard {
        /// Id of the shard.
        shard: ShardId,
        /// Ids of the shards of which it has heard.
        known: Vec<ShardId>,
    },
    /// The caller asked for what the node's own replica has, and the node has none.
    NoReplica,
    /// There was no room for it.
    Overloaded {
        /// After how long to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// A disk is too full for it: the leader's, or those of so many voters that nothing can be committed.
    DiskFull {
        /// PeerId of the node whose disk it is; none if it is this node's own.
        node: Option<NodeId>,
    },
    /// A replica could not read its disk.
    Storage(String),
}

impl NotDone {
    /// The code by which clients know it.
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
