//! The node itself over gRPC.

use skep_proto::v1;
use skep_proto::v1::node_queries_server::NodeQueries;
use tonic::{Request, Response, Status};

use super::{Grpc, reply};
use crate::service::Nodes;

#[tonic::async_trait]
impl NodeQueries for Grpc<Nodes> {
    async fn status(&self, _request: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusReply>, Status> {
        reply(self.0.status().await)
    }

    async fn clock(&self, request: Request<v1::ClockRequest>) -> Result<Response<v1::ClockReply>, Status> {
        reply(self.0.clock(request.into_inner()).await)
    }
}
