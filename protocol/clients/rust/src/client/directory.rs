//! The directory of a site: who belongs to it, who is invited, and who is out.

use skep_proto::v1;
use skep_proto::v1::propose_request::Statement;
use skep_proto::v1::site_queries_client::SiteQueriesClient;
use skep_proto::v1::site_requests_client::SiteRequestsClient;
use skep_protocol::ids::ShardId;
use tonic::Streaming;

use super::calls::{definite, query};
use super::{Client, Read};
use crate::call::{Asked, Patience, send};
use crate::error::ClientError;
use crate::request::RequestName;
use crate::service::Service;

/// A client of the directory of the node's site, which is shard 0. No other call reaches that shard, and no call of
/// this one reaches another. What it proposes is sealed already, so that it signs nothing.
#[derive(Clone)]
pub struct Directory {
    client: Client,
}

impl Client {
    /// The directory of the node's site, whatever shard the client is for.
    pub fn directory(&self) -> Directory {
        Directory { client: self.clone() }
    }
}

/// Whether an answer may be old.
fn is_stale(read: Read) -> bool {
    read == Read::Stale
}

impl Directory {
    fn service(&self) -> Service {
        self.client.service()
    }

    fn patience(&self) -> Patience {
        self.client.patience()
    }

    fn shard(&self) -> ShardId {
        ShardId::DIRECTORY
    }

    /// Has the directory take in a statement, as it was sealed.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown.
    pub async fn propose(&self, statement: Statement) -> Result<v1::SiteReceipt, ClientError> {
        let first_sent = self.clock().await?.clock;
        let meta = v1::RequestMeta {
            request_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
            shard: ShardId::DIRECTORY.0,
            first_sent,
            deadline: 0,
        };
        let name = RequestName::of(&meta).to_string();
        let message = v1::ProposeRequest { meta: Some(meta), statement: Some(statement) };
        let service = SiteRequestsClient::new(self.service());
        let sending = |request| {
            let mut service = service.clone();
            async move { service.propose(request).await }
        };
        send(Asked::First(&name), &message, self.patience(), sending).await
    }

    query!(
        /// Has the node, which must be an issuer, answer the request to join of a machine without a network. The same
        /// request again gets the same member, so that nothing is in doubt.
        admit(request: &[u8]) -> v1::AdmitReply,
        SiteRequestsClient.admit, |_| v1::AdmitRequest { request: request.to_vec() }
    );
    query!(
        /// The log clock of the directory.
        clock() -> v1::ClockReply,
        SiteQueriesClient.clock, |_| v1::SiteClockRequest {}
    );
    query!(
        /// How the site stands.
        summary(read: Read) -> v1::SiteSummaryReply,
        SiteQueriesClient.summary, |_| v1::SiteSummaryRequest { stale: is_stale(read) }
    );
    query!(
        /// A page of members, after one of them; from the first on if that is empty.
        members(after: &str, limit: u32, read: Read) -> v1::ListMembersReply,
        SiteQueriesClient.members,
        |_| v1::ListMembersRequest { stale: is_stale(read), after: after.to_owned(), limit: Some(limit) }
    );
    query!(
        /// A page of open invitations, after one of them; from the first on if that is empty.
        invitations(after: &str, limit: u32, read: Read) -> v1::ListInvitationsReply,
        SiteQueriesClient.invitations,
        |_| v1::ListInvitationsRequest { stale: is_stale(read), after: after.to_owned(), limit: Some(limit) }
    );
    query!(
        /// A page of revocations, after so many of them.
        revocations(after: u64, limit: u32) -> v1::ListRevocationsReply,
        SiteQueriesClient.revocations,
        |_| v1::ListRevocationsRequest { stale: false, after, limit: Some(limit) }
    );
    query!(
        /// A page of root documents, after this version of them.
        roots(after: u64) -> v1::ListRootsReply,
        SiteQueriesClient.roots, |_| v1::ListRootsRequest { stale: false, after }
    );

    /// What changes in the directory from an index on, then as the node's replica learns it. None: only what is new.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses; begin again after the last index seen.
    pub async fn watch(&self, from_index: Option<u64>) -> Result<Streaming<v1::SiteEvent>, ClientError> {
        let mut service = SiteQueriesClient::new(self.service());
        let watched = service.watch(v1::WatchSiteRequest { from_index }).await;
        watched.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }
}
