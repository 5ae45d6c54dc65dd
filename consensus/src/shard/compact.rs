//! Letting go of a log that takes too much of the disk, and of snapshots that do not come whole.
//!
//! openraft makes a snapshot every so many entries and keeps some behind it. Entries differ in size by a factor of a
//! thousand, so that their number bounds nothing: here it is their bytes, and the space that is left.

use std::time::Duration;

use super::Shard;

/// How often the size of the log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries kept behind a snapshot for followers that lag a little.
const KEPT: u64 = 128;
/// Entries for which another snapshot is worth its writing.
const ENTRIES_MIN: u64 = 256;

/// Keeps the log and what came of snapshots within their bounds until the group ends.
pub(super) async fn run(shard: Shard) {
    let store = shard.inner.site.store.clone();
    while shard.metrics().running_state.is_ok() {
        if store.is_low() || store.is_log_too_large() {
            compact(&shard).await;
        }
        shard.let_go_of_snapshot();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has a snapshot made of what is new, or drops what the last one covers; the other one comes with the next look.
async fn compact(shard: &Shard) {
    let metrics = shard.metrics();
    let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let applied = next(metrics.last_applied.map(|id| id.index));
    let covered = next(metrics.snapshot.map(|id| id.index));
    let purged = next(metrics.purged.map(|id| id.index));
    // Followers that lag a little are spared a snapshot, unless every byte counts.
    let kept = if shard.inner.site.store.is_low() { 0 } else { KEPT };
    let asked = if covered > purged + kept {
        shard.raft().trigger().purge_log(covered - kept - 1).await
    } else if applied >= covered + ENTRIES_MIN {
        shard.raft().trigger().snapshot().await
    } else {
        Ok(())
    };
    if let Err(error) = asked {
        tracing::debug!(shard = %shard.id(), %error, "the group is ending");
    }
}
