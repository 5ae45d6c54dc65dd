//! What there is for the agents of a node, from the leader of their shard.

use std::sync::Arc;
use std::time::Duration;

use skep_protocol::attempt::AttemptTarget;
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::pull::{Pull, PullAnswer, PullFailure, Pulled};

use super::{Asked, Call, written};
use crate::net::{AnswerRoom, Class};
use crate::shard::NodeParts;
use crate::shards::Shards;

/// Its answer takes room by itself, once there is something to tell.
pub(super) const PULL: Call =
    Call::new(FrameKind::Pull, Class::Agents, |shards, asked| Box::pin(answer(shards, asked)));

fn nobody() -> PullFailure {
    PullFailure::NotLeader(LeaderHint::default())
}

/// Asks a leader, here or at another node, what there is for this node's agents.
pub(super) async fn attempt(
    shards: &Shards,
    shard: ShardId,
    target: AttemptTarget,
    pull: Pull,
) -> Result<Pulled, PullFailure> {
    let parts = &shards.parts;
    match target {
        AttemptTarget::Local => {
            shards.shard(shard).ok_or_else(nobody)?.pull(parts.node, &pull, &AnswerRoom::default()).await
        }
        AttemptTarget::Node(node) => ask(parts, node, shard, &pull).await,
    }
}

async fn ask(parts: &NodeParts, node: NodeId, shard: ShardId, pull: &Pull) -> Result<Pulled, PullFailure> {
    let body = pull.encode().map_err(|_| nobody())?;
    // So long the other side may have nothing to tell.
    let waits = Duration::from_millis(pull.wait_ms.into());
    let answer = parts.call(PULL, node, shard, &body, parts.round_patience() + waits).await;
    PullAnswer::decode(&answer.map_err(|_| nobody())?).map_err(|_| nobody())?.result
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let pull: Pull = asked.read()?;
    let result = match shards.shard(asked.header.shard) {
        Some(shard) => shard.pull(asked.who.node, &pull, &asked.room).await,
        None => Err(PullFailure::NotLeader(shards.hearsay(asked.header.shard))),
    };
    written(&PullAnswer { result })
}
