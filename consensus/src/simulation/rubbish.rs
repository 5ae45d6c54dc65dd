//! Rubbish in all that is read from disk or from a peer's Raft: on the simulated disk, since that is the fastest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use skep_protocol::ballot::Ballot;
use skep_protocol::ids::ShardId;
use skep_store::disk::{Disk, Open};
use skep_store::{LogPoint, Store, StoreError, StoreOptions, StoredSnapshot};

use super::disk::Machine;
use crate::raft::elections::Candidacy;
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote, decode};

const DIR: &str = "/data";

fn options() -> StoreOptions {
    let on_fatal: skep_store::OnFatal = Arc::new(|error| panic!("{error}"));
    StoreOptions { segment_bytes: 4_096, low_water_bytes: 0, on_fatal, ..StoreOptions::default() }
}

fn open(machine: &Machine) -> Result<Store, StoreError> {
    Store::open_simulated(&machine.mount(), Path::new(DIR), [7; 16], options(), || std::time::Duration::ZERO)
}

/// A store with a vote, entries, a purge and a snapshot, closed.
async fn written() -> Machine {
    let machine = Machine::new(1);
    let store = open(&machine).expect("an empty disk is a store");
    let (done, durable) = tokio::sync::oneshot::channel();
    let entry = |index| (LogPoint { index, term: 1 }, Bytes::from(format!("entry {index}")));
    store.save_vote(ShardId::FIRST, Bytes::from_static(b"vote"), || {}).unwrap();
    store.append(ShardId::FIRST, (0..9).map(entry).collect(), || {}).unwrap();
    store.purge(ShardId::FIRST, LogPoint { index: 2, term: 1 }).unwrap();
    store.append(ShardId::FIRST, vec![entry(9)], move || done.send(()).unwrap()).unwrap();
    durable.await.unwrap();
    let (meta, data) = (Bytes::from_static(b"meta"), Bytes::from_static(b"data"));
    store.snapshots().save(ShardId::FIRST, &StoredSnapshot { index: 2, meta, data }).unwrap();
    machine
}

/// Puts bytes over a part of a file, and opens the store. The store is as it was, or refuses; it never panics, and
/// never has another history.
fn spoil(machine: &Machine, path: &Path, at: u16, rubbish: &[u8]) {
    let copy = machine.copy();
    let disk = copy.mount();
    let file = disk.open(path, Open::Existing).unwrap();
    let length = file.len().unwrap();
    let at = u64::from(at) % length.max(1);
    let rubbish = &rubbish[..rubbish.len().min((length - at) as usize)];
    file.write_all_at(rubbish, at).unwrap();
    file.sync().unwrap();
    let Ok(store) = open(&copy) else { return };
    let entries = store.entries(ShardId::FIRST, 0..u64::MAX, usize::MAX).unwrap_or_default();
    for (point, bytes) in entries {
        assert_eq!(bytes, format!("entry {}", point.index), "{} at {at}", path.display());
    }
    if let Ok(Some(snapshot)) = store.snapshots().load(ShardId::FIRST) {
        assert_eq!((snapshot.meta.as_ref(), snapshot.data.as_ref()), (b"meta".as_slice(), b"data".as_slice()));
    }
}

fn files(disk: &Arc<dyn Disk>) -> Vec<PathBuf> {
    let below = |dir: &str| disk.list(&Path::new(DIR).join(dir)).unwrap();
    let mut files = [below("wal"), below("snapshots")].concat();
    files.extend(["progress", "FORMAT", "incarnation"].map(|name| Path::new(DIR).join(name)));
    files
}

#[test]
fn fuzz_files_of_the_store() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let machine = written().await;
        let files = files(&machine.copy().mount());
        assert!(files.len() >= 5, "{files:?}");
        bolero::check!().with_type::<(u8, u16, Vec<u8>)>().for_each(|(file, at, rubbish)| {
            // The offset is mostly in the written part.
            let near = at % 700;
            for at in [*at, near] {
                spoil(&machine, &files[usize::from(*file) % files.len()], at, rubbish);
            }
        });
    });
}

#[test]
fn fuzz_raft_frames() {
    let read = |bytes: &[u8]| {
        let _ = decode::<Vote>("vote", bytes);
        let _ = decode::<SnapshotMeta>("meta", bytes);
        let _ = decode::<(Vote, SnapshotMeta)>("head", bytes);
        let _ = decode::<AppendEntriesRequest<TypeConfig>>("append", bytes);
        let _ = decode::<AppendEntriesResponse<TypeConfig>>("append", bytes);
        let _ = decode::<VoteRequest<TypeConfig>>("vote", bytes);
        let _ = decode::<(VoteRequest<TypeConfig>, Candidacy)>("vote", bytes);
        let _ = decode::<VoteResponse<TypeConfig>>("vote", bytes);
        let _ = decode::<(VoteResponse<TypeConfig>, Option<Ballot>)>("vote", bytes);
    };
    bolero::check!().for_each(|bytes: &[u8]| {
        read(bytes);
        // The rubbish comes behind the version that is read.
        read(&[[1].as_slice(), bytes].concat());
    });
}
