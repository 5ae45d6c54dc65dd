//! What happens to datagrams in one direction between two nodes. This code reads no clock: the caller passes the time.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// The most bytes of datagrams that one direction holds. One more datagram is dropped.
pub(super) const WAY_BYTES_MAX: usize = 32 << 20;
/// The most datagrams that one direction holds. One more is dropped.
pub(super) const WAY_DATAGRAMS_MAX: usize = 32_768;
/// The most datagrams that wait for a line. One more is dropped, as a router does.
pub(super) const LINE_DATAGRAMS_MAX: usize = 256;
/// How long a line takes to send what its queue holds, in milliseconds, unless the test sets another size.
const LINE_QUEUE_MS: u64 = 400;
/// The least bytes that the queue of a slow line holds: a few datagrams.
const LINE_QUEUE_BYTES_MIN: u64 = 6_000;
/// How long after a datagram its double arrives, in microseconds.
const DOUBLE_AFTER_US: u64 = 1_000;

/// What happens to datagrams in one direction. By default nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Law {
    /// How long each datagram is under way, in milliseconds.
    pub delay_ms: u64,
    /// The most that is added to that, in milliseconds. The relay draws each second how much it adds.
    pub jitter_ms: u64,
    /// How many of a thousand datagrams are held back, so that others overtake them.
    pub held_back_permille: u32,
    /// How long they are held back, in milliseconds.
    pub held_back_ms: u64,
    /// How many of a thousand datagrams arrive twice.
    pub doubled_permille: u32,
    /// How many of a thousand datagrams are lost.
    pub lost_permille: u32,
    /// The line that sends them; none if they are sent at once.
    pub line: Option<Line>,
    /// Whether nothing arrives, and what is under way is lost.
    pub cut: bool,
}

/// A line with a rate, and the queue before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// How many bytes it sends in a second.
    pub bytes_per_s: u64,
    /// How many bytes may wait for it. A datagram for which there is no room is dropped; a datagram before which none
    /// waits has room.
    pub queue_bytes: usize,
}

impl Line {
    /// A line with a queue that it sends within 400 ms, as routers before thin links have it.
    #[must_use]
    pub fn of(bytes_per_s: u64) -> Self {
        let queue = (bytes_per_s.saturating_mul(LINE_QUEUE_MS) / 1_000).max(LINE_QUEUE_BYTES_MIN);
        Self { bytes_per_s, queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX) }
    }
}

impl Law {
    /// A law with a constant delay, in milliseconds.
    #[must_use]
    pub fn delay(delay_ms: u64) -> Self {
        Self { delay_ms, ..Self::default() }
    }

    /// The same law, through a line.
    #[must_use]
    pub fn through(self, line: Line) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The same law, with a cut: nothing arrives.
    #[must_use]
    pub fn cut(self) -> Self {
        Self { cut: true, ..self }
    }
}

/// What happened to datagrams of one direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many datagrams were sent into it.
    pub entered: u64,
    /// How many datagrams came out, doubles included.
    pub left: u64,
    /// How many datagrams a cut or a loss took.
    pub lost: u64,
    /// How many datagrams found no room in a queue.
    pub overflowed: u64,
}

/// One direction between two nodes. Instants are microseconds from any beginning.
#[derive(Debug)]
pub(super) struct Way {
    law: Law,
    rng: SmallRng,
    /// Datagrams by when each arrives, and in the order in which they came.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    under_way_bytes: usize,
    next: u64,
    /// What the line has not sent yet: when it will have sent it, and how many bytes.
    waiting: VecDeque<(u64, usize)>,
    waiting_bytes: usize,
    /// Until when the line is busy.
    busy_until: u64,
    /// The second for which jitter was drawn, and how much.
    jitter: Option<(u64, u64)>,
    counts: Counts,
}

impl Way {
    pub(super) fn new(law: Law, seed: u64) -> Self {
        Self {
            law,
            rng: SmallRng::seed_from_u64(seed),
            under_way: BTreeMap::new(),
            under_way_bytes: 0,
            next: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            busy_until: 0,
            jitter: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn law(&self) -> Law {
        self.law
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Sets another law for what enters from here on. What is under way arrives as planned, unless the direction is
    /// cut.
    pub(super) fn obey(&mut self, law: Law) {
        if law.cut {
            self.counts.lost += self.under_way.len() as u64;
            self.under_way.clear();
            self.under_way_bytes = 0;
        }
        if law.cut || law.line != self.law.line {
            self.waiting.clear();
            self.waiting_bytes = 0;
            self.busy_until = 0;
        }
        self.jitter = None;
        self.law = law;
    }

    /// Takes in a datagram.
    pub(super) fn enter(&mut self, datagram: &[u8], now_us: u64) {
        self.counts.entered += 1;
        if self.law.cut || self.hits(self.law.lost_permille) {
            self.counts.lost += 1;
            return;
        }
        let Some(sent_us) = self.send(datagram.len(), now_us) else {
            self.counts.overflowed += 1;
            return;
        };
        let held_back_ms = if self.hits(self.law.held_back_permille) { self.law.held_back_ms } else { 0 };
        let delay_us = (self.law.delay_ms + held_back_ms).saturating_mul(1_000);
        let arrives_us = sent_us.saturating_add(delay_us).saturating_add(self.jitter_us(now_us));
        let doubled = self.hits(self.law.doubled_permille);
        self.put(datagram, arrives_us);
        if doubled {
            self.put(datagram, arrives_us.saturating_add(DOUBLE_AFTER_US));
        }
    }

    /// When the next datagram arrives.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.under_way.first_key_value().map(|((arrives_us, _), _)| *arrives_us)
    }

    /// Returns a datagram that has arrived by now, in the order of arrival.
    pub(super) fn leave(&mut self, now_us: u64) -> Option<Vec<u8>> {
        let first = self.under_way.first_entry().filter(|entry| entry.key().0 <= now_us)?;
        let datagram = first.remove();
        self.under_way_bytes -= datagram.len();
        self.counts.left += 1;
        Some(datagram)
    }

    /// When the line will have sent this many bytes; none if its queue has no room for them.
    fn send(&mut self, bytes: usize, now_us: u64) -> Option<u64> {
        let Some(line) = self.law.line else { return Some(now_us) };
        while let Some((_, sent)) = self.waiting.front().copied().filter(|(sent_us, _)| *sent_us <= now_us) {
            self.waiting.pop_front();
            self.waiting_bytes -= sent;
        }
        let full = self.waiting.len() >= LINE_DATAGRAMS_MAX || self.waiting_bytes + bytes > line.queue_bytes;
        if full && !self.waiting.is_empty() {
            return None;
        }
        let takes_us = (bytes as u64).saturating_mul(1_000_000) / line.bytes_per_s.max(1);
        self.busy_until = self.busy_until.max(now_us).saturating_add(takes_us);
        self.waiting.push_back((self.busy_until, bytes));
        self.waiting_bytes += bytes;
        Some(self.busy_until)
    }

    fn put(&mut self, datagram: &[u8], arrives_us: u64) {
        let full = self.under_way.len() >= WAY_DATAGRAMS_MAX;
        if full || self.under_way_bytes + datagram.len() > WAY_BYTES_MAX {
            self.counts.overflowed += 1;
            return;
        }
        self.under_way.insert((arrives_us, self.next), datagram.to_vec());
        self.under_way_bytes += datagram.len();
        self.next += 1;
    }

    fn hits(&mut self, permille: u32) -> bool {
        permille > 0 && self.rng.random_range(0..1_000) < permille
    }

    fn jitter_us(&mut self, now_us: u64) -> u64 {
        if self.law.jitter_ms == 0 {
            return 0;
        }
        let second = now_us / 1_000_000;
        match self.jitter {
            Some((of, jitter_us)) if of == second => jitter_us,
            _ => {
                let jitter_us = self.rng.random_range(0..=self.law.jitter_ms.saturating_mul(1_000));
                self.jitter = Some((second, jitter_us));
                jitter_us
            }
        }
    }
}
