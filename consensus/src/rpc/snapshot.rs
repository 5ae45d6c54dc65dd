//! Snapshots of a leader: that there is one, its chunks, and its end. Asked by openraft, in `net/snapshots.rs`.

use std::sync::Arc;

use skep_protocol::frame::FrameKind;

use super::{Asked, Call};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const HEAD: Call =
    Call::new(FrameKind::SnapshotHead, Class::Snapshot, |shards, asked| Box::pin(begin(shards, asked)));
pub(super) const CHUNK: Call =
    Call::new(FrameKind::SnapshotChunk, Class::Snapshot, |shards, asked| Box::pin(take(shards, asked)));
pub(super) const INSTALL: Call =
    Call::new(FrameKind::SnapshotInstall, Class::Snapshot, |shards, asked| Box::pin(install(shards, asked)));

async fn begin(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    shards.open(asked.header.shard).await?.begin_snapshot(asked.who, &asked.body).await
}

async fn take(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    shards.replica(asked.header.shard)?.take_chunk(asked.who, &asked.body).await
}

async fn install(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    shards.replica(asked.header.shard)?.install_snapshot(asked.who, &asked.body).await
}
