//! Topics over gRPC.

use skep_proto::v1;
use skep_proto::v1::topics_server::Topics;
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service;

#[tonic::async_trait]
impl Topics for Grpc<service::Topics> {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishReply>, Status> {
        reply(self.0.publish(request.into_inner()).await)
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishReply>, Status> {
        reply(self.0.publish_stream(caller(&request), request.into_inner()).await)
    }

    type SubscribeStream = Replies<v1::TopicValue>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        replies(self.0.subscribe(caller(&request), request.into_inner()).await)
    }
}
