//! The node itself.

use skep_proto::v1;
use skep_proto::v1::node_queries_client::NodeQueriesClient;

use super::Client;
use super::calls::query;
use crate::error::ClientError;

impl Client {
    query!(
        /// Returns the node's status as it sees itself.
        node_status() -> v1::NodeStatusReply,
        NodeQueriesClient.status, |_| v1::NodeStatusRequest {}
    );
    query!(
        /// Returns the shard's log clock.
        clock() -> v1::ClockReply,
        NodeQueriesClient.clock, |shard| v1::ClockRequest { shard }
    );
}
