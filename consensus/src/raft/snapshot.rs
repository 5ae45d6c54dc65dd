//! The snapshot that a node keeps of a shard: when another one is made, and how it gets to the disk and back.
//!
//! # Room
//!
//! One that finds no room on the disk, or no descriptor, ends nothing. A snapshot that was to let go of some of the log is given
//! up: the log goes on, and another is made once it [may fit](Room). One of the leader is waited with, since openraft knows no
//! other answer. Whoever waits does so on the shard's own task, and has no helper meanwhile: those are for all shards.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::ids::ShardId;

use super::checked::Checked;
use super::kept::{Replay, until_kept};
use super::room::Room;
use super::types::{SnapshotMeta, encode};
use crate::net::Sending;
use crate::store::disk::{ROOM_CHECK_EVERY, is_shortage};
use crate::store::{Snapshots, Store, StoreError, StoredSnapshot};
use crate::threads::{Errand, Threads};

/// Writes a snapshot whose last entry and meta are given.
pub(super) type Write = dyn Fn(&Snapshots, u64, &Bytes) -> Result<(), StoreError> + Send + Sync;

/// The snapshot of one shard.
#[derive(Clone)]
pub(super) struct OwnSnapshot {
    store: Store,
    threads: Threads,
    shard: ShardId,
    /// What a start would apply again beside it.
    pub(super) replay: Replay,
    /// Whom it is on its way to.
    pub(super) sending: Sending,
    /// One of the leader that was decoded before it is installed.
    pub(super) checked: Checked,
    room: Room,
    /// What a start has read: it is asked for twice, and it is on the disk.
    loaded: Option<StoredSnapshot>,
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
            room: Room::default(),
            loaded: None,
        }
    }

    /// Whether another one is to be made of a state of so many bytes, now that somebody asks.
    pub(super) fn is_due(&self, bytes: u64) -> bool {
        let (store, is_low) = (&self.store, self.store.is_low());
        let has_room = !is_low && !store.is_log_too_large();
        // Another one would replace the one that is on its way to a follower, and drop the log behind it: whenever its
        // connection is cut, all would start over.
        if has_room && (self.sending.is_under_way() || !self.replay.pays_for(bytes)) {
            return false;
        }
        // It would wait for what is missing in the history, with a copy of the state in its hands.
        if !is_low && store.history().is_held_back(self.shard) {
            return false;
        }
        // One that fits lets go of the log that fills the disk.
        (!is_low || store.has_room_for(bytes)) && self.room.may_fit(bytes, store.free_bytes())
    }

    /// See [`until_kept`].
    pub(super) async fn until_kept(&self, next: u64, must: bool) -> io::Result<()> {
        until_kept(&self.store, &self.threads, self.shard, next, must).await
    }

    /// Writes one of about so many bytes; false if there is no room for it.
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

    /// Writes one of about so many bytes, and waits until there is room for it: an error would end the group, and for want of
    /// room none has to. Meanwhile the shard applies nothing: it would be gone with what this replaces.
    pub(super) async fn save(&self, meta: &SnapshotMeta, bytes: u64, write: &Arc<Write>) -> io::Result<()> {
        loop {
            if self.room.may_fit(bytes, self.store.free_bytes()) && self.try_save(meta, bytes, write).await? {
                return Ok(());
            }
            tokio::time::sleep(ROOM_CHECK_EVERY).await;
        }
    }

    /// What there is. At a start it is kept for the second time that it is asked for.
    pub(super) async fn load(&mut self, is_start: bool) -> io::Result<Option<StoredSnapshot>> {
        if let Some(loaded) = self.loaded.take() {
            return Ok(Some(loaded));
        }
        let (store, shard) = (self.store.clone(), self.shard);
        let load = move || store.snapshots().load(shard).map_err(io::Error::other);
        let stored = self.threads.offload(Errand::Snapshots, load).await??;
        self.loaded = stored.clone().filter(|_| is_start);
        Ok(stored)
    }

    /// Whether this is what a start has read, and so is on the disk.
    pub(super) fn is_loaded(&self, meta: &SnapshotMeta, data: &Bytes) -> io::Result<bool> {
        match &self.loaded {
            Some(loaded) => Ok(loaded.meta == encode(meta)? && loaded.data == *data),
            None => Ok(false),
        }
    }

    /// Another one is about to take its place.
    pub(super) fn forget_loaded(&mut self) {
        self.loaded = None;
    }
}
