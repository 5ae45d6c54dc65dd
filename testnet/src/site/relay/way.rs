//! What happens to datagrams that go one way between two nodes. Nothing here reads a clock: the time is passed in.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Bytes of datagrams that one way holds. One more is dropped.
pub(super) const WAY_BYTES_MAX: usize = 32 << 20;
/// Datagrams that one way holds. One more is dropped.
pub(super) const WAY_DATAGRAMS_MAX: usize = 32_768;
/// Datagrams that wait for a line. One more is dropped, as a router does.
pub(super) const LINE_DATAGRAMS_MAX: usize = 256;
/// How long a line takes to send what its queue holds, in milliseconds, unless something else is asked for.
const LINE_QUEUE_MS: u64 = 400;
/// Bytes that the queue of a slow line holds at least: a few datagrams.
const LINE_QUEUE_BYTES_MIN: u64 = 6_000;
/// How long after a datagram its double arrives, in microseconds.
const DOUBLE_AFTER_US: u64 = 1_000;

/// What happens to datagrams that go one way. By default nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Law {
    /// How long each is under way, in milliseconds.
    pub delay_ms: u64,
    /// By how much that grows at most, in milliseconds. By how much it does is drawn anew each second.
    pub jitter_ms: u64,
    /// How many of a thousand are held back, so that others overtake them.
    pub held_back_permille: u32,
    /// For how long they are, in milliseconds.
    pub held_back_ms: u64,
    /// How many of a thousand arrive twice.
    pub doubled_permille: u32,
    /// How many of a thousand are lost.
    pub lost_permille: u32,
    /// What sends them; at once if none.
    pub line: Option<Line>,
    /// Nothing arrives, and what is under way is lost.
    pub cut: bool,
}

/// A line with a rate, and the queue before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it sends in a second.
    pub bytes_per_s: u64,
    /// What may wait for it. A datagram for which there is no room is dropped; one that finds nobody waiting has room.
    pub queue_bytes: usize,
}

impl Line {
    /// One with a queue that it sends within 400 ms, as routers before thin links have it.
    #[must_use]
    pub fn of(bytes_per_s: u64) -> Self {
        let queue = (bytes_per_s.saturating_mul(LINE_QUEUE_MS) / 1_000).max(LINE_QUEUE_BYTES_MIN);
        Self { bytes_per_s, queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX) }
    }
}

impl Law {
    /// A constant delay, in milliseconds.
    #[must_use]
    pub fn delay(delay_ms: u64) -> Self {
        Self { delay_ms, ..Self::default() }
    }

    /// The same, through a line.
    #[must_use]
    pub fn through(self, line: Line) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The same, with nothing that arrives.
    #[must_use]
    pub fn cut(self) -> Self {
        Self { cut: true, ..self }
    }
}

/// What happened to datagrams of one way so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were sent into it.
    pub entered: u64,
    /// Datagrams that came out, doubles included.
    pub left: u64,
    /// Datagrams that a cut or a loss took.
    pub lost: u64,
    /// Datagrams for which a queue had no room.
    pub overflowed: u64,
}

/// One way between two nodes. Instants are microseconds from any beginning.
#[derive(Debug)]
pub(super) struct Way {
    law: Law,
    rng: SmallRng,
    /// By when each arrives, and in which order they came.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    under_way_bytes: usize,
    next: u64,
    /// What the line has not sent yet: when it will have, and how many bytes.
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

    /// Another law holds for what enters from now on. What is under way arrives as it was to, unless the way is cut.
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

    /// A datagram sets out.
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

    /// When the next one arrives.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.under_way.first_key_value().map(|((arrives_us, _), _)| *arrives_us)
    }

    /// One that has arrived by now, in the order in which they do.
    pub(super) fn leave(&mut self, now_us: u64) -> Option<Vec<u8>> {
        let first = self.under_way.first_entry().filter(|entry| entry.key().0 <= now_us)?;
        let datagram = first.remove();
        self.under_way_bytes -= datagram.len();
        self.counts.left += 1;
        Some(datagram)
    }

    /// When the line will have sent so many bytes; none if its queue has no room for them.
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
