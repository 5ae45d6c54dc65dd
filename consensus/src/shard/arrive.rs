//! Takes snapshots of the leader as they arrive.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use skep_fleet::FleetState;
use skep_protocol::frame::{RaftAddress, SnapshotId};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_store::disk::is_shortage;
use skep_store::{PartFile, PartHead, StoreError};

use super::Shard;
use crate::net::Who;
use crate::raft::acked::FORGOT;
use crate::raft::fitness::Unfit;
use crate::raft::saved::{Arrived, SnapshotData};
use crate::raft::types::{Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};
use crate::threads::Errand;

/// The refusal of a snapshot for want of room.
const NO_ROOM: &str = "there is no room for the snapshot on the disk of this node; free some space";

/// The snapshot that a leader offers.
struct Offered {
    from: NodeId,
    id: SnapshotId,
    vote: Vote,
    meta: SnapshotMeta,
}

impl Offered {
    fn index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index)
    }

    /// The head by which its file names the snapshot.
    fn head(&self, from: RaftId) -> Result<PartHead, String> {
        let meta = encode(&self.meta).map_err(|e| e.to_string())?;
        Ok(PartHead { from, id: self.id, index: self.index(), meta: Bytes::from(meta) })
    }
}

impl Shard {
    /// Reads which snapshot a leader offers.
    fn offered(&self, who: Who, body: &[u8]) -> Result<Offered, String> {
        let (id, rest) = SnapshotId::split(body).map_err(|e| e.to_string())?;
        let (address, head) = RaftAddress::split(rest).map_err(|e| e.to_string())?;
        if address.from != who.raft_id || address.to != self.inner.parts.raft_id() {
            return Err("the snapshot is not from its sender to this incarnation".to_owned());
        }
        if self.has_forgotten() {
            return Err(FORGOT.to_owned());
        }
        self.check_fit()?;
        let (vote, meta): (Vote, SnapshotMeta) = decode("snapshot head", head).map_err(|e| e.to_string())?;
        self.check_vote(who, &vote)?;
        Ok(Offered { from: who.node, id, vote, meta })
    }

    /// Whether this node has everything in a snapshot, such as after the answer to its installation was lost.
    fn has_all_of(&self, offered: &Offered) -> bool {
        let applied = self.inner.state.read().applied();
        applied.is_some_and(|applied| applied.index >= offered.index())
    }

    /// Answers how many bytes of a snapshot are there. Drops another snapshot that is arriving.
    pub(crate) async fn begin_snapshot(&self, who: Who, body: &[u8]) -> Result<Vec<u8>, String> {
        let offered = self.offered(who, body)?;
        self.check_proven(&offered.vote).await?;
        // A deposed leader would only make this node drop what comes from the next leader.
        if offered.vote < self.metrics().vote {
            return Err("the snapshot is of an earlier leader".to_owned());
        }
        let (arrival, store) = (&self.inner.arrival, &self.inner.parts.store);
        let _turn = arrival.turn.lock().await;
        // What is applied of a snapshot that is being installed is not on the disk yet.
        let _not_meanwhile = arrival.installs()?;
        if self.has_all_of(&offered) {
            return Ok(offered.id.bytes.to_be_bytes().to_vec());
        }
        let head = offered.head(who.raft_id)?;
        let there = match arrival.goes_on(&head).filter(|_| !is_on(Mutant::SnapshotStartsOver)) {
            Some(there) if store.has_room_for(offered.id.bytes - there) => {
                arrival.wait_anew();
                there
            }
            Some(_) => return Err(NO_ROOM.to_owned()),
            None => self.open_part(head).await?,
        };
        if there > 0 {
            tracing::info!(shard = %self.id(), peer = %who.node, there, of = offered.id.bytes, "a snapshot goes on");
        }
        Ok(there.to_be_bytes().to_vec())
    }

    /// Opens the file in which a snapshot arrives; returns how many bytes of it came before.
    async fn open_part(&self, head: PartHead) -> Result<u64, String> {
        let (store, shard) = (self.inner.parts.store.clone(), self.id());
        let since = self.inner.arrival.set_aside();
        let open = move || {
            if is_on(Mutant::SnapshotStartsOver) {
                store.snapshots().drop_part(shard)?;
            }
            store.snapshots().begin_part(shard, head, |bytes| store.has_room_for(bytes))
        };
        match self.inner.parts.threads.offload(Errand::Snapshots, open).await.map_err(|e| e.to_string())? {
            Ok(Some((file, there))) => {
                self.inner.arrival.begin(file, there, since);
                Ok(there)
            }
            Ok(None) => Err(NO_ROOM.to_owned()),
            Err(StoreError::Io { source, .. }) if is_shortage(&source) => Err(NO_ROOM.to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes a chunk of the arriving snapshot; answers how many bytes are there without a gap.
    pub(crate) async fn take_chunk(&self, who: Who, body: &Bytes) -> Result<Vec<u8>, String> {
        let (id, rest) = SnapshotId::split(body).map_err(|e| e.to_string())?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or("the chunk of a snapshot is too short")?;
        let chunk = body.slice(body.len() - rest.len()..);
        let arrival = &self.inner.arrival;
        let _turn = arrival.turn.lock().await;
        arrival.take((who.raft_id, id), u64::from_be_bytes(*at), chunk)?;
        while let Some((file, part, at)) = arrival.next_chunk() {
            let bytes = part.len() as u64;
            let written = self.inner.parts.threads.offload(Errand::Files, move || file.write(&part, at)).await;
            match written.flatten() {
                Ok(()) => _ = arrival.grow(bytes),
                // There may be room in a moment. If not, this node drops what came, as of any other snapshot that does
                // not go on.
                Err(error) if is_shortage(&error) => return Err(NO_ROOM.to_owned()),
                Err(error) => {
                    arrival.set_aside();
                    self.drop_part().await;
                    return Err(error.to_string());
                }
            }
        }
        Ok(arrival.grow(0).to_be_bytes().to_vec())
    }

    /// Installs a snapshot that has arrived whole.
    pub(crate) async fn install_snapshot(&self, who: Who, body: &[u8]) -> Result<Vec<u8>, String> {
        let offered = self.offered(who, body)?;
        self.check_proven(&offered.vote).await?;
        let head = offered.head(who.raft_id)?;
        let arrival = &self.inner.arrival;
        let _one_at_a_time = arrival.installs()?;
        let turn = arrival.turn.lock().await;
        let file = arrival.take_whole(&head);
        drop(turn);
        match file {
            Some(file) => {
                let installed = self.install(offered, file).await;
                // By now the file has another name, or is of no use.
                self.drop_part().await;
                installed
            }
            None if self.has_all_of(&offered) => {
                let vote = self.metrics().vote;
                if vote < offered.vote {
                    return Err("this node does not follow the sender yet".to_owned());
                }
                encode(&SnapshotResponse::<TypeConfig>::new(vote)).map_err(|e| e.to_string())
            }
            None => Err("the snapshot has not come whole; begin it again".to_owned()),
        }
    }

    async fn install(&self, offered: Offered, file: Arc<PartFile>) -> Result<Vec<u8>, String> {
        let Offered { from, vote, meta, .. } = offered;
        // A snapshot that does not decode, or is not what its head says, would stop the group: this node refuses it
        // before. Its bytes are in memory only for that.
        let (came, speaks) = (Arc::clone(&file), self.inner.parts.build.versions);
        let decode = move || {
            let data = match came.load() {
                Ok(Some(data)) => data,
                Ok(None) => return Ok(Err("the snapshot is not the one that its head names".to_owned())),
                Err(error) => return Ok(Err(error.to_string())),
            };
            match FleetState::read_snapshot(&data, speaks) {
                Err(error) if error.is_of_another_build() => Err(Unfit::snapshot(&error)),
                read => Ok(read.map_err(|e| e.to_string())),
            }
        };
        let read = self.inner.parts.threads.offload(Errand::Snapshots, decode).await.map_err(|e| e.to_string())?;
        let state = match read {
            Ok(state) => state?,
            Err(unfit) => {
                let why = unfit.to_string();
                self.inner.fitness.lose(self.id(), unfit);
                return Err(why);
            }
        };
        let said = meta.last_log_id.map(|id| (id.index, *id.leader_id));
        if said.is_none() || said != state.applied().map(|position| (position.index, position.term)) {
            return Err("the snapshot is not of the entry that its head names".to_owned());
        }
        if said.is_some_and(|(_, term)| term > vote.leader_id.term) {
            return Err("the snapshot is of a later term than its sender leads".to_owned());
        }
        self.check_stamp(from, state.clock())?;
        self.inner.checked.put(Arc::clone(&file), state);
        let arrived = Arrived::new(self.inner.parts.threads.clone(), file);
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Arrived(arrived) };
        let response = self.raft().install_full_snapshot(vote, snapshot).await;
        self.inner.checked.clear();
        let response = response.map_err(|e| e.to_string())?;
        if response.vote == vote {
            self.heard_leader();
        }
        encode(&response).map_err(|e| e.to_string())
    }

    /// Removes the file of an arriving snapshot, if there is one.
    async fn drop_part(&self) {
        let (store, shard) = (self.inner.parts.store.clone(), self.id());
        let drop_it = move || store.snapshots().drop_part(shard).map_err(io::Error::other);
        if let Err(error) = self.inner.parts.threads.offload(Errand::Files, drop_it).await.flatten() {
            tracing::warn!(%shard, %error, "the file of an arriving snapshot could not be removed");
        }
    }

    /// Frees the place of a snapshot that got no bytes for long, and removes the file of one that is of no further use.
    pub(super) async fn let_go_of_snapshot(&self) {
        let arrival = &self.inner.arrival;
        // Another task works with the file: the next look comes to it again.
        let (Ok(_turn), Ok(_not_meanwhile)) = (arrival.turn.try_lock(), arrival.installs()) else { return };
        let applied = self.inner.state.read().applied().map(|applied| applied.index);
        if arrival.look(applied, self.inner.parts.store.is_low()) {
            tracing::debug!(shard = %self.id(), "the file of an arriving snapshot is removed, if there is one");
            self.drop_part().await;
        }
    }
}
