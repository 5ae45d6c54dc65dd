//! The directory of a site over gRPC.

use skep_proto::v1;
use skep_proto::v1::site_queries_server::SiteQueries;
use skep_proto::v1::site_requests_server::SiteRequests;
use tonic::{Request, Response, Status};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service::Directory;

#[tonic::async_trait]
impl SiteRequests for Grpc<Directory> {
    async fn propose(&self, request: Request<v1::ProposeRequest>) -> Result<Response<v1::SiteReceipt>, Status> {
        reply(self.0.propose(caller(&request), request.into_inner()).await)
    }

    async fn admit(&self, request: Request<v1::AdmitRequest>) -> Result<Response<v1::AdmitReply>, Status> {
        reply(self.0.admit(request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl SiteQueries for Grpc<Directory> {
    async fn summary(
        &self,
        request: Request<v1::SiteSummaryRequest>,
    ) -> Result<Response<v1::SiteSummaryReply>, Status> {
        reply(self.0.summary(caller(&request), request.into_inner()).await)
    }

    async fn members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersReply>, Status> {
        reply(self.0.members(caller(&request), request.into_inner()).await)
    }

    async fn invitations(
        &self,
        request: Request<v1::ListInvitationsRequest>,
    ) -> Result<Response<v1::ListInvitationsReply>, Status> {
        reply(self.0.invitations(caller(&request), request.into_inner()).await)
    }

    async fn revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsReply>, Status> {
        reply(self.0.revocations(caller(&request), request.into_inner()).await)
    }

    async fn roots(&self, request: Request<v1::ListRootsRequest>) -> Result<Response<v1::ListRootsReply>, Status> {
        reply(self.0.roots(caller(&request), request.into_inner()).await)
    }

    async fn clock(&self, _request: Request<v1::SiteClockRequest>) -> Result<Response<v1::ClockReply>, Status> {
        reply(self.0.clock().await)
    }

    type WatchStream = Replies<v1::SiteEvent>;

    async fn watch(&self, request: Request<v1::WatchSiteRequest>) -> Result<Response<Self::WatchStream>, Status> {
        replies(self.0.watch(caller(&request), request.into_inner()).await)
    }
}
