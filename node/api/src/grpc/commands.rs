//! Commands of operators over gRPC.

use skep_proto::v1;
use skep_proto::v1::command_queries_server::CommandQueries;
use skep_proto::v1::command_requests_server::CommandRequests;
use tonic::{Request, Response, Status};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service::Commands;

#[tonic::async_trait]
impl CommandRequests for Grpc<Commands> {
    async fn send(&self, request: Request<v1::SendCommandRequest>) -> Result<Response<v1::CommandReceipt>, Status> {
        reply(self.0.send(caller(&request), request.into_inner()).await)
    }

    async fn control(
        &self,
        request: Request<v1::ControlCommandRequest>,
    ) -> Result<Response<v1::CommandReceipt>, Status> {
        reply(self.0.control(caller(&request), request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl CommandQueries for Grpc<Commands> {
    async fn show(&self, request: Request<v1::ShowCommandRequest>) -> Result<Response<v1::ShowCommandReply>, Status> {
        reply(self.0.show(caller(&request), request.into_inner()).await)
    }

    async fn list(&self, request: Request<v1::ListCommandsRequest>) -> Result<Response<v1::ListCommandsReply>, Status> {
        reply(self.0.list(caller(&request), request.into_inner()).await)
    }

    type WatchStream = Replies<v1::CommandEvent>;

    async fn watch(&self, request: Request<v1::WatchCommandsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        replies(self.0.watch(caller(&request), request.into_inner()).await)
    }
}
