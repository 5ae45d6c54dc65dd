//! Drops log entries when the log takes too much of the disk, snapshots that did not arrive whole, and old history.
//!
//! openraft makes a snapshot after a number of entries, and keeps some entries behind it. Entries differ in size by a
//! factor of a thousand, so their number bounds nothing. The bounds here are the bytes of the log, the free space, and
//! how much a start would apply again. The log purges only what a snapshot covers, and a snapshot covers only what the
//! history holds.

use std::time::Duration;

use super::Shard;
use crate::threads::Errand;

/// Interval between two looks at the size of the log.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries kept behind a snapshot for followers that lag a little.
const KEPT: u64 = 128;
/// The fewest entries for which another snapshot is worth its writing.
const ENTRIES_MIN: u64 = 256;
/// Number of looks between two searches for history that is too old.
const LOOKS_PER_RETAIN: u32 = 30;

/// Keeps the log, and the files of arriving snapshots, within their bounds until the group ends.
pub(super) async fn run(shard: Shard) {
    let store = shard.inner.parts.store.clone();
    let mut looks = 0_u32;
    while shard.metrics().running_state.is_ok() {
        if store.is_low() || store.is_log_too_large() {
            compact(&shard).await;
        } else if shard.inner.replay.is_long() && shard.unfit().is_none() {
            shorten_start(&shard).await;
        }
        // On a disk that is nearly full the history makes way for the log, and for requests that end work.
        let is_low = store.is_low();
        if is_low || looks.is_multiple_of(LOOKS_PER_RETAIN) {
            let (history, id, now) = (store.history().clone(), shard.id(), shard.inner.clock.now());
            let retain = move || {
                history.retain(id, now);
                if is_low {
                    history.give_back(id);
                }
            };
            // A failure is tried again after as many looks.
            let _ = shard.inner.parts.threads.offload(Errand::Files, retain).await;
        }
        looks = looks.wrapping_add(1);
        shard.let_go_of_snapshot().await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has openraft make a snapshot, so that the next start finds less to apply.
async fn shorten_start(shard: &Shard) {
    if let Err(error) = shard.raft().trigger().snapshot().await {
        tracing::debug!(shard = %shard.id(), %error, "the group is ending");
    }
}

/// Has openraft make a snapshot of what is new, or drop what the last one covers; the other one comes with the next
/// look.
async fn compact(shard: &Shard) {
    let metrics = shard.metrics();
    let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let applied = next(metrics.last_applied.map(|id| id.index));
    let covered = next(metrics.snapshot.map(|id| id.index));
    let purged = next(metrics.purged.map(|id| id.index));
    // Followers that lag a little are spared a snapshot, unless the disk is nearly full.
    let kept = if shard.inner.parts.store.is_low() { 0 } else { KEPT };
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
