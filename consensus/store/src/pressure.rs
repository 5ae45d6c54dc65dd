//! How much room the store finds on its disk.

use std::sync::atomic::Ordering;

use skep_protocol::pressure::DiskPressure;
use tokio::sync::watch;

use super::{Store, lock};

impl Store {
    /// How full the disk is.
    pub fn pressure(&self) -> DiskPressure {
        *self.shared.pressure.borrow()
    }

    /// Follows how full the disk is.
    pub(crate) fn pressures(&self) -> watch::Receiver<DiskPressure> {
        self.shared.pressure.subscribe()
    }

    /// A text for people: what is known of the room on the disk.
    pub fn describe_room(&self) -> String {
        let free = self.free_bytes();
        let free = if free == u64::MAX { "an unknown part".to_owned() } else { format!("{} MB", free / 1_000_000) };
        let why = lock(&self.shared.shortage).as_ref().map(|why| format!("; no room for the next segment: {why}"));
        format!("{free} of the disk of its log is free{}", why.unwrap_or_default())
    }

    /// Whether the disk is too full for new work.
    pub fn is_low(&self) -> bool {
        self.pressure() >= DiskPressure::Low
    }

    /// Whether the disk is too full for anything but votes: the end of work may use half of what is kept for it, and
    /// the rest is for votes and the next segment.
    pub fn is_exhausted(&self) -> bool {
        self.pressure() == DiskPressure::Exhausted
    }

    /// How many bytes were free on the disk of the log at the last check; [`u64::MAX`] if that is unknown.
    pub fn free_bytes(&self) -> u64 {
        self.shared.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether a file of this many bytes can be written without exhausting the disk.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        !self.is_exhausted() && self.free_bytes() / 2 > bytes
    }
}
