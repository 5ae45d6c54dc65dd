//! The log clocks of a node's shards, shared between those that hear, stamp and read them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::LogClock;
use skep_protocol::ids::ShardId;
use skep_protocol::time::LogInstant;

/// The clock that leases and the log clock are counted on.
#[derive(Clone, Debug, Default)]
pub(crate) enum BootClock {
    /// CLOCK_BOOTTIME: goes on while the machine sleeps.
    #[default]
    System,
    /// That of a machine in a simulation: since when it runs, and how much faster than true time, in millionths.
    #[cfg(test)]
    Simulated { since: tokio::time::Instant, ppm: i64 },
}

impl BootClock {
    /// Milliseconds since the machine was booted.
    fn ms(&self) -> u64 {
        match self {
            Self::System => system_ms(),
            #[cfg(test)]
            Self::Simulated { since, ppm } => {
                let ms = i128::try_from(since.elapsed().as_millis()).unwrap_or(0);
                u64::try_from(1_000 + ms + ms * i128::from(*ppm) / 1_000_000).unwrap_or(0)
            }
        }
    }
}

fn system_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

#[derive(Debug, Default)]
struct Inner {
    clock: LogClock,
    leads: bool,
    /// Whether it leads nobody: no majority answers.
    without_quorum: bool,
    heard_leader_at: Option<u64>,
    /// Whether the leader is being asked for its clock.
    asking: bool,
}

/// The clock of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardClock {
    boot: BootClock,
    inner: Arc<Mutex<Inner>>,
}

impl ShardClock {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock that it is counted on.
    pub(crate) fn boot_ms(&self) -> u64 {
        self.boot.ms()
    }

    /// The clock of the leader arrived in a frame. False if there is no estimate that it could move.
    pub(crate) fn hear(&self, clock: LogInstant) -> bool {
        self.inner().clock.hear(clock, self.boot_ms())
    }

    /// Begins to ask the leader for its clock: since when, or none if it is being asked already.
    pub(crate) fn ask(&self) -> Option<u64> {
        let already = std::mem::replace(&mut self.inner().asking, true);
        (!already).then(|| self.boot_ms())
    }

    /// The leader answered, or did not.
    pub(crate) fn learn(&self, answer: Option<LogInstant>, asked_boot_ms: u64) {
        let mut inner = self.inner();
        inner.asking = false;
        if let Some(clock) = answer {
            inner.clock.learn(clock, asked_boot_ms, self.boot_ms());
        }
    }

    /// The clock is this from now on: for a leader that gave the shard a new one.
    pub(crate) fn begin(&self, clock: LogInstant) {
        self.inner().clock.begin(clock, self.boot_ms());
    }

    /// An entry with this stamp was applied.
    pub(crate) fn observe_stamp(&self, stamp: LogInstant) {
        self.inner().clock.observe_stamp(stamp, self.boot_ms());
    }

    /// The estimate.
    pub(crate) fn now(&self) -> Option<LogInstant> {
        self.inner().clock.now(self.boot_ms())
    }

    /// The clock for the header of a frame. A leader without a quorum gives none, by which its followers know.
    pub(crate) fn for_frames(&self) -> Option<LogInstant> {
        if self.inner().without_quorum { None } else { self.to_send() }
    }

    /// Whether this node leads, and no majority answers it.
    pub(crate) fn set_without_quorum(&self, without: bool) {
        self.inner().without_quorum = without;
    }

    /// The clock that this node leads by, if it does.
    pub(crate) fn to_send(&self) -> Option<LogInstant> {
        let inner = self.inner();
        inner.leads.then(|| inner.clock.now(self.boot_ms())).flatten()
    }

    /// Whether this node leads the shard and has a clock to lead it by.
    pub(crate) fn set_leads(&self, leads: bool) {
        self.inner().leads = leads;
    }

    /// A frame of the leader was accepted.
    pub(crate) fn heard_leader(&self) {
        self.inner().heard_leader_at = Some(self.boot_ms());
    }

    /// How long ago another node was heard that leads.
    pub(crate) fn leader_age_ms(&self) -> Option<u64> {
        self.inner().heard_leader_at.map(|at| self.boot_ms().saturating_sub(at))
    }
}

/// The clocks of all shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks {
    boot: BootClock,
    shards: Arc<Mutex<BTreeMap<ShardId, ShardClock>>>,
}

impl Clocks {
    /// Clocks that are counted on another one than the system's.
    #[cfg(test)]
    pub(crate) fn on(boot: BootClock) -> Self {
        Self { boot, shards: Arc::default() }
    }

    /// The clock of a shard.
    pub(crate) fn of(&self, shard: ShardId) -> ShardClock {
        let fresh = || ShardClock { boot: self.boot.clone(), inner: Arc::default() };
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).entry(shard).or_insert_with(fresh).clone()
    }

    /// The clock of a shard, if the shard is known.
    pub(crate) fn known(&self, shard: ShardId) -> Option<ShardClock> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }
}
