//! What a snapshot waits for, and when it is worth making.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_store::Store;
use tokio::time::Instant;

use crate::threads::{Errand, Threads};

/// Interval between two looks whether the history can be written.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The longest wait for the history on a disk that is nearly full, and for a caller that cannot wait longer.
const LAST_RESORT_AFTER: Duration = Duration::from_secs(10);

/// Has the history written, and waits until the effects of all entries before an index are durable in it: after the
/// snapshot that follows, the log drops those entries. The wait lasts as long as it takes, while the shard refuses new
/// work. It is bounded when the disk is nearly full, since the log then has to go, and when the caller `must` go on.
pub(super) async fn until_kept(
    store: &Store,
    threads: &Threads,
    shard: ShardId,
    next: u64,
    must: bool,
) -> io::Result<()> {
    if is_on(Mutant::HistoryNotAwaited) {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        if store.history().reaches(shard, next) {
            return Ok(());
        }
        if store.history().can_reach(shard, next) {
            let history = store.history().clone();
            // A write that fails is tried again; a part of the history may have been found damaged meanwhile.
            let _ = threads.offload(Errand::Files, move || history.persist()).await?;
            if store.history().reaches(shard, next) {
                return Ok(());
            }
        }
        if (must || store.is_low()) && begun.elapsed() >= LAST_RESORT_AFTER {
            store.history().let_go(shard, next);
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Bytes of the entries behind the last snapshot, which a start reads and applies again, and bytes of that snapshot.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay(Arc<Bytes>);

#[derive(Debug, Default)]
struct Bytes {
    behind: AtomicU64,
    snapshot: AtomicU64,
}

impl Replay {
    /// Counts an applied entry of this many bytes.
    pub(super) fn applied(&self, bytes: usize) {
        self.0.behind.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the entries behind the last snapshot.
    pub(super) fn behind(&self) -> u64 {
        self.0.behind.load(Ordering::Relaxed)
    }

    /// Notes a new snapshot of `snapshot` bytes that covers `behind` bytes of entries.
    pub(super) fn covered(&self, behind: u64, snapshot: usize) {
        // The task that applies entries only adds to the count meanwhile.
        self.0.behind.fetch_sub(behind.min(self.behind()), Ordering::Relaxed);
        self.0.snapshot.store(snapshot as u64, Ordering::Relaxed);
    }

    /// Whether a snapshot of a state of this many bytes is worth its writing, when openraft asks for one: openraft asks
    /// after a fixed number of entries.
    pub(super) fn pays_for(&self, state_bytes: u64) -> bool {
        is_paid_for(self.behind(), state_bytes)
    }

    /// Whether to ask for another snapshot, however few the entries are: a start would apply more bytes than a snapshot
    /// takes.
    pub(crate) fn is_long(&self) -> bool {
        self.behind() > limits::REPLAY_BYTES_SOFT_MAX.max(self.0.snapshot.load(Ordering::Relaxed))
    }
}

/// Whether at least as many bytes were logged since the last snapshot as the next one writes, or as a start should read
/// at most. A small snapshot costs nothing.
fn is_paid_for(logged: u64, state_bytes: u64) -> bool {
    state_bytes <= limits::SNAPSHOT_BYTES_CHEAP || logged >= state_bytes.min(limits::SNAPSHOT_LOG_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_snapshot_is_due_once_a_start_would_read_more_than_it_takes() {
        let replay = Replay::default();
        let limit = limits::REPLAY_BYTES_SOFT_MAX as usize;
        replay.applied(limit);
        assert!(!replay.is_long());
        replay.applied(1);
        assert!(replay.is_long());
        let behind = replay.behind();
        replay.applied(7);
        replay.covered(behind, 3 * limit);
        assert_eq!(replay.behind(), 7, "what came while it was made is not in it");
        replay.applied(2 * limit);
        assert!(!replay.is_long(), "a large state is not written for a small log");
        replay.applied(limit);
        assert!(replay.is_long());
    }

    #[test]
    fn snapshots_write_no_more_than_the_log_does_unless_they_are_small() {
        const MIB: u64 = 1024 * 1024;
        assert!(is_paid_for(0, limits::SNAPSHOT_BYTES_CHEAP), "a small one is made as often as asked for");
        let steady = |state_bytes: u64, entry_bytes: u64| {
            let (mut logged, mut all_logged, mut written) = (0, 0, 0);
            // openraft asks after a number of entries, and again only after as many more.
            for _ in 0..10_000 {
                logged += 100 * entry_bytes;
                all_logged += 100 * entry_bytes;
                if is_paid_for(logged, state_bytes) {
                    (logged, written) = (0, written + state_bytes);
                }
                assert!(logged < limits::SNAPSHOT_LOG_BYTES_MAX.max(100 * entry_bytes), "the log is not kept for ever");
            }
            (written, all_logged)
        };
        for state_bytes in [8 * MIB, 60 * MIB] {
            for entry_bytes in [100, 10_000, MIB] {
                let (written, all_logged) = steady(state_bytes, entry_bytes);
                assert!(written <= all_logged, "{written} bytes of snapshots for {all_logged} of log");
            }
        }
        let (written, all_logged) = steady(512 * MIB, 10_000);
        assert!(written <= 8 * all_logged, "{written} bytes of snapshots for {all_logged} of log");
    }
}
