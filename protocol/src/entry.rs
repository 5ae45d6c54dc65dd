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
use crate::task::TaskOp;
use crate::text::AgentId;
use crate::time::LogInstant;

/// One log entry: everything that one leader put into one proposal.
///
/// Several requests share an entry because an entry costs the same replication, fsync and bookkeeping however many
/// requests it holds. They are applied in order, and each is answered by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The log clock when the leader made the entry.
    pub stamp: LogInstant,
    /// The term of the leader that made it. It is applied only if the log says the same.
    pub term: u64,
    /// What it asks for.
    pub body: EntryBody,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryBody {
    /// Requests of clients, in order.
    Requests(Vec<Request>),
    /// Decisions of the orchestrator itself, in order. Never forwarded.
    Decisions(Vec<Decision>),
    /// Nobody knows how long the whole quorum was away: the clock moves on to its next era, and everything with a
    /// deadline has passed it.
    ClockLost,
    /// By which rules the entries after this one are applied: every voter knew them when it was proposed.
    Rules(Box<Rules>),
    /// A shard's first entry: what it is, and the first rules.
    Founding(Box<Founding>),
    /// The shard goes on as another group, from what one replica of it held: the first entry after that.
    Recovered(Box<Recovered>),
}

impl Entry {
    /// Whether an operator has to have signed something in it.
    pub fn is_signed_by_operators(&self) -> bool {
        matches!(&self.body, EntryBody::Requests(requests) if requests.iter().any(|one| one.op.is_signed_by_operator()))
    }

    /// Takes note of whether operators signed what is in it.
    pub fn look_up(&self, verdicts: &Verdicts) {
        if let EntryBody::Requests(requests) = &self.body {
            requests.iter().for_each(|request| request.op.look_up(verdicts));
        }
    }
}

/// What a shard's first entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// The rules by which the next entries are applied.
    pub rules: Rules,
    /// What the shard is from then on.
    pub charter: Charter,
}

/// How a shard goes on that was beyond help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// What its first operator signed.
    pub statement: SignedRecovery,
    /// The latest members of the group before: what they hold may be no part of what goes on.
    pub former: Vec<RaftId>,
}

/// What a shard is, as whoever made it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    /// Where statements of its operators hold.
    pub place: Place,
    /// Its first operator, with the signature that shows that it has its key. Without one it has no operators, ever.
    pub first: Option<SignedFirst>,
}

impl Charter {
    /// The first operator, if it has signed, and for this shard.
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
    /// Its id; a retry keeps it.
    pub id: RequestId,
    /// The log clock when the client first sent it.
    pub first_sent: LogInstant,
    /// After this instant it is refused, and its id is forgotten.
    pub deadline: LogInstant,
    /// What is asked.
    pub op: Op,
}

impl Request {
    /// An upper bound of its encoded size in bytes, without encoding it.
    pub fn bytes_bound(&self) -> usize {
        const FIXED: usize = 2_048;
        FIXED + self.op.payload_bytes()
    }
}

/// What a client can ask of a shard, by what it is asked of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Of tasks.
    Task(TaskOp),
    /// Of agents.
    Agent(AgentOp),
    /// Of operators.
    Operator(OperatorOp),
    /// Of commands.
    Command(CommandOp),
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

impl Op {
    /// Whether an operator has to have signed it.
    pub fn is_signed_by_operator(&self) -> bool {
        self.operator().is_some()
    }

    /// The operator who asks for it, and about which command; none for what is not an operator's to ask.
    pub fn operator(&self) -> Option<(OperatorKey, Option<CommandId>)> {
        match self {
            Self::Operator(op) => Some((op.operator(), None)),
            Self::Command(op) => op.operator().map(|(operator, command)| (operator, Some(command))),
            Self::Task(_) | Self::Agent(_) => None,
        }
    }

    /// Whether the operator whom it names signed it. What no operator has to sign is.
    fn is_signed(&self) -> bool {
        match self {
            Self::Operator(op) => op.is_signed(),
            Self::Command(op) => op.is_signed(),
            Self::Task(_) | Self::Agent(_) => true,
        }
    }

    /// The operator that it names and who did not sign it; none if it is signed, or need not be.
    pub fn forged(&self) -> Option<OperatorKey> {
        let (operator, _) = self.operator()?;
        (!self.is_signed() && !is_on(Mutant::SignatureNotChecked)).then_some(operator)
    }

    /// Takes note of whether its operator signed it, if it has to be signed.
    pub fn look_up(&self, verdicts: &Verdicts) {
        match self {
            Self::Operator(op) => op.look_up(verdicts),
            Self::Command(op) => op.look_up(verdicts),
            Self::Task(_) | Self::Agent(_) => {}
        }
    }

    /// A field in what an operator signed that changes what it means, and that is not known here.
    pub fn unknown_field(&self) -> Option<u32> {
        match self {
            Self::Operator(op) => op.unknown_field(),
            Self::Command(op) => op.unknown_field(),
            Self::Task(_) | Self::Agent(_) => None,
        }
    }

    /// Whether it can wait: it brings work, or is news that the next ones replace. A shard under pressure refuses these, and
    /// goes on with what ends work.
    pub fn can_wait(&self) -> bool {
        self.brings_work() || matches!(self, Self::Command(CommandOp::Report { .. }))
    }

    /// Whether it brings work, or somebody who does some. A disk that runs low refuses these.
    pub fn brings_work(&self) -> bool {
        match self {
            Self::Task(op) => op.brings_work(),
            Self::Agent(op) => op.brings_work(),
            Self::Operator(op) => op.brings_work(),
            Self::Command(op) => op.brings_work(),
        }
    }

    /// Bytes of what is in it that may be large.
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Task(op) => op.payload_bytes(),
            Self::Operator(op) => op.payload_bytes(),
            Self::Command(op) => op.payload_bytes(),
            Self::Agent(_) => 0,
        }
    }
}

/// What an orchestrator decides by itself. Each names what it saw, and is judged again where it is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// A claim without progress is taken back.
    ExpireClaim {
        /// The task.
        task: TaskId,
        /// The claim that the orchestrator saw.
        epoch: ClaimEpoch,
    },
    /// A task is worthless by now.
    ExpireTask {
        /// The task.
        task: TaskId,
    },
    /// A task goes to an agent that asked for work.
    AssignTask {
        /// The task.
        task: TaskId,
        /// Who gets it.
        agent: AgentId,
        /// The attachment that the orchestrator saw.
        attachment: AttachmentId,
        /// How many tasks had been assigned under it before this one: each is assigned against a credit once.
        nth: u64,
    },
    /// The lease of an agent has ended.
    ExpireLease {
        /// Who.
        agent: AgentId,
        /// The attachment that the orchestrator saw.
        attachment: AttachmentId,
    },
    /// The next wave of a command is released.
    ReleaseWave {
        /// The command.
        command: CommandId,
        /// Which wave, from 0.
        wave: u32,
    },
    /// The deadline of a command has passed.
    ExpireCommand {
        /// The command.
        command: CommandId,
    },
    /// A command that may have been delivered was not heard of for too long after its deadline.
    DoubtCommand {
        /// The command.
        command: CommandId,
    },
    /// Nobody has served an agent for long, and nobody said that it is to stay known.
    ForgetAgent {
        /// Who.
        agent: AgentId,
        /// Since when, as the orchestrator saw it.
        idle_since: LogInstant,
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
