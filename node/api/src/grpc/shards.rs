//! Shards over gRPC.

use skep_proto::v1;
use skep_proto::v1::shard_queries_server::ShardQueries;
use skep_proto::v1::shard_requests_server::ShardRequests;
use tonic::{Request, Response, Status};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service::Shards;

#[tonic::async_trait]
impl ShardRequests for Grpc<Shards> {
    async fn init(&self, request: Request<v1::InitShardRequest>) -> Result<Response<v1::InitShardReply>, Status> {
        reply(self.0.init(request.into_inner()).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        reply(self.0.transfer_leader(request.into_inner()).await)
    }

    async fn add_voter(
        &self,
        request: Request<v1::AddVoterRequest>,
    ) -> Result<Response<v1::ChangeVotersReply>, Status> {
        reply(self.0.add_voter(request.into_inner()).await)
    }

    async fn remove_voter(
        &self,
        request: Request<v1::RemoveVoterRequest>,
    ) -> Result<Response<v1::ChangeVotersReply>, Status> {
        reply(self.0.remove_voter(request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl ShardQueries for Grpc<Shards> {
    async fn status(&self, request: Request<v1::ShardStatusRequest>) -> Result<Response<v1::ShardStatusReply>, Status> {
        reply(self.0.status(request.into_inner()).await)
    }

    type DumpStream = Replies<v1::ShardDumpReply>;

    async fn dump(&self, request: Request<v1::ShardDumpRequest>) -> Result<Response<Self::DumpStream>, Status> {
        replies(self.0.dump(caller(&request), request.into_inner()).await)
    }
}
