//! What operators send.

use std::time::Duration;

use skep_protocol::authority::{OperatorKey, SignedGrant};
use skep_protocol::codec::{CodecError, Encoded};
use skep_protocol::command::{SignedCommand, SignedOrder};
use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;
use skep_protocol::v1;
use skep_protocol::v1::operator_commands_client::OperatorCommandsClient;
use skep_protocol::v1::operator_queries_client::OperatorQueriesClient;
use tonic::Streaming;

use crate::call::send;
use crate::client::{Client, Read, command, definite, query, read_options};
use crate::error::ClientError;

/// How soon a command that has not ended is looked at again, at first and at last.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(200);

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
        |shard| v1::ShowCommandRequest {
            read: read_options(shard, read),
            command_id: id.as_bytes().to_vec(),
            wait: None,
        }
    );
    query!(
        /// One command, once it has ended at all of its agents, or as it is after a while: as long as this, or less.
        command_within(id: CommandId, wait_ms: u64) -> v1::ShowCommandReply,
        OperatorQueriesClient.show,
        |shard| v1::ShowCommandRequest {
            read: read_options(shard, Read::Linearizable),
            command_id: id.as_bytes().to_vec(),
            wait: Some(skep_protocol::convert::duration_to_proto(wait_ms)),
        }
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

    /// One command, once it has ended at all of its agents. Waits for as long as that takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn command_end(&self, id: CommandId) -> Result<v1::CommandView, ClientError> {
        let wait_ms = u64::try_from((self.patience().each / 2).as_millis()).unwrap_or(u64::MAX);
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            let asked = tokio::time::Instant::now();
            let command = self.command_within(id, wait_ms).await?.command.unwrap_or_default();
            if command.open == 0 {
                return Ok(command);
            }
            // A leader at which too many wait answers at once.
            pause = if asked.elapsed() > LOOK_AGAIN_MAX { LOOK_AGAIN_MIN } else { (pause * 2).min(LOOK_AGAIN_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    /// What happens to commands from an index on, then as the node's replica learns it; of one command, or of all. 0: only
    /// what is new.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses; begin again after the last index seen.
    pub async fn watch_commands(
        &self,
        command: Option<CommandId>,
        agent: &str,
        from_index: u64,
    ) -> Result<Streaming<v1::CommandEvent>, ClientError> {
        let command_id = command.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let request =
            v1::WatchCommandsRequest { shard: self.shard().0, from_index, command_id, agent: agent.to_owned() };
        let mut service = OperatorQueriesClient::new(self.service());
        service.watch(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }

    /// The deadline of something that is to be done within a time from now.
    ///
    /// # Errors
    /// [`ClientError`] if the shard's clock cannot be told.
    pub async fn deadline_in(&self, valid_ms: u64) -> Result<LogInstant, ClientError> {
        Ok(self.shard_clock().await?.plus_ms(valid_ms))
    }
}
