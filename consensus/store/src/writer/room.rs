//! The room that the writer finds on its disk: segments ahead of their need, and how full the disk is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use skep_protocol::pressure::DiskPressure;

use super::Writer;
use crate::disk::is_shortage;
use crate::{lock, segment};

/// The part of the low water mark by which a disk must have more than that before it is called well again: so a disk
/// that is just about full does not switch between the two.
const WELL_AGAIN_SHARE: u64 = 32;

impl Writer {
    /// Makes one more segment to go on in.
    pub(super) fn create_next(&mut self) -> io::Result<()> {
        let setup = &mut self.setup;
        let number = setup.spares.back().unwrap_or(&setup.active).number + 1;
        let (disk, dir) = (&*setup.disk, setup.dir.as_path());
        let made = segment::create(disk, dir, number, None, setup.options.segment_bytes, setup.incarnation);
        if made.is_err() {
            // A partial file is removed, so that it takes no room.
            let _ = disk.remove(&dir.join(segment::TEMPORARY));
        }
        let segment = Arc::new(made?);
        lock(&setup.shared.segments).insert(number, Arc::clone(&segment));
        setup.spares.push_back(segment);
        Ok(())
    }

    /// Makes the next segments ahead of their need, so that what must be written finds room on a full disk.
    pub(super) fn make_spares(&mut self) {
        while self.setup.spares.len() < self.setup.spares_kept {
            if let Err(error) = self.create_next() {
                return self.note_shortage(&error);
            }
        }
    }

    /// The result of an operation; none if there was no room for it: then it is tried again.
    pub(super) fn if_room<T>(&self, done: io::Result<T>) -> io::Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if is_shortage(&error) => {
                self.note_shortage(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Logs once that a write finds no room, until it does.
    fn note_shortage(&self, error: &io::Error) {
        let text = error.to_string();
        if lock(&self.setup.shared.shortage).replace(text).is_none() {
            let dir = self.setup.dir.display();
            tracing::warn!(%dir, %error, "no room for the next segment of the log: what brings work is refused until there is");
        }
        self.set_pressure(DiskPressure::Exhausted);
    }

    /// Checks how much room there is, and makes segments ahead of their need.
    pub(super) fn check_space(&mut self) {
        self.space_checked = Instant::now();
        let free = self.setup.disk.free_bytes(&self.setup.dir);
        let was_unknown = std::mem::replace(&mut self.is_space_unknown, free.is_err());
        if let Err(error) = &free
            && !was_unknown
        {
            tracing::warn!(dir = %self.setup.dir.display(), %error, "cannot tell the free space");
        }
        let free = free.unwrap_or(u64::MAX);
        let (water, known) = (self.setup.options.low_water_bytes, *self.setup.shared.pressure.borrow());
        let more = |than: DiskPressure| if known >= than { water / WELL_AGAIN_SHARE } else { 0 };
        let is_enough = free >= (water / 2).saturating_add(more(DiskPressure::Exhausted));
        if is_enough {
            self.make_spares();
        }
        let is_whole = self.setup.spares.len() >= self.setup.spares_kept && !self.is_held_up();
        if is_whole && is_enough {
            lock(&self.setup.shared.shortage).take();
        }
        self.setup.shared.free_bytes.store(free, Ordering::Relaxed);
        self.set_pressure(match free < water.saturating_add(more(DiskPressure::Low)) {
            _ if !is_enough || !is_whole => DiskPressure::Exhausted,
            true => DiskPressure::Low,
            false => DiskPressure::None,
        });
    }

    /// Publishes how full the disk is, and logs a change of that.
    fn set_pressure(&self, pressure: DiskPressure) {
        let (shared, dir) = (&self.setup.shared, self.setup.dir.display());
        let changed = shared.pressure.send_if_modified(|known| std::mem::replace(known, pressure) != pressure);
        if !changed {
            return;
        }
        let free_bytes = shared.free_bytes.load(Ordering::Relaxed);
        match pressure {
            DiskPressure::None => tracing::info!(%dir, free_bytes, "there is space again: work is taken"),
            DiskPressure::Low => {
                tracing::warn!(%dir, free_bytes, "the disk is nearly full: what brings work is refused until there is space");
            }
            DiskPressure::Exhausted => {
                tracing::warn!(%dir, free_bytes, "the disk is full: only what has room of its own is written");
            }
        }
    }
}
