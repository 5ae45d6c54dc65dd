//! Taking what entries did into memory, as rows: from the queue, and from the part of the node that fills gaps.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use skep_protocol::change::ChangeSet;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::time::LogInstant;

use super::tables::{HistoryError, pieces, set_bytes};
use super::{History, Inner};
use crate::lock;

/// How long changes are collected before they are taken together.
const BREATH: Duration = Duration::from_millis(3);
/// Bytes that an entry takes in the queue beside its changes.
const ITEM_BYTES: usize = 64;

/// What one entry did, on its way into memory.
pub(super) struct Item {
    shard: ShardId,
    index: u64,
    set: Option<ChangeSet>,
    pub(super) bytes: usize,
}

impl Item {
    pub(super) fn new(shard: ShardId, index: u64, set: Option<ChangeSet>) -> Self {
        let bytes = ITEM_BYTES + set.as_ref().map_or(0, set_bytes);
        Self { shard, index, set, bytes }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    /// Bytes of the queue, and of the rows in memory that are in no table yet.
    pub(super) bytes: usize,
    /// Count what was put in, and what was taken or given up.
    pub(super) recorded: u64,
    pub(super) settled: u64,
    pub(super) closed: bool,
    /// Nothing is taken from here on: the rows in memory are written for the last time.
    pub(super) drained: bool,
}

/// The instant at which an entry changed something.
fn instant_of(set: &ChangeSet) -> LogInstant {
    set.changes.last().map_or(LogInstant::ZERO, |change| change.at)
}

impl Inner {
    /// Takes what is queued, until the queue is closed and empty.
    pub(super) fn run(&self) {
        while let Some(items) = self.next_items() {
            let count = items.len() as u64;
            let left_out = self.take(items);
            let mut queue = lock(&self.queue);
            queue.settled += count;
            queue.bytes = queue.bytes.saturating_sub(left_out);
            drop(queue);
            self.idle.notify_all();
            if self.until_due(Instant::now()).is_zero() {
                self.due.notify_all();
            }
        }
    }

    /// Waits for something to take. None: the queue is closed and empty.
    fn next_items(&self) -> Option<Vec<Item>> {
        let mut queue = lock(&self.queue);
        while queue.items.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if !queue.closed {
            // This pause lets a busy log wake the thread a few hundred times a second, and not for every entry.
            drop(queue);
            std::thread::sleep(BREATH);
            queue = lock(&self.queue);
        }
        let mut bytes = 0;
        let fits = |item: &&Item| {
            let is_first = bytes == 0;
            bytes += item.bytes;
            is_first || bytes <= limits::HISTORY_BATCH_BYTES_SOFT_MAX
        };
        let count = queue.items.iter().take_while(fits).count();
        Some(queue.items.drain(..count).collect())
    }

    /// Takes what entries did into memory. Returns the bytes of those that cannot be taken.
    fn take(&self, items: Vec<Item>) -> usize {
        let mut shards = BTreeSet::new();
        let mut left_out = 0;
        for Item { shard, index, set, bytes } in items {
            let at = set.as_ref().map_or(LogInstant::ZERO, instant_of);
            let rows = match set.as_ref().map(pieces).transpose() {
                Ok(rows) => rows.unwrap_or_default(),
                Err(error) => {
                    // The entry stays a gap, like one that no voter has.
                    tracing::error!(%shard, index, %error, "what an entry did is not encoded");
                    left_out += bytes;
                    continue;
                }
            };
            let mut stands = lock(&self.stands);
            let pending = &mut stands.entry(shard).or_default().pending;
            pending.put(index, 0, rows, at);
            pending.cover(index..index + 1);
            pending.count(bytes, 1);
            shards.insert(shard);
        }
        // The readers that wait, also at a gap, look again.
        shards.into_iter().for_each(|shard| self.change(shard, |_| {}));
        left_out
    }
}

impl History {
    /// Adds what another voter had, or the log: changes of consecutive entries, which cover a range whole. The first
    /// set may begin with a later change of its entry. Returns whether they were taken, to be written like those of new
    /// entries; waits for a disk if much is to be written.
    pub fn fill(&self, shard: ShardId, skip: u32, sets: &[ChangeSet], covers: Range<u64>) -> bool {
        let taken = self.inner.fill(shard, skip, sets, covers);
        if let Err(error) = &taken {
            tracing::warn!(%shard, %error, "cannot write history that was missing");
        }
        taken.is_ok()
    }
}

impl Inner {
    fn fill(&self, shard: ShardId, skip: u32, sets: &[ChangeSet], covers: Range<u64>) -> Result<(), HistoryError> {
        // No more is taken than can be written.
        self.tables()?;
        if let Some(error) = lock(&self.failure).clone() {
            return Err(error);
        }
        let mut rows = Vec::with_capacity(sets.len());
        let mut at = (covers.start, skip);
        for set in sets {
            let ordinal = if set.index == at.0 { at.1 } else { 0 };
            rows.push((set.index, ordinal, pieces(set)?, instant_of(set)));
            at = (set.index, ordinal.saturating_add(u32::try_from(set.changes.len()).unwrap_or(u32::MAX)));
        }
        let bytes: usize = sets.iter().map(set_bytes).sum();
        lock(&self.queue).bytes += bytes;
        {
            let mut stands = lock(&self.stands);
            let pending = &mut stands.entry(shard).or_default().pending;
            rows.into_iter().for_each(|(index, ordinal, rows, at)| pending.put(index, ordinal, rows, at));
            pending.cover(covers);
            pending.count(bytes, sets.len());
        }
        self.change(shard, |_| {});
        if self.until_due(Instant::now()).is_zero() { self.flush() } else { Ok(()) }
    }
}
