//! Agents: their records, and the stream over which an agent is attached.

use skep_proto::v1;
use skep_proto::v1::agent_queries_client::AgentQueriesClient;
use skep_proto::v1::agent_requests_client::AgentRequestsClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::calls::{query, read_options, request};
use super::{Client, Read};
use crate::error::ClientError;

impl Client {
    request!(
        /// Makes an agent known, or changes its role.
        register_agent(agent: &str, role: v1::Role) -> v1::AgentReceipt,
        AgentRequestsClient.register, RegisterAgentRequest { agent: agent.to_owned(), role: Some(role) }
    );
    request!(
        /// Forgets an agent that holds nothing.
        remove_agent(agent: &str) -> v1::AgentReceipt,
        AgentRequestsClient.remove, RemoveAgentRequest { agent: agent.to_owned() }
    );

    query!(
        /// Returns a page of agents, after an id.
        agents(after: &str, limit: u32, read: Read) -> v1::ListAgentsReply,
        AgentQueriesClient.list,
        |shard| v1::ListAgentsRequest { read: read_options(shard, read), after: after.to_owned(), limit: Some(limit) }
    );

    pub(crate) async fn open_attach(
        &self,
        messages: ReceiverStream<v1::AgentMessage>,
    ) -> Result<Streaming<v1::NodeMessage>, Status> {
        AgentRequestsClient::new(self.service()).attach(messages).await.map(tonic::Response::into_inner)
    }
}
