//! Works out again what entries did, from the snapshot and the log.

use std::io;
use std::ops::Range;

use skep_fleet::FleetState;
use skep_protocol::change::ChangeSet;
use skep_protocol::fleet::Build;
use skep_protocol::ids::ShardId;
use skep_store::Store;

use crate::raft::log_store::entry;
use crate::raft::machine::{apply_payload, read_payload};

/// Bytes of entries that are read at a time.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Fills missing entries of the history, which have been applied, from the log; false if the log does not hold them.
/// Takes as long as a start, and as much memory as the state.
///
/// # Errors
/// If a read or a write fails, or this build cannot apply an entry: another build may.
pub(crate) fn fill_from_log(store: &Store, shard: ShardId, build: &Build, wanted: Range<u64>) -> io::Result<bool> {
    let snapshot = store.snapshots().load(shard).map_err(io::Error::other)?;
    let (mut state, mut at) = match snapshot {
        Some(stored) => {
            let state = FleetState::read_snapshot(&stored.data, build.versions).map_err(io::Error::other)?;
            (state, stored.index + 1)
        }
        None => (FleetState::empty(), 0),
    };
    if at > wanted.start {
        return Ok(false);
    }
    while at < wanted.end {
        let entries = store.entries(shard, at..wanted.end, READ_BYTES_MAX).map_err(io::Error::other)?;
        if entries.first().is_none_or(|(point, _)| point.index != at) {
            return Ok(false);
        }
        let mut sets = Vec::new();
        let from = at.max(wanted.start);
        for (point, bytes) in entries {
            let entry = entry(point, &bytes)?;
            let read = read_payload(build, state.fleet_version(), entry.log_id, &entry.payload);
            let read = read.map_err(|unfit| io::Error::other(unfit.to_string()))?;
            let changes = apply_payload(&mut state, entry.log_id, read.as_ref()).changes;
            if point.index >= wanted.start && !changes.is_empty() {
                sets.push(ChangeSet { index: point.index, term: point.term, changes });
            }
            at = point.index + 1;
        }
        if at > from && !store.history().fill(shard, 0, &sets, from..at) {
            return Err(io::Error::other("the history cannot be written"));
        }
    }
    Ok(true)
}
