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
use crate::client::{Client, Read, read_options};
use crate::error::ClientError;

fn encoded(value: &impl Encoded) -> Result<Vec<u8>, ClientError> {
    value.encode().map_err(|error: CodecError| ClientError::Endpoint(error.to_string()))
}

macro_rules! operation {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty, $method:ident,
     $message:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`]: not done, or unknown.
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let meta = self.meta().await?;
            let id = uuid::Uuid::from_slice(&meta.request_id).unwrap_or_default().to_string();
            let message = v1::$message { meta: Some(meta), $($field: $value),* };
            let service = OperatorCommandsClient::new(self.service());
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            let result = send(&id, &message, self.patience(), sending).await;
            self.mind_clock(&result);
            result
        }
    };
}

macro_rules! question {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty, $method:ident, $message:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`].
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let max = skep_protocol::limits::API_MESSAGE_BYTES_MAX;
            let message = ($message)(self.shard().0);
            let service = OperatorQueriesClient::new(self.service()).max_decoding_message_size(max);
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            send("", &message, self.patience(), sending).await
        }
    };
}

impl Client {
    operation!(
        /// Makes the shard's first operator known: it may do everything.
        install_operator(site: &str, operator: OperatorKey, name: &str) -> v1::OperatorReceipt,
        install,
        InstallOperatorRequest { site: site.to_owned(), operator: operator.to_string(), name: name.to_owned() }
    );
    operation!(
        /// Grants an operator what an admin signed.
        grant_operator(grant: &SignedGrant) -> v1::OperatorReceipt,
        grant,
        GrantOperatorRequest {
            grant: encoded(&grant.grant)?,
            by: grant.by.to_string(),
            signature: grant.signature.to_bytes().to_vec(),
        }
    );
    operation!(
        /// Sends a command. The same command sent again, under whatever request, is the same command.
        send_command(command: &SignedCommand) -> v1::CommandReceipt,
        send,
        SendCommandRequest { command: encoded(&command.command)?, signature: command.signature.to_bytes().to_vec() }
    );
    operation!(
        /// Cancels, aborts or resolves a command.
        order_command(order: &SignedOrder) -> v1::CommandReceipt,
        order,
        OrderCommandRequest { order: encoded(&order.order)?, signature: order.signature.to_bytes().to_vec() }
    );
    question!(
        /// One command, and how it stands at each agent.
        command(id: CommandId, read: Read) -> v1::ShowCommandReply,
        show,
        |shard| v1::ShowCommandRequest { read: read_options(shard, read), command_id: id.as_bytes().to_vec() }
    );
    question!(
        /// A page of commands, after an id.
        commands(after: &[u8], limit: u32, read: Read) -> v1::ListCommandsReply,
        list,
        |shard| v1::ListCommandsRequest { read: read_options(shard, read), after: after.to_vec(), limit }
    );
    question!(
        /// Who may send commands.
        operators(read: Read) -> v1::ListOperatorsReply,
        operators,
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
