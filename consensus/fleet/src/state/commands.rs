//! What clients and nodes ask of the commands.

use skep_protocol::command::CommandView;
use skep_protocol::ids::{CommandId, NodeId};
use skep_protocol::text::AgentId;

use super::FleetState;
use crate::tables::commands::Commands;

impl FleetState {
    /// A command with all its deliveries; none if the shard does not hold it.
    pub fn command(&self, id: &CommandId) -> Option<CommandView> {
        self.command_page(id, None, u64::MAX).map(|(view, _)| view)
    }

    /// The same with about so many bytes of its deliveries, from after an agent on, and one at least. Also the agent
    /// after which the next ones follow; none if there are no more.
    pub fn command_page(
        &self,
        id: &CommandId,
        after: Option<&AgentId>,
        bytes_max: u64,
    ) -> Option<(CommandView, Option<AgentId>)> {
        self.commands.page(id, after, bytes_max)
    }

    /// Whether a command has not ended at all of its agents.
    pub fn is_command_open(&self, id: &CommandId) -> bool {
        self.commands.record(id).is_some_and(|record| !record.is_ended())
    }

    /// Commands in order of their ids, from after one, without their deliveries.
    pub fn commands_after(&self, after: Option<CommandId>) -> impl Iterator<Item = CommandView> + '_ {
        self.commands.after(after)
    }

    /// Whether a node may report the outcome of a command at an agent: only the node that may have the command knows
    /// it.
    pub fn may_report(&self, command: CommandId, agent: &AgentId, node: NodeId) -> bool {
        self.commands.may_report(command, agent, node)
    }

    pub(crate) fn commands(&self) -> &Commands {
        &self.commands
    }
}
