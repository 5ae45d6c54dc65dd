//! That another process has come under this node's identity. Asked before that one takes this one's place, in
//! `net/twins.rs`: whoever answers lives.

use std::net::SocketAddr;
use std::sync::Arc;

use skep_protocol::frame::FrameKind;

use super::{Asked, Call};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const TWIN: Call =
    Call::new(FrameKind::Twin, Class::Urgent, |shards, asked| Box::pin(answer(shards, asked)));

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let at = std::str::from_utf8(&asked.body).ok().and_then(|at| at.parse::<SocketAddr>().ok());
    shards.parts.peers.note_own_twin(at.ok_or("it does not say where the other process is")?);
    Ok(Vec::new())
}
