//! What a node knows of the disk room for a shard's snapshot, once a snapshot found none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest wait before a snapshot that found no room is tried again, though the disk is as full as it was: a
/// descriptor may have been missing, or the quota may have changed. Each further failure doubles it, up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest wait. See [`PAUSE_MIN`].
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A snapshot is tried sooner if it is smaller than the refused one, or the room is larger, by this part (one eighth)
/// of itself: other writes move both to and fro.
const SHARE: u64 = 8;

/// A snapshot that found no room.
#[derive(Clone, Copy, Debug)]
struct Refused {
    bytes: u64,
    /// Bytes that were free at that time.
    free: u64,
    pause: Duration,
    again: Instant,
}

impl Refused {
    /// Whether a snapshot of this many bytes may fit by now.
    fn may_fit(&self, bytes: u64, free: u64) -> bool {
        let part = self.bytes / SHARE;
        let is_smaller = bytes <= self.bytes - part;
        // Room of an unknown size has not grown.
        let has_grown = free > self.free.saturating_add(part);
        is_smaller || has_grown || Instant::now() >= self.again
    }
}

/// Whether to try to write a snapshot: each try costs the making of the snapshot, and the writing of the part that
/// fits. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct SnapshotRoom(Arc<Mutex<Option<Refused>>>);

impl SnapshotRoom {
    fn refused(&self) -> MutexGuard<'_, Option<Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a snapshot of this many bytes may fit into `free` bytes ([`u64::MAX`] if the size is unknown).
    pub(super) fn may_fit(&self, bytes: u64, free: u64) -> bool {
        bytes <= free && self.refused().is_none_or(|refused| refused.may_fit(bytes, free))
    }

    /// Notes that a snapshot of this many bytes did not fit, and how many bytes are free without it. Returns whether
    /// this is news.
    pub(super) fn was_lacking(&self, bytes: u64, free: u64) -> bool {
        let mut refused = self.refused();
        let pause = refused.map_or(PAUSE_MIN, |before| (before.pause * 2).min(PAUSE_MAX));
        refused.replace(Refused { bytes, free, pause, again: Instant::now() + pause }).is_none()
    }

    /// Notes that a snapshot found room.
    pub(super) fn was_there(&self) {
        self.refused().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 80;
    const FREE: u64 = 1_000;

    #[tokio::test(start_paused = true)]
    async fn what_did_not_fit_is_tried_again_once_there_is_more_room_or_less_of_it_or_after_a_pause() {
        let room = SnapshotRoom::default();
        assert!(room.may_fit(BYTES, FREE) && !room.may_fit(FREE + 1, FREE), "it cannot be larger than what is free");
        assert!(room.was_lacking(BYTES, FREE));
        assert!(!room.may_fit(BYTES, FREE + 10) && !room.may_fit(BYTES - 9, FREE), "that comes and goes");
        assert!(room.may_fit(BYTES, FREE + 11), "the room has grown");
        assert!(room.may_fit(BYTES - 10, FREE), "the snapshot has shrunk");
        tokio::time::advance(PAUSE_MIN).await;
        assert!(room.may_fit(BYTES, FREE), "it is unknown what was missing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_up_to_a_bound_and_begins_anew_once_there_was_room() {
        let room = SnapshotRoom::default();
        for n in 0..20 {
            assert_eq!(room.was_lacking(BYTES, u64::MAX), n == 0, "it is said once");
            assert!(!room.may_fit(BYTES, u64::MAX), "room of unknown size has not grown");
        }
        tokio::time::advance(PAUSE_MAX - Duration::from_millis(1)).await;
        assert!(!room.may_fit(BYTES, u64::MAX));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(room.may_fit(BYTES, u64::MAX));
        room.was_there();
        assert!(room.was_lacking(BYTES, u64::MAX));
        tokio::time::advance(PAUSE_MIN).await;
        assert!(room.may_fit(BYTES, u64::MAX));
    }
}
