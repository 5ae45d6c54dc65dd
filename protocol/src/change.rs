//! What `apply` changed: the history of every object, and what watchers are told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::Role;
use crate::authority::{OperatorGrant, OperatorKey};
use crate::command::{CommandOutcome, CommandProgress, DeliverySeq, OrderKind, SignedCommand, Steps, VoidCause};
use crate::fleet::Rules;
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, Genesis, HomeEpoch, JournalId, NodeId, RequestId, TaskId};
use crate::outcome::Refusal;
use crate::statement::Place;
use crate::task::{KeptFor, TaskSpec, TaskStatus};
use crate::text::{AgentId, OperatorName, Reason, TraceParent};
use crate::time::LogInstant;

/// One transition, as the history keeps it. Enough to rebuild the object without the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The log clock.
    pub at: LogInstant,
    /// The request that asked for it; none if the orchestrator decided it.
    pub request: Option<RequestId>,
    /// What changed.
    pub what: ChangeKind,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A task was created.
    Created {
        /// The task.
        task: TaskId,
        /// What is to be done.
        spec: Arc<TaskSpec>,
    },
    /// An agent took it.
    Claimed {
        /// The task.
        task: TaskId,
        /// Who.
        by: AgentId,
        /// The claim's fencing token.
        epoch: ClaimEpoch,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Its holder reported progress.
    Progressed {
        /// The task.
        task: TaskId,
        /// The claim.
        epoch: ClaimEpoch,
        /// Thousandths of the work.
        permille: u16,
        /// In the holder's words.
        note: Reason,
        /// Where the next holder would go on, if this changed.
        checkpoint: Option<Arc<[u8]>>,
    },
    /// It is done.
    Completed {
        /// The task.
        task: TaskId,
        /// By whom.
        by: AgentId,
        /// The claim.
        epoch: ClaimEpoch,
        /// What came of it.
        result: Arc<[u8]>,
    },
    /// An attempt failed and there is another one.
    Retried {
        /// The task.
        task: TaskId,
        /// The claim that ended.
        epoch: ClaimEpoch,
        /// Why.
        reason: Reason,
        /// When the next attempt may begin.
        not_before: LogInstant,
    },
    /// A claim was taken back, and there is another attempt.
    Reclaimed {
        /// The task.
        task: TaskId,
        /// Who held it.
        from: AgentId,
        /// The claim that ended.
        epoch: ClaimEpoch,
        /// Why.
        cause: ReclaimCause,
        /// When the next attempt may begin.
        not_before: LogInstant,
        /// For whom it is kept meanwhile.
        kept_for: Option<KeptFor>,
    },
    /// It was given up.
    DeadLettered {
        /// The task.
        task: TaskId,
        /// Why.
        reason: Reason,
    },
    /// It was called off.
    Cancelled {
        /// The task.
        task: TaskId,
        /// Why.
        reason: Reason,
    },
    /// It was not done while it was worth doing.
    Expired {
        /// The task.
        task: TaskId,
    },
    /// It was made pending again.
    Requeued {
        /// The task.
        task: TaskId,
        /// Where it stood.
        from: TaskStatus,
        /// Why.
        reason: Reason,
    },
    /// An agent was registered, or its role changed.
    AgentRegistered {
        /// Who.
        agent: AgentId,
        /// What it can do.
        role: Role,
    },
    /// An agent was forgotten: by a request, or, where there is none, because nobody had served it for long.
    AgentRemoved {
        /// Who.
        agent: AgentId,
    },
    /// A node serves an agent, under a lease.
    AgentAttached {
        /// Who.
        agent: AgentId,
        /// The node.
        node: NodeId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// Nobody serves an agent any more.
    AgentDetached {
        /// Who.
        agent: AgentId,
        /// The attachment that ended.
        attachment: AttachmentId,
        /// Whether its lease ran out; otherwise it stopped by itself.
        expired: bool,
    },
    /// The log clock lost its continuity and moved to a new era.
    ClockLost {
        /// The first instant of the new era.
        now: LogInstant,
    },
    /// An operator may do this from now on.
    OperatorGranted {
        /// What it says, and who says so: of a shard's first operator it is itself.
        grant: Arc<OperatorGrant>,
    },
    /// An operator who may do nothing any more was forgotten, so that there is room for another one.
    OperatorForgotten {
        /// Which.
        operator: OperatorKey,
        /// Its name, by the last statement about it.
        name: OperatorName,
        /// The number of that statement. One about an operator that is new here has a higher number from now on.
        serial: u64,
    },
    /// A command was accepted.
    CommandAccepted {
        /// The command.
        command: Arc<SignedCommand>,
        /// For how many agents.
        agents: u32,
    },
    /// It was let out to some of them.
    CommandReleased {
        /// Which.
        command: CommandId,
        /// The trace that it belongs to.
        trace: TraceParent,
        /// To whom, and where it stands in their order.
        to: Vec<(AgentId, DeliverySeq)>,
    },
    /// An operator wants it cancelled, aborted or resolved.
    CommandOrdered {
        /// Which.
        command: CommandId,
        /// The trace that it belongs to.
        trace: TraceParent,
        /// What is wanted.
        what: OrderKind,
        /// By whom.
        by: OperatorKey,
        /// Why.
        reason: Reason,
    },
    /// It is not to be started any more where it was not.
    DeliveryVoided {
        /// Which command.
        command: CommandId,
        /// The trace that it belongs to.
        trace: TraceParent,
        /// Where.
        agent: AgentId,
        /// Why.
        cause: VoidCause,
    },
    /// It goes on at an agent, and has come so far.
    DeliveryReported {
        /// Which command.
        command: CommandId,
        /// The trace that it belongs to.
        trace: TraceParent,
        /// Where.
        agent: AgentId,
        /// Its place in the agent's order.
        seq: DeliverySeq,
        /// The agent's node.
        node: Option<NodeId>,
        /// When its node took each step that was not told of before.
        steps: Steps,
        /// How far its software says it has come, if it said something new.
        progress: Option<CommandProgress>,
    },
    /// It ended at an agent.
    DeliveryEnded {
        /// Which command.
        command: CommandId,
        /// The trace that it belongs to.
        trace: TraceParent,
        /// Where.
        agent: AgentId,
        /// How.
        outcome: CommandOutcome,
        /// Its place in the agent's order; none if it was never let out to it.
        seq: Option<DeliverySeq>,
        /// The agent's node; none if no node can have had it.
        node: Option<NodeId>,
        /// When its node took each step that was not told of before.
        steps: Steps,
    },
    /// What an operator asked for was refused.
    OperatorRefused {
        /// Who asked.
        by: OperatorKey,
        /// About which command; none if it was a grant.
        command: Option<CommandId>,
        /// Why it was refused.
        why: Box<Refusal>,
    },
    /// What a node said of the end of a command was refused: it was never let out to that agent, or in another place of its
    /// order, or the shard has forgotten it.
    OutcomeRefused {
        /// Which command.
        command: CommandId,
        /// The trace that it belongs to, if the command is known.
        trace: TraceParent,
        /// Where it is said to have ended.
        agent: AgentId,
        /// How, without what came of it.
        outcome: CommandOutcome,
        /// Why it was refused.
        why: Box<Refusal>,
    },
    /// The commands of an agent go to this journal from now on.
    InboxOpened {
        /// The agent.
        agent: AgentId,
        /// The journal.
        journal: JournalId,
        /// Its time.
        home: HomeEpoch,
    },
    /// Entries mean what this version says from now on, within these limits.
    RulesAgreed {
        /// The version and the limits.
        rules: Box<Rules>,
    },
    /// The shard began.
    Founded {
        /// Where statements of its operators hold.
        place: Place,
    },
    /// Another key is the first operator. What the one before it granted is over.
    FirstReplaced {
        /// The one before it.
        old: OperatorKey,
        /// The one that is it now.
        new: OperatorKey,
    },
    /// The shard goes on as another group, from what one replica of it held.
    Recovered {
        /// Where statements of its operators hold from now on.
        place: Place,
        /// The genesis before.
        from: Genesis,
        /// The last entry that was kept of what it was.
        last_index: u64,
        /// The first operator, who had it done.
        by: OperatorKey,
    },
}

/// Why a claim was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimCause {
    /// There was no progress for too long.
    Stale,
    /// The lease of its holder ended.
    LeaseExpired,
    /// Its holder stopped.
    Detached,
    /// Its holder gave it back.
    Released,
}

impl ReclaimCause {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Stale => "no progress for too long",
            Self::LeaseExpired => "the lease of its holder ended",
            Self::Detached => "its holder stopped",
            Self::Released => "its holder gave it back",
        }
    }
}

impl ChangeKind {
    /// The task that it belongs to.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Created { task, .. }
            | Self::Claimed { task, .. }
            | Self::Progressed { task, .. }
            | Self::Completed { task, .. }
            | Self::Retried { task, .. }
            | Self::Reclaimed { task, .. }
            | Self::DeadLettered { task, .. }
            | Self::Cancelled { task, .. }
            | Self::Expired { task }
            | Self::Requeued { task, .. } => Some(*task),
            Self::AgentRegistered { .. }
            | Self::AgentRemoved { .. }
            | Self::AgentAttached { .. }
            | Self::AgentDetached { .. }
            | Self::ClockLost { .. }
            | Self::OperatorGranted { .. }
            | Self::OperatorForgotten { .. }
            | Self::CommandAccepted { .. }
            | Self::CommandReleased { .. }
            | Self::CommandOrdered { .. }
            | Self::DeliveryVoided { .. }
            | Self::DeliveryReported { .. }
            | Self::DeliveryEnded { .. }
            | Self::OperatorRefused { .. }
            | Self::OutcomeRefused { .. }
            | Self::InboxOpened { .. }
            | Self::RulesAgreed { .. }
            | Self::Founded { .. }
            | Self::FirstReplaced { .. }
            | Self::Recovered { .. } => None,
        }
    }

    /// The command that it belongs to.
    pub fn command(&self) -> Option<CommandId> {
        match self {
            Self::CommandAccepted { command, .. } => Some(command.id),
            Self::CommandReleased { command, .. }
            | Self::CommandOrdered { command, .. }
            | Self::DeliveryVoided { command, .. }
            | Self::DeliveryReported { command, .. }
            | Self::DeliveryEnded { command, .. } => Some(*command),
            Self::OutcomeRefused { command, .. } => Some(*command),
            Self::OperatorRefused { command, .. } => *command,
            _ => None,
        }
    }

    /// Whether it records that something was refused: nothing was changed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::OperatorRefused { .. } | Self::OutcomeRefused { .. })
    }

    /// The command that ended at an agent with it, if one did.
    pub fn ended_command(&self) -> Option<CommandId> {
        match self {
            Self::DeliveryEnded { command, .. } => Some(*command),
            _ => None,
        }
    }

    /// The topic on which watchers are told, if there is one.
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Self::Created { .. } | Self::Requeued { .. } | Self::Retried { .. } | Self::Reclaimed { .. } => {
                Some(Topic::NewOrders)
            }
            Self::Claimed { .. } | Self::Progressed { .. } => Some(Topic::AssignedTasks),
            Self::Completed { .. } | Self::DeadLettered { .. } | Self::Cancelled { .. } | Self::Expired { .. } => {
                Some(Topic::TaskCompletions)
            }
            Self::AgentRegistered { .. }
            | Self::AgentRemoved { .. }
            | Self::AgentAttached { .. }
            | Self::AgentDetached { .. }
            | Self::ClockLost { .. }
            | Self::OperatorGranted { .. }
            | Self::OperatorForgotten { .. }
            | Self::CommandAccepted { .. }
            | Self::CommandReleased { .. }
            | Self::CommandOrdered { .. }
            | Self::DeliveryVoided { .. }
            | Self::DeliveryReported { .. }
            | Self::DeliveryEnded { .. }
            | Self::OperatorRefused { .. }
            | Self::OutcomeRefused { .. }
            | Self::InboxOpened { .. }
            | Self::RulesAgreed { .. }
            | Self::Founded { .. }
            | Self::FirstReplaced { .. }
            | Self::Recovered { .. } => None,
        }
    }
}

/// What a watcher of tasks may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// Work that waits: created, requeued, or given back for another attempt.
    NewOrders,
    /// Work that an agent has: claimed, progressing.
    AssignedTasks,
    /// Work that ended, whichever way.
    TaskCompletions,
}

impl Topic {
    /// The topic's name, as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewOrders => "new-orders",
            Self::AssignedTasks => "assigned-tasks",
            Self::TaskCompletions => "task-completions",
        }
    }

    /// The topic with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::NewOrders, Self::AssignedTasks, Self::TaskCompletions].into_iter().find(|t| t.name() == name)
    }
}

/// All changes of one log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// What it changed, in order.
    pub changes: Vec<Change>,
}
