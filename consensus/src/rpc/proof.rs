//! That a quorum voted for a leader, to each member that it sends something. Asked in `raft/network.rs`.

use std::sync::Arc;

use skep_protocol::frame::FrameKind;

use super::{Asked, Call};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const PROOF: Call =
    Call::new(FrameKind::Proof, Class::Urgent, |shards, asked| Box::pin(answer(shards, asked)));

/// Voters have a replica from the first frame of its group on.
async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let Asked { who, header, body, .. } = asked;
    let shard = shards.open(header.shard).await?;
    // Not whom a voter named: one that lies would count for two.
    shard.take_proof(who, &body, |node| shards.is_marked(node)).await.map(|()| Vec::new())
}
