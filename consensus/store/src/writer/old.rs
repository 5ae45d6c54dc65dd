//! What a writer does about old segments: it repeats what they say, moves entries out that keep them, and drops them.

use std::io;
use std::sync::Arc;

use skep_protocol::ids::ShardId;

use super::{KEPT_RECORD_BYTES, Writer, Written};
use crate::lock;
use crate::record::{self, EntryBody, RecordKind, two};
use crate::shard_log::{Extent, LogPoint, ShardLog};

/// The number of segments beyond which entries of quiet shards are moved out of the oldest one.
const SEGMENTS_KEPT: usize = 8;

impl Writer {
    /// Every segment begins with what earlier ones say of votes, purges and commits, so that those can be dropped.
    pub(super) fn restate(&mut self) {
        self.say_kept();
        for (shard, written) in self.written.clone() {
            if let Some(vote) = &written.vote {
                self.record(RecordKind::Vote, shard, vote, &[]);
            }
            if let Some(purged) = written.purged {
                self.record(RecordKind::Purge, shard, &two(purged.index, purged.term), &[]);
            }
            if let Some(committed) = written.committed {
                self.record(RecordKind::Committed, shard, &committed.to_le_bytes(), &[]);
            }
        }
    }

    /// Writes which segments must exist when the log is read.
    fn say_kept(&mut self) {
        let kept = self.setup.kept;
        // The record belongs to no shard.
        self.record(RecordKind::Kept, ShardId(0), &kept.to_le_bytes(), &[]);
    }

    /// How many bytes [`restate`](Self::restate) takes.
    pub(super) fn restated_bytes(&self) -> u64 {
        let of = |written: &Written| {
            let vote = written.vote.as_ref().map_or(0, |vote| record::padded(vote.len()));
            let purged = written.purged.map_or(0, |_| record::padded(16));
            vote + purged + written.committed.map_or(0, |_| record::padded(8))
        };
        (KEPT_RECORD_BYTES + self.written.values().map(of).sum::<usize>()) as u64
    }

    /// Writes entries of quiet shards again that keep the oldest segment from being dropped.
    pub(super) fn move_out_of_oldest(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.setup.shared);
        let oldest = {
            let segments = lock(&shared.segments);
            if segments.len() <= SEGMENTS_KEPT {
                return Ok(());
            }
            segments.first_key_value().map(|(_, segment)| Arc::clone(segment))
        };
        let Some(oldest) = oldest else { return Ok(()) };
        let mut moving: Vec<(ShardId, LogPoint, Extent)> = Vec::new();
        for (shard, log) in lock(&shared.logs).iter() {
            for index in log.held(0..u64::MAX) {
                let Some(slot) = log.slot(index) else { continue };
                if let Some(extent) = slot.extent.filter(|extent| extent.segment == oldest.number) {
                    moving.push((*shard, LogPoint { index, term: slot.term }, extent));
                }
            }
        }
        // This much is moved at each rotation: the oldest segment is empty after a few of them at the latest.
        let mut budget = self.setup.options.segment_bytes / 4;
        moving.retain(|(_, _, extent)| {
            let fits = budget >= u64::from(extent.bytes);
            budget -= if fits { u64::from(extent.bytes) } else { 0 };
            fits
        });
        for (shard, point, extent) in moving {
            let mut bytes = vec![0; extent.bytes as usize];
            oldest.file.read_exact_at(&mut bytes, extent.offset)?;
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("entry {} is damaged", point.index));
            let (_, body) = record::read(&bytes).ok_or_else(damaged)?;
            let body = EntryBody::read(body).filter(|body| body.point == point).ok_or_else(damaged)?;
            let extent = self.record(RecordKind::Append, shard, &EntryBody::head(point, None), body.entry);
            self.batch.placed.push((shard, point, extent));
        }
        Ok(())
    }

    /// Drops the oldest segments that hold no entry. Before that it writes, durably, that they are not needed: a
    /// segment that is missing without such a record is a hole. False: there is no room for the record at present, and
    /// they stay. The record may be in the buffer then; once that is written, and synced since something is to be
    /// dropped, only the dropping is left to do.
    pub(super) fn drop_unneeded(&mut self) -> io::Result<bool> {
        let shared = Arc::clone(&self.setup.shared);
        let oldest = lock(&shared.logs).values().filter_map(ShardLog::oldest_segment).min();
        let needed = oldest.unwrap_or(u64::MAX).min(self.setup.active.number);
        if lock(&shared.segments).first_key_value().is_none_or(|(number, _)| *number >= needed) {
            return Ok(true);
        }
        if needed > self.setup.kept {
            if !self.fits(KEPT_RECORD_BYTES) && !self.rotate()? {
                return Ok(false);
            }
            self.setup.kept = needed;
            self.say_kept();
            // The batch that it goes with may have come with a new segment, and have a waiting caller.
            if !self.write_batch()? {
                return Ok(false);
            }
            self.sync()?;
        }
        self.remove_before(needed);
        Ok(true)
    }

    fn remove_before(&self, needed: u64) {
        let mut segments = lock(&self.setup.shared.segments);
        while let Some((number, segment)) = segments.first_key_value().map(|(n, s)| (*n, Arc::clone(s))) {
            if number >= needed {
                break;
            }
            if let Err(error) = self.setup.disk.remove(&segment.path) {
                tracing::warn!(path = %segment.path.display(), %error, "cannot remove a segment that is not needed");
                break;
            }
            segments.remove(&number);
        }
        drop(segments);
        // Recovery recognises what comes back after a power cut; but until then that takes its space.
        if let Err(error) = self.setup.disk.sync_dir(&self.setup.dir) {
            tracing::warn!(%error, "what was removed from the log may come back after a power cut");
        }
    }
}
