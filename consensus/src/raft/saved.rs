//! The data of snapshots as openraft hands it on.
//!
//! openraft asks for the snapshot each time that it tries to send it, and applies nothing meanwhile. Most tries end before
//! anything of it is sent: its receiver is down, or does not take it. So openraft is given what the snapshot says of itself, and
//! whoever sends it reads it once somebody takes it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_store::{PartFile, Store};

use crate::threads::{Errand, Threads};

/// The data of a snapshot.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// In memory.
    Here(Bytes),
    /// As it came from a leader: in a file that is to be the snapshot of this node.
    Arrived(Arrived),
    /// In memory, and on the disk of this node, as a start finds it.
    Read(Bytes),
    /// On the disk of this node.
    Saved(Box<Saved>),
}

impl SnapshotData {
    /// All of it.
    ///
    /// # Errors
    /// See [`Saved::load`] and [`Arrived::load`].
    pub(crate) async fn load(&self) -> Result<Bytes, LoadError> {
        match self {
            Self::Here(data) | Self::Read(data) => Ok(data.clone()),
            Self::Arrived(arrived) => arrived.load().await,
            Self::Saved(saved) => saved.load().await,
        }
    }
}

/// Why the data of a snapshot cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// It is gone: whoever asks for the snapshot again gets the one that is there.
    #[error("another snapshot has taken the place of the one that was to be sent")]
    Replaced,
    /// It is damaged, or cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A snapshot that has come whole.
#[derive(Clone)]
pub(crate) struct Arrived {
    threads: Threads,
    file: Arc<PartFile>,
}

impl Arrived {
    pub(crate) fn new(threads: Threads, file: Arc<PartFile>) -> Self {
        Self { threads, file }
    }

    /// Where it is.
    pub(super) fn file(&self) -> &Arc<PartFile> {
        &self.file
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`LoadError::Io`], also if it is not what was announced.
    async fn load(&self) -> Result<Bytes, LoadError> {
        let file = Arc::clone(&self.file);
        let data = self.threads.offload(Errand::Snapshots, move || file.load()).await??;
        let changed = || io::Error::new(io::ErrorKind::InvalidData, "what came of a snapshot has changed on the disk");
        data.ok_or_else(|| changed().into())
    }
}

/// A snapshot on the disk of this node, for as long as no other takes its place.
#[derive(Clone)]
pub(crate) struct Saved {
    store: Store,
    threads: Threads,
    shard: ShardId,
    /// What it says of itself.
    meta: Bytes,
}

impl Saved {
    pub(super) fn new(store: Store, threads: Threads, shard: ShardId, meta: Bytes) -> Self {
        Self { store, threads, shard, meta }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`LoadError::Replaced`] if another one has taken its place; [`LoadError::Io`].
    async fn load(&self) -> Result<Bytes, LoadError> {
        let (store, shard) = (self.store.clone(), self.shard);
        if store.snapshots().meta(shard).as_ref() != Some(&self.meta) {
            return Err(LoadError::Replaced);
        }
        let load = move || store.snapshots().load(shard).map_err(io::Error::other);
        match self.threads.offload(Errand::Snapshots, load).await?? {
            Some(stored) if stored.meta == self.meta => Ok(stored.data),
            Some(_) | None => Err(LoadError::Replaced),
        }
    }
}
