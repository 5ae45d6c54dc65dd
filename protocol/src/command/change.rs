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
    /// It was accepted.
    Accepted {
        /// The command.
        signed: Arc<SignedCommand>,
        /// For how many agents.
        agents: u32,
    },
    /// It was released to some of them.
    Released {
        /// The trace that it belongs to.
        trace: TraceParent,
        /// To whom, and where it stands in their order.
        to: Vec<(AgentId, DeliverySeq)>,
    },
    /// An operator wants it cancelled, aborted, resolved or discarded.
    Controlled {
        /// The trace that it belongs to.
        trace: TraceParent,
        /// What is wanted.
        what: ControlKind,
        /// By whom.
        by: OperatorKey,
        /// Why.
        reason: Reason,
    },
    /// It is not to be started any more where it was not.
    DeliveryVoided {
        /// The trace that it belongs to.
        trace: TraceParent,
        /// Where.
        agent: AgentId,
        /// Why.
        cause: VoidCause,
    },
    /// It goes on at an agent, and has come so far.
    DeliveryReported {
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
        /// The trace that it belongs to.
        trace: TraceParent,
        /// Where.
        agent: AgentId,
        /// How.
        outcome: CommandOutcome,
        /// Its place in the agent's order; none if it was never released to it.
        seq: Option<DeliverySeq>,
        /// The agent's node; none if no node can have had it.
        node: Option<NodeId>,
        /// When its node took each step that was not told of before.
        steps: Steps,
    },
    /// What a node said of its end was refused: it was never released to that agent, or in another place of its order, or
    /// the shard has forgotten it.
    OutcomeRefused {
        /// The trace that it belongs to, if the command is known.
        trace: TraceParent,
        /// Where it is said to have ended.
        agent: AgentId,
        /// How, without what came of it.
        outcome: CommandOutcome,
        /// Why it was refused.
        why: Box<Refusal>,
    },
}
