//! Makes the data directory in which a shard goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::{EntryPayload, Membership};
use skep_fleet::LogPosition;
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded as _;
use skep_protocol::entry::{Entry, EntryBody, Recovered};
use skep_protocol::ids::{RaftId, ShardId};
use skep_protocol::recovery::SignedRecovery;
use skep_store::{History, HistoryOptions, LogPoint, Store, StoreError, StoredSnapshot, beside};

use super::replay::Replayed;
use super::{RecoverError, Remains};
use crate::raft::agree::bring_to_agree;
use crate::raft::types::{EntryBytes, LogId, Member, SnapshotMeta, StoredMembership, Vote, encode};

/// Bytes of entries that are copied at a time.
const COPY_BYTES_MAX: usize = 1024 * 1024;

type Payload = EntryPayload<EntryBytes, RaftId, Member>;

fn malformed(error: impl std::fmt::Display) -> RecoverError {
    RecoverError::Malformed(error.to_string())
}

impl Remains {
    /// Writes all shards of the old directory into a new one, this shard as it goes on, and waits until they are
    /// durable.
    pub(super) fn write(&self, fresh: &Store, signed: &SignedRecovery, term: u64) -> Result<(), RecoverError> {
        for other in self.other_shards() {
            copy(&self.store, fresh, other)?;
        }
        let name = self.replayed.members.values().find(|member| member.node == self.node);
        let name = name.and_then(|member| member.name.clone());
        let own = Member { node: self.node, incarnation: fresh.incarnation(), name, charter: None };
        let id = own.raft_id();
        let before = LogPoint { index: self.replayed.last.saturating_add(1), term };
        // This is as if an entry had changed the members: Raft's own entries do nothing to the state.
        let mut state = self.replayed.state.clone();
        state.skip(LogPosition { index: before.index, term });
        let snapshot = StoredSnapshot {
            index: before.index,
            meta: Bytes::from(encode(&meta(before, id, own)?).map_err(malformed)?),
            data: Bytes::from(state.to_snapshot().map_err(malformed)?),
        };
        fresh.snapshots().save(self.shard, &snapshot)?;
        fresh.purge(self.shard, before)?;
        let former = self.replayed.members.keys().filter(|member| **member != id).copied().collect();
        let body = EntryBody::Recovered(Box::new(Recovered { statement: signed.clone(), former }));
        let entry = Entry { stamp: state.clock(), term, body };
        let payload: Payload = EntryPayload::Normal(EntryBytes(Bytes::from(entry.encode().map_err(malformed)?)));
        let at = LogPoint { index: before.index.saturating_add(1), term };
        let entries = vec![(at, Bytes::from(encode(&payload).map_err(malformed)?))];
        durable(|done| fresh.append(self.shard, entries, done))?;
        let vote = Vote { leader_id: LeaderId { term, voted_for: id }, committed: false };
        let vote = Bytes::from(encode(&vote).map_err(malformed)?);
        durable(|done| fresh.save_vote(self.shard, vote, done)).map_err(RecoverError::Store)
    }
}

/// The effects of entries in the log: the history of the old directory may lack them.
pub(super) struct Untold {
    shard: ShardId,
    sets: Vec<ChangeSet>,
    /// The indexes of the entries whose effects these are.
    entries: Range<u64>,
}

impl Untold {
    pub(super) fn of(shard: ShardId, replayed: Replayed, told_from: u64) -> Self {
        // The entry that changes the members has no effect on the state.
        let end = replayed.last.saturating_add(2);
        let from = told_from.max(replayed.from).min(end);
        Self { shard, sets: replayed.sets, entries: from..end }
    }

    /// Takes over the history of the old directory, and adds what it lacks.
    pub(super) fn take_history(&self, old: &Path, data: &Path, options: HistoryOptions) -> Result<(), RecoverError> {
        beside::move_history(old, data)?;
        let Some(history) = History::within(data, options) else { return Ok(()) };
        if !history.fill(self.shard, 0, &self.sets, self.entries.clone()) {
            return Err(malformed("the history cannot be written"));
        }
        history.persist().map_err(malformed)
    }
}

/// The meta of a snapshot after which a node is the only member.
fn meta(at: LogPoint, id: RaftId, member: Member) -> Result<SnapshotMeta, RecoverError> {
    let log_id = LogId { leader_id: at.term.into(), index: at.index };
    let membership = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, member)]));
    let last_membership = StoredMembership::new(Some(log_id), membership.map_err(malformed)?);
    Ok(SnapshotMeta { last_log_id: Some(log_id), last_membership })
}

/// Waits until a write is durable.
fn durable(write: impl FnOnce(Box<dyn FnOnce() + Send>) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let (done, waiting) = std::sync::mpsc::channel();
    write(Box::new(move || {
        let _ = done.send(());
    }))?;
    waiting.recv().map_err(|_| StoreError::Closed)
}

/// Copies a shard as it is.
fn copy(from: &Store, to: &Store, shard: ShardId) -> Result<(), RecoverError> {
    bring_to_agree(from, shard)?;
    if let Some(stored) = from.snapshots().load(shard)? {
        to.snapshots().save(shard, &stored)?;
    }
    let (purged, last) = from.ends(shard);
    if let Some(purged) = purged {
        to.purge(shard, purged)?;
    }
    let end = last.map_or(0, |last| last.index.saturating_add(1));
    let mut next = purged.map_or(0, |purged| purged.index.saturating_add(1));
    while next < end {
        let entries = from.entries(shard, next..end, COPY_BYTES_MAX)?;
        let Some((last, _)) = entries.last() else {
            return Err(malformed(format!("entry {next} of shard {shard} is missing in the log")));
        };
        next = last.index.saturating_add(1);
        durable(|done| to.append(shard, entries, done))?;
    }
    if let Some(vote) = from.vote(shard) {
        durable(|done| to.save_vote(shard, vote, done))?;
    }
    if from.marks().has_forgotten(shard) {
        to.marks().note_forgotten(shard)?;
    }
    Ok(())
}
