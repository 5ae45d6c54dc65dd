//! Limits the log to one line a minute for each source of noise.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Interval between two lines about one source.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// The most sources that are remembered. At this number a new source gets no line until a remembered one has been quiet
/// for the interval.
const KNOWN_MAX: usize = 256;

/// When the log last had a line about a source, and how often something has happened since.
#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    since: u64,
}

/// The sources of noise.
#[derive(Debug)]
pub(crate) struct Noise<Who> {
    of: BTreeMap<Who, Said>,
}

impl<Who: Ord> Noise<Who> {
    pub(crate) fn new() -> Self {
        Self { of: BTreeMap::new() }
    }

    /// Counts an event. If the log is to say it: how often it has happened since the last line, this time included.
    pub(crate) fn heard(&mut self, who: Who, now: Instant) -> Option<u64> {
        if let Some(said) = self.of.get_mut(&who) {
            said.since = said.since.saturating_add(1);
            let is_due = now.duration_since(said.at) >= SAID_EVERY;
            return is_due.then(|| std::mem::replace(said, Said { at: now, since: 0 }).since);
        }
        if self.of.len() >= KNOWN_MAX {
            self.of.retain(|_, said| now.duration_since(said.at) < SAID_EVERY);
        }
        if self.of.len() >= KNOWN_MAX {
            return None;
        }
        self.of.insert(who, Said { at: now, since: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_one_line_a_minute_that_says_how_much_there_was() {
        let begun = Instant::now();
        let mut noise = Noise::new();
        let said: Vec<u64> =
            (0..1_800).filter_map(|n| noise.heard("m", begun + Duration::from_millis(100 * n))).collect();
        assert_eq!(said, [1, 600, 600]);
        assert_eq!(noise.heard("another", begun), Some(1), "each has lines of its own");
    }

    #[test]
    fn of_however_many_who_make_noise_few_are_remembered() {
        let now = Instant::now();
        let mut noise = Noise::new();
        let said = (0..100_000).filter(|n| noise.heard(*n, now).is_some()).count();
        assert_eq!((said, noise.of.len()), (KNOWN_MAX, KNOWN_MAX));
        let later = now + SAID_EVERY;
        assert_eq!(noise.heard(100_000, later), Some(1));
        assert_eq!(noise.of.len(), 1);
    }
}
