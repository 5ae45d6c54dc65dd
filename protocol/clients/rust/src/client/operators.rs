//! Operators: who may send commands, and where their statements hold.

use skep_proto::convert::{place, signed_to_proto};
use skep_proto::v1;
use skep_proto::v1::operator_queries_client::OperatorQueriesClient;
use skep_proto::v1::operator_requests_client::OperatorRequestsClient;
use skep_protocol::ids::{Genesis, ShardId};
use skep_protocol::operator::{SignedGrant, SignedReplacement};
use tonic::Streaming;

use super::calls::{definite, query, read_options, request};
use super::{Client, Read};
use crate::error::ClientError;

impl Client {
    request!(
        /// Replaces the shard's first operator by another key, as the present one signed.
        replace_first(replacement: &SignedReplacement) -> v1::OperatorReceipt,
        OperatorRequestsClient.replace_first,
        ReplaceFirstRequest { replacement: Some(signed_to_proto(replacement)) }
    );
    request!(
        /// Grants an operator what an admin signed.
        grant_operator(grant: &SignedGrant) -> v1::OperatorReceipt,
        OperatorRequestsClient.grant,
        GrantOperatorRequest { grant: Some(signed_to_proto(grant)) }
    );

    query!(
        /// Returns a page of the operators, after one of them; from the first on if that is empty.
        operators(after: &str, limit: u32, read: Read) -> v1::ListOperatorsReply,
        OperatorQueriesClient.list,
        |shard| v1::ListOperatorsRequest {
            read: read_options(shard, read),
            after: after.to_owned(),
            limit: Some(limit),
        }
    );

    /// Streams the changes of operators from an index on, then each as the node's replica learns it. Without an index:
    /// only new changes.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses; begin again after the last index seen.
    pub async fn watch_operators(&self, from_index: Option<u64>) -> Result<Streaming<v1::OperatorEvent>, ClientError> {
        let request = v1::WatchOperatorsRequest { shard: self.shard().0, from_index };
        let mut service = OperatorQueriesClient::new(self.service());
        service.watch(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }

    query!(
        /// Returns where statements hold, as the node says, whatever shard the client is for. This is for display: do
        /// not sign for it.
        place_as_told(read: Read) -> v1::PlaceReply,
        OperatorQueriesClient.place,
        |shard| v1::PlaceRequest { read: read_options(shard, read) }
    );

    /// Returns where statements for the shard hold, and its first operator.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::AnotherShard`] or [`ClientError::AnotherNumber`] if the node names another shard
    /// than the client is for.
    pub async fn shard_place(&self, read: Read) -> Result<v1::PlaceReply, ClientError> {
        let reply = self.place_as_told(read).await?;
        check_place(&reply, self.shard(), self.genesis())?;
        Ok(reply)
    }
}

/// Refuses a place of another shard than this one, or of another genesis if that is known.
fn check_place(reply: &v1::PlaceReply, shard: ShardId, genesis: Option<Genesis>) -> Result<(), ClientError> {
    let told = place(reply).map_err(|error| ClientError::Endpoint(error.to_string()))?;
    // Nothing of another number is remembered: a lying node would make the key sign for that number.
    if told.shard != shard {
        return Err(ClientError::AnotherNumber { wanted: shard, told: told.shard });
    }
    match genesis {
        Some(wanted) if wanted != told.genesis => Err(ClientError::AnotherShard { wanted, told: told.genesis }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::code::Code;

    use super::*;

    #[test]
    fn where_statements_of_another_shard_hold_is_not_taken_for_this_one() {
        let genesis = |n: u8| Genesis::from_bytes([n; 16]);
        let reply = v1::PlaceReply { site: "hall".to_owned(), shard: 1, genesis: vec![6; 16], ..Default::default() };
        let at = |shard: u32, genesis: Option<Genesis>| check_place(&reply, ShardId(shard), genesis);
        assert_eq!((at(1, None), at(1, Some(genesis(6)))), (Ok(()), Ok(())));
        let another = ClientError::AnotherNumber { wanted: ShardId(2), told: ShardId(1) };
        assert_eq!((at(2, None), at(2, Some(genesis(6)))), (Err(another.clone()), Err(another.clone())));
        assert_eq!(another.code(), Some(Code::AnotherShard));
        let another = ClientError::AnotherShard { wanted: genesis(7), told: genesis(6) };
        assert_eq!(at(1, Some(genesis(7))), Err(another));
    }
}
