//! What operators send.

use skep_protocol::authority::{OperatorKey, SignedGrant};
use skep_protocol::codec::{CodecError, Encoded};
use skep_protocol::command::{SignedCommand, SignedOrder};
use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;
use skep_protocol::v1;
use skep_protocol::v1::operator_commands_client::OperatorCommandsClient;
use skep_protocol::v1::operator_queries_client::OperatorQueriesClient;

use crate::call::send;
use crate::client::{Client, Read, command, query, read_options};
use crate::error::ClientError;

fn encoded(value: &impl Encoded) -> Result<Vec<u8>, ClientError> {
    value.encode().map_err(|error: CodecError| ClientError::Endpoint(error.to_string()))
}

impl Client {
    command!(
        /// Makes the shard's first operator known: it may do everything.
        install_operator(site: &str, operator: OperatorKey, name: &str) -> v1::OperatorReceipt,
        OperatorCommandsClient.install,
        InstallOperatorRequest { site: site.to_owned(), operator: operator.to_string(), name: name.to_owned() }
    );
    command!(
        /// Grants an operator what an admin signed.
        grant_operator(grant: &SignedGrant) -> v1::OperatorReceipt,
        OperatorCommandsClient.grant,
        GrantOperatorRequest {
            grant: encoded(&grant.grant)?,
            by: grant.by.to_string(),
            signature: grant.signature.to_bytes().to_vec(),
        }
    );
    command!(
        /// Sends a command. The same command sent again, under whatever request, is the same command.
        send_command(command: &SignedCommand) -> v1::CommandReceipt,
        OperatorCommandsClient.send,
        SendCommandRequest { command: encoded(&command.command)?, signature: command.signature.to_bytes().to_vec() }
    );
    command!(
        /// Cancels, aborts or resolves a command.
        order_command(order: &SignedOrder) -> v1::CommandReceipt,
        OperatorCommandsClient.order,
        OrderCommandRequest { order: encoded(&order.order)?, signature: order.signature.to_bytes().to_vec() }
    );
    query!(
        /// One command, and how it stands at each agent.
        command(id: CommandId, read: Read) -> v1::ShowCommandReply,
        OperatorQueriesClient.show,
        |shard| v1::ShowCommandRequest { read: read_options(shard, read), command_id: id.as_bytes().to_vec() }
    );
    query!(
        /// A page of commands, after an id.
        commands(after: &[u8], limit: u32, read: Read) -> v1::ListCommandsReply,
        OperatorQueriesClient.list,
        |shard| v1::ListCommandsRequest { read: read_options(shard, read), after: after.to_vec(), limit }
    );
    query!(
        /// Who may send commands.
        operators(read: Read) -> v1::ListOperatorsReply,
        OperatorQueriesClient.operators,
        |shard| v1::ListOperatorsRequest { read: read_options(shard, read) }
    );

    /// The deadline of something that is to be done within a time from now.
    ///
    /// # Errors
    /// [`ClientError`] if the shard's clock cannot be told.
    pub async fn deadline_in(&self, valid_ms: u64) -> Result<LogInstant, ClientError> {
        Ok(self.shard_clock().await?.plus_ms(valid_ms))
    }
}
