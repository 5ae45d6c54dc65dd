//! The shard: its voters, its leader, and its status at the node.

use std::time::Duration;

use skep_proto::v1;
use skep_proto::v1::shard_queries_client::ShardQueriesClient;
use skep_proto::v1::shard_requests_client::ShardRequestsClient;
use skep_protocol::ids::Genesis;
use skep_protocol::operator::SignedFirst;
use tonic::Streaming;

use super::Client;
use super::calls::{definite, query};
use crate::call::{Asked, Patience, send};
use crate::error::ClientError;

macro_rules! member_change {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty, $method:ident, $message:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`]: not done, or unknown; then the shard's status shows which.
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let message = ($message)(self.shard().0);
            let service = ShardRequestsClient::new(self.service());
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            send(Asked::First(stringify!($name)), &message, MEMBER_PATIENCE, sending).await
        }
    };
}

/// A new voter catches up before it counts. The shard's status settles what is in doubt after that.
const MEMBER_PATIENCE: Patience =
    Patience { total: Duration::from_secs(90), each: Duration::from_secs(90), in_doubt: Duration::ZERO };

impl Client {
    query!(
        /// Returns the shard as the node sees it.
        shard_status() -> v1::ShardStatusReply,
        ShardQueriesClient.status, |shard| v1::ShardStatusRequest { shard }
    );

    member_change!(
        /// Creates the shard with these voters. `genesis` is random. `first` is the statement of the shard's first
        /// operator; a shard without one never has operators.
        init_shard(voters: Vec<String>, genesis: Genesis, first: Option<&SignedFirst>) -> v1::InitShardReply,
        init, |shard| v1::InitShardRequest {
            shard,
            voters: voters.clone(),
            genesis: genesis.as_bytes().to_vec(),
            operator: first.map(skep_proto::convert::signed_to_proto),
        }
    );
    member_change!(
        /// Hands the lead to a voter; if `to` is empty, to the most advanced of the other voters.
        transfer_leader(to: &str) -> v1::TransferLeaderReply,
        transfer_leader, |shard| v1::TransferLeaderRequest { shard, to: to.to_owned() }
    );
    member_change!(
        /// Makes a node a voter under its present incarnation.
        add_voter(node: &str) -> v1::ChangeVotersReply,
        add_voter, |shard| v1::AddVoterRequest { shard, node: node.to_owned() }
    );
    member_change!(
        /// Takes a voter out of the shard.
        remove_voter(node: &str) -> v1::ChangeVotersReply,
        remove_voter, |shard| v1::RemoveVoterRequest { shard, node: node.to_owned() }
    );

    /// Streams everything that the node's replica holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dump_shard(&self) -> Result<Streaming<v1::ShardDumpReply>, ClientError> {
        let request = v1::ShardDumpRequest { shard: self.shard().0 };
        let mut service = ShardQueriesClient::new(self.service());
        service.dump(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }
}
