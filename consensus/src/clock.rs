//! The log clocks of a node's shards, shared between those that hear, stamp and read them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::LogClock;
use skep_protocol::ids::ShardId;
use skep_protocol::time::LogInstant;

/// Milliseconds of CLOCK_BOOTTIME: goes on while the machine sleeps.
pub(crate) fn boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

#[derive(Debug, Default)]
struct Inner {
    clock: LogClock,
    leads: bool,
    heard_leader_at: Option<u64>,
}

/// The clock of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardClock(Arc<Mutex<Inner>>);

impl ShardClock {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the leader arrived in a frame.
    pub(crate) fn hear(&self, clock: LogInstant) {
        self.inner().clock.hear(clock, boot_ms());
    }

    /// An entry with this stamp was applied.
    pub(crate) fn observe_stamp(&self, stamp: LogInstant) {
        self.inner().clock.observe_stamp(stamp, boot_ms());
    }

    /// The estimate.
    pub(crate) fn now(&self) -> Option<LogInstant> {
        self.inner().clock.now(boot_ms())
    }

    /// The clock for the header of a frame: only a leader gives it.
    pub(crate) fn to_send(&self) -> Option<LogInstant> {
        let inner = self.inner();
        inner.leads.then(|| inner.clock.now(boot_ms())).flatten()
    }

    /// Whether this node leads the shard and has a clock to lead it by.
    pub(crate) fn set_leads(&self, leads: bool) {
        self.inner().leads = leads;
    }

    /// A frame of the leader was accepted.
    pub(crate) fn heard_leader(&self) {
        self.inner().heard_leader_at = Some(boot_ms());
    }

    /// How long ago the leader was heard; zero if this node leads.
    pub(crate) fn leader_age_ms(&self) -> Option<u64> {
        let inner = self.inner();
        if inner.leads {
            return Some(0);
        }
        inner.heard_leader_at.map(|at| boot_ms().saturating_sub(at))
    }
}

/// The clocks of all shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks(Arc<Mutex<BTreeMap<ShardId, ShardClock>>>);

impl Clocks {
    /// The clock of a shard.
    pub(crate) fn of(&self, shard: ShardId) -> ShardClock {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(shard).or_default().clone()
    }

    /// The clock of a shard, if the shard is known.
    pub(crate) fn known(&self, shard: ShardId) -> Option<ShardClock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }
}
