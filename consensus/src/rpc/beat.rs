//! That a leader is there, to each member of its group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::frame::{FrameKind, RaftAddress};
use skep_protocol::ids::{NodeId, RaftId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};

use super::{Asked, Call};
use crate::net::Class;
use crate::raft::types::{Vote, encode};
use crate::shard::NodeParts;
use crate::shards::Shards;

pub(super) const BEAT: Call =
    Call::new(FrameKind::Beat, Class::Urgent, |shards, asked| Box::pin(answer(shards, asked)));

impl NodeParts {
    /// Tells a member that this node leads, by the vote of its term; what the member answers, if it does.
    pub(crate) async fn tell_beat(&self, (node, to): (NodeId, RaftId), shard: ShardId, vote: &Vote) -> Option<Bytes> {
        let encoded = encode(vote).ok()?;
        let mut body = Vec::with_capacity(RaftAddress::BYTES + encoded.len());
        RaftAddress { from: self.raft_id(), to }.write(&mut body);
        body.extend_from_slice(&encoded);
        let call = self.call(BEAT, node, shard, &body, self.patience());
        let answer = if is_on(Mutant::HeartbeatsCutOff) {
            tokio::time::timeout(Duration::from_millis(self.config.heartbeat_ms), call).await.ok()?
        } else {
            call.await
        };
        answer.ok()
    }
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    shards.replica(asked.header.shard)?.answer_beat(asked.who, asked.header, &asked.body)
}
