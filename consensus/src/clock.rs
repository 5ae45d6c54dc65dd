//! The log clocks of a node's shards, shared between the tasks that hear, stamp and read them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::{ClockEstimate, LogClock};
use skep_protocol::ids::ShardId;
use skep_protocol::time::LogInstant;
use skep_store::ClockMark;
use xxhash_rust::xxh3::Xxh3;

/// The clock by which leases and the log clock count.
#[derive(Clone, Debug, Default)]
pub(crate) enum BootClock {
    /// CLOCK_BOOTTIME: it goes on while the machine sleeps.
    #[default]
    System,
    /// The clock of a simulated machine: since when it runs, how much faster than true time it is in millionths, and
    /// the number of the boot.
    #[cfg(test)]
    Simulated { since: tokio::time::Instant, ppm: i64, boot: u64 },
}

impl BootClock {
    /// Milliseconds since the machine was booted.
    fn ms(&self) -> u64 {
        match self {
            Self::System => system_ms(),
            #[cfg(test)]
            Self::Simulated { since, ppm, .. } => {
                let ms = i128::try_from(since.elapsed().as_millis()).unwrap_or(0);
                u64::try_from(1_000 + ms + ms * i128::from(*ppm) / 1_000_000).unwrap_or(0)
            }
        }
    }

    /// Milliseconds that the machine did not sleep, from some instant on.
    fn awake_ms(&self) -> u64 {
        match self {
            Self::System => read_ms(rustix::time::ClockId::Monotonic),
            #[cfg(test)]
            Self::Simulated { .. } => self.ms(),
        }
    }

    /// A name of the boot. Two processes can compare their readings if both names are equal. None if the system does
    /// not say.
    fn boot(&self) -> Option<u128> {
        match self {
            Self::System => system_boot(),
            #[cfg(test)]
            Self::Simulated { boot, .. } => Some(u128::from(*boot)),
        }
    }
}

/// Names the boot of the kernel, which a container has from its host, and the time namespace, which may move its clock.
fn system_boot() -> Option<u128> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = boot.trim();
    if boot.is_empty() {
        return None;
    }
    // A kernel without time namespaces has neither file, and moves no clock.
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let offsets = std::fs::read("/proc/self/timens_offsets").unwrap_or_default();
    let mut hash = Xxh3::new();
    for part in [boot.as_bytes(), namespace.as_os_str().as_encoded_bytes(), &offsets] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Some(hash.digest128())
}

fn system_ms() -> u64 {
    read_ms(rustix::time::ClockId::Boottime)
}

fn read_ms(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

#[derive(Debug, Default)]
struct Inner {
    clock: LogClock,
    leads: bool,
    /// Whether this node, which leads, has no quorum: no majority answers.
    without_quorum: bool,
    heard_leader_at: Option<u64>,
    /// Whether this node is asking the leader for its clock.
    asking: bool,
    /// Whether this node learned something of the clock since it last saved it.
    news: bool,
    sleep: SleepWatch,
}

/// Notices that the machine slept: then the clock of the boot went on, and the clock that counts only while the machine
/// is awake did not. Raft counts by the second one, by which a leader that slept believes that its quorum answered a
/// moment ago.
#[derive(Clone, Copy, Debug, Default)]
struct SleepWatch {
    /// How far the first clock was ahead of the second at the last look, in milliseconds.
    ahead_ms: Option<i64>,
    /// When the last sleep was noticed, by the second clock in milliseconds.
    noticed_at: Option<u64>,
}

/// The shortest sleep that counts, in milliseconds: a shorter difference does not matter, or comes from reading two
/// clocks at two instants.
const SLEEP_MS_MIN: i64 = 20;

impl SleepWatch {
    /// How long the machine is known to have been awake, in milliseconds: anything older than that is older than it
    /// looks.
    fn look(&mut self, boot_ms: u64, awake_ms: u64) -> u64 {
        // A time namespace may have moved either clock.
        let ahead_ms = boot_ms.cast_signed().saturating_sub(awake_ms.cast_signed());
        let slept = self.ahead_ms.is_some_and(|before| ahead_ms > before.saturating_add(SLEEP_MS_MIN));
        // Each reading may be late by a little: so this compares with the least lead that the first clock had since.
        self.ahead_ms = Some(self.ahead_ms.filter(|_| !slept).map_or(ahead_ms, |before| before.min(ahead_ms)));
        if slept {
            self.noticed_at = Some(awake_ms);
        }
        // Both readings cut off fractions of milliseconds.
        self.noticed_at.map_or(u64::MAX, |at| awake_ms.saturating_sub(at).saturating_sub(2))
    }
}

/// The log clock of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardClock {
    boot: BootClock,
    inner: Arc<Mutex<Inner>>,
}

impl ShardClock {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the boot, in milliseconds.
    pub(crate) fn boot_ms(&self) -> u64 {
        self.boot.ms()
    }

    /// A name of the boot; none if the system does not say.
    pub(crate) fn boot(&self) -> Option<u128> {
        self.boot.boot()
    }

    /// The least time that the machine has been awake since it last slept, in milliseconds: what this node heard before
    /// may be older than the monotonic clock says.
    pub(crate) fn awake_ms(&self) -> u64 {
        let mut inner = self.inner();
        inner.sleep.look(self.boot_ms(), self.boot.awake_ms())
    }

    /// Takes the clock of the leader from a frame. False if there is no estimate that it could move.
    pub(crate) fn hear(&self, clock: LogInstant) -> bool {
        let mut inner = self.inner();
        inner.news = true;
        inner.clock.hear(clock, self.boot_ms())
    }

    /// Whether the clock can show this by now, as far as this node knows.
    pub(crate) fn is_possible(&self, clock: LogInstant) -> bool {
        self.inner().clock.is_possible(clock, self.boot_ms())
    }

    /// Drops an estimate that is wrong: there is none until this node learns one.
    pub(crate) fn forget(&self) {
        self.inner().clock.forget();
    }

    /// Begins to ask for the clock. Returns the instant of the boot clock in milliseconds, or none if a question is
    /// under way already.
    pub(crate) fn ask(&self) -> Option<u64> {
        let already = std::mem::replace(&mut self.inner().asking, true);
        (!already).then(|| self.boot_ms())
    }

    /// Notes the end of a question to the leader, with its answer if there was one.
    pub(crate) fn answered(&self, answer: Option<LogInstant>, asked_boot_ms: u64) {
        self.inner().asking = false;
        if let Some(clock) = answer {
            self.learn(clock, asked_boot_ms);
        }
    }

    /// Takes the answer of a node that has an estimate. Returns whether this node has an estimate after it.
    pub(crate) fn learn(&self, clock: LogInstant, asked_boot_ms: u64) -> bool {
        let mut inner = self.inner();
        inner.news = true;
        inner.clock.learn(clock, asked_boot_ms, self.boot_ms())
    }

    /// Goes on from what an earlier process saved; returns whether that was possible.
    pub(crate) fn resume(&self, mark: &ClockMark) -> bool {
        let ClockMark { at_boot_ms, clock, lag_ms, .. } = *mark;
        self.inner().clock.resume(ClockEstimate { clock, lag_ms }, at_boot_ms, self.boot_ms())
    }

    /// What to save for the next process; none if this node learned nothing since the last call.
    pub(crate) fn to_keep(&self, boot: u128) -> Option<ClockMark> {
        let mut inner = self.inner();
        let news = std::mem::take(&mut inner.news) || inner.leads;
        let at_boot_ms = self.boot_ms();
        let ClockEstimate { clock, lag_ms } = inner.clock.estimate(at_boot_ms).filter(|_| news)?;
        Some(ClockMark { boot, at_boot_ms, clock, lag_ms })
    }

    /// Notes that this node begins to lead: its clock goes on from the latest that it can be. False if it has no
    /// estimate.
    pub(crate) fn lead(&self) -> bool {
        let mut inner = self.inner();
        inner.clock.lead(self.boot_ms()).is_some()
    }

    /// Sets the clock, for a leader that gave the shard a new one.
    pub(crate) fn begin(&self, clock: LogInstant) {
        self.inner().clock.begin(clock, self.boot_ms());
    }

    /// Notes that an entry with this stamp was applied.
    pub(crate) fn observe_stamp(&self, stamp: LogInstant) {
        self.inner().clock.observe_stamp(stamp, self.boot_ms());
    }

    /// The estimate for a voter that has to lead without a clock: the latest that the clock can be.
    pub(crate) fn latest(&self) -> Option<LogInstant> {
        self.inner().clock.estimate(self.boot_ms()).map(ClockEstimate::latest)
    }

    /// The estimate.
    pub(crate) fn now(&self) -> Option<LogInstant> {
        self.inner().clock.now(self.boot_ms())
    }

    /// The clock for the header of a frame. A leader without a quorum gives none, and so its followers know that.
    pub(crate) fn for_frames(&self) -> Option<LogInstant> {
        if self.inner().without_quorum { None } else { self.to_send() }
    }

    /// Sets whether this node leads and no majority answers it.
    pub(crate) fn set_without_quorum(&self, without: bool) {
        self.inner().without_quorum = without;
    }

    /// The clock by which this node leads, if it does.
    pub(crate) fn to_send(&self) -> Option<LogInstant> {
        let inner = self.inner();
        inner.leads.then(|| inner.clock.now(self.boot_ms())).flatten()
    }

    /// Sets whether this node leads the shard and has a clock for that.
    pub(crate) fn set_leads(&self, leads: bool) {
        self.inner().leads = leads;
    }

    /// Notes an accepted frame of the leader.
    pub(crate) fn heard_leader(&self) {
        self.inner().heard_leader_at = Some(self.boot_ms());
    }

    /// How long ago this node heard another node that leads, in milliseconds.
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
    /// Clocks that count by another clock than the system's.
    #[cfg(test)]
    pub(crate) fn on(boot: BootClock) -> Self {
        Self { boot, shards: Arc::default() }
    }

    /// The clock of a shard.
    pub(crate) fn of(&self, shard: ShardId) -> ShardClock {
        let fresh = || ShardClock { boot: self.boot.clone(), inner: Arc::default() };
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).entry(shard).or_insert_with(fresh).clone()
    }

    /// The clock of a shard, if this node knows the shard.
    pub(crate) fn known(&self, shard: ShardId) -> Option<ShardClock> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_slept_is_noticed_whatever_its_monotonic_clock_says() {
        let mut sleep = SleepWatch::default();
        assert_eq!(sleep.look(10_000, 4_000), u64::MAX);
        assert_eq!(sleep.look(10_500, 4_499), u64::MAX, "two clocks are not read at one instant");
        assert_eq!(sleep.look(10_900, 4_900), u64::MAX);
        // The machine sleeps for a minute, in which the other clock counts 100 ms.
        assert_eq!(sleep.look(71_000, 5_000), 0, "nothing that was heard before is taken for fresh");
        assert_eq!(sleep.look(71_300, 5_300), 298, "what was heard since then is");
        assert_eq!(sleep.look(72_300, 5_400), 0, "it slept again");
    }

    #[test]
    fn readings_that_are_late_by_a_little_each_time_do_not_hide_a_nap() {
        let mut sleep = SleepWatch::default();
        for n in 0..10 {
            assert_eq!(sleep.look(1_000 + n * 100 + n % 2 * 15, 1_000 + n * 100), u64::MAX);
        }
        assert_eq!(sleep.look(2_021, 2_000), 0);
    }

    #[test]
    fn the_boot_of_this_machine_has_one_name_for_all_who_ask() {
        let clock = ShardClock::default();
        assert_eq!(clock.boot(), ShardClock::default().boot());
        assert!(clock.boot().is_some(), "/proc says which boot it is");
    }

    #[test]
    fn a_clock_is_kept_when_something_was_learned_and_taken_up_by_the_next_process() {
        let (before, after) = (ShardClock::default(), ShardClock::default());
        assert_eq!(before.to_keep(1), None, "there is no clock");
        let asked = before.ask().unwrap();
        before.answered(Some(LogInstant::from_raw(5_000)), asked);
        let mark = before.to_keep(1).unwrap();
        assert_eq!(before.to_keep(1), None, "nothing was learned since");
        assert!(after.resume(&mark));
        assert!(after.now() >= Some(mark.clock));
        assert!(!after.resume(&mark), "it has one");
        after.set_leads(true);
        assert!(after.to_keep(1).is_some() && after.to_keep(1).is_some(), "a leader's clock is kept always");
    }
}
