//! What a node knew of its site: no file of it may be older, and the site's time not earlier.

use serde::{Deserialize, Serialize};
use skep_protocol::codec::Encoded;
use skep_trust::{Digest, SiteTime, TrustNews};

/// What never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floors {
    /// The latest version of the root document.
    pub(crate) root_version: u64,
    /// Certificates of an epoch below this one do not hold.
    pub(crate) epoch_min: u64,
    /// How many revocations there were in that epoch: there are never fewer.
    pub(crate) revocations: u32,
    /// What tells them from others.
    pub(crate) digest: Digest,
    /// Site time is not earlier.
    pub(crate) time: SiteTime,
}

impl Encoded for Floors {
    const WHAT: &'static str = "floors of a site";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

impl Floors {
    /// Of what a node knows at some time.
    pub(super) fn of(news: &TrustNews, time: SiteTime) -> Self {
        let TrustNews { root_version, epoch_min, revocations, digest } = *news;
        Self { root_version, epoch_min, revocations, digest, time }
    }

    /// The higher of both.
    pub(super) fn raised_to(self, other: Self) -> Self {
        let knows_more = (other.epoch_min, other.revocations) >= (self.epoch_min, self.revocations);
        let of = if knows_more { other } else { self };
        Self { root_version: self.root_version.max(other.root_version), time: self.time.max(other.time), ..of }
    }

    /// What was known and is not any more, if anything is.
    pub(super) fn missed_by(&self, news: &TrustNews) -> Option<String> {
        if news.root_version < self.root_version {
            return Some(format!("version {} of the root document, and not {}", self.root_version, news.root_version));
        }
        if news.epoch_min < self.epoch_min {
            return Some(format!("that epoch {} has begun, and not {}", self.epoch_min, news.epoch_min));
        }
        if news.epoch_min > self.epoch_min {
            return None;
        }
        if news.revocations < self.revocations {
            return Some(format!("{} revocations, and not {}", self.revocations, news.revocations));
        }
        // Within an epoch revocations are only added.
        let others = news.revocations == self.revocations && news.digest != self.digest;
        others.then(|| format!("{} other revocations", self.revocations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(root_version: u64, epoch_min: u64, revocations: u32, byte: u8) -> TrustNews {
        TrustNews { root_version, epoch_min, revocations, digest: [byte; 32] }
    }

    #[test]
    fn floors_rise_and_never_fall() {
        let low = Floors::of(&news(1, 3, 2, 7), SiteTime(50));
        let high = Floors::of(&news(2, 4, 0, 0), SiteTime(40));
        let both = Floors { time: SiteTime(50), ..high };
        assert_eq!((low.raised_to(high), high.raised_to(low)), (both, both));
        assert_eq!(low.raised_to(low), low);
    }

    #[test]
    fn what_a_node_knew_is_missed_unless_a_later_epoch_made_it_needless() {
        let floors = Floors::of(&news(2, 3, 2, 7), SiteTime(0));
        for enough in [news(2, 3, 2, 7), news(3, 3, 2, 7), news(2, 3, 3, 8), news(2, 4, 0, 0)] {
            assert_eq!(floors.missed_by(&enough), None, "{enough:?}");
        }
        for less in [news(1, 3, 2, 7), news(2, 2, 9, 7), news(2, 3, 1, 7), news(2, 3, 2, 8), news(1, 4, 0, 0)] {
            assert!(floors.missed_by(&less).is_some(), "{less:?}");
        }
    }
}
