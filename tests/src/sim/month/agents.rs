//! Agents that are here, and what they and customers do next.

use std::collections::BTreeSet;

use skep_protocol::ids::{CommandId, TaskId};
use skep_protocol::task::Claim;
use skep_protocol::text::AgentId;

/// What agents and customers do.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// An agent comes.
    Comes,
    /// An agent says that it lives.
    KeepsAlive { session: u64 },
    /// An agent would like to go. `time`: how often it has wanted to.
    Goes { session: u64, time: u32 },
    /// An agent has done a task.
    HasDone { session: u64, claim: Claim },
    /// An agent would like to begin a command.
    Begins { session: u64, command: CommandId },
    /// An agent has done a command.
    HasObeyed { session: u64, command: CommandId },
    /// A customer orders a task.
    Orders,
    /// An operator sends a command.
    Commands,
}

/// An agent that is here.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) agent: AgentId,
    pub(super) node: usize,
    pub(super) attached: bool,
    pub(super) going: bool,
    pub(super) dies: bool,
    /// Tasks that the agent has claimed; the next field has its commands.
    pub(super) tasks: BTreeSet<TaskId>,
    pub(super) commands: BTreeSet<CommandId>,
}
