//! What became of a request: done, definitely not done, or unknown.

use serde::{Deserialize, Serialize};

use crate::command::InvalidCommand;
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, HomeEpoch, NodeId, ShardId, TaskId};
use crate::leader::LeaderHint;
use crate::signing::OperatorKey;
use crate::task::{InvalidSpec, TaskStatus};
use crate::text::{AgentId, Verb};
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
    /// A command was accepted, or an order about it was.
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
    /// A field of a command or a grant is out of bounds.
    #[error("invalid: {0}")]
    InvalidCommand(#[from] InvalidCommand),
    /// The signature is not that of the operator who is named.
    #[error("it is not signed by operator {0}")]
    NotSigned(OperatorKey),
    /// It was signed for another site or shard.
    #[error("it was signed for another site or shard")]
    WrongPlace,
    /// There is no such operator.
    #[error("operator {0} is not known to this shard; have an admin run 'skep operator add {0}'")]
    NoSuchOperator(OperatorKey),
    /// The operator may do nothing any more.
    #[error("operator {0} was revoked")]
    OperatorRevoked(OperatorKey),
    /// The operator makes statements and is no admin.
    #[error("operator {0} is no admin")]
    NotAdmin(OperatorKey),
    /// A statement that is not newer than the one that holds, or than one that may have been forgotten.
    #[error("serial {given} is not above {known}, the last one that there may have been for this operator")]
    GrantStale {
        /// The serial that was given.
        given: u64,
        /// The last one.
        known: u64,
    },
    /// Nobody grants the first operator anything.
    #[error(
        "the first operator of a shard is granted nothing by anybody; it gives its place to another by its own word"
    )]
    FirstOperator,
    /// The operator may not ask this of them.
    #[error("operator {operator} is not granted {verb} for {target}")]
    NotGranted {
        /// Who.
        operator: OperatorKey,
        /// What.
        verb: Verb,
        /// Of whom.
        target: String,
    },
    /// The operator sends more than it is granted.
    #[error("operator {operator} is granted {per_minute} commands a minute; try again in {retry_after_ms} ms")]
    TooManyCommands {
        /// Who.
        operator: OperatorKey,
        /// How many it may send.
        per_minute: u32,
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The command is not valid any more.
    #[error("command {command} was valid until {deadline}; the shard's clock is {now}")]
    CommandExpired {
        /// Which.
        command: CommandId,
        /// Its deadline.
        deadline: LogInstant,
        /// The log clock.
        now: LogInstant,
    },
    /// The command would be valid for too long.
    #[error("command {command} would be valid for {valid_ms} ms; at most {max_ms} are allowed")]
    CommandTooLong {
        /// Which.
        command: CommandId,
        /// How long.
        valid_ms: u64,
        /// The longest.
        max_ms: u64,
    },
    /// A command with this id exists, and is another one.
    #[error("command {0} exists already, and is another one; make a new id for a new command")]
    CommandExists(CommandId),
    /// There is no such command, or it ended long ago.
    #[error("there is no command {0} that could be changed")]
    NoSuchCommand(CommandId),
    /// Nobody is of that group.
    #[error("no agent that takes commands is {0}; see 'skep agent list'")]
    NobodyThere(String),
    /// Too many commands to an agent have not ended.
    #[error("{count} commands to agent {agent} have not ended; wait, or cancel some")]
    OutboxFull {
        /// Which agent.
        agent: AgentId,
        /// How many.
        count: u64,
    },
    /// There is nothing to settle yet.
    #[error("command {0} has not ended at all of its agents")]
    CommandOpen(CommandId),
    /// There is nothing to settle: it was done, or called off, everywhere.
    #[error("command {0} failed nowhere")]
    NotDead(CommandId),
    /// There is nothing to resolve: it is known how it ended.
    #[error("command {command} is not indeterminate at agent {agent}")]
    NotIndeterminate {
        /// Which.
        command: CommandId,
        /// Where.
        agent: AgentId,
    },
    /// As many requests are remembered as may be that were first sent ahead of the shard's clock. A retry cannot tell from
    /// it whether an earlier sending was done.
    #[error(
        "the request was first sent at {first_sent}, ahead of the shard's clock {now}, as too many others were; \
         send it again when the clock has come so far"
    )]
    SentAhead {
        /// When it was first sent.
        first_sent: LogInstant,
        /// The log clock.
        now: LogInstant,
    },
    /// Whoever states it neither granted the operator what it has, nor is above whoever did.
    #[error("operator {by} neither granted operator {operator} what it has nor is above whoever did")]
    NotAbove {
        /// Who states it.
        by: OperatorKey,
        /// Of whom.
        operator: OperatorKey,
    },
    /// What the operator was granted has ended.
    #[error("what operator {operator} was granted ended at {until}; the shard's clock is {now}")]
    GrantEnded {
        /// Who.
        operator: OperatorKey,
        /// When.
        until: LogInstant,
        /// The log clock.
        now: LogInstant,
    },
    /// The command would be valid for longer than what its operator was granted.
    #[error(
        "the command would be valid until {deadline}, and what operator {operator} was granted ends at {until}; give it less \
         time"
    )]
    OutlivesGrant {
        /// Who.
        operator: OperatorKey,
        /// When that ends.
        until: LogInstant,
        /// The command's deadline.
        deadline: LogInstant,
    },
    /// A replacement of the first operator that is not the next one, or is not made by the first operator.
    #[error("operator {by} is not the first operator, or {given} is not the number of its replacement, {expected}")]
    NotFirst {
        /// Who states it.
        by: OperatorKey,
        /// The number that was given.
        given: u64,
        /// The number of the next one.
        expected: u64,
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
    /// Operators.
    Operators,
    /// Commands.
    Commands,
    /// Deliveries of commands.
    Deliveries,
    /// Bytes of commands.
    CommandBytes,
    /// Replacements of its first operator.
    FirstOperators,
    /// Operators who may do nothing any more, and of whom something was granted that has not ended.
    RevokedOperators,
    /// Operators whom one admin of the first operator's, and those below it, granted something.
    OperatorBranch,
}

impl std::fmt::Display for ShardFullOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tasks => "live tasks",
            Self::Agents => "agents",
            Self::TaskBytes => "bytes of tasks",
            Self::Requirements => "different sets of required capabilities",
            Self::Operators => "operators",
            Self::Commands => "commands",
            Self::Deliveries => "deliveries of commands",
            Self::CommandBytes => "bytes of commands",
            Self::FirstOperators => "replacements of its first operator",
            Self::RevokedOperators => {
                "operators, with those that may do nothing any more and are remembered, since not all that they were granted \
                 has ended"
            }
            Self::OperatorBranch => "operators of one admin, with those below it and those that are remembered",
        })
    }
}

impl Refusal {
    /// Whether the refusal says nothing about earlier sendings of the same request. A client that has ever been in
    /// doubt about the request stays in doubt after it.
    pub fn is_silent_about_earlier(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::WindowPassed { .. } | Self::Deposed | Self::SentAhead { .. })
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
    /// Neither this node nor anybody whom it reached has heard of the shard.
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
