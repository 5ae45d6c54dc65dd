//! Why peers are not admitted: counted by kind, with one line of the log a minute for each kind.

use std::collections::BTreeMap;
use std::io;

use libp2p::PeerId;
use skep_trust::{ChainError, Refusal};
use tokio::time::Instant;

use crate::noise::Noise;

/// Why a peer is not admitted on a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// The rule of admission refuses the peer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer does not follow the protocol.
    #[error("the peer does not follow the protocol of admission: {0}")]
    Malformed(&'static str),
    /// The peer does not speak the protocol of this site.
    #[error("the peer does not belong to this site, or admits peers by a list")]
    OtherSite,
    /// The peer did not show itself in time.
    #[error("the peer did not show in time that it belongs to the site")]
    Silent,
    /// The peer closed the connection, or the connection broke. The reason as text.
    #[error("the connection ended before both ends were admitted; perhaps the peer refuses this node: {0}")]
    Ended(String),
    /// There was no place for the peer. The reason as text.
    #[error("there is no place for the peer's connection: {0}")]
    NoPlace(String),
}

impl NotAdmitted {
    /// The name of the kind, for counters.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Malformed(_) => "malformed",
            Self::OtherSite => "other-site",
            Self::Silent => "silent",
            Self::Ended(_) => "ended",
            Self::NoPlace(_) => "no-place",
        }
    }
}

impl From<ChainError> for NotAdmitted {
    fn from(error: ChainError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<io::Error> for NotAdmitted {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Malformed("a frame is too large"),
            _ => Self::Ended(error.to_string()),
        }
    }
}

/// Why this node does not connect to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwelcome {
    /// The peer is not in the list.
    #[error("peer {0} is not in the list of peers")]
    NotListed(PeerId),
    /// The peer is not known to be a member: the node dials no other peer.
    #[error("peer {0} is not known to be a member of the site")]
    NotAMember(PeerId),
    /// The peer was cut off.
    #[error("peer {0} is cut off")]
    CutOff(PeerId),
    /// Too many strangers are connected.
    #[error("too many strangers are at the door, or too many from one address")]
    TooMany,
}

/// Numbers of refusals by kind. The program fixes the kinds, so they are few.
#[derive(Debug)]
pub(crate) struct Refusals {
    of: BTreeMap<&'static str, u64>,
    said: Noise<&'static str>,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self { of: BTreeMap::new(), said: Noise::new() }
    }

    /// Counts a refusal. If the log is to say it: how often the kind has happened since the log last said so.
    pub(crate) fn count(&mut self, why: &NotAdmitted, now: Instant) -> Option<u64> {
        let count = self.of.entry(why.kind()).or_default();
        *count = count.saturating_add(1);
        self.said.heard(why.kind(), now)
    }

    /// The numbers of refusals so far, by kind.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn refusals_are_counted_by_kind_and_said_once_a_minute_for_each() {
        let (mut refusals, begun) = (Refusals::new(), Instant::now());
        let mut said = Vec::new();
        for n in 0..1_210 {
            let at = begun + Duration::from_millis(100 * n);
            said.extend(refusals.count(&NotAdmitted::Silent, at));
        }
        assert_eq!(said, [1, 600, 600]);
        assert_eq!(refusals.count(&NotAdmitted::Refused(ChainError::SelfMade.into()), begun), Some(1));
        assert_eq!(*refusals.counts(), BTreeMap::from([("silent", 1_210), ("self-made", 1)]));
    }
}
