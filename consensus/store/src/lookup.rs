//! Finding entries in memory, and reading the others.
//!
//! These are two steps because a sync of a disk can delay a read for as long as the sync takes: a caller that must not
//! wait finds entries, and another thread reads them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use skep_protocol::ids::ShardId;

use super::segment::Segment;
use super::shard_log::Extent;
use super::{LogPoint, Store, StoreError, lock, record};

/// Where one entry was found.
enum Where {
    Cached(Bytes),
    /// On disk, in a segment if that still exists.
    OnDisk(Extent, Option<Arc<Segment>>),
}

/// The entries of one moment. Later changes of the log change none of them.
pub struct Found {
    shard: ShardId,
    entries: Vec<(LogPoint, Where)>,
}

impl Store {
    /// Finds the entries of a range that the log holds, as far as they fit into `bytes_max`, but at least one. Reads nothing.
    pub fn find(&self, shard: ShardId, range: Range<u64>, bytes_max: usize) -> Found {
        let entries = self.with_log(shard, |log| {
            let mut bytes = 0;
            log.held(range)
                .map_while(|index| {
                    let slot = log.slot(index)?;
                    let point = LogPoint { index, term: slot.term };
                    let (size, found) = match (&slot.cached, slot.extent) {
                        (Some(entry), _) => (entry.len(), Where::Cached(entry.clone())),
                        // The segment is held until it is read, since the log may drop it from here on.
                        (None, Some(extent)) => {
                            let segment = lock(&self.shared.segments).get(&extent.segment).cloned();
                            (extent.bytes as usize, Where::OnDisk(extent, segment))
                        }
                        (None, None) => return None,
                    };
                    let first = bytes == 0;
                    bytes += size.max(1);
                    (first || bytes <= bytes_max).then_some((point, found))
                })
                .collect()
        });
        Found { shard, entries }
    }
}

impl Found {
    /// Whether all of them are in memory, so that no disk is needed.
    pub fn is_in_memory(&self) -> bool {
        self.entries.iter().all(|(_, found)| matches!(found, Where::Cached(_)))
    }

    /// Reads the entries that are not in memory.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if an entry on disk is damaged.
    pub fn read(self) -> Result<Vec<(LogPoint, Bytes)>, StoreError> {
        let Self { shard, entries } = self;
        let read = |(point, found): (LogPoint, Where)| match found {
            Where::Cached(entry) => Ok((point, entry)),
            Where::OnDisk(extent, segment) => Ok((point, read_entry(shard, point, extent, segment)?)),
        };
        entries.into_iter().map(read).collect()
    }
}

fn read_entry(
    shard: ShardId,
    point: LogPoint,
    extent: Extent,
    segment: Option<Arc<Segment>>,
) -> Result<Bytes, StoreError> {
    let segment = segment.ok_or_else(|| StoreError::CorruptLog {
        shard,
        why: format!("segment {} of entry {} is gone", extent.segment, point.index),
    })?;
    let mut bytes = vec![0; extent.bytes as usize];
    segment.file.read_exact_at(&mut bytes, extent.offset).map_err(|e| StoreError::io(&segment.path, e))?;
    let damaged =
        || StoreError::corrupt(&segment.path, format!("at byte {}: entry {} is damaged", extent.offset, point.index));
    let (header, body) = record::read(&bytes).ok_or_else(damaged)?;
    let body = record::EntryBody::read(body).ok_or_else(damaged)?;
    if header.kind != record::RecordKind::Append || header.shard != shard || body.point != point {
        return Err(damaged());
    }
    Ok(Bytes::copy_from_slice(body.entry))
}
