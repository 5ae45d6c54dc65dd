//! Operators over gRPC.

use skep_proto::v1;
use skep_proto::v1::operator_queries_server::OperatorQueries;
use skep_proto::v1::operator_requests_server::OperatorRequests;
use tonic::{Request, Response, Status};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service::Operators;

#[tonic::async_trait]
impl OperatorRequests for Grpc<Operators> {
    async fn replace_first(
        &self,
        request: Request<v1::ReplaceFirstRequest>,
    ) -> Result<Response<v1::OperatorReceipt>, Status> {
        reply(self.0.replace_first(caller(&request), request.into_inner()).await)
    }

    async fn grant(&self, request: Request<v1::GrantOperatorRequest>) -> Result<Response<v1::OperatorReceipt>, Status> {
        reply(self.0.grant(caller(&request), request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl OperatorQueries for Grpc<Operators> {
    async fn list(
        &self,
        request: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsReply>, Status> {
        reply(self.0.list(caller(&request), request.into_inner()).await)
    }

    async fn place(&self, request: Request<v1::PlaceRequest>) -> Result<Response<v1::PlaceReply>, Status> {
        reply(self.0.place(caller(&request), request.into_inner()).await)
    }

    type WatchStream = Replies<v1::OperatorEvent>;

    async fn watch(&self, request: Request<v1::WatchOperatorsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        replies(self.0.watch(caller(&request), request.into_inner()).await)
    }
}
