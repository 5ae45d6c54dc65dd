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
        /// The command, as its operator signed it.
        command: Box<SignedCommand>,
    },
    /// Cancel, abort, resolve or discard a command.
    Control {
        /// The control, as the operator signed it.
        control: Box<SignedControl>,
    },
    /// Have an agent's commands delivered to the node that serves it.
    OpenInbox {
        /// Id of the agent.
        agent: AgentId,
        /// Id of the agent's attachment.
        attachment: AttachmentId,
        /// Id of the journal that the node keeps for the agent.
        journal: JournalId,
        /// The groups of the agent.
        groups: BTreeSet<GroupName>,
    },
    /// Say how far a command has come at an agent.
    Report {
        /// How far it has come.
        report: Box<DeliveryReport>,
    },
    /// Say how a command ended at an agent.
    End {
        /// How it ended.
        ended: Box<EndedDelivery>,
    },
}

/// How far a command has come at an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// Id of the agent.
    pub agent: AgentId,
    /// Id of the command.
    pub command: CommandId,
    /// Its place in the agent's order of its class.
    pub seq: DeliverySeq,
    /// When the node took each step, on the shard's clock.
    pub steps: Steps,
    /// How far the agent's software says it has come; none if it said nothing.
    pub progress: Option<CommandProgress>,
    /// Whether the software that began it is attached.
    pub under_way: bool,
}

/// How a command ended at an agent, as its node's journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedDelivery {
    /// Id of the agent.
    pub agent: AgentId,
    /// Id of the command.
    pub command: CommandId,
    /// Its place in the agent's order of its class.
    pub seq: DeliverySeq,
    /// How it ended.
    pub outcome: CommandOutcome,
    /// When the node took each step, on the shard's clock.
    pub steps: Steps,
}

impl CommandOp {
    /// Key of the operator who asks for it, and id of the command; none for what a node says.
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

    /// Bytes of the statement, or of the result of a command.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Send { command } => command.body().len(),
            Self::End { ended } => ended.outcome.result_bytes(),
            Self::Control { .. } | Self::OpenInbox { .. } | Self::Report { .. } => 0,
        }
    }
}
