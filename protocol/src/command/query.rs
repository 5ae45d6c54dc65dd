//! What is told of a command.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SignedCommand;
use super::class::DeliverySeq;
use super::outcome::{CommandOutcome, CommandProgress, Steps, VoidCause};
use crate::ids::NodeId;
use crate::text::AgentId;
use crate::time::LogInstant;

/// A command at one agent, as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The agent.
    pub agent: AgentId,
    /// In which wave it is released to it.
    pub wave: u32,
    /// Its place in the agent's order of its class; none before it is released.
    pub seq: Option<DeliverySeq>,
    /// The node that has it, or may have; none as long as nobody can.
    pub node: Option<NodeId>,
    /// When it was released.
    pub released_at: Option<LogInstant>,
    /// Why it is not to be started, if it is not.
    pub void: Option<VoidCause>,
    /// How it ended.
    pub outcome: Option<CommandOutcome>,
    /// When the shard heard how it ended.
    pub ended_at: Option<LogInstant>,
    /// When its node took each step, by the node's own bound of the shard's clock.
    pub steps: Steps,
    /// How far its software says it has come; none once it has ended.
    pub progress: Option<CommandProgress>,
}

/// A command as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// The command.
    pub command: Arc<SignedCommand>,
    /// When it was accepted.
    pub accepted_at: LogInstant,
    /// By which entry.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// For how many agents it is.
    pub agents: u32,
    /// At how many of them it has not ended.
    pub open: u32,
    /// At how many of them it failed, was refused or too late, or nobody knows, and was not sent again.
    pub failed: u32,
    /// Whether somebody settled what failed of it.
    pub discarded: bool,
    /// How it stands at each agent, or, if it ended long ago, at those where it is a dead letter; left out in lists.
    pub deliveries: Vec<DeliveryView>,
}
