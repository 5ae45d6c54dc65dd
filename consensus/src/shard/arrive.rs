//! Snapshots of the leader as they arrive: in chunks, over as many connections as it takes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::raft::SnapshotResponse;
use skep_fleet::FleetState;
use skep_protocol::frame::{RaftAddress, SnapshotId};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use super::Shard;
use crate::net::Who;
use crate::raft::acked::FORGOT;
use crate::raft::fitness::Unfit;
use crate::raft::saved::SnapshotData;
use crate::raft::types::{Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};
use crate::threads::Errand;

/// What has come of a snapshot. Memory grows with what came, and not with what was promised.
#[derive(Debug)]
struct Part {
    from: RaftId,
    id: SnapshotId,
    /// The last entry in it.
    index: u64,
    /// What is there without a gap.
    data: BytesMut,
    /// Chunks that overtook one before them.
    ahead: BTreeMap<u64, Bytes>,
    moved: Instant,
}

impl Part {
    fn new(from: RaftId, id: SnapshotId, index: u64) -> Self {
        Self { from, id, index, data: BytesMut::new(), ahead: BTreeMap::new(), moved: Instant::now() }
    }

    fn is_of(&self, from: RaftId, id: SnapshotId) -> bool {
        (self.from, self.id) == (from, id)
    }

    /// How much is there without a gap.
    fn there(&self) -> u64 {
        self.data.len() as u64
    }

    fn is_whole(&self) -> bool {
        self.there() == self.id.bytes
    }

    /// Takes a chunk of a place. One that overtook too many others is dropped: it is sent again.
    fn take(&mut self, at: u64, chunk: Bytes) -> Result<(), String> {
        let end = at.checked_add(chunk.len() as u64).filter(|end| *end <= self.id.bytes);
        if end.is_none() || chunk.is_empty() || chunk.len() > limits::SNAPSHOT_CHUNK_BYTES_MAX {
            return Err("a chunk of the snapshot is not what it should be".to_owned());
        }
        self.moved = Instant::now();
        if at > self.there() {
            if self.ahead.len() < limits::SNAPSHOT_CHUNKS_UNDER_WAY_MAX {
                self.ahead.insert(at, chunk);
            }
            return Ok(());
        }
        self.append(at, &chunk);
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() <= self.data.len() as u64) {
            let (at, chunk) = next.remove_entry();
            self.append(at, &chunk);
        }
        Ok(())
    }

    /// Takes what is new of a chunk that begins where no gap is.
    fn append(&mut self, at: u64, chunk: &[u8]) {
        let known = usize::try_from(self.there() - at).unwrap_or(usize::MAX);
        if let Some(new) = chunk.get(known..) {
            self.data.extend_from_slice(new);
        }
    }
}

/// The snapshot that is arriving: one at a time.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    part: Mutex<Option<Part>>,
    /// Held while one is installed, which may have to wait for room on the disk. Who begins it anew, or another one, is told so
    /// at once: calls that waited for it would keep those of other shards from being answered.
    installing: tokio::sync::Mutex<()>,
}

impl Arrival {
    fn part(&self) -> MutexGuard<'_, Option<Part>> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until what is returned is dropped, none is begun or installed. An error if one is being installed.
    fn installs(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, String> {
        self.installing.try_lock().map_err(|_| INSTALLING.to_owned())
    }
}

const INSTALLING: &str = "a snapshot is being installed on this node";

/// What a leader offers.
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
}

impl Shard {
    /// Reads which snapshot a leader offers.
    fn offered(&self, who: Who, body: &[u8]) -> Result<Offered, String> {
        let (id, rest) = SnapshotId::split(body).map_err(|e| e.to_string())?;
        let (address, head) = RaftAddress::split(rest).map_err(|e| e.to_string())?;
        if address.from != who.raft_id || address.to != self.inner.site.raft_id() {
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

    /// Whether this node has everything that is in a snapshot, such as after the answer to its installation was lost.
    fn has_all_of(&self, offered: &Offered) -> bool {
        let applied = self.inner.state.read().applied();
        applied.is_some_and(|applied| applied.index >= offered.index())
    }

    /// Answers how much of a snapshot is there. Another one that is arriving is let go of.
    pub(crate) fn begin_snapshot(&self, who: Who, body: &[u8]) -> Result<Vec<u8>, String> {
        let offered = self.offered(who, body)?;
        // The one who leads no more would only have what comes from the next one dropped.
        if offered.vote < self.metrics().vote {
            return Err("the snapshot is of an earlier leader".to_owned());
        }
        // What is applied of one that is being installed is not on the disk yet.
        let _not_meanwhile = self.inner.arrival.installs()?;
        let mut arrival = self.inner.arrival.part();
        if self.has_all_of(&offered) {
            return Ok(offered.id.bytes.to_be_bytes().to_vec());
        }
        if !self.inner.site.store.has_room_for(offered.id.bytes) {
            return Err("there is no room for the snapshot on the disk of this node; free some space".to_owned());
        }
        let goes_on = |part: &&mut Part| part.is_of(who.raft_id, offered.id) && !is_on(Mutant::SnapshotStartsOver);
        let there = match arrival.as_mut().filter(goes_on) {
            Some(part) => {
                part.moved = Instant::now();
                part.there()
            }
            None => {
                *arrival = Some(Part::new(who.raft_id, offered.id, offered.index()));
                0
            }
        };
        if there > 0 {
            tracing::info!(shard = %self.id(), peer = %who.node, there, of = offered.id.bytes, "a snapshot goes on");
        }
        Ok(there.to_be_bytes().to_vec())
    }

    /// Takes a chunk of the snapshot that is arriving; answers how much is there without a gap.
    pub(crate) fn take_chunk(&self, who: Who, body: &Bytes) -> Result<Vec<u8>, String> {
        let (id, rest) = SnapshotId::split(body).map_err(|e| e.to_string())?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or("the chunk of a snapshot is too short")?;
        let chunk = body.slice(body.len() - rest.len()..);
        let mut arrival = self.inner.arrival.part();
        let part = arrival.as_mut().filter(|part| part.is_of(who.raft_id, id));
        let part = part.ok_or("the snapshot is not arriving; begin it again")?;
        part.take(u64::from_be_bytes(*at), chunk)?;
        Ok(part.there().to_be_bytes().to_vec())
    }

    /// Installs a snapshot of which everything has come.
    pub(crate) async fn install_snapshot(&self, who: Who, body: &[u8]) -> Result<Vec<u8>, String> {
        let offered = self.offered(who, body)?;
        let _one_at_a_time = self.inner.arrival.installs()?;
        let is_it = |part: &mut Part| part.is_of(who.raft_id, offered.id) && part.is_whole();
        let part = self.inner.arrival.part().take_if(is_it);
        match part {
            Some(part) => self.install(offered, part.data.freeze()).await,
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

    async fn install(&self, offered: Offered, data: Bytes) -> Result<Vec<u8>, String> {
        let Offered { from, id, vote, meta } = offered;
        if !self.inner.site.store.has_room_for(id.bytes) {
            return Err("there is no room for the snapshot on the disk of this node; free some space".to_owned());
        }
        // A snapshot that does not decode, or is not what its head says, would stop the group: it is refused before.
        let (checked, speaks) = (data.clone(), self.inner.site.build.versions);
        let decode = move || {
            if xxh3_128(&checked) != id.digest {
                return Ok(Err("the snapshot is not the one that its head names".to_owned()));
            }
            match FleetState::read_snapshot(&checked, speaks) {
                Err(error) if error.is_of_another_build() => Err(Unfit::snapshot(&error)),
                read => Ok(read.map_err(|e| e.to_string())),
            }
        };
        let read = self.inner.site.threads.offload(Errand::Snapshots, decode).await.map_err(|e| e.to_string())?;
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
        self.inner.checked.put(data.clone(), state);
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Here(data) };
        let response = self.raft().install_full_snapshot(vote, snapshot).await;
        self.inner.checked.clear();
        let response = response.map_err(|e| e.to_string())?;
        if response.vote == vote {
            self.heard_leader();
        }
        encode(&response).map_err(|e| e.to_string())
    }

    /// Lets go of what came of a snapshot that is of no use any more, or of which nothing came for long.
    pub(super) fn let_go_of_snapshot(&self) {
        let mut arrival = self.inner.arrival.part();
        let kept = Duration::from_millis(limits::SNAPSHOT_PART_KEPT_MS);
        let applied = self.inner.state.read().applied().map(|applied| applied.index);
        let is_over = |part: &mut Part| part.moved.elapsed() >= kept || applied >= Some(part.index);
        if let Some(part) = arrival.take_if(is_over) {
            tracing::info!(shard = %self.id(), there = part.there(), "what came of a snapshot is let go of");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: u64) -> Part {
        Part::new(RaftId(1), SnapshotId { bytes, digest: 0 }, 5)
    }

    fn take(part: &mut Part, at: u64, chunk: &'static [u8]) -> Result<u64, String> {
        part.take(at, Bytes::from_static(chunk)).map(|()| part.there())
    }

    #[test]
    fn whoever_begins_or_installs_a_snapshot_while_one_is_installed_is_told_so_at_once() {
        let arrival = Arrival::default();
        let installing = arrival.installs().unwrap();
        assert_eq!(arrival.installs().unwrap_err(), INSTALLING);
        drop(installing);
        assert!(arrival.installs().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_that_overtake_each_other_or_come_twice_make_one_snapshot() {
        let mut part = part(9);
        assert_eq!(take(&mut part, 6, b"678"), Ok(0));
        assert_eq!(take(&mut part, 0, b"012"), Ok(3));
        assert_eq!(take(&mut part, 0, b"01234"), Ok(5), "a retry may be cut otherwise");
        assert_eq!(take(&mut part, 1, b"12"), Ok(5));
        assert!(!part.is_whole());
        assert_eq!(take(&mut part, 3, b"345"), Ok(9));
        assert!(part.is_whole() && part.ahead.is_empty());
        assert_eq!(&part.data[..], b"012345678");
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_is_not_of_the_snapshot_is_refused_and_few_are_kept_ahead() {
        let mut part = part(100_000);
        assert!(take(&mut part, 0, b"").is_err());
        assert!(take(&mut part, 99_999, b"01").is_err());
        assert!(take(&mut part, u64::MAX, b"01").is_err());
        let too_long = Bytes::from(vec![0; limits::SNAPSHOT_CHUNK_BYTES_MAX + 1]);
        assert!(part.take(0, too_long).is_err());
        for at in 1..1_000 {
            assert_eq!(take(&mut part, 2 * at, b"0"), Ok(0));
        }
        assert_eq!(part.ahead.len(), limits::SNAPSHOT_CHUNKS_UNDER_WAY_MAX);
    }
}
