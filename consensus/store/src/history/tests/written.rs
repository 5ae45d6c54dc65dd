//! What is in memory, what is in tables, and what a crash takes of that.

use super::*;

/// Waits until everything that was recorded is in memory.
fn until_taken(history: &History) {
    let mut queue = lock(&history.inner.queue);
    while queue.settled < queue.recorded {
        queue = history.inner.idle.wait(queue).unwrap();
    }
}

/// Ends a history as a crash does: the rows in memory are gone.
fn crash(history: History) {
    until_taken(&history);
    lock(&history.inner.stands).values_mut().for_each(|stand| *stand = Stand::of(stand.kept.clone()));
    drop(history);
}

#[test]
fn what_is_said_to_be_kept_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..4, 1);
    let record = |history: &History| (4..9).for_each(|index| history.record(SHARD, index, Some(set(index, 1))));
    record(&history);
    until_taken(&history);
    assert_eq!(indexes(&history), (0..9).collect::<Vec<_>>(), "all of it can be read");
    assert!(history.can_reach(SHARD, 9));
    let said = (0..=9).rev().find(|next| history.reaches(SHARD, *next)).unwrap();
    crash(history);
    let history = open(dir.path());
    assert!(history.reaches(SHARD, said), "the log would have been let go of up to {said}");
    assert_eq!((said, history.gap(SHARD)), (4, None), "the log has the others, and is applied again");
    record(&history);
    until_taken(&history);
    history.persist().unwrap();
    assert!(history.reaches(SHARD, 9));
    crash(history);
    assert_eq!(indexes(&open(dir.path())), (0..9).collect::<Vec<_>>());
}

#[test]
fn what_is_in_memory_is_read_in_its_place_among_what_is_in_tables() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 4..8, 4_096);
    history.record(SHARD, 8, Some(set(8, 4_096)));
    until_taken(&history);
    assert!(history.fill(SHARD, 0, &sets(0..2), 0..2));
    assert!(history.fill(SHARD, 0, &sets(2..4), 2..4));
    for persisted in [false, true] {
        assert_eq!(indexes(&history), (0..9).collect::<Vec<_>>(), "in tables: {persisted}");
        assert_eq!(history.is_complete(SHARD, 9), (true, 0));
        // Two rows of this size fill an answer.
        let (mut at, mut read) = ((0, 0), Vec::new());
        while at.0 < 9 {
            let found = history.changes(SHARD, at.0, at.1, 9_000).unwrap();
            read.extend(found.sets.iter().map(|set| set.index));
            assert!((found.next, found.skip) > at);
            at = (found.next, found.skip);
        }
        assert_eq!(read, (0..9).collect::<Vec<_>>());
        let (mut after, mut read) = (None, Vec::new());
        loop {
            let (records, more) = history.of_task(SHARD, task(), after, 2).unwrap();
            read.extend(records.iter().map(|record| record.index));
            after = read.last().copied();
            if !more {
                break;
            }
        }
        assert_eq!(read, (0..9).collect::<Vec<_>>());
        history.persist().unwrap();
    }
}

/// Bytes that files below a directory take on the disk: those of journals, and all.
fn bytes_on_disk(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut journals, mut all) = (0, 0);
    for item in std::fs::read_dir(dir).unwrap() {
        let item = item.unwrap();
        let path = item.path();
        let metadata = item.metadata().unwrap();
        if metadata.is_dir() {
            let below = bytes_on_disk(&path);
            (journals, all) = (journals + below.0, all + below.1);
        } else {
            let bytes = metadata.blocks() * 512;
            all += bytes;
            journals += if path.extension().is_some_and(|of| of == "jnl") { bytes } else { 0 };
        }
    }
    (journals, all)
}

#[test]
fn what_entries_did_is_written_about_once_and_in_no_journal() {
    for (checkpoint_bytes, entries) in [(16 * 1024, 64), (1, 4_000)] {
        let dir = tempfile::tempdir().unwrap();
        let history = open(dir.path());
        for round in 0..12 {
            let indexes = round * entries..(round + 1) * entries;
            indexes.for_each(|index| history.record(SHARD, index, Some(set(index, checkpoint_bytes))));
            history.sync();
        }
        let held = history.standing(SHARD).bytes;
        let (journals, all) = bytes_on_disk(dir.path());
        assert!(journals <= 64 * 1024, "{journals} of {all} bytes are in journals");
        assert!(all <= held + held / 2 + 256 * 1024, "{all} bytes for {held}");
    }
}

#[test]
fn much_is_written_without_being_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path());
    let entries = limits::HISTORY_PENDING_BYTES_SOFT_MAX as u64 / (64 * 1024) + 8;
    (0..entries).for_each(|index| history.record(SHARD, index, Some(set(index, 64 * 1024))));
    let until = Instant::now() + SYNC_PATIENCE;
    while !history.reaches(SHARD, 1) && Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(history.reaches(SHARD, 1));
}

#[test]
fn on_a_disk_without_room_for_more_the_history_is_read_and_written_once_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..4, 1);
    history.inner.note_failure(HistoryError::no_room(2, 1));
    assert_eq!(indexes(&history), [0, 1, 2, 3]);
    history.record(SHARD, 4, Some(set(4, 1)));
    history.sync();
    assert!(history.reaches(SHARD, 5) && history.standing(SHARD).error.is_none());
}
