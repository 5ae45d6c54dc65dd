use futures::stream;
use rustix::io::Errno;
use skep_protocol::frame::SnapshotId;
use skep_store::disk::Disk;
use skep_store::disk::tight::TightDisk;
use skep_store::{PartFile, PartHead, StoreOptions};
use xxhash_rust::xxh3::xxh3_128;

use super::*;
use crate::raft::room::PAUSE_MAX;
use crate::raft::saved::{Arrived, LoadError};
use crate::raft::types::{Entry, encode};

const SHARD: ShardId = ShardId::FIRST;

fn open(dir: &std::path::Path) -> Store {
    let options = StoreOptions { low_water_bytes: 0, ..StoreOptions::default() };
    Store::open(dir, [3; 16], options).unwrap()
}

/// A store on a test's disk, whose writer has begun.
async fn open_on(disk: &Arc<dyn Disk>, dir: &std::path::Path) -> Store {
    let options = StoreOptions { low_water_bytes: 0, ..StoreOptions::default() };
    let store = Store::open_simulated(disk, dir, [3; 16], options, || Duration::ZERO).unwrap();
    let (done, voted) = tokio::sync::oneshot::channel();
    store.save_vote(SHARD, Bytes::from_static(b"vote"), || done.send(()).unwrap()).unwrap();
    voted.await.unwrap();
    store
}

fn machine(store: &Store) -> Machine {
    machine_of(store, SHARD, &Threads::here())
}

fn machine_of(store: &Store, shard: ShardId, threads: &Threads) -> Machine {
    Machine::new(store.clone(), shard, ShardClock::default(), threads.clone(), Build::default())
}

async fn apply(machine: &mut Machine, indexes: std::ops::Range<u64>) {
    let blank = |index| Entry { log_id: LogId { leader_id: 1_u64.into(), index }, payload: EntryPayload::Blank };
    let entries: Vec<Result<EntryResponder<TypeConfig>, io::Error>> =
        indexes.map(|index| Ok((blank(index), None))).collect();
    machine.apply(stream::iter(entries)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_waits_until_what_it_covers_is_in_the_history() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let history = dir.path().join("history");
    std::fs::rename(&history, dir.path().join("elsewhere")).unwrap();
    std::fs::write(&history, b"in the way").unwrap();
    let store = open(dir.path());
    let mut machine = machine(&store);
    apply(&mut machine, 0..4).await;
    assert!(machine.try_create_snapshot_builder(false).await.is_none(), "it would wait with the state in its hands");
    let mut builder = machine.get_snapshot_builder().await;
    let early = tokio::time::timeout(Duration::from_secs(600), builder.build_snapshot()).await;
    assert!(early.is_err(), "it lets go of entries that are in no history");
    assert!(store.snapshots().load(SHARD).unwrap().is_none());
    std::fs::remove_file(&history).unwrap();
    builder.build_snapshot().await.unwrap();
    assert!(store.history().reaches(SHARD, 4));
    assert_eq!(store.snapshots().load(SHARD).unwrap().unwrap().index, 3);
}

#[tokio::test]
async fn a_start_reads_its_snapshot_once_and_does_not_write_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut before = machine(&store);
    apply(&mut before, 0..4).await;
    before.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let path = dir.path().join("snapshots");
    let mut after = machine(&store);
    let snapshot = after.get_current_snapshot().await.unwrap().unwrap();
    // A file that is not there is neither read nor replaced.
    std::fs::remove_dir_all(&path).unwrap();
    after.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
    let again = after.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(again.meta, snapshot.meta);
    assert!(matches!(again.snapshot, SnapshotData::Saved(_)), "it is read a second time");
    assert_eq!(again.snapshot.load().await.unwrap(), snapshot.snapshot.load().await.unwrap());
    assert_eq!(after.applied.map(|id| id.index), Some(3));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_snapshot_that_is_to_be_sent_is_read_by_whoever_sends_it_and_only_if_it_is_still_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut machine = machine(&store);
    apply(&mut machine, 0..4).await;
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let first = machine.get_current_snapshot().await.unwrap().unwrap();
    let whole = first.snapshot.load().await.unwrap();
    assert_eq!(FleetState::from_snapshot(&whole).unwrap().applied().map(|at| at.index), Some(3));
    apply(&mut machine, 4..6).await;
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert!(matches!(first.snapshot.load().await, Err(LoadError::Replaced)), "another one is sent under its name");
    let second = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(second.meta.last_log_id.map(|id| id.index), Some(5));
    // openraft reads nothing of the file: the node that sends it finds the damage.
    let path = dir.path().join("snapshots").join(format!("{SHARD}.snap"));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(damaged.meta, second.meta);
    assert!(matches!(damaged.snapshot.load().await, Err(LoadError::Io(_))));
}

/// A snapshot that a leader announced with this digest and has sent whole.
fn came(store: &Store, meta: &SnapshotMeta, data: &[u8], digest: u128) -> Arc<PartFile> {
    let (from, id) = (RaftId(7), SnapshotId { bytes: data.len() as u64, digest });
    let head = PartHead { from, id, index: 3, meta: encode(meta).unwrap().into() };
    let (file, _) = store.snapshots().begin_part(SHARD, head, |_| true).unwrap().unwrap();
    file.write(data, 0).unwrap();
    Arc::new(file)
}

#[tokio::test]
async fn a_snapshot_that_came_to_a_file_is_installed_from_there_and_only_if_it_is_what_was_announced() {
    let dir = tempfile::tempdir().unwrap();
    let (store, threads) = (open(dir.path()), Threads::here());
    let data = FleetState::empty().to_snapshot().unwrap();
    let last = LogId { leader_id: 1_u64.into(), index: 3 };
    let meta = SnapshotMeta { last_log_id: Some(last), ..SnapshotMeta::default() };
    let mut machine = machine(&store);
    let other = SnapshotData::Arrived(Arrived::new(threads.clone(), came(&store, &meta, &data, 5)));
    assert!(machine.install_snapshot(&meta, other).await.is_err());
    assert_eq!((machine.applied, store.snapshots().load(SHARD).unwrap()), (None, None));
    let file = came(&store, &meta, &data, xxh3_128(&data));
    let arrived = SnapshotData::Arrived(Arrived::new(threads, file));
    machine.install_snapshot(&meta, arrived.clone()).await.unwrap();
    assert_eq!(machine.applied, Some(last));
    let kept = store.snapshots().load(SHARD).unwrap().unwrap();
    assert_eq!((kept.index, &kept.data[..]), (3, &data[..]));
    assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 1, "there is no copy of it");
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, meta);
    assert_eq!(current.snapshot.load().await.unwrap(), arrived.load().await.unwrap());
}

#[tokio::test]
async fn a_state_that_was_decoded_to_see_whether_it_is_sound_is_not_decoded_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let meta =
        SnapshotMeta { last_log_id: Some(LogId { leader_id: 1_u64.into(), index: 3 }), ..SnapshotMeta::default() };
    let mut machine = machine(&store);
    // No build could decode these bytes.
    let file = came(&store, &meta, b"no state", xxh3_128(b"no state"));
    file.load().unwrap().unwrap();
    machine.checked().put(Arc::clone(&file), FleetState::empty());
    let arrived = SnapshotData::Arrived(Arrived::new(Threads::here(), file));
    machine.install_snapshot(&meta, arrived).await.unwrap();
    assert_eq!(machine.applied, meta.last_log_id);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_finds_no_room_is_given_up_and_another_is_made_once_it_may_fit() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, tightness) = TightDisk::with(Errno::MFILE);
    let store = open_on(&disk, dir.path()).await;
    let mut machine = machine(&store);
    apply(&mut machine, 0..4).await;
    let mut builder = machine.try_create_snapshot_builder(false).await.unwrap();
    tightness.set(true);
    // The build ends, so that openraft can ask for another, and the log drops nothing.
    let made = builder.build_snapshot().await.unwrap();
    assert_eq!(made.meta.last_log_id, None);
    assert!(store.snapshots().load(SHARD).unwrap().is_none());
    assert!(machine.try_create_snapshot_builder(false).await.is_none(), "there is no more room than before");
    tightness.set(false);
    tokio::time::advance(PAUSE_MAX).await;
    let mut builder = machine.try_create_snapshot_builder(false).await.unwrap();
    assert_eq!(builder.build_snapshot().await.unwrap().meta.last_log_id.map(|id| id.index), Some(3));
    assert_eq!(store.snapshots().load(SHARD).unwrap().unwrap().index, 3);
}

/// In real time: a helper that is kept busy would keep a paused clock from going on.
#[tokio::test]
async fn shards_that_wait_for_room_for_a_snapshot_of_their_leader_keep_no_helper_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, tightness) = TightDisk::with(Errno::NOSPC);
    let (store, threads) = (open_on(&disk, dir.path()).await, Threads::here());
    let data = Bytes::from(FleetState::empty().to_snapshot().unwrap());
    let last = LogId { leader_id: 1_u64.into(), index: 3 };
    tightness.set(true);
    let install = |shard: u32| {
        let mut machine = machine_of(&store, ShardId(shard), &threads);
        let meta = SnapshotMeta { last_log_id: Some(last), ..SnapshotMeta::default() };
        let data = data.clone();
        tokio::spawn(async move { machine.install_snapshot(&meta, SnapshotData::Here(data)).await })
    };
    let shards = 1..=limits::SNAPSHOT_THREADS as u32;
    let installing: Vec<_> = shards.clone().map(install).collect();
    while tightness.refusals() < limits::SNAPSHOT_THREADS {
        tokio::task::yield_now().await;
    }
    let other = tokio::time::timeout(Duration::from_secs(30), threads.offload(Errand::Snapshots, || 7));
    assert_eq!(other.await.expect("it waits for a disk that is not its own").unwrap(), 7);
    assert!(installing.iter().all(|install| !install.is_finished()), "nothing is said to be there that is not");
    tightness.set(false);
    for install in installing {
        install.await.unwrap().unwrap();
    }
    for shard in shards {
        assert_eq!(store.snapshots().load(ShardId(shard)).unwrap().unwrap().index, 3);
    }
}
