//! Where members are that may vote. Asked by whoever was let in, in `net/members.rs`.

use std::sync::Arc;

use skep_protocol::frame::FrameKind;

use super::{Asked, Call, written};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const ADDRESSES: Call =
    Call::new(FrameKind::Addresses, Class::Query, |shards, asked| Box::pin(answer(shards, asked)));

async fn answer(shards: Arc<Shards>, _: Asked) -> Result<Vec<u8>, String> {
    written(&shards.parts.peers.addresses_of_voters())
}
