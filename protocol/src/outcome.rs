//! What became of a request: done, definitely not done, or unknown.

use serde::{Deserialize, Serialize};

use crate::ids::{AttachmentId, ClaimEpoch, NodeId, TaskId};
use crate::task::{InvalidSpec, TaskStatus};
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
        lease: crate::agent::LeaseTerms,
    },
}

/// Why a shard did not do what was asked. The state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The request came after its deadline. A retry cannot tell from it whether an earlier sending was done.
    #[error("the request's deadline {deadline} passed; the shard's clock is {now}")]
    Expired {
        /// Its deadline.
        deadline: LogInstant,
        /// The log clock.
        now: LogInstant,
    },
    /// Its id may have been forgotten already. A retry cannot tell from it whether an earlier sending was done.
    #[error("the request was first sent at {first_sent}, and ids before {floor} are forgotten")]
    WindowPassed {
        /// When it was first sent.
        first_sent: LogInstant,
        /// From when on ids are remembered.
        floor: LogInstant,
    },
    /// The id was used for something else.
    #[error("the request id was used before for another request; make a new id for a new request")]
    RequestIdReused,
    /// Its clock readings cannot come from this shard.
    #[error(
        "the request's clock readings are impossible (first sent {first_sent}, deadline {deadline}, now {now}); \
         take both from the shard's clock, at most 24 h apart"
    )]
    ClockImpossible {
        /// When it says it was first sent.
        first_sent: LogInstant,
        /// Its deadline.
        deadline: LogInstant,
        /// The log clock.
        now: LogInstant,
    },
    /// The leader that proposed it was deposed meanwhile. Send it again.
    #[error("the orchestrator that proposed it was deposed; send it again")]
    Deposed,
    /// A field is out of bounds.
    #[error("invalid: {0}")]
    Invalid(#[from] InvalidSpec),
    /// The shard holds as much as it may.
    #[error("the shard is full: {count} {what}")]
    ShardFull {
        /// Of what.
        what: ShardFullOf,
        /// How many.
        count: u64,
    },
    /// There is no such task, or it ended long ago.
    #[error("there is no live task {0}")]
    NoSuchTask(TaskId),
    /// A task with this id exists already, created by another request.
    #[error("task {0} exists already")]
    TaskExists(TaskId),
    /// The task's state does not allow it.
    #[error("task {task} is {status}")]
    WrongStatus {
        /// The task.
        task: TaskId,
        /// Where it stands.
        status: TaskStatus,
    },
    /// Another agent claimed it first.
    #[error("task {task} is claimed by {by}")]
    LostRace {
        /// The task.
        task: TaskId,
        /// The winner.
        by: AgentId,
    },
    /// The claim is not the task's latest: it was taken back meanwhile.
    #[error("claim epoch {given} of task {task} is stale; the latest is {current}. Stop working on it")]
    StaleEpoch {
        /// The task.
        task: TaskId,
        /// The epoch that was given.
        given: ClaimEpoch,
        /// The latest epoch.
        current: ClaimEpoch,
    },
    /// The claim belongs to another agent.
    #[error("task {task} is held by {holder}; only its holder may do this")]
    NotHolder {
        /// The task.
        task: TaskId,
        /// Who holds it.
        holder: AgentId,
    },
    /// It waits for its next attempt.
    #[error("task {task} waits for its next attempt until {not_before}")]
    BackingOff {
        /// The task.
        task: TaskId,
        /// Until when.
        not_before: LogInstant,
    },
    /// The agent lacks what the task requires.
    #[error("agent {agent} lacks capabilities that task {task} requires; register it with them")]
    NotCapable {
        /// The task.
        task: TaskId,
        /// The agent.
        agent: AgentId,
    },
    /// The agent holds as much as its role allows.
    #[error("agent {agent} holds {held} of {max} tasks; finish one, or register it with a larger max_concurrent")]
    AgentBusy {
        /// The agent.
        agent: AgentId,
        /// What it holds.
        held: u32,
        /// What it may hold.
        max: u32,
    },
    /// There is no such agent.
    #[error("agent {0} is not registered")]
    NoSuchAgent(AgentId),
    /// Another node, or another run of its software, has the agent until its lease ends.
    #[error("agent {agent} is attached to node {node} under a lease of {lease_ms} ms; stop it there, or wait")]
    AgentElsewhere {
        /// The agent.
        agent: AgentId,
        /// Where it is attached.
        node: NodeId,
        /// Its lease.
        lease_ms: u64,
    },
    /// The attachment has ended: its lease ran out, or the agent was attached anew.
    #[error("attachment {attachment} of agent {agent} has ended; attach it again")]
    NotAttached {
        /// The agent.
        agent: AgentId,
        /// The attachment that was named.
        attachment: AttachmentId,
    },
    /// It waits for its former holder.
    #[error("task {task} is kept for its former holder {agent} until {until}")]
    KeptFor {
        /// The task.
        task: TaskId,
        /// The former holder.
        agent: AgentId,
        /// Until when.
        until: LogInstant,
    },
}

/// What a shard has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardFullOf {
    /// Live tasks.
    Tasks,
    /// Agents.
    Agents,
    /// Bytes of tasks.
    TaskBytes,
    /// Sets of required capabilities among pending tasks.
    Requirements,
}

impl std::fmt::Display for ShardFullOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tasks => "live tasks",
            Self::Agents => "agents",
            Self::TaskBytes => "bytes of tasks",
            Self::Requirements => "different sets of required capabilities",
        })
    }
}

impl Refusal {
    /// Whether the refusal says nothing about earlier sendings of the same request. A client that has ever been in
    /// doubt about the request stays in doubt after it.
    pub fn is_silent_about_earlier(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::WindowPassed { .. } | Self::Deposed)
    }
}

/// What became of one attempt to propose a request, as far as the proposing node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposeOutcome {
    /// It was committed and applied at this index.
    Applied {
        /// Its place in the log.
        index: u64,
        /// The shard's clock then.
        stamp: LogInstant,
        /// The answer.
        reply: Reply,
    },
    /// This node does not lead the shard: nothing was proposed.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<crate::ids::NodeId>,
    },
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
}

/// How a piece of work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The request was done.
    Done {
        /// Its place in the log.
        index: u64,
        /// The shard's clock then.
        stamp: LogInstant,
        /// What it did.
        receipt: Receipt,
    },
    /// The query was answered.
    Read(Box<crate::query::QueryReply>),
    /// The orchestrator heard the heartbeat.
    Heard(crate::heartbeat::HeartbeatReply),
    /// It was not done.
    NotDone(NotDone),
    /// Nobody knows whether it was done. Sending it again under the same id is safe.
    Unknown,
}

/// Why something was definitely not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// The shard refused it.
    Refused(Refusal),
    /// There was no leader with a quorum to be reached.
    NoQuorum,
    /// There was no room for it.
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The leader's disk is too full for new work.
    DiskFull,
    /// A replica could not read its disk.
    Storage(String),
}
