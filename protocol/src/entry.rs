//! What the log of a shard holds: requests and the orchestrator's decisions.

use serde::{Deserialize, Serialize};

use std::collections::BTreeSet;

use crate::agent::Role;
use crate::command::{CommandOutcome, CommandProgress, DeliverySeq, SignedCommand, SignedOrder, Steps};
use crate::fleet::Rules;
use crate::ids::{AttachmentId, ClaimEpoch, CommandId, JournalId, NodeId, RaftId, RequestId, SessionId, TaskId};
use crate::lease::LeaseTerms;
use crate::mutant::{Mutant, is_on};
use crate::operator::{SignedFirst, SignedGrant, SignedReplacement};
use crate::recovery::SignedRecovery;
use crate::signing::{OperatorKey, Place, Verdicts};
use crate::task::TaskSpec;
use crate::text::{AgentId, GroupName, Reason};
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
        match &self.op {
            Op::CreateTask { spec, .. } => FIXED + spec.payload.len(),
            Op::CompleteTask { result, .. } => FIXED + result.len(),
            Op::SendCommand { command } => FIXED + command.body().len(),
            Op::GrantOperator { grant } => FIXED + grant.body().len(),
            Op::EndDelivery { ended } => match &ended.outcome {
                CommandOutcome::Succeeded { result } => FIXED + result.len(),
                _ => FIXED,
            },
            Op::ReportProgress { checkpoint: Some(checkpoint), .. } => FIXED + checkpoint.len(),
            _ => FIXED,
        }
    }
}

/// What a client can ask of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Add a task.
    CreateTask {
        /// Its id, made by the client.
        task: TaskId,
        /// What is to be done.
        spec: Box<TaskSpec>,
    },
    /// Take a task: the first committed claim wins.
    ClaimTask {
        /// Who takes it.
        agent: AgentId,
        /// Which; none for the most urgent that suits the agent.
        task: Option<TaskId>,
        /// Only under this attachment: a claim that comes after its lease has ended is refused. None for an agent
        /// that is not attached: its claims have no lease and end by want of progress only.
        attachment: Option<AttachmentId>,
    },
    /// Say how far a claimed task has come; keeps the claim from becoming stale.
    ReportProgress {
        /// The claim.
        claim: Claim,
        /// Thousandths of the work.
        permille: u16,
        /// In the holder's words.
        note: Reason,
        /// Where the next holder would go on; none leaves the last one.
        checkpoint: Option<Vec<u8>>,
    },
    /// Finish a claimed task.
    CompleteTask {
        /// The claim.
        claim: Claim,
        /// What came of it.
        result: Vec<u8>,
    },
    /// Give a claimed task back as failed.
    FailTask {
        /// The claim.
        claim: Claim,
        /// Why.
        reason: Reason,
        /// Whether trying again may help; otherwise it becomes a dead letter at once.
        retryable: bool,
    },
    /// Call a task off, claimed or not.
    CancelTask {
        /// Which.
        task: TaskId,
        /// Why.
        reason: Reason,
    },
    /// Make a terminal or claimed task pending again, with all its attempts. A completed one stays completed.
    RequeueTask {
        /// Which.
        task: TaskId,
        /// Why.
        reason: Reason,
    },
    /// Settle a task that is a dead letter; one that is not is left as it is.
    SettleDeadLetter {
        /// Which.
        task: TaskId,
        /// Whether it is made pending again. Otherwise nobody need look at it any more.
        again: bool,
        /// Why.
        reason: Reason,
    },
    /// Make an agent known, or change its role.
    RegisterAgent {
        /// Who.
        agent: AgentId,
        /// What it can do.
        role: Role,
    },
    /// Forget an agent that holds nothing.
    RemoveAgent {
        /// Who.
        agent: AgentId,
    },
    /// Serve an agent from a node, under a lease. Refused while another run of its software, or another node, has it.
    AttachAgent {
        /// Who.
        agent: AgentId,
        /// What it can do.
        role: Role,
        /// The node that asks; only it may.
        node: NodeId,
        /// The run of the agent's software. The same one takes up what it held.
        session: SessionId,
        /// The lease it asks for.
        lease: LeaseTerms,
    },
    /// Give an agent up: it has stopped, and gives back what it holds.
    DetachAgent {
        /// Who.
        agent: AgentId,
        /// The attachment that ends.
        attachment: AttachmentId,
    },
    /// Give a claimed task back, neither done nor failed: whoever asks for work next may have it.
    ReleaseTask {
        /// The claim.
        claim: Claim,
    },
    /// Have another key be the first operator.
    ReplaceFirst {
        /// The statement of the present one.
        replacement: Box<SignedReplacement>,
    },
    /// Grant an operator what an admin states, or revoke it.
    GrantOperator {
        /// The statement.
        grant: Box<SignedGrant>,
    },
    /// Have agents do something.
    SendCommand {
        /// What, signed.
        command: Box<SignedCommand>,
    },
    /// Cancel, abort or resolve a command.
    OrderCommand {
        /// What is wanted, signed.
        order: Box<SignedOrder>,
    },
    /// Have an agent's commands delivered to the node that serves it.
    OpenInbox {
        /// Who.
        agent: AgentId,
        /// Its attachment.
        attachment: AttachmentId,
        /// The journal that the node keeps for it.
        journal: JournalId,
        /// The groups that it is of.
        groups: BTreeSet<GroupName>,
    },
    /// Say how far a command has come at an agent.
    ReportDelivery {
        /// What.
        report: Box<DeliveryReport>,
    },
    /// Say how a command ended at an agent.
    EndDelivery {
        /// What.
        ended: Box<EndedDelivery>,
    },
}

/// How far a command has come at an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// The agent.
    pub agent: AgentId,
    /// The command.
    pub command: CommandId,
    /// Its place in the agent's order.
    pub seq: DeliverySeq,
    /// When each step was taken.
    pub steps: Steps,
    /// How far the agent's software says it has come.
    pub progress: Option<CommandProgress>,
    /// Whether the software that began it is attached.
    pub under_way: bool,
}

/// How a command ended at an agent, as its node's journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedDelivery {
    /// The agent.
    pub agent: AgentId,
    /// The command.
    pub command: CommandId,
    /// Its place in the agent's order.
    pub seq: DeliverySeq,
    /// How.
    pub outcome: CommandOutcome,
    /// When each step was taken.
    pub steps: Steps,
}

/// Who says it holds which claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The task.
    pub task: TaskId,
    /// The holder.
    pub agent: AgentId,
    /// The epoch that the claim was given.
    pub epoch: ClaimEpoch,
}

impl Op {
    /// Whether an operator has to have signed it.
    pub fn is_signed_by_operator(&self) -> bool {
        matches!(
            self,
            Self::ReplaceFirst { .. }
                | Self::GrantOperator { .. }
                | Self::SendCommand { .. }
                | Self::OrderCommand { .. }
        )
    }

    /// The operator who asks for it, and about which command; none for what is not an operator's to ask.
    pub fn operator(&self) -> Option<(OperatorKey, Option<CommandId>)> {
        match self {
            Self::ReplaceFirst { replacement } => Some((replacement.old, None)),
            Self::GrantOperator { grant } => Some((grant.by, None)),
            Self::SendCommand { command } => Some((command.operator, Some(command.id))),
            Self::OrderCommand { order } => Some((order.operator, Some(order.command))),
            _ => None,
        }
    }

    /// The operator that it names and who did not sign it; none if it is signed, or need not be.
    pub fn forged(&self) -> Option<OperatorKey> {
        let (signed, operator) = match self {
            Self::ReplaceFirst { replacement } => (replacement.is_signed(), replacement.old),
            Self::GrantOperator { grant } => (grant.is_signed(), grant.by),
            Self::SendCommand { command } => (command.is_signed(), command.operator),
            Self::OrderCommand { order } => (order.is_signed(), order.operator),
            _ => return None,
        };
        (!signed && !is_on(Mutant::SignatureNotChecked)).then_some(operator)
    }

    /// Takes note of whether its operator signed it, if it has to be signed.
    pub fn look_up(&self, verdicts: &Verdicts) {
        match self {
            Self::ReplaceFirst { replacement } => replacement.look_up(verdicts),
            Self::GrantOperator { grant } => grant.look_up(verdicts),
            Self::SendCommand { command } => command.look_up(verdicts),
            Self::OrderCommand { order } => order.look_up(verdicts),
            _ => {}
        }
    }

    /// A field in what an operator signed that changes what it means, and that is not known here.
    pub fn unknown_field(&self) -> Option<u32> {
        match self {
            Self::ReplaceFirst { replacement } => replacement.unknown_field(),
            Self::GrantOperator { grant } => grant.unknown_field(),
            Self::SendCommand { command } => command.unknown_field(),
            Self::OrderCommand { order } => order.unknown_field(),
            _ => None,
        }
    }

    /// Whether it can wait: it brings work, or is news that the next ones replace. A shard under pressure refuses these, and
    /// goes on with what ends work.
    pub fn can_wait(&self) -> bool {
        self.brings_work() || matches!(self, Self::ReportDelivery { .. })
    }

    /// Whether it brings work, or somebody who does some. A disk that runs low refuses these.
    pub fn brings_work(&self) -> bool {
        match self {
            Self::CreateTask { .. }
            | Self::ClaimTask { .. }
            | Self::RequeueTask { .. }
            | Self::SettleDeadLetter { again: true, .. }
            | Self::RegisterAgent { .. }
            | Self::AttachAgent { .. }
            | Self::SendCommand { .. }
            | Self::OpenInbox { .. } => true,
            // What takes rights away ends work.
            Self::GrantOperator { grant } => !grant.revoked,
            Self::ReportProgress { .. }
            | Self::CompleteTask { .. }
            | Self::FailTask { .. }
            | Self::CancelTask { .. }
            | Self::SettleDeadLetter { again: false, .. }
            | Self::ReleaseTask { .. }
            | Self::RemoveAgent { .. }
            | Self::DetachAgent { .. }
            | Self::ReplaceFirst { .. }
            | Self::OrderCommand { .. }
            | Self::ReportDelivery { .. }
            | Self::EndDelivery { .. } => false,
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
    /// The next wave of a command is let out.
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
    use crate::command::{CommandOrder, OrderKind};
    use crate::ids::{Genesis, ShardId};
    use crate::signing::{OperatorSecret, Signed};

    #[test]
    fn an_operation_that_was_not_signed_by_whom_it_names_is_forged() {
        let (by, other) = (OperatorSecret::from_seed(&[1; 32]), OperatorSecret::from_seed(&[2; 32]));
        let genesis = Genesis::from_bytes([6; 16]);
        let order = CommandOrder {
            place: Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis },
            command: CommandId::from_bytes([1; 16]),
            what: OrderKind::Cancel,
            reason: Reason::truncated(""),
            operator: by.key(),
        };
        let signed = order.clone().sign(&by).unwrap();
        assert_eq!(Op::OrderCommand { order: Box::new(signed.clone()) }.forged(), None);
        let order = CommandOrder { operator: other.key(), ..order };
        let forged = Signed::under(&order, *signed.signature()).unwrap();
        let forged = Op::OrderCommand { order: Box::new(forged) };
        assert!(forged.is_signed_by_operator());
        assert_eq!(forged.forged(), Some(other.key()));
    }
}
