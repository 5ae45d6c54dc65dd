//! The log and the snapshots beside it: at every moment at which the power can go, and cut off at every offset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::ids::ShardId;
use skep_store::disk::Open;
use skep_store::{LogPoint, Store, StoreError, StoreOptions, StoredSnapshot};
use tokio::sync::oneshot;

use super::disk::Machine;
use crate::raft::agree::bring_to_agree;
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership, encode};

const DIR: &str = "/data";
const BUSY: ShardId = ShardId(1);
const QUIET: ShardId = ShardId(2);
/// Number of rounds of a story: enough for more segments than are kept.
const ROUNDS: u64 = 60;

fn open(machine: &Machine) -> Result<Store, StoreError> {
    // A process whose disk is gone ends nothing in this test.
    let options = StoreOptions {
        segment_bytes: 4_096,
        low_water_bytes: 0,
        on_fatal: Arc::new(|_| {}),
        ..StoreOptions::default()
    };
    Store::open_simulated(&machine.mount(), Path::new(DIR), [7; 16], options, || Duration::from_micros(100))
}

fn point(index: u64, term: u64) -> LogPoint {
    LogPoint { index, term }
}

fn entry(shard: ShardId, of: LogPoint) -> Bytes {
    let text = format!("shard {shard} entry {} term {} ", of.index, of.term);
    Bytes::from(text + &"x".repeat((of.index % 7 * 30) as usize))
}

fn snapshot(of: LogPoint) -> StoredSnapshot {
    let last_log_id = Some(LogId { leader_id: of.term.into(), index: of.index });
    let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
    // This is more than a sector, so that a power cut can tear it.
    let data = Bytes::from(format!("{of:?}").repeat(40));
    StoredSnapshot { index: of.index, meta: Bytes::from(encode(&meta).unwrap()), data }
}

/// Starts to add entries. The receiver gets the moment at which they were acknowledged.
fn append(machine: &Machine, store: &Store, shard: ShardId, points: &[LogPoint]) -> oneshot::Receiver<usize> {
    let (done, acknowledged) = oneshot::channel();
    let entries = points.iter().map(|point| (*point, entry(shard, *point))).collect();
    let machine = machine.clone();
    let done = move || {
        let _ = done.send(machine.moments());
    };
    store.append(shard, entries, done).unwrap();
    acknowledged
}

async fn vote(machine: &Machine, store: &Store, number: u64) -> usize {
    let (done, acknowledged) = oneshot::channel();
    let machine = machine.clone();
    let done = move || {
        let _ = done.send(machine.moments());
    };
    store.save_vote(BUSY, Bytes::copy_from_slice(&number.to_le_bytes()), done).unwrap();
    acknowledged.await.unwrap()
}

/// What a process wrote, and how much of it was said to be durable after how many moments.
struct Story {
    machine: Machine,
    entries: Vec<(usize, ShardId, LogPoint)>,
    votes: Vec<(usize, u64)>,
    snapshots: Vec<(usize, LogPoint)>,
    /// The term of the committed entry at each index.
    committed: BTreeMap<u64, u64>,
}

impl Story {
    /// A voter's story: entries, votes, snapshots of its own, and snapshots of leaders whose entries it did not have.
    async fn tell(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let machine = Machine::new(rng.random());
        if seed.is_multiple_of(2) {
            // The next process writes through the page cache.
            machine.end_process();
        }
        machine.keep_moments();
        let store = open(&machine).unwrap();
        let (entries, votes, snapshots) = (Vec::new(), Vec::new(), Vec::new());
        let mut story = Self { machine, entries, votes, snapshots, committed: BTreeMap::new() };
        let (mut next, mut term) = (0, 1);
        for round in 0..ROUNDS {
            let mut under_way = Vec::new();
            for _ in 0..rng.random_range(1..4) {
                let end = next + rng.random_range(1..5);
                let points: Vec<LogPoint> = (next..end).map(|index| point(index, term)).collect();
                let acknowledged = append(&story.machine, &store, BUSY, &points);
                under_way.push((points, acknowledged));
                next = end;
            }
            for (points, acknowledged) in under_way {
                let moment = acknowledged.await.unwrap();
                story.entries.extend(points.iter().map(|point| (moment, BUSY, *point)));
                story.committed.extend(points.iter().map(|point| (point.index, point.term)));
            }
            store.note_committed(BUSY, point(next - 1, term));
            match round % 12 {
                3 => {
                    let of = [point(round / 12, 1)];
                    let moment = append(&story.machine, &store, QUIET, &of).await.unwrap();
                    story.entries.push((moment, QUIET, of[0]));
                }
                6 => {
                    let last = point(next - 1, term);
                    store.snapshots().save(BUSY, &snapshot(last)).unwrap();
                    story.snapshots.push((story.machine.moments(), last));
                    store.purge(BUSY, point(last.index - 3, story.committed[&(last.index - 3)])).unwrap();
                }
                11 => (next, term) = story.be_replaced(&store, next, term).await,
                _ => {}
            }
        }
        drop(store);
        story
    }

    /// The voter gets entries that no quorum commits, then another leader, and that leader's snapshot with other
    /// entries at their indexes.
    async fn be_replaced(&mut self, store: &Store, next: u64, term: u64) -> (u64, u64) {
        let lost: Vec<LogPoint> = (next..next + 6).map(|index| point(index, term)).collect();
        append(&self.machine, store, BUSY, &lost).await.unwrap();
        let moment = vote(&self.machine, store, term + 1).await;
        self.votes.push((moment, term + 1));
        let last = point(next + 2, term + 1);
        store.truncate(BUSY, next).unwrap();
        store.snapshots().save(BUSY, &snapshot(last)).unwrap();
        self.snapshots.push((self.machine.moments(), last));
        store.purge(BUSY, last).unwrap();
        self.committed.insert(last.index, last.term);
        (last.index + 1, last.term)
    }

    /// Checks that a process finds what earlier ones said to be durable by a moment.
    fn check(&self, machine: &Machine, moment: usize, what: &str) -> Store {
        let store = open(machine).unwrap_or_else(|error| panic!("{what}: {error}"));
        let saved = store.snapshots().load(BUSY).unwrap_or_else(|error| panic!("{what}: {error}"));
        for shard in [BUSY, QUIET] {
            bring_to_agree(&store, shard).unwrap_or_else(|error| panic!("{what}: {error}"));
            let held = store.entries(shard, 0..u64::MAX, usize::MAX).unwrap();
            held.iter().for_each(|(point, bytes)| assert_eq!(*bytes, entry(shard, *point), "{what}"));
            let after = saved.as_ref().filter(|_| shard == BUSY).map(|saved| saved.index);
            let follows = |of: &LogPoint| self.committed.get(&after.unwrap_or(0)).is_none_or(|term| of.term >= *term);
            let behind = held.iter().map(|(point, _)| point).filter(|point| after.is_some_and(|at| point.index > at));
            behind.for_each(|point| assert!(follows(point), "{what}: {point:?} was replaced by {after:?}"));
        }
        for (_, shard, of) in self.entries.iter().filter(|(said, ..)| *said <= moment + 1) {
            let (purged, _) = store.ends(*shard);
            let is_there = store.point_at(*shard, of.index) == Some(*of);
            assert!(is_there || purged.is_some_and(|purged| purged.index >= of.index), "{what}: {of:?} of {shard}");
        }
        let voted = self.votes.iter().filter(|(said, _)| *said <= moment + 1).map(|(_, number)| *number).max();
        let found = store.vote(BUSY).map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
        assert!(found >= voted, "{what}: vote {found:?} of {voted:?}");
        let snapshot = self.snapshots.iter().filter(|(said, _)| *said <= moment + 1).map(|(_, of)| of.index).max();
        assert!(saved.map(|saved| saved.index) >= snapshot, "{what}: the snapshot of {snapshot:?} is gone");
        if let Some(committed) = store.committed(BUSY) {
            assert_eq!(
                self.committed.get(&committed.index),
                Some(&committed.term),
                "{what}: {committed:?} is committed"
            );
        }
        store
    }

    /// Lets a process go on, and checks that what it adds is there too after another power cut.
    async fn go_on(&self, machine: &Machine, store: Store, moment: usize, what: &str) {
        let next = store.ends(BUSY).1.map_or(0, |last| last.index + 1);
        let added = point(next, 1_000);
        append(machine, &store, BUSY, &[added]).await.unwrap();
        machine.cut_power();
        drop(store);
        let store = self.check(machine, moment, what);
        assert_eq!(store.point_at(BUSY, next), Some(added), "{what}");
    }
}

fn block_on(run: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run);
}

#[test]
fn whatever_is_acknowledged_is_there_wherever_the_power_goes() {
    block_on(async {
        for seed in 1..=2 {
            let story = Story::tell(seed).await;
            let moments = story.machine.moments();
            assert!(moments > 200, "only {moments} moments");
            for moment in 0..moments {
                for loses_power in [false, true] {
                    let what = format!("seed {seed}, moment {moment} of {moments}, power lost: {loses_power}");
                    let machine = story.machine.at_moment(moment, seed + moment as u64).unwrap();
                    if loses_power {
                        machine.cut_power();
                    }
                    let store = story.check(&machine, moment, &what);
                    story.go_on(&machine, store, moment, &what).await;
                }
            }
        }
    });
}

fn wal_files(machine: &Machine) -> Vec<PathBuf> {
    let mut files = machine.mount().list(&Path::new(DIR).join("wal")).unwrap();
    files.sort();
    files
}

fn read(machine: &Machine, path: &Path) -> Vec<u8> {
    let file = machine.mount().open(path, Open::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Puts these bytes in the place of a file's content.
fn put(machine: &Machine, path: &Path, bytes: &[u8]) {
    let file = machine.mount().open(path, Open::Truncate).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
}

/// A log of this many entries over several segments, with nothing purged; its process has ended.
async fn written(count: u64) -> Machine {
    let machine = Machine::new(1);
    let store = open(&machine).unwrap();
    for index in 0..count {
        append(&machine, &store, BUSY, &[point(index, 1)]).await.unwrap();
        store.note_committed(BUSY, point(index, 1));
    }
    machine.end_process();
    machine
}

/// With how many entries a log opens; none if the store refuses it.
async fn held(machine: &Machine) -> Option<u64> {
    let store = open(machine).ok()?;
    let held = store.entries(BUSY, 0..u64::MAX, usize::MAX).unwrap().len() as u64;
    drop(store);
    // The writer of the store begins, and ends.
    tokio::task::yield_now().await;
    Some(held)
}

/// The same, on a copy of the disk in which a file has another content.
async fn held_with(machine: &Machine, marked: bool, path: &Path, bytes: &[u8]) -> Option<u64> {
    let copy = machine.copy();
    if !marked {
        // A power cut may leave the file like this.
        put(&copy, &Path::new(DIR).join("progress"), &[]);
    }
    put(&copy, path, bytes);
    held(&copy).await
}

#[test]
fn no_segment_can_be_cut_anywhere_without_notice() {
    const COUNT: u64 = 70;
    block_on(async {
        let whole = written(COUNT).await;
        let files = wal_files(&whole);
        let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let all: Vec<Vec<u8>> = files.iter().map(|path| read(&whole, path)).collect();
        // The last segment is there for later.
        let last = all.iter().rposition(|bytes| used(bytes) > 64).unwrap();
        assert!(last >= 2, "{last}");
        for (at, (path, bytes)) in files.iter().zip(&all).enumerate() {
            for marked in [true, false] {
                for cut in (0..used(bytes)).step_by(8) {
                    let what = format!("segment {at} of {last} cut at {cut}, mark there: {marked}");
                    let shorter = held_with(&whole, marked, path, &bytes[..cut]).await;
                    let mut zeroed = bytes.clone();
                    zeroed[cut..].fill(0);
                    let zeroed = held_with(&whole, marked, path, &zeroed).await;
                    // Without the mark nothing proves that the very last batch was written.
                    let is_told = marked || at < last || cut < 64;
                    let sound = |held: Option<u64>| held.is_none_or(|held| held == COUNT) || !is_told;
                    assert!(sound(shorter), "{what}: {shorter:?} of {COUNT}");
                    assert!(sound(zeroed), "{what}: {zeroed:?} of {COUNT} behind zeros");
                }
            }
            let machine = whole.copy();
            machine.mount().remove(path).unwrap();
            let held = held(&machine).await;
            assert!(held.is_none_or(|held| held == COUNT && at > last), "segment {at} is missing: {held:?}");
        }
    });
}

#[test]
fn an_oldest_segment_that_is_missing_is_noticed_and_one_that_comes_back_is_not_needed() {
    const COUNT: u64 = 120;
    const UPTO: u64 = 90;
    block_on(async {
        let machine = written(COUNT).await;
        let before = machine.copy();
        let store = open(&machine).unwrap();
        store.snapshots().save(BUSY, &snapshot(point(COUNT - 1, 1))).unwrap();
        store.purge(BUSY, point(UPTO, 1)).unwrap();
        append(&machine, &store, BUSY, &[point(COUNT, 1)]).await.unwrap();
        machine.end_process();
        drop(store);
        let (old, new) = (wal_files(&before), wal_files(&machine));
        let gone: Vec<&PathBuf> = old.iter().filter(|path| !new.contains(*path)).collect();
        assert!(gone.len() >= 2, "{old:?}, {new:?}");
        let left = COUNT - UPTO;
        assert_eq!(held(&machine).await, Some(left));
        let cut = machine.copy();
        cut.mount().remove(&new[0]).unwrap();
        assert_eq!(held(&cut).await, None, "the oldest one is missing");
        // A power cut brings back some of the removed files, with a gap behind them.
        put(&machine, gone[0], &read(&before, gone[0]));
        let store = open(&machine).unwrap();
        assert_eq!(store.entries(BUSY, 0..u64::MAX, usize::MAX).unwrap().len() as u64, left);
        append(&machine, &store, BUSY, &[point(COUNT + 1, 1)]).await.unwrap();
        drop(store);
        assert!(!wal_files(&machine).contains(gone[0]), "it goes again");
    });
}

#[test]
fn a_log_of_which_more_was_let_go_of_than_a_snapshot_holds_is_refused() {
    block_on(async {
        let machine = written(20).await;
        let store = open(&machine).unwrap();
        assert!(bring_to_agree(&store, BUSY).is_ok(), "nothing was let go of");
        store.snapshots().save(BUSY, &snapshot(point(9, 1))).unwrap();
        store.purge(BUSY, point(9, 1)).unwrap();
        assert!(bring_to_agree(&store, BUSY).is_ok());
        store.purge(BUSY, point(12, 1)).unwrap();
        let refused = bring_to_agree(&store, BUSY).unwrap_err().to_string();
        assert!(refused.contains("up to 12"), "{refused}");
    });
}
