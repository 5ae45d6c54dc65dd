//! What the log of a shard holds: requests and the orchestrator's decisions.

use serde::{Deserialize, Serialize};

use crate::agent::AgentOp;
use crate::command::CommandOp;
use crate::fleet::Rules;
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, RaftId, RequestId, TaskId};
use crate::mutant::{Mutant, is_on};
use crate::operator::{OperatorOp, SignedFirst};
use crate::recovery::SignedRecovery;
use crate::signing::{OperatorKey, Place, Verdicts};
use crate::site::{SiteKey, SiteOp};
use crate::task::TaskOp;
use crate::text::AgentId;
use crate::time::LogInstant;

/// One log entry: everything that one leader put into one proposal.
///
/// Several requests share an entry because an entry costs the same replication, fsync and bookkeeping however many
/// requests it holds. Replicas apply them in order, and each request has its own answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The shard's clock when the leader made the entry.
    pub stamp: LogInstant,
    /// The term of the leader that made it. Replicas apply the entry only if the log has the same term.
    pub term: u64,
    /// What it asks for.
    pub body: EntryBody,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryBody {
    /// Requests of clients, in order.
    Requests(Vec<Request>),
    /// Decisions of the orchestrator itself, in order. No node forwards them.
    Decisions(Vec<Decision>),
    /// A whole quorum was away for an unknown time: the clock moves on to its next era, and everything with a deadline
    /// has passed it.
    ClockLost,
    /// The rules by which replicas apply the entries after this one: every voter knew them when the leader proposed it.
    Rules(Box<Rules>),
    /// A shard's first entry: what the shard is, and its first rules.
    Founding(Box<Founding>),
    /// The shard goes on as another group, from what one replica of it held: the first entry after that.
    Recovered(Box<Recovered>),
}

impl Entry {
    /// Whether an operator must have signed something in it.
    pub fn is_signed_by_operators(&self) -> bool {
        matches!(&self.body, EntryBody::Requests(requests) if requests.iter().any(|one| one.op.is_signed_by_operator()))
    }

    /// Checks the signatures of operators in it, and keeps the verdicts.
    pub fn look_up(&self, verdicts: &Verdicts) {
        if let EntryBody::Requests(requests) = &self.body {
            requests.iter().for_each(|request| request.op.look_up(verdicts));
        }
    }
}

/// What a shard's first entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// The rules by which replicas apply the next entries.
    pub rules: Rules,
    /// What the shard is from then on.
    pub charter: Charter,
}

/// How a shard goes on that had lost its quorum for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// What its first operator signed.
    pub statement: SignedRecovery,
    /// The latest members of the group before: what goes on may lack entries that they hold.
    pub former: Vec<RaftId>,
}

/// What a shard is, as its maker said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    /// The site, shard and genesis where statements of its operators hold.
    pub place: Place,
    /// Its first operator, with the signature that shows that the operator has the key. Without one the shard never has
    /// operators.
    pub first: Option<SignedFirst>,
    /// The first root document of the site, as it was sealed, if the shard is its directory.
    pub root: Option<Vec<u8>>,
}

impl Charter {
    /// The first operator, if the operator signed for this shard.
    pub fn shown(&self) -> Option<&SignedFirst> {
        let shown = |first: &&SignedFirst| {
            let signed = first.is_signed() || is_on(Mutant::SignatureNotChecked);
            signed && first.place == self.place && first.unknown_field().is_none()
        };
        self.first.as_ref().filter(shown)
    }
}

/// A mutating request of a client. A retry repeats it byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Id of the request; a retry keeps it.
    pub id: RequestId,
    /// The shard's clock when the client first sent it.
    pub first_sent: LogInstant,
    /// After this instant of its clock the shard refuses the request, and forgets its id.
    pub deadline: LogInstant,
    /// The operation that the client asks for.
    pub op: Op,
}

impl Request {
    /// An upper bound of its encoded size, in bytes, without encoding it.
    pub fn bytes_bound(&self) -> usize {
        const FIXED: usize = 2_048;
        FIXED + self.op.payload_bytes()
    }
}

/// What a client can ask of a shard, by domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// An operation on tasks.
    Task(TaskOp),
    /// An operation on agents.
    Agent(AgentOp),
    /// An operation on operators.
    Operator(OperatorOp),
    /// An operation on commands.
    Command(CommandOp),
    /// An operation on the directory of the site.
    Site(SiteOp),
}

impl From<TaskOp> for Op {
    fn from(op: TaskOp) -> Self {
        Self::Task(op)
    }
}

impl From<AgentOp> for Op {
    fn from(op: AgentOp) -> Self {
        Self::Agent(op)
    }
}

impl From<OperatorOp> for Op {
    fn from(op: OperatorOp) -> Self {
        Self::Operator(op)
    }
}

impl From<CommandOp> for Op {
    fn from(op: CommandOp) -> Self {
        Self::Command(op)
    }
}

impl From<SiteOp> for Op {
    fn from(op: SiteOp) -> Self {
        Self::Site(op)
    }
}

impl Op {
    /// Whether an operator must have signed it.
    pub fn is_signed_by_operator(&self) -> bool {
        self.operator().is_some()
    }

    /// Key of the operator who asks for it, and id of the command; none if no operator asks.
    pub fn operator(&self) -> Option<(OperatorKey, Option<CommandId>)> {
        match self {
            Self::Operator(op) => Some((op.operator(), None)),
            Self::Command(op) => op.operator().map(|(operator, command)| (operator, Some(command))),
            Self::Task(_) | Self::Agent(_) | Self::Site(_) => None,
        }
    }

    /// Whether the operator whom it names signed it; true if no operator has to.
    fn is_signed(&self) -> bool {
        match self {
            Self::Operator(op) => op.is_signed(),
            Self::Command(op) => op.is_signed(),
            Self::Task(_) | Self::Agent(_) | Self::Site(_) => true,
        }
    }

    /// Key of the operator that it names and who did not sign it; none if it is signed, or need not be.
    pub fn forged(&self) -> Option<OperatorKey> {
        let (operator, _) = self.operator()?;
        (!self.is_signed() && !is_on(Mutant::SignatureNotChecked)).then_some(operator)
    }

    /// Checks whether its operator signed it, if one must, and keeps the verdict.
    pub fn look_up(&self, verdicts: &Verdicts) {
        match self {
            Self::Operator(op) => op.look_up(verdicts),
            Self::Command(op) => op.look_up(verdicts),
            Self::Task(_) | Self::Agent(_) | Self::Site(_) => {}
        }
    }

    /// Number of a field in the operator's statement that changes its meaning, and that this Skep does not know.
    pub fn unknown_field(&self) -> Option<u32> {
        match self {
            Self::Operator(op) => op.unknown_field(),
            Self::Command(op) => op.unknown_field(),
            Self::Task(_) | Self::Agent(_) | Self::Site(_) => None,
        }
    }

    /// Whether it can wait: it brings work, or is news that later news replaces. A shard under pressure refuses such
    /// requests, and goes on with what ends work.
    pub fn can_wait(&self) -> bool {
        self.brings_work() || matches!(self, Self::Command(CommandOp::Report { .. }))
    }

    /// Whether it brings work, or an agent that does work. A node whose disk runs low refuses such requests.
    pub fn brings_work(&self) -> bool {
        match self {
            Self::Task(op) => op.brings_work(),
            Self::Agent(op) => op.brings_work(),
            Self::Operator(op) => op.brings_work(),
            Self::Command(op) => op.brings_work(),
            Self::Site(op) => op.brings_work(),
        }
    }

    /// Bytes of the parts of it that may be large.
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Task(op) => op.payload_bytes(),
            Self::Operator(op) => op.payload_bytes(),
            Self::Command(op) => op.payload_bytes(),
            Self::Site(op) => op.payload_bytes(),
            Self::Agent(_) => 0,
        }
    }
}

/// What an orchestrator decides by itself. Each decision names what the orchestrator saw; replicas judge it again where
/// they apply it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// A claim without progress is taken back.
    ExpireClaim {
        /// Id of the task.
        task: TaskId,
        /// Epoch of the claim that the orchestrator saw.
        epoch: ClaimEpoch,
    },
    /// A task has outlived its validity.
    ExpireTask {
        /// Id of the task.
        task: TaskId,
    },
    /// A task goes to an agent that asked for work.
    AssignTask {
        /// Id of the task.
        task: TaskId,
        /// Id of the agent that gets it.
        agent: AgentId,
        /// Id of the attachment that the orchestrator saw.
        attachment: AttachmentId,
        /// Number of tasks assigned under the attachment before this one: the orchestrator assigns once against each
        /// credit.
        nth: u64,
    },
    /// The lease of an agent has ended.
    ExpireLease {
        /// Id of the agent.
        agent: AgentId,
        /// Id of the attachment that the orchestrator saw.
        attachment: AttachmentId,
    },
    /// The next wave of a command is released.
    ReleaseWave {
        /// Id of the command.
        command: CommandId,
        /// Number of the wave, from 0.
        wave: u32,
    },
    /// The deadline of a command has passed.
    ExpireCommand {
        /// Id of the command.
        command: CommandId,
    },
    /// The shard did not hear of a command that a node may have for too long after its deadline.
    DoubtCommand {
        /// Id of the command.
        command: CommandId,
    },
    /// No node has served an agent for long, and no client registered it.
    ForgetAgent {
        /// Id of the agent.
        agent: AgentId,
        /// Since when no node serves it, as the orchestrator saw it, on the shard's clock.
        idle_since: LogInstant,
    },
    /// A node that an operator wants to revoke votes in no shard that the orchestrator knows.
    LeftOffice {
        /// Key of the node that left.
        voter: SiteKey,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CommandControl, ControlKind};
    use crate::ids::{Genesis, ShardId};
    use crate::signing::{OperatorSecret, Signed};
    use crate::text::Reason;

    #[test]
    fn an_operation_that_was_not_signed_by_whom_it_names_is_forged() {
        let (by, other) = (OperatorSecret::from_seed(&[1; 32]), OperatorSecret::from_seed(&[2; 32]));
        let genesis = Genesis::from_bytes([6; 16]);
        let control = CommandControl {
            place: Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis },
            command: CommandId::from_bytes([1; 16]),
            what: ControlKind::Cancel,
            reason: Reason::truncated(""),
            operator: by.key(),
        };
        let signed = control.clone().sign(&by).unwrap();
        assert_eq!(Op::from(CommandOp::Control { control: Box::new(signed.clone()) }).forged(), None);
        let control = CommandControl { operator: other.key(), ..control };
        let forged = Signed::under(&control, *signed.signature()).unwrap();
        let forged = Op::from(CommandOp::Control { control: Box::new(forged) });
        assert!(forged.is_signed_by_operator());
        assert_eq!(forged.forged(), Some(other.key()));
    }
}
