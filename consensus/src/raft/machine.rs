//! The fleet's state as openraft's state machine.
//!
//! The state lives in memory. It is rebuilt from the snapshot and the log, so nothing here is synced; the changes go
//! to the history as they are made.

use std::io;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use skep_fleet::{FleetLimits, FleetState, LogPosition};
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::entry;
use skep_protocol::ids::ShardId;
use skep_protocol::mutant::{Mutant, is_on};
use tokio::sync::watch;

use super::types::{ApplyReply, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, decode, encode};
use crate::clock::ShardClock;
use crate::ends::Ends;
use crate::net::Sending;
use crate::pulls::Pulls;
use crate::store::disk::once_there_is_room;
use crate::store::{Store, StoredSnapshot};
use crate::threads::{Errand, Threads};

/// The state of one shard, shared between the one that applies and those that read.
#[derive(Clone)]
pub(crate) struct SharedState(Arc<RwLock<FleetState>>);

impl SharedState {
    /// For a short look: see [`now`](Self::now).
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, FleetState> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The state as it is now, and as it stays for whoever has this: for those who look at it for longer. Applying waits for
    /// whoever reads, and Raft waits for applying.
    pub(crate) fn now(&self) -> FleetState {
        self.read().clone()
    }

    /// Whether applying an entry panicked.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.0.is_poisoned()
    }

    fn write(&self) -> RwLockWriteGuard<'_, FleetState> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Applies the entries of one shard.
pub(crate) struct Machine {
    store: Store,
    threads: Threads,
    shard: ShardId,
    state: SharedState,
    clock: ShardClock,
    applied: Option<LogId>,
    membership: StoredMembership,
    progress: watch::Sender<u64>,
    ends: Ends,
    pulls: Pulls,
    sending: Sending,
}

impl Machine {
    pub(crate) fn new(store: Store, shard: ShardId, clock: ShardClock, threads: Threads) -> Self {
        Self {
            store,
            threads,
            shard,
            state: SharedState(Arc::new(RwLock::new(FleetState::new(FleetLimits::default())))),
            clock,
            applied: None,
            membership: StoredMembership::default(),
            progress: watch::channel(0).0,
            ends: Ends::default(),
            pulls: Pulls::default(),
            sending: Sending::default(),
        }
    }

    /// Whom its snapshot is on its way to.
    pub(crate) fn sending(&self) -> Sending {
        self.sending.clone()
    }

    /// Who waits for commands to end.
    pub(crate) fn ends(&self) -> Ends {
        self.ends.clone()
    }

    /// Who waits for the commands of agents.
    pub(crate) fn pulls(&self) -> Pulls {
        self.pulls.clone()
    }

    pub(crate) fn state(&self) -> SharedState {
        self.state.clone()
    }

    /// Follows the index after the last applied one.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn apply_one(
        &mut self,
        id: LogId,
        payload: &EntryPayload<super::types::EntryBytes, skep_protocol::ids::RaftId, super::types::Member>,
    ) -> io::Result<ApplyReply> {
        let position = LogPosition { index: id.index, term: *id.leader_id };
        let mut state = self.state.write();
        let applied = match payload {
            EntryPayload::Normal(bytes) => {
                let entry = entry::Entry::decode(&bytes.0).map_err(io::Error::other)?;
                state.apply(position, &entry)
            }
            EntryPayload::Blank => {
                state.skip(position);
                skep_fleet::Applied::default()
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                state.skip(position);
                skep_fleet::Applied::default()
            }
        };
        let (stamp, ended) = (state.clock(), self.ends.of(&applied.changes, &state));
        drop(state);
        self.ends.tell(&ended);
        self.applied = Some(id);
        self.clock.observe_stamp(stamp);
        let set = ChangeSet { index: position.index, term: position.term, changes: applied.changes };
        self.store.history().record(self.shard, position.index, (!set.changes.is_empty()).then_some(set));
        Ok(ApplyReply { index: position.index, stamp, replies: applied.replies })
    }

    async fn restore(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let decode = move || FleetState::from_snapshot(&data).map_err(io::Error::other);
        let state = self.threads.offload(Errand::Snapshots, decode).await??;
        self.clock.observe_stamp(state.clock());
        *self.state.write() = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.progress.send_replace(self.applied.map_or(0, |id| id.index + 1));
        self.pulls.tell_all();
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let before = self.applied.map(|id| id.index);
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = self.apply_one(entry.log_id, &entry.payload)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        self.progress.send_replace(self.applied.map_or(0, |id| id.index + 1));
        self.pulls.tell(&self.state.read(), before);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // Another snapshot would replace the one that is on its way to a follower, and drop the log behind it: whenever its
        // connection is cut, all would start over.
        let has_room = !self.store.is_low() && !self.store.is_log_too_large();
        if !force && has_room && self.sending.is_under_way() {
            return None;
        }
        // A snapshot that does not fit on the disk would end the group; one that does lets go of the log that fills it.
        if !force && self.store.is_low() && !self.store.has_room_for(self.state.read().bytes()) {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let forgets = is_on(Mutant::SnapshotWithoutMembership);
        let last_membership = if forgets { StoredMembership::default() } else { self.membership.clone() };
        Builder {
            store: self.store.clone(),
            threads: self.threads.clone(),
            shard: self.shard,
            state: self.state.now(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        self.restore(meta, snapshot.clone()).await?;
        save(&self.store, &self.threads, self.shard, meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let (store, shard) = (self.store.clone(), self.shard);
        let load = move || store.snapshots().load(shard).map_err(io::Error::other);
        let Some(stored) = self.threads.offload(Errand::Snapshots, load).await?? else {
            return Ok(None);
        };
        let meta = decode("snapshot meta", &stored.meta)?;
        Ok(Some(Snapshot { meta, snapshot: stored.data }))
    }
}

async fn save(store: &Store, threads: &Threads, shard: ShardId, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
    let index = meta.last_log_id.map_or(0, |id| id.index);
    let stored = StoredSnapshot { index, meta: Bytes::from(encode(meta)?), data };
    let store = store.clone();
    let save = move || {
        // What the log still holds can be applied again; what the snapshot lets go of must be in the history first.
        store.history().sync();
        // An error would end the group, and for want of room none has to: who waits for it is no worse off.
        once_there_is_room(|| store.snapshots().save(shard, &stored)).map_err(io::Error::other)
    };
    threads.offload(Errand::Snapshots, save).await?
}

/// Builds a snapshot of one moment, beside further applying.
pub(crate) struct Builder {
    store: Store,
    threads: Threads,
    shard: ShardId,
    state: FleetState,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.clone();
        let encode = move || state.to_snapshot().map_err(io::Error::other);
        let data = Bytes::from(self.threads.offload(Errand::Snapshots, encode).await??);
        save(&self.store, &self.threads, self.shard, &self.meta, data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
