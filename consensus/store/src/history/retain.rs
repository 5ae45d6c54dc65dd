//! Dropping the parts of the history that are too old, or too much.

use fjall::Keyspace;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::time::LogInstant;

use super::pending::Stand;
use super::tables::{HistoryError, Rows, encode_meta, meta_key};
use super::{History, Inner};
use crate::lock;

impl History {
    /// Drops what is too old or too much. Waits for a disk.
    pub fn retain(&self, shard: ShardId, now: Option<LogInstant>) {
        if let Err(error) = self.inner.retain(shard, now) {
            tracing::warn!(%shard, %error, "cannot drop old history; the node tries again");
        }
    }

    /// Drops the oldest segment because the disk is nearly full: of this shard if no other has more, and as long as
    /// [`limits::HISTORY_BYTES_LEAST`] are left of all. Never drops the segment that is written to, nor what is not
    /// durable here. Waits for a disk.
    pub fn give_back(&self, shard: ShardId) {
        if let Err(error) = self.inner.give_back(shard) {
            tracing::warn!(%shard, %error, "cannot drop old history on a full disk; the node tries again");
        }
    }
}

impl Inner {
    /// Drops the oldest segments for as long as they are too old or too much.
    fn retain(&self, shard: ShardId, now: Option<LogInstant>) -> Result<(), HistoryError> {
        while let Some(shard) = self.outdated(shard, now) {
            // Removing its files takes long, and is done where nothing waits.
            drop(self.take_oldest(shard)?);
        }
        Ok(())
    }

    /// The shard whose oldest segment goes next: this shard if its own is too old, or else the shard with the most
    /// bytes.
    fn outdated(&self, shard: ShardId, now: Option<LogInstant>) -> Option<ShardId> {
        let stands = lock(&self.stands);
        if stands.get(&shard).is_some_and(|stand| stand.kept.is_outdated(now, &self.options)) {
            return Some(shard);
        }
        let bytes: u64 = stands.values().map(|stand| stand.kept.bytes()).sum();
        let can_shrink = stands.iter().filter(|(_, stand)| bytes > self.options.bytes_max && stand.kept.can_shrink());
        can_shrink.max_by_key(|(_, stand)| stand.kept.bytes()).map(|(shard, _)| *shard)
    }

    fn give_back(&self, shard: ShardId) -> Result<(), HistoryError> {
        if !self.is_to_give_back(shard) {
            return Ok(());
        }
        let from = lock(&self.stands).get(&shard).map_or(0, |stand| stand.kept.floor());
        let gone = self.take_oldest(shard)?;
        self.change(shard, |shelf| shelf.count_given_back(from));
        tracing::warn!(%shard, from, "history was dropped before its time: the disk is nearly full");
        drop(gone);
        Ok(())
    }

    /// Whether no other shard has more to drop, and enough is left without the segment.
    fn is_to_give_back(&self, shard: ShardId) -> bool {
        let stands = lock(&self.stands);
        let bytes: u64 = stands.values().map(|stand| stand.kept.bytes()).sum();
        let left = |stand: &Stand| {
            let of_shard = stand.kept.bytes_without_oldest()?;
            Some((stand.kept.bytes(), bytes - stand.kept.bytes() + of_shard))
        };
        let can_shrink = stands.iter().filter_map(|(shard, stand)| Some((*shard, left(stand)?)));
        let most = can_shrink.max_by_key(|(_, (bytes, _))| *bytes);
        most.is_some_and(|(most, (_, left))| most == shard && left >= limits::HISTORY_BYTES_LEAST)
    }

    /// Takes the oldest segment away; its files go when the result is dropped. First the next segment records durably
    /// where the history begins: otherwise what is gone would count as missing.
    pub(super) fn take_oldest(&self, shard: ShardId) -> Result<Option<Keyspace>, HistoryError> {
        let _one_at_a_time = lock(&self.writing);
        let tables = self.tables()?;
        let mut shelf = lock(&self.stands).get(&shard).map(|stand| stand.kept.clone()).unwrap_or_default();
        let (Some(gone), Some(first)) = (shelf.drop_oldest(), shelf.oldest()) else { return Ok(None) };
        if let Some(meta) = shelf.meta(first) {
            tables.write(shard, first, &Rows::from([(meta_key(), encode_meta(&meta)?.into())]))?;
        }
        // A reader from here on learns of the new begin before the rows go.
        self.change(shard, |shelf| {
            shelf.drop_oldest();
        });
        tracing::info!(%shard, begins = shelf.floor(), "the oldest part of the history goes");
        tables.remove(shard, gone)
    }
}
