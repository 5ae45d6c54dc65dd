//! A certificate after the one that a member has, from an issuer. A member asks for its own: the connection says whose.

use std::sync::Arc;
use std::time::Duration;

use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_trust::Chain;

use super::{Asked, Call};
use crate::directory::Directory;
use crate::net::Class;
use crate::shard::NodeParts;
use crate::shards::Shards;

/// How long an issuer has: it asks the directory, wherever that is.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const RENEW: Call =
    Call::new(FrameKind::Renew, Class::Query, |shards, asked| Box::pin(answer(shards, asked)));

impl NodeParts {
    /// Asks an issuer for a certificate after the one that this node has: its new chain.
    ///
    /// # Errors
    /// Why there is none, as text.
    pub(crate) async fn renew(&self, node: NodeId) -> Result<Chain, String> {
        let answer = self.call(RENEW, node, ShardId::DIRECTORY, &[], PATIENCE).await;
        let answer = answer.map_err(|error| error.to_string())?;
        Chain::from_bytes(&answer).map_err(|error| error.to_string())
    }
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    Directory::new(shards).renew_for(asked.who.node).await.map(|chain| chain.to_bytes())
}
