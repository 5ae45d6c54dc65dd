use futures::stream;

use super::*;
use crate::raft::types::Entry;
use crate::store::StoreOptions;

const SHARD: ShardId = ShardId::FIRST;

fn open(dir: &std::path::Path) -> Store {
    let options = StoreOptions { low_water_bytes: 0, ..StoreOptions::default() };
    Store::open(dir, [3; 16], options).unwrap()
}

fn machine(store: &Store) -> Machine {
    Machine::new(store.clone(), SHARD, ShardClock::default(), Threads::here(), Build::default())
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
    // What is not there is neither read nor replaced.
    std::fs::remove_dir_all(&path).unwrap();
    after.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
    let again = after.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!((again.meta.last_log_id, again.snapshot), (snapshot.meta.last_log_id, snapshot.snapshot));
    assert_eq!(after.applied.map(|id| id.index), Some(3));
    assert!(!path.exists());
}
