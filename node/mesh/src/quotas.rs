//! The share of each sender.

use std::collections::BTreeMap;

use skep_protocol::limits;
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};
use crate::noise::Noise;

/// The size of each share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    messages: Rate,
    bytes: Rate,
}

/// The share of a neighbour: its own envelopes, and those that it passes on.
pub(crate) const OF_NEIGHBOUR: Share =
    Share::of(limits::MESH_NEIGHBOUR_MESSAGES_PER_S, limits::MESH_NEIGHBOUR_BYTES_PER_S);
/// The share of a node, whichever neighbour passes its envelopes on.
pub(crate) const OF_ORIGIN: Share = Share::of(limits::MESH_ORIGIN_MESSAGES_PER_S, limits::MESH_ORIGIN_BYTES_PER_S);

impl Share {
    /// A share of this many messages and bytes in a second, and as much at once.
    pub(crate) const fn of(messages: u64, bytes: u64) -> Self {
        Self { messages: Rate { per_s: messages, burst: messages }, bytes: Rate { per_s: bytes, burst: bytes } }
    }
}

/// Whether a message is within a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The message is within the share.
    Within,
    /// The message is over the share. If the log is to say it: how often that has happened since the last line.
    Over(Option<u64>),
}

/// What is left of each share. A sender that has all of its share left need not be remembered.
#[derive(Debug)]
pub(crate) struct Quotas<Who> {
    share: Share,
    left: BTreeMap<Who, (Bucket, Bucket)>,
    noise: Noise<Who>,
}

impl<Who: Ord + Copy> Quotas<Who> {
    pub(crate) fn new(share: Share) -> Self {
        Self { share, left: BTreeMap::new(), noise: Noise::new() }
    }

    /// Counts a message of this many bytes.
    pub(crate) fn take(&mut self, who: Who, bytes: usize, now: Instant) -> Verdict {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let share = self.share;
        let (messages_left, bytes_left) = self.left_of(who, now);
        if messages_left.take(share.messages, 1, now) && bytes_left.take(share.bytes, bytes, now) {
            Verdict::Within
        } else {
            Verdict::Over(self.noise.heard(who, now))
        }
    }

    /// Counts something that costs as much as this many messages.
    pub(crate) fn drain(&mut self, who: Who, messages: u64, now: Instant) {
        let share = self.share;
        self.left_of(who, now).0.drain(share.messages, messages, now);
    }

    fn left_of(&mut self, who: Who, now: Instant) -> &mut (Bucket, Bucket) {
        if self.left.len() >= limits::MESH_MEMBERS_MAX && !self.left.contains_key(&who) {
            // A sender that has all of its share is the same as a new one.
            self.left.retain(|_, (messages, bytes)| !messages.is_full(now) || !bytes.is_full(now));
        }
        self.left.entry(who).or_insert_with(|| (Bucket::full(now), Bucket::full(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn within(quotas: &mut Quotas<u8>, who: u8, bytes: usize, times: usize, now: Instant) -> usize {
        (0..times).filter(|_| quotas.take(who, bytes, now) == Verdict::Within).count()
    }

    #[test]
    fn who_sends_more_than_its_share_takes_nothing_from_others() {
        let now = Instant::now();
        let mut quotas = Quotas::new(Share::of(100, 10_000));
        assert_eq!(within(&mut quotas, 1, 10, 100_000, now), 100);
        assert_eq!(within(&mut quotas, 2, 10, 50, now), 50, "the other one has its own");
        assert_eq!(within(&mut quotas, 1, 10, 100_000, now + Duration::from_millis(500)), 50);
        assert_eq!(within(&mut quotas, 3, 1_000, 100, now), 10, "bytes count as messages do");
    }

    #[test]
    fn rubbish_costs_as_much_as_many_messages() {
        let now = Instant::now();
        let mut quotas = Quotas::new(Share::of(100, 10_000));
        quotas.drain(1, 64, now);
        assert_eq!(within(&mut quotas, 1, 10, 100, now), 36);
    }

    #[test]
    fn of_what_is_over_one_line_a_minute_tells() {
        let begun = Instant::now();
        let mut quotas = Quotas::new(Share::of(1, 10_000));
        let mut said = Vec::new();
        for n in 0..1_210 {
            if let Verdict::Over(Some(times)) = quotas.take(7, 1, begun + Duration::from_millis(n * 100)) {
                said.push(times);
            }
        }
        // Nine in ten are over, and the first one is said at once.
        assert_eq!(said, [1, 540, 540]);
    }

    #[test]
    fn who_has_all_of_its_share_is_not_remembered_once_there_are_many() {
        let now = Instant::now();
        let mut quotas = Quotas::new(Share::of(100, 10_000));
        for who in 0..limits::MESH_MEMBERS_MAX {
            quotas.take(who, 1, now);
        }
        // All senders but one have their share again.
        let later = now + Duration::from_secs(1);
        while quotas.take(0, 1, later) == Verdict::Within {}
        quotas.take(limits::MESH_MEMBERS_MAX, 1, later);
        assert_eq!(quotas.left.len(), 2);
        assert_ne!(quotas.take(0, 1, later), Verdict::Within, "it has used up its own");
    }
}
