//! What agents hold, from the leader of a shard to the nodes that serve them.

use std::sync::Arc;

use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::FrameKind;
use skep_protocol::heartbeat::ClaimsUpdate;
use skep_protocol::ids::{NodeId, ShardId};

use super::{Asked, Call};
use crate::net::Class;
use crate::shard::NodeParts;
use crate::shards::Shards;

pub(super) const CLAIMS: Call = Call {
    admits: of_leader,
    ..Call::new(FrameKind::Claims, Class::Agents, |shards, asked| Box::pin(answer(shards, asked)))
};

impl NodeParts {
    /// Whether a node took note of what its agents hold: another one, or this one.
    pub(crate) async fn tell_claims(&self, node: NodeId, shard: ShardId, update: ClaimsUpdate) -> bool {
        if node == self.node {
            return self.note(shard, update).await;
        }
        let Ok(body) = update.encode() else { return false };
        match self.call(CLAIMS, node, shard, &body, self.patience()).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%shard, %node, %error, "a node could not be told what its agents hold");
                false
            }
        }
    }
}

fn of_leader(shards: &Shards, node: NodeId, shard: ShardId) -> Result<(), String> {
    if shards.leads(node, shard) {
        return Ok(());
    }
    Err("the sender is not known to lead the shard; tell it again later".to_owned())
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let noted = shards.parts.note(asked.header.shard, asked.read()?).await;
    if noted { Ok(Vec::new()) } else { Err("not every agent could be told; tell it again".to_owned()) }
}
