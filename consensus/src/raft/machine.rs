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
use skep_fleet::{FleetState, LogPosition};
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::entry::{self, EntryBody};
use skep_protocol::fleet::Build;
use skep_protocol::ids::{RaftId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};
use tokio::sync::watch;

use super::fitness::{Fitness, Unfit};
use super::types::{
    ApplyReply, EntryBytes, LogId, Member, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, decode, encode,
};
use crate::clock::ShardClock;
use crate::ends::Ends;
use crate::net::Sending;
use crate::pulls::Pulls;
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

type Payload = EntryPayload<EntryBytes, RaftId, Member>;

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
    build: Build,
    fitness: Fitness,
}

impl Machine {
    pub(crate) fn new(store: Store, shard: ShardId, clock: ShardClock, threads: Threads, build: Build) -> Self {
        Self {
            store,
            threads,
            shard,
            state: SharedState(Arc::new(RwLock::new(FleetState::empty()))),
            clock,
            applied: None,
            membership: StoredMembership::default(),
            progress: watch::channel(0).0,
            ends: Ends::default(),
            pulls: Pulls::default(),
            sending: Sending::default(),
            build,
            fitness: Fitness::default(),
        }
    }

    /// Whether this build can apply what the shard has agreed on.
    pub(crate) fn fitness(&self) -> Fitness {
        self.fitness.clone()
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

    /// What is to be applied, if it is more than Raft's own; an error if this build cannot apply it, or what came before it.
    fn read(&self, id: LogId, payload: &Payload) -> Result<Option<entry::Entry>, Unfit> {
        if let Some(unfit) = self.fitness.unfit() {
            return Err(unfit.clone());
        }
        let EntryPayload::Normal(bytes) = payload else { return Ok(None) };
        let speaks = self.build.versions;
        let mut entry = entry::Entry::decode(&bytes.0).map_err(|error| Unfit::unread(id.index, &error, speaks))?;
        // One of a leader that was deposed changes nothing.
        let holds = entry.term == *id.leader_id;
        if let EntryBody::Rules(rules) = &mut entry.body {
            let version = rules.version;
            if holds && version > self.state.read().fleet_version() && !speaks.contains(version) {
                return Err(Unfit::version(id.index, version, speaks));
            }
            if is_on(Mutant::LimitsFromBuild) {
                rules.limits = self.build.limits;
            }
        }
        Ok(Some(entry))
    }

    /// Notes that an entry is committed that this build cannot apply.
    fn pass_over(&mut self, id: LogId, payload: &Payload, why: Unfit) {
        self.fitness.lose(self.shard, why);
        if let EntryPayload::Membership(membership) = payload {
            self.membership = StoredMembership::new(Some(id), membership.clone());
        }
        self.applied = Some(id);
    }

    fn apply_one(&mut self, id: LogId, payload: &Payload, entry: Option<&entry::Entry>) -> ApplyReply {
        let position = LogPosition { index: id.index, term: *id.leader_id };
        let mut state = self.state.write();
        let applied = match (payload, entry) {
            (EntryPayload::Normal(_), Some(entry)) => state.apply(position, entry),
            (EntryPayload::Membership(membership), _) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                state.skip(position);
                skep_fleet::Applied::default()
            }
            (EntryPayload::Blank | EntryPayload::Normal(_), _) => {
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
        ApplyReply { index: position.index, stamp, replies: applied.replies }
    }

    async fn restore(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let speaks = self.build.versions;
        let decode = move || FleetState::read_snapshot(&data, speaks);
        let state = match self.threads.offload(Errand::Snapshots, decode).await? {
            Ok(state) => Some(state),
            Err(error) if error.is_of_another_build() => {
                self.fitness.lose(self.shard, Unfit::snapshot(&error));
                None
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let Some(state) = state else { return Ok(()) };
        self.clock.observe_stamp(state.clock());
        *self.state.write() = state;
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
            let read = match self.read(entry.log_id, &entry.payload) {
                Ok(read) => read,
                // Whoever waits for it learns that nobody knows here what becomes of it.
                Err(why) => {
                    self.pass_over(entry.log_id, &entry.payload, why);
                    continue;
                }
            };
            let reply = self.apply_one(entry.log_id, &entry.payload, read.as_ref());
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        let applied = self.state.read().applied();
        self.progress.send_replace(applied.map_or(0, |position| position.index + 1));
        self.pulls.tell(&self.state.read(), before);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // It would say that it has what was not applied.
        if !force && self.fitness.unfit().is_some() {
            return None;
        }
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
            unfit: self.fitness.unfit().cloned(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        self.restore(meta, snapshot.clone()).await?;
        if self.fitness.unfit().is_some() {
            // One of this node's own, at its start: whatever others send is refused before.
            return Ok(());
        }
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
        store.snapshots().save(shard, &stored).map_err(io::Error::other)
    };
    threads.offload(Errand::Snapshots, save).await?
}

/// Builds a snapshot of one moment, beside further applying.
pub(crate) struct Builder {
    store: Store,
    threads: Threads,
    shard: ShardId,
    state: FleetState,
    /// Why not everything up to there was applied, if it was not.
    unfit: Option<Unfit>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        if let Some(unfit) = &self.unfit {
            return Err(io::Error::other(unfit.to_string()));
        }
        let state = self.state.clone();
        let encode = move || state.to_snapshot().map_err(io::Error::other);
        let data = Bytes::from(self.threads.offload(Errand::Snapshots, encode).await??);
        save(&self.store, &self.threads, self.shard, &self.meta, data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
