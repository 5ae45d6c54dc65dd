//! That a node leads a shard, to everybody who is connected with it.

use std::sync::Arc;

use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;

use super::{Asked, Call};
use crate::net::Class;
use crate::shard::{FromLeader, NodeParts};
use crate::shards::Shards;

pub(super) const LEADS: Call =
    Call::new(FrameKind::Leads, Class::Agents, |shards, asked| Box::pin(answer(shards, asked)));

impl NodeParts {
    /// Tells a peer that this node leads; whether the peer heard.
    pub(crate) async fn tell_lead(&self, node: NodeId, shard: ShardId, hint: &LeaderHint) -> bool {
        let Ok(body) = hint.encode() else { return false };
        self.call(LEADS, node, shard, &body, self.patience()).await.is_ok()
    }
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let (hint, by, shard): (LeaderHint, _, _) = (asked.read()?, asked.who.node, asked.header.shard);
    if hint.leader != Some(by) {
        return Err("nobody says of another that it leads".to_owned());
    }
    if !shards.believes(by, shard) {
        return Err("this node does not know that the sender votes; tell it again later".to_owned());
    }
    let taken = shards.parts.updates.try_send(FromLeader::Leads { shard, by, hint });
    taken.map(|()| Vec::new()).map_err(|_| "this node is busy; tell it again".to_owned())
}
