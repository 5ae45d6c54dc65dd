//! Commands: what an operator has robots do.

use std::time::Duration;

use skep_proto::convert::signed_to_proto;
use skep_proto::v1;
use skep_proto::v1::command_queries_client::CommandQueriesClient;
use skep_proto::v1::command_requests_client::CommandRequestsClient;
use skep_protocol::command::{SignedCommand, SignedControl};
use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;
use tonic::Streaming;

use super::calls::{definite, query, read_options, request};
use super::{Client, Read};
use crate::error::ClientError;

/// The shortest and longest wait before the client reads a command again that has not ended.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(200);

impl Client {
    request!(
        /// Sends a command. A command sent again under another request id is still the same command.
        send_command(command: &SignedCommand) -> v1::CommandReceipt,
        CommandRequestsClient.send,
        SendCommandRequest { command: Some(signed_to_proto(command)) }
    );
    request!(
        /// Cancels, aborts or resolves a command.
        control_command(control: &SignedControl) -> v1::CommandReceipt,
        CommandRequestsClient.control,
        ControlCommandRequest { control: Some(signed_to_proto(control)) }
    );

    query!(
        /// Returns one command, with its state at as many agents as one message holds: those after `after_agent`, or
        /// from the first on if that is empty.
        command_page(id: CommandId, after_agent: &str, read: Read) -> v1::ShowCommandReply,
        CommandQueriesClient.show,
        |shard| v1::ShowCommandRequest {
            read: read_options(shard, read),
            command_id: id.as_bytes().to_vec(),
            wait: None,
            after_agent: after_agent.to_owned(),
        }
    );
    query!(
        /// Returns one command once it has ended at all of its agents, or as it is after this wait or less, with its
        /// state at as many agents as one message holds.
        command_within(id: CommandId, wait_ms: u64) -> v1::ShowCommandReply,
        CommandQueriesClient.show,
        |shard| v1::ShowCommandRequest {
            read: read_options(shard, Read::Linearizable),
            command_id: id.as_bytes().to_vec(),
            wait: Some(skep_proto::convert::duration_to_proto(wait_ms)),
            after_agent: String::new(),
        }
    );
    query!(
        /// Returns a page of commands, after an id.
        commands(after: &[u8], limit: u32, read: Read) -> v1::ListCommandsReply,
        CommandQueriesClient.list,
        |shard| v1::ListCommandsRequest { read: read_options(shard, read), after: after.to_vec(), limit: Some(limit) }
    );

    /// Returns one command, with its state at each agent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn command(&self, id: CommandId, read: Read) -> Result<v1::ShowCommandReply, ClientError> {
        let first = self.command_page(id, "", read).await?;
        self.whole(id, read, first).await
    }

    /// Completes a command whose first page of agents is there with its state at every other agent.
    async fn whole(
        &self,
        id: CommandId,
        read: Read,
        mut first: v1::ShowCommandReply,
    ) -> Result<v1::ShowCommandReply, ClientError> {
        while !first.next.is_empty() {
            let page = self.command_page(id, &first.next, read).await?;
            let more = page.command.unwrap_or_default().deliveries;
            if let Some(command) = &mut first.command {
                command.deliveries.extend(more);
            }
            first.next = page.next;
        }
        Ok(first)
    }

    /// Returns one command once it has ended at all of its agents. Waits for as long as that takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn command_end(&self, id: CommandId) -> Result<v1::CommandView, ClientError> {
        let wait_ms = u64::try_from((self.patience().each / 2).as_millis()).unwrap_or(u64::MAX);
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            let asked = tokio::time::Instant::now();
            let reply = self.command_within(id, wait_ms).await?;
            if reply.command.as_ref().is_none_or(|command| command.open == 0) {
                let whole = self.whole(id, Read::Linearizable, reply).await?;
                return Ok(whole.command.unwrap_or_default());
            }
            // A leader with too many waiting calls answers at once.
            pause = if asked.elapsed() > LOOK_AGAIN_MAX { LOOK_AGAIN_MIN } else { (pause * 2).min(LOOK_AGAIN_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Streams what happens to commands from an index on, then each event as the node's replica learns it; of one
    /// command, or of all. Without an index: only new events.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses; begin again after the last index seen.
    pub async fn watch_commands(
        &self,
        command: Option<CommandId>,
        agent: &str,
        from_index: Option<u64>,
    ) -> Result<Streaming<v1::CommandEvent>, ClientError> {
        let command_id = command.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let request =
            v1::WatchCommandsRequest { shard: self.shard().0, from_index, command_id, agent: agent.to_owned() };
        let mut service = CommandQueriesClient::new(self.service());
        service.watch(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }

    /// The deadline for something that is to be done within a time from now, in milliseconds.
    ///
    /// # Errors
    /// [`ClientError`] if the client cannot learn the shard's clock.
    pub async fn deadline_in(&self, valid_ms: u64) -> Result<LogInstant, ClientError> {
        Ok(self.shard_clock().await?.plus_ms(valid_ms))
    }
}
