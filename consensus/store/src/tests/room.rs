//! A disk without room, and a process without descriptors: writes wait, and no caller hears that they are durable.

use std::sync::mpsc::{Receiver, TryRecvError};

use rustix::io::Errno;
use skep_protocol::pressure::DiskPressure;

use super::*;
use crate::disk::tight::{TightDisk, Tightness};

/// Three entries of this size go into a segment.
const LARGE_BYTES: usize = 20_000;
const SEGMENT_BYTES: u64 = 64 * 1024;

/// Opens a store with a segment beside the one that is written to.
fn open_on(disk: &Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> Store {
    let store = Store::open_bare(disk, dir, [7; 16], StoreOptions { segment_bytes, ..options() }, 1).unwrap();
    while store.log_segments() < 2 {
        std::thread::yield_now();
    }
    store
}

fn tight(shortage: Errno) -> (Arc<dyn Disk>, Tightness, tempfile::TempDir) {
    let (disk, tightness) = TightDisk::with(shortage);
    (disk, tightness, tempfile::tempdir().unwrap())
}

fn large(index: u64) -> (LogPoint, Bytes) {
    (point(index, 1), Bytes::from(vec![index as u8; LARGE_BYTES]))
}

fn append_large(store: &Store, index: u64) -> Receiver<()> {
    append_all(store, index..index + 1)
}

fn append_all(store: &Store, range: Range<u64>) -> Receiver<()> {
    let (done, wait) = channel();
    store.append(SHARD, range.map(large).collect(), move || done.send(()).unwrap()).unwrap();
    wait
}

fn held(store: &Store) -> Vec<(LogPoint, Bytes)> {
    store.entries(SHARD, 0..u64::MAX, usize::MAX).unwrap()
}

/// Waits until the store says that its disk is this full.
fn wait_for(store: &Store, pressure: DiskPressure) {
    while store.pressure() != pressure {
        std::thread::yield_now();
    }
}

#[test]
fn what_finds_no_room_is_held_up_unacknowledged_and_written_in_order_once_there_is() {
    for shortage in [Errno::NOSPC, Errno::MFILE] {
        let (disk, tightness, dir) = tight(shortage);
        let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
        tightness.set(true);
        // The segment that is written to and the spare one hold six.
        let waits: Vec<Receiver<()>> = (1..=9).map(|index| append_large(&store, index)).collect();
        waits[..6].iter().for_each(|wait| wait.recv().unwrap());
        wait_for(&store, DiskPressure::Exhausted);
        assert!(store.is_low() && !store.has_room_for(1));
        let (voted, vote) = channel();
        store.save_vote(SHARD, Bytes::from_static(b"vote"), move || voted.send(()).unwrap()).unwrap();
        assert!(waits[6..].iter().all(|wait| wait.try_recv() == Err(TryRecvError::Empty)), "{shortage}");
        assert_eq!(vote.try_recv(), Err(TryRecvError::Empty), "nothing overtakes what was there before");
        tightness.set(false);
        waits[6..].iter().for_each(|wait| wait.recv().unwrap());
        vote.recv().unwrap();
        wait_for(&store, DiskPressure::None);
        drop(store);
        let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
        let entries = store.entries(SHARD, 0..u64::MAX, usize::MAX).unwrap();
        assert_eq!(entries, (1..=9).map(large).collect::<Vec<_>>());
        assert_eq!(store.vote(SHARD).unwrap(), "vote");
    }
}

#[test]
fn a_store_that_is_closed_while_it_waits_for_room_lacks_only_what_it_did_not_acknowledge() {
    let (disk, tightness, dir) = tight(Errno::NOSPC);
    let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
    tightness.set(true);
    let waits: Vec<Receiver<()>> = (1..=9).map(|index| append_large(&store, index)).collect();
    waits[..6].iter().for_each(|wait| wait.recv().unwrap());
    wait_for(&store, DiskPressure::Exhausted);
    drop(store);
    let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
    assert!(waits[6..].iter().all(|wait| wait.recv().is_err()), "it was never said to be there");
    let entries = store.entries(SHARD, 0..u64::MAX, usize::MAX).unwrap();
    assert_eq!(entries, (1..=6).map(large).collect::<Vec<_>>());
    tightness.set(false);
    append_large(&store, 7).recv().unwrap();
}

#[test]
fn a_full_disk_does_not_end_a_store_that_is_started_again_and_again() {
    let (disk, tightness, dir) = tight(Errno::NOSPC);
    let mut store = open_on(&disk, dir.path(), 4_096);
    vote(&store, "vote");
    append(&store, SHARD, 1..4, 1);
    tightness.set(true);
    // Every start writes the vote again, and which segments are kept, in 80 bytes: the last ones find no room for that
    // in two segments.
    for start in 0..92 {
        drop(store);
        store = open_on(&disk, dir.path(), 4_096);
        assert_eq!(
            (store.vote(SHARD).unwrap(), indexes(&store, SHARD)),
            (Bytes::from("vote"), vec![1, 2, 3]),
            "{start}"
        );
    }
    tightness.set(false);
    append(&store, SHARD, 4..5, 1);
    drop(store);
    let store = open_on(&disk, dir.path(), 4_096);
    assert_eq!((store.vote(SHARD).unwrap(), indexes(&store, SHARD)), (Bytes::from("vote"), vec![1, 2, 3, 4]));
}

#[test]
fn a_batch_of_which_a_part_found_room_is_written_again_and_nothing_in_it_twice() {
    let (disk, tightness, dir) = tight(Errno::NOSPC);
    let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
    append_large(&store, 1).recv().unwrap();
    // The batch begins at each place of a segment, with the header of one, and goes on in the next one.
    let mut next = 2;
    for _ in 0..4 {
        tightness.cut_writes(true);
        let wait = append_all(&store, next..next + 2);
        wait_for(&store, DiskPressure::Exhausted);
        assert_eq!(wait.try_recv(), Err(TryRecvError::Empty));
        tightness.cut_writes(false);
        wait.recv().unwrap();
        wait_for(&store, DiskPressure::None);
        next += 2;
    }
    drop(store);
    let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
    assert_eq!(held(&store), (1..next).map(large).collect::<Vec<_>>());
}

#[test]
fn a_process_that_ends_before_the_rest_of_a_batch_finds_room_is_gone_on_from() {
    // The batch begins behind an entry or two, or with the header of a segment.
    for before in 1..=3 {
        let (disk, tightness, dir) = tight(Errno::NOSPC);
        let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
        append_all(&store, 1..before + 1).recv().unwrap();
        tightness.cut_writes(true);
        let wait = append_all(&store, before + 1..before + 3);
        wait_for(&store, DiskPressure::Exhausted);
        drop(store);
        assert!(wait.recv().is_err(), "it was never said to be there");
        tightness.cut_writes(false);
        let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
        let found = held(&store).len() as u64;
        assert!((before..before + 2).contains(&found), "{found} entries, of which {before} were acknowledged");
        append_large(&store, found + 1).recv().unwrap();
        drop(store);
        let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
        assert_eq!(held(&store), (1..found + 2).map(large).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_let_go_of_makes_room_on_a_full_disk_without_another_segment() {
    let (disk, tightness, dir) = tight(Errno::NOSPC);
    let store = open_on(&disk, dir.path(), SEGMENT_BYTES);
    tightness.set(true);
    (1..=6).for_each(|index| append_large(&store, index).recv().unwrap());
    assert_eq!(wal_files(dir.path()).len(), 2);
    store.purge(SHARD, point(3, 1)).unwrap();
    while store.log_segments() > 1 {
        std::thread::yield_now();
    }
    drop(store);
    // Where it has nothing to make, it starts too.
    let store =
        Store::open_bare(&disk, dir.path(), [7; 16], StoreOptions { segment_bytes: SEGMENT_BYTES, ..options() }, 1);
    assert_eq!(held(&store.unwrap()), (4..=6).map(large).collect::<Vec<_>>());
}
