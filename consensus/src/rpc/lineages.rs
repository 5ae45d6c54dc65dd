//! Which shards two nodes have replicas of. Asked by whoever is connected or comes to know what it has, in
//! `net/strays.rs`.

use std::sync::Arc;

use skep_protocol::frame::{FrameKind, Lineages};
use skep_protocol::limits;

use super::{Asked, Call, written};
use crate::net::Class;
use crate::shard::Shard;
use crate::shards::Shards;

pub(super) const LINEAGES: Call =
    Call::new(FrameKind::Lineages, Class::Query, |shards, asked| Box::pin(answer(shards, asked)));

/// Says which shards this node has replicas of, to one that says the same of itself.
async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    // Who says nothing of itself is answered, too.
    if let Ok(said) = asked.read::<Lineages>() {
        shards.parts.peers.note_shards(asked.who.node, &said.shards);
    }
    let shards = shards.all();
    let shards = shards.iter().filter_map(Shard::lineage_in_log).take(limits::HELLO_SHARDS_MAX).collect();
    written(&Lineages { shards })
}
