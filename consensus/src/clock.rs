//! The log clocks of a node's shards, shared between those that hear, stamp and read them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::{ClockEstimate, LogClock};
use skep_protocol::ids::ShardId;
use skep_protocol::time::LogInstant;
use skep_store::ClockMark;
use xxhash_rust::xxh3::Xxh3;

/// The clock that leases and the log clock are counted on.
#[derive(Clone, Debug, Default)]
pub(crate) enum BootClock {
    /// CLOCK_BOOTTIME: goes on while the machine sleeps.
    #[default]
    System,
    /// That of a machine in a simulation: since when it runs, how much faster than true time, in millionths, and which of
    /// all boots that is.
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

    /// Names what it is counted on: what one process reads of it and what another reads can be compared if both names are
    /// equal. None if the system does not say.
    fn boot(&self) -> Option<u128> {
        match self {
            Self::System => system_boot(),
            #[cfg(test)]
            Self::Simulated { boot, .. } => Some(u128::from(*boot)),
        }
    }
}

/// The boot of the kernel, which a container has from its host, and the time namespace, which may move its clock.
fn system_boot() -> Option<u128> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = boot.trim();
    if boot.is_empty() {
        return None;
    }
    // Neither is there on a kernel without time namespaces, where no clock is moved.
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
    /// Whether it leads nobody: no majority answers.
    without_quorum: bool,
    heard_leader_at: Option<u64>,
    /// Whether the leader is being asked for its clock.
    asking: bool,
    /// Whether something was learned of the clock since it was kept last.
    news: bool,
    sleep: SleepWatch,
}

/// Notices that the machine slept: the clock of its boot went on then, and the one that only counts while it is awake did
/// not. Raft counts on the second one, by which a leader that slept believes that it was heard a moment ago.
#[derive(Clone, Copy, Debug, Default)]
struct SleepWatch {
    /// How far the first clock was ahead of the second at the last look, in milliseconds.
    ahead_ms: Option<i64>,
    /// When it was noticed last that the machine had slept, on the second clock.
    noticed_at: Option<u64>,
}

/// Sleep that is too short to matter, or two clocks that were not read at one instant, in milliseconds.
const SLEEP_MS_MIN: i64 = 20;

impl SleepWatch {
    /// How long the machine is known to have been awake, in milliseconds: what is older than that is older than it looks.
    fn look(&mut self, boot_ms: u64, awake_ms: u64) -> u64 {
        // A time namespace may have moved either.
        let ahead_ms = boot_ms.cast_signed().saturating_sub(awake_ms.cast_signed());
        let slept = self.ahead_ms.is_some_and(|before| ahead_ms > before.saturating_add(SLEEP_MS_MIN));
        // Each reading may be late by a little: what is compared is the least that the first clock was ever ahead since.
        self.ahead_ms = Some(self.ahead_ms.filter(|_| !slept).map_or(ahead_ms, |before| before.min(ahead_ms)));
        if slept {
            self.noticed_at = Some(awake_ms);
        }
        // Milliseconds are cut off in both readings.
        self.noticed_at.map_or(u64::MAX, |at| awake_ms.saturating_sub(at).saturating_sub(2))
    }
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

    /// Names what that clock is counted on; none if the system does not say.
    pub(crate) fn boot(&self) -> Option<u128> {
        self.boot.boot()
    }

    /// How long the machine has been awake at least since it slept last, in milliseconds: what was heard before that may be
    /// older than the monotonic clock says.
    pub(crate) fn awake_ms(&self) -> u64 {
        let mut inner = self.inner();
        inner.sleep.look(self.boot_ms(), self.boot.awake_ms())
    }

    /// The clock of the leader arrived in a frame. False if there is no estimate that it could move.
    pub(crate) fn hear(&self, clock: LogInstant) -> bool {
        let mut inner = self.inner();
        inner.news = true;
        inner.clock.hear(clock, self.boot_ms())
    }

    /// Whether the clock can show this by now, as far as this node knows.
    pub(crate) fn is_possible(&self, clock: LogInstant) -> bool {
        self.inner().clock.is_possible(clock, self.boot_ms())
    }

    /// The estimate is not good: there is none until one is learned.
    pub(crate) fn forget(&self) {
        self.inner().clock.forget();
    }

    /// Begins to ask for the clock: since when, or none if it is being asked for already.
    pub(crate) fn ask(&self) -> Option<u64> {
        let already = std::mem::replace(&mut self.inner().asking, true);
        (!already).then(|| self.boot_ms())
    }

    /// The leader answered, or did not.
    pub(crate) fn answered(&self, answer: Option<LogInstant>, asked_boot_ms: u64) {
        self.inner().asking = false;
        if let Some(clock) = answer {
            self.learn(clock, asked_boot_ms);
        }
    }

    /// Somebody that has an estimate answered. Whether there is one here now.
    pub(crate) fn learn(&self, clock: LogInstant, asked_boot_ms: u64) -> bool {
        let mut inner = self.inner();
        inner.news = true;
        inner.clock.learn(clock, asked_boot_ms, self.boot_ms())
    }

    /// Goes on from what an earlier process left. Whether it could.
    pub(crate) fn resume(&self, mark: &ClockMark) -> bool {
        let ClockMark { at_boot_ms, clock, lag_ms, .. } = *mark;
        self.inner().clock.resume(ClockEstimate { clock, lag_ms }, at_boot_ms, self.boot_ms())
    }

    /// What to leave for the next process; none if nothing was learned since it was asked for last.
    pub(crate) fn to_keep(&self, boot: u128) -> Option<ClockMark> {
        let mut inner = self.inner();
        let news = std::mem::take(&mut inner.news) || inner.leads;
        let at_boot_ms = self.boot_ms();
        let ClockEstimate { clock, lag_ms } = inner.clock.estimate(at_boot_ms).filter(|_| news)?;
        Some(ClockMark { boot, at_boot_ms, clock, lag_ms })
    }

    /// This node begins to lead: the clock goes on from the latest that it can be. False if it has no estimate.
    pub(crate) fn lead(&self) -> bool {
        let mut inner = self.inner();
        inner.clock.lead(self.boot_ms()).is_some()
    }

    /// The clock is this from now on: for a leader that gave the shard a new one.
    pub(crate) fn begin(&self, clock: LogInstant) {
        self.inner().clock.begin(clock, self.boot_ms());
    }

    /// An entry with this stamp was applied.
    pub(crate) fn observe_stamp(&self, stamp: LogInstant) {
        self.inner().clock.observe_stamp(stamp, self.boot_ms());
    }

    /// The estimate for a voter that has to lead without one: the latest that the clock can be.
    pub(crate) fn latest(&self) -> Option<LogInstant> {
        self.inner().clock.estimate(self.boot_ms()).map(ClockEstimate::latest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_slept_is_noticed_whatever_its_monotonic_clock_says() {
        let mut sleep = SleepWatch::default();
        assert_eq!(sleep.look(10_000, 4_000), u64::MAX);
        assert_eq!(sleep.look(10_500, 4_499), u64::MAX, "two clocks are not read at one instant");
        assert_eq!(sleep.look(10_900, 4_900), u64::MAX);
        // A minute of sleep, in which 100 ms passed on the other clock.
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
