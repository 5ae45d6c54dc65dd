//! Operators: who may send commands, and where what they sign holds.

use skep_proto::convert::{genesis, signed_to_proto};
use skep_proto::v1;
use skep_proto::v1::operator_commands_client::OperatorCommandsClient;
use skep_proto::v1::operator_queries_client::OperatorQueriesClient;
use skep_protocol::authority::{SignedGrant, SignedReplacement};

use super::calls::{command, query, read_options};
use super::{Client, Read};
use crate::error::ClientError;

impl Client {
    command!(
        /// Has another key be the shard's first operator, as the present one signed.
        replace_first(replacement: &SignedReplacement) -> v1::OperatorReceipt,
        OperatorCommandsClient.replace_first,
        ReplaceFirstRequest { replacement: Some(signed_to_proto(replacement)) }
    );
    command!(
        /// Grants an operator what an admin signed.
        grant_operator(grant: &SignedGrant) -> v1::OperatorReceipt,
        OperatorCommandsClient.grant,
        GrantOperatorRequest { grant: Some(signed_to_proto(grant)) }
    );

    query!(
        /// A page of those who may send commands, after one of them; from the first on if that is empty.
        operators(after: &str, limit: u32, read: Read) -> v1::ListOperatorsReply,
        OperatorQueriesClient.operators,
        |shard| v1::ListOperatorsRequest {
            read: read_options(shard, read),
            after: after.to_owned(),
            limit: Some(limit),
        }
    );

    query!(
        /// Where statements hold, as the node says, whatever shard the client is for: for whoever looks, and not for whoever signs.
        place_as_told(read: Read) -> v1::PlaceReply,
        OperatorQueriesClient.place,
        |shard| v1::PlaceRequest { read: read_options(shard, read) }
    );

    /// Where statements hold that are signed for the shard, and who its first operator is.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::AnotherShard`] if it is not the one that the client is for.
    pub async fn shard_place(&self, read: Read) -> Result<v1::PlaceReply, ClientError> {
        let reply = self.place_as_told(read).await?;
        let told = genesis(&reply.genesis).map_err(|error| ClientError::Endpoint(error.to_string()))?;
        match self.genesis() {
            Some(wanted) if wanted != told => Err(ClientError::AnotherShard { wanted, told }),
            Some(_) | None => Ok(reply),
        }
    }
}
