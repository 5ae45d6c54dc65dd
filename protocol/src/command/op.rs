//! What operators ask of commands, and what the nodes of agents say of them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CommandOutcome, CommandProgress, DeliverySeq, SignedCommand, SignedControl, Steps};
use crate::ids::{AttachmentId, CommandId, JournalId};
use crate::signing::{OperatorKey, Verdicts};
use crate::text::{AgentId, GroupName};

/// What an operator can ask of commands, or the node of an agent can say of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOp {
    /// Have agents do something.
    Send {
        /// What, signed.
        command: Box<SignedCommand>,
    },
    /// Cancel, abort, resolve or discard a command.
    Control {
        /// What is wanted, signed.
        control: Box<SignedControl>,
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
    Report {
        /// What.
        report: Box<DeliveryReport>,
    },
    /// Say how a command ended at an agent.
    End {
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

impl CommandOp {
    /// The operator who asks for it, and about which command; none for what a node says.
    pub(crate) fn operator(&self) -> Option<(OperatorKey, CommandId)> {
        match self {
            Self::Send { command } => Some((command.operator, command.id)),
            Self::Control { control } => Some((control.operator, control.command)),
            Self::OpenInbox { .. } | Self::Report { .. } | Self::End { .. } => None,
        }
    }

    /// Whether its operator signed it. What a node says needs no signature.
    pub(crate) fn is_signed(&self) -> bool {
        match self {
            Self::Send { command } => command.is_signed(),
            Self::Control { control } => control.is_signed(),
            Self::OpenInbox { .. } | Self::Report { .. } | Self::End { .. } => true,
        }
    }

    pub(crate) fn look_up(&self, verdicts: &Verdicts) {
        match self {
            Self::Send { command } => command.look_up(verdicts),
            Self::Control { control } => control.look_up(verdicts),
            Self::OpenInbox { .. } | Self::Report { .. } | Self::End { .. } => {}
        }
    }

    pub(crate) fn unknown_field(&self) -> Option<u32> {
        match self {
            Self::Send { command } => command.unknown_field(),
            Self::Control { control } => control.unknown_field(),
            Self::OpenInbox { .. } | Self::Report { .. } | Self::End { .. } => None,
        }
    }

    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::Send { .. } | Self::OpenInbox { .. } => true,
            Self::Control { .. } | Self::Report { .. } | Self::End { .. } => false,
        }
    }

    /// Bytes of what was signed, or of what came of a command.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Send { command } => command.body().len(),
            Self::End { ended } => ended.outcome.result_bytes(),
            Self::Control { .. } | Self::OpenInbox { .. } | Self::Report { .. } => 0,
        }
    }
}
