//! The log and the snapshot of a shard, as a crash has left them, made to agree before openraft sees them.
//!
//! A snapshot of the leader is durable before anything that it replaces goes, and what goes is written without a sync of its
//! own. So a crash can leave a snapshot beside a log that ends before it, or that holds entries which the leader never had:
//! the snapshot then stands for the log up to its last entry, and what the log holds beyond that follows only if it holds that
//! entry too. openraft compares terms first, and would refuse the one and build on the other.

use skep_protocol::ids::ShardId;
use skep_store::{LogPoint, Store, StoreError};

use super::log_store::point;
use super::types::{SnapshotMeta, decode};

/// Drops what the snapshot of a shard replaces.
///
/// # Errors
/// [`StoreError`] if the snapshot is damaged, or does not hold what the log let go of.
pub(crate) fn bring_to_agree(store: &Store, shard: ShardId) -> Result<(), StoreError> {
    let snapshots = store.snapshots();
    // At a start nearly always so: then it is enough that openraft reads it whole.
    let peeked = snapshots.peek(shard).and_then(|meta| last_entry(shard, &meta).ok()).flatten();
    if peeked.is_some_and(|snapshot| do_agree(store, shard, snapshot)) {
        return Ok(());
    }
    let snapshot = match snapshots.load(shard)? {
        Some(stored) => last_entry(shard, &stored.meta)?,
        None => None,
    };
    let (purged, _) = store.ends(shard);
    if let Some(purged) = purged.filter(|purged| Some(purged.index) > snapshot.map(|snapshot| snapshot.index)) {
        let why = format!("entries up to {} were let go of, and no snapshot holds them", purged.index);
        return Err(StoreError::CorruptLog { shard, why });
    }
    match snapshot {
        Some(snapshot) if !do_agree(store, shard, snapshot) => replace(store, shard, snapshot),
        _ => Ok(()),
    }
}

/// Whether the log goes on from the last entry of a snapshot, or holds it.
fn do_agree(store: &Store, shard: ShardId, snapshot: LogPoint) -> bool {
    let (purged, _) = store.ends(shard);
    match store.point_at(shard, snapshot.index) {
        Some(held) => held == snapshot,
        None => purged == Some(snapshot),
    }
}

/// Lets the snapshot stand for the log. The order is safe: whatever of it a crash leaves is replaced once more.
fn replace(store: &Store, shard: ShardId, snapshot: LogPoint) -> Result<(), StoreError> {
    let held = store.point_at(shard, snapshot.index);
    tracing::warn!(
        %shard, snapshot = snapshot.index, ?held,
        "the snapshot became durable before the log let go of what it replaces: that is done now"
    );
    if held.is_some() {
        store.truncate(shard, snapshot.index)?;
    }
    store.purge(shard, snapshot)
}

/// The last entry in a snapshot, as its meta says.
fn last_entry(shard: ShardId, meta: &[u8]) -> Result<Option<LogPoint>, StoreError> {
    let damaged = |e: std::io::Error| StoreError::CorruptLog { shard, why: e.to_string() };
    let meta: SnapshotMeta = decode("snapshot meta", meta).map_err(damaged)?;
    Ok(meta.last_log_id.as_ref().map(point))
}
