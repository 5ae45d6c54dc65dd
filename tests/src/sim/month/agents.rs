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
    /// It says that it lives.
    KeepsAlive { session: u64 },
    /// It would go, for the so manyth time.
    Goes { session: u64, time: u32 },
    /// It has done a task.
    HasDone { session: u64, claim: Claim },
    /// It would begin a command.
    Begins { session: u64, command: CommandId },
    /// It has done one.
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
    /// Tasks and commands in its hands.
    pub(super) tasks: BTreeSet<TaskId>,
    pub(super) commands: BTreeSet<CommandId>,
}
