//! Agents over gRPC.

use skep_proto::v1;
use skep_proto::v1::agent_queries_server::AgentQueries;
use skep_proto::v1::agent_requests_server::AgentRequests;
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service::Agents;

#[tonic::async_trait]
impl AgentRequests for Grpc<Agents> {
    type AttachStream = Replies<v1::NodeMessage>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        replies(self.0.attach(caller(&request), request.into_inner()).await)
    }

    async fn register(&self, request: Request<v1::RegisterAgentRequest>) -> Result<Response<v1::AgentReceipt>, Status> {
        reply(self.0.register(caller(&request), request.into_inner()).await)
    }

    async fn remove(&self, request: Request<v1::RemoveAgentRequest>) -> Result<Response<v1::AgentReceipt>, Status> {
        reply(self.0.remove(caller(&request), request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl AgentQueries for Grpc<Agents> {
    async fn list(&self, request: Request<v1::ListAgentsRequest>) -> Result<Response<v1::ListAgentsReply>, Status> {
        reply(self.0.list(caller(&request), request.into_inner()).await)
    }
}
