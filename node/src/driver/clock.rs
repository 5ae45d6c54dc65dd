//! The clock of the engine.

use skep_protocol::mutant::{Mutant, is_on};

/// Milliseconds of CLOCK_BOOTTIME: it goes on while the machine sleeps, and so do deadlines.
pub(crate) fn now_ms() -> u64 {
    if is_on(Mutant::DeadlineFromWallClock) {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return u64::try_from(wall.as_millis()).unwrap_or(0);
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
