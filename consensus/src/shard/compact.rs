//! Letting go of a log that takes too much of the disk.
//!
//! openraft makes a snapshot every so many entries and keeps some behind it. Entries differ in size by a factor of a
//! thousand, so that their number bounds nothing: here it is their bytes, and the space that is left.

use std::time::Duration;

use skep_protocol::limits;

use super::Shard;

/// How often the size of the log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Segments below which the log is never too large.
const SEGMENTS_MIN: u64 = 4;
/// Entries kept behind a snapshot for followers that lag a little.
const KEPT: u64 = 128;
/// Entries for which another snapshot is worth its writing.
const ENTRIES_MIN: u64 = 256;

/// Keeps the log within its bytes until the group ends.
pub(super) async fn run(shard: Shard) {
    let store = shard.inner.site.store.clone();
    while shard.metrics().running_state.is_ok() {
        // The segment that is written to and the spare one are always there.
        let allowed = limits::LOG_BYTES_SOFT_MAX.max(SEGMENTS_MIN * shard.inner.site.config.store.segment_bytes);
        if store.is_low() || store.log_bytes() > allowed {
            compact(&shard).await;
        }
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
