//! The snapshot that a node keeps of a shard: when the node makes another one, and how the node writes and reads it.
//!
//! # Room
//!
//! A snapshot that finds no room on the disk, or no descriptor, ends nothing. The node gives up a snapshot that it made
//! so that the log could drop entries: the log goes on, and the node makes another once it [may fit](SnapshotRoom). A
//! snapshot of the leader waits for room, since openraft knows no other answer. That wait is on the shard's own task,
//! and keeps no helper thread busy: the helpers are for all shards.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_store::disk::{ROOM_CHECK_EVERY, is_shortage};
use skep_store::{Snapshots, Store, StoreError};

use super::checked::Checked;
use super::kept::{Replay, until_kept};
use super::room::SnapshotRoom;
use super::saved::{Saved, SnapshotData};
use super::types::{SnapshotMeta, encode};
use crate::net::Sending;
use crate::threads::{Errand, Threads};

/// Writes a snapshot with this last entry and this meta.
pub(super) type Write = dyn Fn(&Snapshots, u64, &Bytes) -> Result<(), StoreError> + Send + Sync;

/// The snapshot of one shard.
#[derive(Clone)]
pub(super) struct OwnSnapshot {
    store: Store,
    threads: Threads,
    shard: ShardId,
    /// What a start would apply again after this snapshot.
    pub(super) replay: Replay,
    /// The members that this node is sending the snapshot to.
    pub(super) sending: Sending,
    /// A snapshot of the leader that was decoded before its installation.
    pub(super) checked: Checked,
    room: SnapshotRoom,
}

impl OwnSnapshot {
    pub(super) fn new(store: Store, threads: Threads, shard: ShardId) -> Self {
        Self {
            store,
            threads,
            shard,
            replay: Replay::default(),
            sending: Sending::default(),
            checked: Checked::default(),
            room: SnapshotRoom::default(),
        }
    }

    /// Whether the node is to make another snapshot of a state of this many bytes, when openraft asks.
    pub(super) fn is_due(&self, bytes: u64) -> bool {
        let (store, is_low) = (&self.store, self.store.is_low());
        let has_room = !is_low && !store.is_log_too_large();
        // A new snapshot would replace the one that is on its way to a follower, and drop the log behind it: each cut
        // of the connection would start the transfer over.
        if has_room && (self.sending.is_under_way() || !self.replay.pays_for(bytes)) {
            return false;
        }
        // The snapshot would wait for the missing history and hold a copy of the state meanwhile.
        if !is_low && store.history().is_held_back(self.shard) {
            return false;
        }
        // A snapshot that fits lets the log drop the entries that fill the disk.
        (!is_low || store.has_room_for(bytes)) && self.room.may_fit(bytes, store.free_bytes())
    }

    /// See [`until_kept`].
    pub(super) async fn until_kept(&self, next: u64, must: bool) -> io::Result<()> {
        until_kept(&self.store, &self.threads, self.shard, next, must).await
    }

    /// Writes a snapshot of about this many bytes; false if there is no room for it.
    pub(super) async fn try_save(&self, meta: &SnapshotMeta, bytes: u64, write: &Arc<Write>) -> io::Result<bool> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let meta = Bytes::from(encode(meta)?);
        let (store, shard, write) = (self.store.clone(), self.shard, Arc::clone(write));
        let save = move || match write(store.snapshots(), index, &meta) {
            Ok(()) => {
                store.history().covered_by_snapshot(shard, index + 1);
                Ok(Ok(()))
            }
            Err(StoreError::Io { path, source }) if is_shortage(&source) => {
                Ok(Err((path, source, store.snapshots().free_bytes())))
            }
            Err(error) => Err(io::Error::other(error)),
        };
        match self.threads.offload(Errand::Snapshots, save).await?? {
            Ok(()) => {
                self.room.was_there();
                Ok(true)
            }
            Err((path, error, free)) => {
                if self.room.was_lacking(bytes, free) {
                    let path = path.display();
                    tracing::warn!(
                        shard = %self.shard, %path, %error, bytes, free,
                        "no room for a snapshot: one is written once there is some"
                    );
                }
                Ok(false)
            }
        }
    }

    /// Writes a snapshot of about this many bytes, and waits until there is room for it: an error would end the group,
    /// and want of room is no reason for that. The shard applies nothing meanwhile: what it applied would be gone with
    /// what this snapshot replaces.
    pub(super) async fn save(&self, meta: &SnapshotMeta, bytes: u64, write: &Arc<Write>) -> io::Result<()> {
        loop {
            if self.room.may_fit(bytes, self.store.free_bytes()) && self.try_save(meta, bytes, write).await? {
                return Ok(());
            }
            tokio::time::sleep(ROOM_CHECK_EVERY).await;
        }
    }

    /// The snapshot with its meta. At a start, which installs it, the data is read whole; later the data is still to be
    /// read.
    pub(super) async fn current(&self, is_start: bool) -> io::Result<Option<(Bytes, SnapshotData)>> {
        let (store, shard) = (self.store.clone(), self.shard);
        if let Some(meta) = store.snapshots().meta(shard).filter(|_| !is_start) {
            return Ok(Some(self.saved(meta)));
        }
        let load = move || store.snapshots().load(shard).map_err(io::Error::other);
        let stored = self.threads.offload(Errand::Snapshots, load).await??;
        Ok(stored.map(|stored| match is_start {
            true => (stored.meta, SnapshotData::Read(stored.data)),
            // A slice of the read bytes would keep all of them in memory.
            false => self.saved(Bytes::copy_from_slice(&stored.meta)),
        }))
    }

    fn saved(&self, meta: Bytes) -> (Bytes, SnapshotData) {
        let saved = Saved::new(self.store.clone(), self.threads.clone(), self.shard, meta.clone());
        (meta, SnapshotData::Saved(Box::new(saved)))
    }
}
