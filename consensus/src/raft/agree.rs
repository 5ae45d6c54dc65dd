//! Makes the log and the snapshot of a shard agree, as a crash has left them, before openraft sees them.
//!
//! A snapshot of the leader is durable before this node removes anything that it replaces, and the removal is written
//! without a sync of its own. So a crash can leave a snapshot beside a log that ends before it, or beside a log with
//! entries that the leader never had. The snapshot then replaces the log up to its last entry. What the log holds
//! beyond that entry is kept only if the log holds that entry too. openraft compares terms first: it would refuse the
//! one log and build on the other.

use skep_protocol::ids::ShardId;
use skep_store::{LogPoint, Store, StoreError};

use super::log_store::point;
use super::types::{SnapshotMeta, decode};

/// Drops what the snapshot of a shard replaces.
///
/// # Errors
/// [`StoreError`] if the snapshot is damaged, or does not hold what the log purged.
pub(crate) fn bring_to_agree(store: &Store, shard: ShardId) -> Result<(), StoreError> {
    let snapshots = store.snapshots();
    // At nearly every start the two agree: then it is enough that openraft reads the snapshot whole.
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
        let why = format!("the log has purged entries up to {}, and no snapshot holds them", purged.index);
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

/// Replaces the log by the snapshot. The order is safe: whatever a crash leaves of the log is replaced at the next
/// start.
fn replace(store: &Store, shard: ShardId, snapshot: LogPoint) -> Result<(), StoreError> {
    let held = store.point_at(shard, snapshot.index);
    tracing::warn!(
        %shard, snapshot = snapshot.index, ?held,
        "a crash came before the log dropped what the snapshot replaces: this node drops it"
    );
    if held.is_some() {
        store.truncate(shard, snapshot.index)?;
    }
    store.purge(shard, snapshot)
}

/// The last entry in a snapshot, from its meta.
fn last_entry(shard: ShardId, meta: &[u8]) -> Result<Option<LogPoint>, StoreError> {
    let damaged = |e: std::io::Error| StoreError::CorruptLog { shard, why: e.to_string() };
    let meta: SnapshotMeta = decode("snapshot meta", meta).map_err(damaged)?;
    Ok(meta.last_log_id.as_ref().map(point))
}
