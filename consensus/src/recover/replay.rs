//! Works out the state of a replica that applies everything in its log, committed or not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use skep_fleet::FleetState;
use skep_protocol::change::{Change, ChangeSet};
use skep_protocol::fleet::Build;
use skep_protocol::ids::{RaftId, ShardId};
use skep_store::{LogPoint, Store};

use super::RecoverError;
use crate::raft::log_store::entry;
use crate::raft::machine::{apply_payload, read_payload};
use crate::raft::types::{Member, SnapshotMeta, decode};

/// Bytes of entries that are read at a time.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// The result of applying everything.
pub(super) struct Replayed {
    pub(super) state: FleetState,
    /// The index of the last entry that was applied.
    pub(super) last: u64,
    /// The index of the last entry in the log.
    pub(super) end: u64,
    /// All members that any membership in the snapshot or the log names.
    pub(super) members: BTreeMap<RaftId, Member>,
    /// The voters of the last membership.
    pub(super) voters: BTreeMap<RaftId, Member>,
    /// The terms of all entries.
    pub(super) terms: BTreeSet<u64>,
    /// The index of the first entry that the snapshot does not hold.
    pub(super) from: u64,
    /// The changes that these entries made, from one entry on.
    pub(super) sets: Vec<ChangeSet>,
    /// The first entry that this build cannot apply: its index, and the reason.
    pub(super) unread: Option<(u64, String)>,
}

/// Applies everything. Keeps no changes of entries before `told_from`.
pub(super) fn replay(store: &Store, shard: ShardId, build: &Build, told_from: u64) -> Result<Replayed, RecoverError> {
    let mut replayed = begin(store, shard, build)?;
    let (_, last) = store.ends(shard);
    let end = last.map_or(0, |last| last.index.saturating_add(1)).max(replayed.from);
    let mut next = replayed.from;
    while next < end && replayed.unread.is_none() {
        let entries = store.entries(shard, next..end, READ_BYTES_MAX)?;
        if entries.first().is_none_or(|(point, _)| point.index != next) {
            return Err(RecoverError::Malformed(format!("entry {next} is missing in the log")));
        }
        for (point, bytes) in entries {
            replayed.terms.insert(point.term);
            let changes = match replayed.apply(build, point, &bytes) {
                Ok(changes) => changes,
                Err(why) => {
                    replayed.unread = Some((point.index, why));
                    break;
                }
            };
            if point.index >= told_from && !changes.is_empty() {
                replayed.sets.push(ChangeSet { index: point.index, term: point.term, changes });
            }
            next = point.index.saturating_add(1);
        }
    }
    (replayed.last, replayed.end) = (next.saturating_sub(1), end.saturating_sub(1));
    Ok(replayed)
}

/// The state in the snapshot.
fn begin(store: &Store, shard: ShardId, build: &Build) -> Result<Replayed, RecoverError> {
    let malformed = |why: &dyn std::fmt::Display| RecoverError::Malformed(format!("the snapshot: {why}"));
    let stored = store.snapshots().load(shard)?;
    let (state, from) = match &stored {
        Some(stored) => {
            let state = FleetState::read_snapshot(&stored.data, build.versions).map_err(|error| malformed(&error))?;
            (state, stored.index.saturating_add(1))
        }
        None => (FleetState::empty(), 0),
    };
    let mut replayed = Replayed {
        state,
        last: 0,
        end: 0,
        members: BTreeMap::new(),
        voters: BTreeMap::new(),
        terms: BTreeSet::new(),
        from,
        sets: Vec::new(),
        unread: None,
    };
    if let Some(stored) = stored {
        let meta: SnapshotMeta = decode("snapshot meta", &stored.meta).map_err(|error| malformed(&error))?;
        replayed.note(meta.last_membership.membership());
    }
    Ok(replayed)
}

impl Replayed {
    /// Notes the members and voters of a membership.
    fn note(&mut self, membership: &Membership<RaftId, Member>) {
        let members = || membership.nodes().map(|(id, member)| (*id, member.clone()));
        self.members.extend(members());
        let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        self.voters = members().filter(|(id, _)| voters.contains(id)).collect();
    }

    /// Applies an entry; returns its changes, or why this build cannot apply it.
    fn apply(&mut self, build: &Build, point: LogPoint, bytes: &Bytes) -> Result<Vec<Change>, String> {
        let entry = entry(point, bytes).map_err(|error| error.to_string())?;
        let read = read_payload(build, self.state.fleet_version(), entry.log_id, &entry.payload);
        let read = read.map_err(|unfit| unfit.to_string())?;
        if let EntryPayload::Membership(membership) = &entry.payload {
            self.note(membership);
        }
        Ok(apply_payload(&mut self.state, entry.log_id, read.as_ref()).changes)
    }
}
