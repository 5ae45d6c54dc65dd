//! What a shard tells of a command.

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
    /// Id of the agent.
    pub agent: AgentId,
    /// Number of the wave in which it is released to the agent, from 0.
    pub wave: u32,
    /// Its place in the agent's order of its class; none before it is released.
    pub seq: Option<DeliverySeq>,
    /// The node that has it, or may have it; none as long as no node can.
    pub node: Option<NodeId>,
    /// When it was released, on the shard's clock; none before that.
    pub released_at: Option<LogInstant>,
    /// Why the robot is not to start it; none if it may.
    pub void: Option<VoidCause>,
    /// How it ended; none before that.
    pub outcome: Option<CommandOutcome>,
    /// When the shard heard how it ended, on its clock; none before that.
    pub ended_at: Option<LogInstant>,
    /// When its node took each step, by the node's own bound of the shard's clock.
    pub steps: Steps,
    /// How far its software says it has come; none once it has ended.
    pub progress: Option<CommandProgress>,
}

/// A command as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// The command, as its operator signed it.
    pub command: Arc<SignedCommand>,
    /// When the shard accepted it, on the shard's clock.
    pub accepted_at: LogInstant,
    /// Index of the entry that accepted it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Number of its agents.
    pub agents: u32,
    /// Number of its agents at which it has not ended.
    pub open: u32,
    /// Number of its agents at which it failed, was rejected, expired, or is indeterminate, and to which it was not
    /// sent again.
    pub failed: u32,
    /// Whether an operator settled what failed of it.
    pub discarded: bool,
    /// Its delivery to each agent; if it ended long ago, only those that are dead letters; empty in lists.
    pub deliveries: Vec<DeliveryView>,
}
