//! What openraft says from node to node: entries, votes, and who is to lead. Asked by openraft, in `raft/network.rs`.

use std::sync::Arc;

use skep_protocol::frame::FrameKind;

use super::{Asked, Call};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const APPEND: Call = of_group(FrameKind::Append, Class::Append);
pub(super) const VOTE: Call = of_group(FrameKind::Vote, Class::Urgent);
pub(super) const PRE_VOTE: Call = of_group(FrameKind::PreVote, Class::Urgent);
pub(super) const TRANSFER_LEADER: Call = of_group(FrameKind::TransferLeader, Class::Urgent);
pub(super) const FORGOT: Call = of_group(FrameKind::Forgot, Class::Urgent);

const fn of_group(kind: FrameKind, class: Class) -> Call {
    Call::new(kind, class, |shards, asked| Box::pin(answer(shards, asked)))
}

/// Voters have a replica from the first frame of its group on.
async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let Asked { who, header, body, .. } = asked;
    shards.open(header.shard).await?.raft_frame(who, header, &body).await
}
