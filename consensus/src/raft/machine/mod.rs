//! The fleet's state as openraft's state machine.
//!
//! The state lives in memory. A start rebuilds it from the snapshot and the log, so the machine syncs nothing here. The
//! changes go to the history as entries make them.

use std::io;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use skep_fleet::{Applied, FleetState, LogPosition, SnapshotError};
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::entry::{self, EntryBody};
use skep_protocol::fleet::Build;
use skep_protocol::ids::{RaftId, ShardId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::signing::Verdicts;
use skep_store::{Snapshots, Store, StoredSnapshot};
use tokio::sync::watch;

use super::checked::Checked;
use super::fitness::{Fitness, Unfit};
use super::kept::Replay;
use super::saved::SnapshotData;
use super::snapshot::{OwnSnapshot, Write};
use super::types::{
    ApplyReply, EntryBytes, LogId, Member, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, decode,
};
use crate::clock::ShardClock;
use crate::command_ends::Ends;
use crate::net::Sending;
use crate::pulls::Pulls;
use crate::threads::{Errand, Threads};

/// The state of one shard, shared between the task that applies entries and the tasks that read.
#[derive(Clone)]
pub(crate) struct SharedState(Arc<RwLock<FleetState>>);

impl SharedState {
    /// The state for a short look; for a longer one see [`now`](Self::now).
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, FleetState> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A copy of the state at this instant, for readers that look at it for longer. Applying waits for readers, and
    /// Raft waits for applying.
    pub(crate) fn now(&self) -> FleetState {
        self.read().clone()
    }

    /// Whether a panic interrupted the applying of an entry.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.0.is_poisoned()
    }

    fn write(&self) -> RwLockWriteGuard<'_, FleetState> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

type Payload = EntryPayload<EntryBytes, RaftId, Member>;

/// What an entry asks of the fleet; none if the entry is Raft's own. An error if the build cannot apply it to a state
/// of this version.
pub(crate) fn read_payload(
    build: &Build,
    agreed: u32,
    id: LogId,
    payload: &Payload,
) -> Result<Option<entry::Entry>, Unfit> {
    let EntryPayload::Normal(bytes) = payload else { return Ok(None) };
    let speaks = build.versions;
    let mut entry = entry::Entry::decode(&bytes.0).map_err(|error| Unfit::unread(id.index, &error, speaks))?;
    // An entry of a deposed leader changes nothing.
    let holds = entry.term == *id.leader_id;
    let rules = match &mut entry.body {
        EntryBody::Rules(rules) => Some(rules.as_mut()),
        EntryBody::Founding(founding) => Some(&mut founding.rules),
        EntryBody::Requests(_) | EntryBody::Decisions(_) | EntryBody::ClockLost | EntryBody::Recovered(_) => None,
    };
    if let Some(rules) = rules {
        let version = rules.version;
        if holds && version > agreed && !speaks.contains(version) {
            return Err(Unfit::version(id.index, version, speaks));
        }
        if is_on(Mutant::LimitsFromBuild) {
            rules.limits = build.limits;
        }
    }
    Ok(Some(entry))
}

/// Applies an entry to a state; none if the entry is Raft's own.
pub(crate) fn apply_payload(state: &mut FleetState, id: LogId, entry: Option<&entry::Entry>) -> Applied {
    let position = LogPosition { index: id.index, term: *id.leader_id };
    match entry {
        Some(entry) => state.apply(position, entry),
        None => {
            state.skip(position);
            Applied::default()
        }
    }
}

/// Has helper threads verify what operators signed: that takes long, and the task that applies is on the thread of
/// Raft. Signatures that the helpers do not reach are verified where they are applied.
async fn look_up(threads: &Threads, verdicts: Arc<Verdicts>, entry: entry::Entry) -> Arc<entry::Entry> {
    let entry = Arc::new(entry);
    if entry.is_signed_by_operators() {
        let signed = Arc::clone(&entry);
        if let Err(error) = threads.offload(Errand::Signatures, move || signed.look_up(&verdicts)).await {
            tracing::debug!(%error, "signatures are verified where they are applied");
        }
    }
    entry
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
    build: Build,
    fitness: Fitness,
    snapshot: OwnSnapshot,
    /// Signatures that the proposers of this node have verified.
    verdicts: Arc<Verdicts>,
}

impl Machine {
    pub(crate) fn new(store: Store, shard: ShardId, clock: ShardClock, threads: Threads, build: Build) -> Self {
        Self {
            snapshot: OwnSnapshot::new(store.clone(), threads.clone(), shard),
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
            build,
            fitness: Fitness::default(),
            verdicts: Arc::new(Verdicts::of(limits::VERDICTS_MAX)),
        }
    }

    /// The signatures that are known to hold.
    pub(crate) fn verdicts(&self) -> Arc<Verdicts> {
        Arc::clone(&self.verdicts)
    }

    /// Whether this build can apply what the shard has agreed on.
    pub(crate) fn fitness(&self) -> Fitness {
        self.fitness.clone()
    }

    /// What a start would apply again, in bytes.
    pub(crate) fn replay(&self) -> Replay {
        self.snapshot.replay.clone()
    }

    /// The members that this node is sending its snapshot to.
    pub(crate) fn sending(&self) -> Sending {
        self.snapshot.sending.clone()
    }

    /// The place for a snapshot that was decoded before its installation.
    pub(crate) fn checked(&self) -> Checked {
        self.snapshot.checked.clone()
    }

    /// The callers that wait for commands to end.
    pub(crate) fn ends(&self) -> Ends {
        self.ends.clone()
    }

    /// The pulls that wait for the commands of agents.
    pub(crate) fn pulls(&self) -> Pulls {
        self.pulls.clone()
    }

    pub(crate) fn state(&self) -> SharedState {
        self.state.clone()
    }

    /// The index behind the last applied entry, as it rises.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Reads what an entry asks of the fleet; none if the entry is Raft's own. An error if this build cannot apply it,
    /// or could not apply an earlier one.
    fn read(&self, id: LogId, payload: &Payload) -> Result<Option<entry::Entry>, Unfit> {
        if let Some(unfit) = self.fitness.unfit() {
            return Err(unfit.clone());
        }
        let agreed = self.state.read().fleet_version();
        read_payload(&self.build, agreed, id, payload)
    }

    /// Notes that this build cannot apply a committed entry. The history lacks the effects of the entry, as if it had
    /// not come.
    fn pass_over(&mut self, id: LogId, payload: &Payload, why: Unfit) {
        self.fitness.lose(self.shard, why);
        if let EntryPayload::Membership(membership) = payload {
            self.membership = StoredMembership::new(Some(id), membership.clone());
        }
        self.applied = Some(id);
    }

    fn apply_one(&mut self, id: LogId, payload: &Payload, entry: Option<&entry::Entry>) -> ApplyReply {
        let next = self.applied.map_or(0, |id| id.index + 1);
        if id.index != next {
            self.store.history().begin(self.shard, id.index);
        }
        match payload {
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
            }
            EntryPayload::Normal(bytes) => self.snapshot.replay.applied(bytes.0.len()),
            EntryPayload::Blank => {}
        }
        let mut state = self.state.write();
        let applied = apply_payload(&mut state, id, entry);
        let (stamp, ended) = (state.clock(), self.ends.of(&applied.changes, &state));
        drop(state);
        self.ends.tell(&ended);
        self.applied = Some(id);
        self.clock.observe_stamp(stamp);
        let set = ChangeSet { index: id.index, term: *id.leader_id, changes: applied.changes };
        self.store.history().record(self.shard, id.index, (!set.changes.is_empty()).then_some(set));
        ApplyReply { index: id.index, stamp, replies: applied.replies }
    }

    /// Reads the size of a snapshot in bytes, and the state in it. No state if only another build can read it, so that
    /// this build is unfit.
    async fn read_state(&mut self, snapshot: &SnapshotData) -> io::Result<(u64, Option<FleetState>)> {
        if let SnapshotData::Arrived(arrived) = snapshot
            && let Some(state) = self.snapshot.checked.take(arrived.file())
        {
            return Ok((arrived.file().head().id.bytes, Some(state)));
        }
        let data = snapshot.load().await.map_err(io::Error::other)?;
        let (bytes, speaks) = (data.len() as u64, self.build.versions);
        let read = move || FleetState::read_snapshot(&data, speaks);
        match self.threads.offload(Errand::Snapshots, read).await? {
            Ok(state) => Ok((bytes, Some(state))),
            Err(error) if error.is_of_another_build() => {
                self.fitness.lose(self.shard, Unfit::snapshot(&error));
                Ok((bytes, None))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Takes over the state of a snapshot; returns its size in bytes.
    async fn restore(&mut self, meta: &SnapshotMeta, snapshot: &SnapshotData) -> io::Result<u64> {
        let (bytes, state) = self.read_state(snapshot).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let Some(state) = state else { return Ok(bytes) };
        self.clock.observe_stamp(state.clock());
        *self.state.write() = state;
        self.snapshot.replay.covered(u64::MAX, usize::try_from(bytes).unwrap_or(usize::MAX));
        let next = self.applied.map_or(0, |id| id.index + 1);
        self.store.history().begin(self.shard, next);
        self.progress.send_replace(next);
        self.pulls.tell_all();
        Ok(bytes)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let before = self.applied.map(|id| id.index);
        let patience = Duration::from_millis(limits::HISTORY_APPLY_WAIT_MS_MAX);
        let until = tokio::time::Instant::now() + patience;
        while let Some((entry, responder)) = entries.try_next().await? {
            let read = match self.read(entry.log_id, &entry.payload) {
                Ok(read) => read,
                // A proposer that waits for the entry learns that this node does not know its outcome.
                Err(why) => {
                    self.pass_over(entry.log_id, &entry.payload, why);
                    continue;
                }
            };
            self.store.history().room(until).await;
            let read = match read {
                Some(read) => Some(look_up(&self.threads, self.verdicts(), read).await),
                None => None,
            };
            let reply = self.apply_one(entry.log_id, &entry.payload, read.as_deref());
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
        // A snapshot of an unfit build would claim entries that the build did not apply.
        if !force && (self.fitness.unfit().is_some() || !self.snapshot.is_due(self.state.read().bytes())) {
            return None;
        }
        Some(Builder { must: force, ..self.get_snapshot_builder().await })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let forgets = is_on(Mutant::SnapshotWithoutMembership);
        let last_membership = if forgets { StoredMembership::default() } else { self.membership.clone() };
        Builder {
            snapshot: self.snapshot.clone(),
            shard: self.shard,
            state: self.state.now(),
            unfit: self.fitness.unfit().cloned(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership },
            must: false,
            behind: self.snapshot.replay.behind(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        // The log drops only what was applied. What was passed over had no effects here that could be kept.
        let applied = self.state.read().applied();
        if let Some(applied) = applied {
            self.snapshot.until_kept(applied.index + 1, true).await?;
        }
        let bytes = self.restore(meta, &snapshot).await?;
        let shard = self.shard;
        match snapshot {
            // The snapshot of a start is on the disk already.
            SnapshotData::Read(_) => Ok(()),
            // Only the header is written anew.
            SnapshotData::Arrived(arrived) => {
                let write: Arc<Write> = Arc::new(move |snapshots: &Snapshots, index: u64, meta: &Bytes| {
                    snapshots.adopt(shard, index, meta, arrived.file())
                });
                self.snapshot.save(meta, 0, &write).await
            }
            SnapshotData::Here(_) | SnapshotData::Saved(_) => {
                let data = snapshot.load().await.map_err(io::Error::other)?;
                let write: Arc<Write> = Arc::new(move |snapshots: &Snapshots, index: u64, meta: &Bytes| {
                    snapshots.save(shard, &StoredSnapshot { index, meta: meta.clone(), data: data.clone() })
                });
                self.snapshot.save(meta, bytes, &write).await
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some((meta, snapshot)) = self.snapshot.current(self.applied.is_none()).await? else { return Ok(None) };
        Ok(Some(Snapshot { meta: decode("snapshot meta", &meta)?, snapshot }))
    }
}

/// The error with which the writing of a state failed.
struct Failed(io::Error);

impl From<SnapshotError> for Failed {
    fn from(error: SnapshotError) -> Self {
        Self(io::Error::other(error))
    }
}

/// Builds a snapshot of one moment, while the machine goes on applying.
pub(crate) struct Builder {
    snapshot: OwnSnapshot,
    shard: ShardId,
    state: FleetState,
    /// Why not all entries up to the snapshot were applied, if that is so.
    unfit: Option<Unfit>,
    meta: SnapshotMeta,
    /// Whether the snapshot is indispensable: then it waits for no history, and is not given up for want of room.
    must: bool,
    /// Bytes of entries that the snapshot spares a start.
    behind: u64,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        if let Some(unfit) = &self.unfit {
            return Err(io::Error::other(unfit.to_string()));
        }
        // A start can apply again what the log still holds. Entries that the log drops after the snapshot must be in
        // the history first.
        let next = self.meta.last_log_id.map_or(0, |id| id.index + 1);
        self.snapshot.until_kept(next, self.must).await?;
        let (shard, state, bytes) = (self.shard, self.state.clone(), self.state.bytes());
        let write: Arc<Write> = Arc::new(move |snapshots: &Snapshots, index: u64, meta: &Bytes| {
            snapshots.write(shard, index, meta, |put| {
                let written = state.write_snapshot(&mut |part: &[u8]| put(part).map_err(Failed));
                written.map_err(|Failed(error)| error)
            })
        });
        if self.must {
            self.snapshot.save(&self.meta, bytes, &write).await?;
        } else if !self.snapshot.try_save(&self.meta, bytes, &write).await? {
            // openraft takes a snapshot of no entry for none: it drops no entries for it, and can ask for another.
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotData::Here(Bytes::new()) });
        }
        self.snapshot.replay.covered(self.behind, usize::try_from(bytes).unwrap_or(usize::MAX));
        // openraft does not look at the content: a receiver is sent the bytes on the disk.
        Ok(Snapshot { meta: self.meta.clone(), snapshot: SnapshotData::Here(Bytes::new()) })
    }
}

#[cfg(test)]
mod tests;
