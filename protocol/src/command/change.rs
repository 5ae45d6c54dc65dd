//! What changes of commands.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CommandOutcome, CommandProgress, ControlKind, DeliverySeq, SignedCommand, Steps, VoidCause};
use crate::ids::NodeId;
use crate::refusal::Refusal;
use crate::signing::OperatorKey;
use crate::text::{AgentId, Reason, TraceParent};

/// What changed of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandChange {
    /// The shard accepted it.
    Accepted {
        /// The command, as its operator signed it.
        signed: Arc<SignedCommand>,
        /// Number of its agents.
        agents: u32,
    },
    /// The leader released it to some of its agents.
    Released {
        /// The trace to which the command belongs.
        trace: TraceParent,
        /// The agents to which it was released, and its place in the order of each.
        to: Vec<(AgentId, DeliverySeq)>,
    },
    /// An operator wants it cancelled, aborted, resolved or discarded.
    Controlled {
        /// The trace to which the command belongs.
        trace: TraceParent,
        /// What the operator wants: to cancel, abort, resolve or discard it.
        what: ControlKind,
        /// Key of the operator who wants it.
        by: OperatorKey,
        /// The reason, for people.
        reason: Reason,
    },
    /// Where no robot has started it, none is to start it any more.
    DeliveryVoided {
        /// The trace to which the command belongs.
        trace: TraceParent,
        /// Id of the agent.
        agent: AgentId,
        /// Why it is not to be started.
        cause: VoidCause,
    },
    /// A node reported how far it has come at an agent.
    DeliveryReported {
        /// The trace to which the command belongs.
        trace: TraceParent,
        /// Id of the agent.
        agent: AgentId,
        /// Its place in the agent's order of its class.
        seq: DeliverySeq,
        /// The node that serves the agent; none if the shard knows of none.
        node: Option<NodeId>,
        /// When the node took each step that it had not reported before, on the shard's clock.
        steps: Steps,
        /// How far the software says it has come; none if it said nothing new.
        progress: Option<CommandProgress>,
    },
    /// It ended at an agent.
    DeliveryEnded {
        /// The trace to which the command belongs.
        trace: TraceParent,
        /// Id of the agent.
        agent: AgentId,
        /// How it ended.
        outcome: CommandOutcome,
        /// Its place in the agent's order; none if it was never released to the agent.
        seq: Option<DeliverySeq>,
        /// The node that had it; none if no node can have had it.
        node: Option<NodeId>,
        /// When the node took each step that it had not reported before, on the shard's clock.
        steps: Steps,
    },
    /// The shard refused what a node said of its end: it was never released to that agent, or has another place in the
    /// agent's order, or the shard has forgotten it.
    OutcomeRefused {
        /// The trace to which the command belongs, if the shard knows the command.
        trace: TraceParent,
        /// Id of the agent at which it is said to have ended.
        agent: AgentId,
        /// How it ended there, without its result.
        outcome: CommandOutcome,
        /// The refusal.
        why: Box<Refusal>,
    },
}
