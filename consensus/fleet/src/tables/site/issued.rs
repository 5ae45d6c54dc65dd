//! Serials of certificates, and how many each issuer has issued on one day.

use imbl::{OrdMap, OrdSet};
use skep_trust::{PublicKey, Serial, SiteTime};

/// A day of site time, in milliseconds.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What issuers have issued.
#[derive(Clone, Debug, Default)]
pub(super) struct Issued {
    /// Serials of certificates that have not ended, and when each ends, in site time.
    pub(super) serials: OrdMap<Serial, SiteTime>,
    /// The same serials in the order in which they end.
    ends: OrdSet<(SiteTime, Serial)>,
    /// Number of the day of site time.
    pub(super) day: u64,
    /// Number of certificates that each issuer has issued on that day.
    pub(super) counts: OrdMap<PublicKey, u32>,
}

impl Issued {
    /// Forgets the serials that have ended, and the counts of another day.
    pub(super) fn note_time(&mut self, now: SiteTime) {
        while let Some((until, serial)) = self.ends.get_min().copied().filter(|(until, _)| *until < now) {
            self.ends.remove(&(until, serial));
            self.serials.remove(&serial);
        }
        let day = now.0 / DAY_MS;
        if day != self.day {
            (self.day, self.counts) = (day, OrdMap::new());
        }
    }

    pub(super) fn put_serial(&mut self, serial: Serial, until: SiteTime) {
        self.serials.insert(serial, until);
        self.ends.insert((until, serial));
    }

    /// Number of certificates that an issuer has issued today.
    pub(super) fn count(&self, issuer: &PublicKey) -> u32 {
        self.counts.get(issuer).copied().unwrap_or(0)
    }

    pub(super) fn count_one(&mut self, issuer: PublicKey) {
        let count = self.count(&issuer).saturating_add(1);
        self.counts.insert(issuer, count);
    }

    pub(super) fn bytes(&self) -> u64 {
        const SERIAL: u64 = 32;
        const COUNT: u64 = 40;
        self.serials.len() as u64 * SERIAL + self.counts.len() as u64 * COUNT
    }
}
