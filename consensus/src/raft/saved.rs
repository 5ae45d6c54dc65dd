//! The data of snapshots as openraft passes them on.
//!
//! openraft asks for the snapshot each time it tries to send one, and applies nothing meanwhile. Most tries end before
//! the first byte is sent: the receiver is down, or does not take the snapshot. So openraft gets only the meta of the
//! snapshot, and the sender reads the data once the receiver takes it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::ids::ShardId;
use skep_store::{PartFile, Store};

use crate::threads::{Errand, Threads};

/// The data of a snapshot, by where it is.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// The data is in memory.
    Here(Bytes),
    /// The data came from a leader, in a file that is to become the snapshot of this node.
    Arrived(Arrived),
    /// The data is in memory and on the disk of this node, as a start finds it.
    Read(Bytes),
    /// The data is on the disk of this node.
    Saved(Box<Saved>),
}

impl SnapshotData {
    /// The whole data.
    ///
    /// # Errors
    /// [`LoadError`]: see [`Saved::load`] and [`Arrived::load`].
    pub(crate) async fn load(&self) -> Result<Bytes, LoadError> {
        match self {
            Self::Here(data) | Self::Read(data) => Ok(data.clone()),
            Self::Arrived(arrived) => arrived.load().await,
            Self::Saved(saved) => saved.load().await,
        }
    }
}

/// Why the data of a snapshot is not available.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Another snapshot has replaced the file: a caller that asks for the snapshot again gets the new one.
    #[error("another snapshot has taken the place of the one that was to be sent")]
    Replaced,
    /// The file is damaged, or cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A snapshot that has arrived whole.
#[derive(Clone)]
pub(crate) struct Arrived {
    threads: Threads,
    file: Arc<PartFile>,
}

impl Arrived {
    pub(crate) fn new(threads: Threads, file: Arc<PartFile>) -> Self {
        Self { threads, file }
    }

    /// The file with the data.
    pub(super) fn file(&self) -> &Arc<PartFile> {
        &self.file
    }

    /// Reads the data.
    ///
    /// # Errors
    /// [`LoadError::Io`], also if the data is not what the leader announced.
    async fn load(&self) -> Result<Bytes, LoadError> {
        let file = Arc::clone(&self.file);
        let data = self.threads.offload(Errand::Snapshots, move || file.load()).await??;
        let changed = || io::Error::new(io::ErrorKind::InvalidData, "the file of an arriving snapshot has changed");
        data.ok_or_else(|| changed().into())
    }
}

/// A snapshot on the disk of this node, until another takes its place.
#[derive(Clone)]
pub(crate) struct Saved {
    store: Store,
    threads: Threads,
    shard: ShardId,
    /// The meta of the snapshot, encoded.
    meta: Bytes,
}

impl Saved {
    pub(super) fn new(store: Store, threads: Threads, shard: ShardId, meta: Bytes) -> Self {
        Self { store, threads, shard, meta }
    }

    /// Reads the data.
    ///
    /// # Errors
    /// [`LoadError::Replaced`] if another snapshot has taken its place; [`LoadError::Io`] if the file is damaged or
    /// cannot be read.
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
