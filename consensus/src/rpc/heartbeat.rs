//! What a node's agents want, and the renewal of their leases, on the way to the leader of their shard.

use std::sync::{Arc, PoisonError};

use skep_protocol::attempt::AttemptTarget;
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::FrameKind;
use skep_protocol::heartbeat::{Heartbeat, HeartbeatAnswer, HeartbeatFailure, HeartbeatReply};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;

use super::{Asked, Call, written};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const HEARTBEAT: Call =
    Call::new(FrameKind::Heartbeat, Class::Agents, |shards, asked| Box::pin(answer(shards, asked)));

fn nobody() -> HeartbeatFailure {
    HeartbeatFailure::NotLeader(LeaderHint::default())
}

/// Hands a heartbeat to the orchestrator of a shard, here or at another node.
pub(super) async fn attempt(
    shards: &Shards,
    shard: ShardId,
    target: AttemptTarget,
    heartbeat: Heartbeat,
) -> Result<HeartbeatReply, HeartbeatFailure> {
    match target {
        AttemptTarget::Local => shards.shard(shard).ok_or_else(nobody)?.heartbeat(shards.parts.node, heartbeat).await,
        AttemptTarget::Node(node) => ask(shards, node, shard, &heartbeat).await,
    }
}

async fn ask(
    shards: &Shards,
    node: NodeId,
    shard: ShardId,
    heartbeat: &Heartbeat,
) -> Result<HeartbeatReply, HeartbeatFailure> {
    let body = heartbeat.encode().map_err(|_| HeartbeatFailure::Overloaded)?;
    let answer = shards.parts.call(HEARTBEAT, node, shard, &body, shards.parts.round_patience()).await;
    let result = HeartbeatAnswer::decode(&answer.map_err(|_| nobody())?).map_err(|_| nobody())?.result;
    if result.is_ok() && shards.believes(node, shard) {
        shards.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, node);
    }
    result
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let heartbeat: Heartbeat = asked.read()?;
    let result = match shards.shard(asked.header.shard) {
        Some(shard) => shard.heartbeat(asked.who.node, heartbeat).await,
        None => Err(HeartbeatFailure::NotLeader(shards.hearsay(asked.header.shard))),
    };
    written(&HeartbeatAnswer { result })
}
