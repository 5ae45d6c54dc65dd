use skep_protocol::change::{Change, ChangeKind};
use skep_protocol::history::Missing;
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::task::TaskChange;
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::tables::index_key;
use super::*;

mod written;

const SHARD: ShardId = ShardId(1);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

fn task() -> TaskId {
    TaskId::from_bytes([7; 16])
}

fn progress(task: TaskId, at: u64, checkpoint_bytes: usize) -> Change {
    let checkpoint = Some(vec![1; checkpoint_bytes].into());
    let note = Reason::truncated("on my way");
    let what = ChangeKind::Task {
        task,
        change: TaskChange::Progressed { epoch: ClaimEpoch(1), permille: 1, note, checkpoint },
    };
    Change { at: LogInstant::from_raw(at), request: None, what }
}

/// One report of progress, with a checkpoint of this many bytes.
fn set(index: u64, checkpoint_bytes: usize) -> ChangeSet {
    ChangeSet { index, term: 1, changes: vec![progress(task(), index * 500, checkpoint_bytes)] }
}

fn sets(range: Range<u64>) -> Vec<ChangeSet> {
    range.map(|index| set(index, 1)).collect()
}

fn open(dir: &Path) -> History {
    History::open(dir, HistoryOptions::default())
}

fn opened(dir: &Path, indexes: Range<u64>, checkpoint_bytes: usize) -> History {
    let history = open(dir);
    for index in indexes {
        history.record(SHARD, index, Some(set(index, checkpoint_bytes)));
    }
    history.sync();
    history
}

fn indexes(history: &History) -> Vec<u64> {
    history.changes(SHARD, 0, 0, usize::MAX).unwrap().sets.iter().map(|set| set.index).collect()
}

#[test]
fn a_page_is_bounded_in_bytes_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..600, 4_096);
    let (mut after, mut indexes, mut pages) = (None, Vec::new(), 0);
    loop {
        let (records, more) = history.of_task(SHARD, task(), after, limits::PAGE_ITEMS_MAX).unwrap();
        assert!(records.len() * 4_096 <= ANSWER_BYTES_MAX + 8_192, "{}", records.len());
        indexes.extend(records.iter().map(|record| record.index));
        (after, pages) = (indexes.last().copied(), pages + 1);
        if !more {
            break;
        }
    }
    assert_eq!(indexes, (0..600).collect::<Vec<_>>());
    assert!(pages > 1);
}

#[test]
fn a_history_that_lacks_something_says_so_until_it_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 5..8, 1);
    assert_eq!(history.is_complete(SHARD, 8), (false, 0), "it began behind a snapshot");
    assert_eq!(history.gap(SHARD), Some(0..5));
    let found = history.changes(SHARD, 2, 0, usize::MAX).unwrap();
    assert_eq!((found.sets.len(), found.next), (0, 2));
    assert_eq!(found.edge.missing, Some(Missing { from: 0, end: 5, lost: false }), "and does not say that all is well");
    assert!(history.fill(SHARD, 0, &sets(0..5), 0..5));
    assert_eq!(history.is_complete(SHARD, 8), (true, 0));
    assert_eq!(history.is_complete(SHARD, 9), (false, 0), "what is not written yet is lacking too");
    assert_eq!(indexes(&history), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_damaged_row_is_a_gap_that_a_peer_fills() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..4, 1);
    let tables = history.inner.tables().unwrap();
    let rows = tables.get(SHARD, 0).unwrap();
    rows.insert(index_key(2, 0), b"rubbish that has no checksum").unwrap();
    assert!(history.of_task(SHARD, task(), None, 10).is_err());
    assert_eq!(history.gap(SHARD), Some(2..3));
    let found = history.changes(SHARD, 0, 0, usize::MAX).unwrap();
    assert_eq!((found.sets.len(), found.next), (2, 2), "what is before it can be read");
    assert!(history.fill(SHARD, 0, &sets(2..3), 2..3));
    assert_eq!(history.of_task(SHARD, task(), None, 10).unwrap().0.len(), 4);
    assert_eq!(history.is_complete(SHARD, 4), (true, 0));
}

#[test]
fn holders_of_other_tasks_are_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..1, 1);
    let by = AgentId::new("r1").unwrap();
    let other = TaskId::from_bytes([8; 16]);
    let what = ChangeKind::Task { task: other, change: TaskChange::Claimed { by, epoch: ClaimEpoch(1), attempt: 1 } };
    let changes = vec![Change { at: LogInstant::ZERO, request: None, what }];
    history.record(SHARD, 1, Some(ChangeSet { index: 1, term: 1, changes }));
    history.sync();
    assert_eq!(history.of_task(SHARD, task(), None, 10).unwrap().0.len(), 1);
    assert_eq!(history.of_task(SHARD, other, None, 10).unwrap().0.len(), 1);
}

/// Everything from an entry on, and how many answers that took.
fn read_through(history: &History, from: u64) -> (Vec<Change>, Vec<ChangesFound>) {
    let (mut changes, mut answers, mut at) = (Vec::new(), Vec::new(), (from, 0));
    loop {
        let found = history.changes(SHARD, at.0, at.1, usize::MAX).unwrap();
        if (found.next, found.skip) == at {
            return (changes, answers);
        }
        at = (found.next, found.skip);
        changes.extend(found.sets.iter().flat_map(|set| set.changes.clone()));
        answers.push(found);
    }
}

#[test]
fn what_one_entry_did_is_kept_whole_however_large_it_is() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let named = |nth: u16| {
        let mut bytes = [9; 16];
        bytes[..2].copy_from_slice(&nth.to_be_bytes());
        TaskId::from_bytes(bytes)
    };
    let large: Vec<Change> = (0..2_000).map(|nth| progress(named(nth), 0, 4_096)).collect();
    let history = open(dir.path());
    history.record(SHARD, 0, Some(ChangeSet { index: 0, term: 1, changes: large.clone() }));
    history.record(SHARD, 1, Some(set(1, 1)));
    history.sync();
    let (changes, answers) = read_through(&history, 0);
    assert_eq!(changes.len(), large.len() + 1, "nothing is left out");
    assert!(changes[..large.len()] == large[..], "in its order");
    assert!(answers.len() > 4, "each answer fits into a frame");
    assert_eq!(history.of_task(SHARD, named(1_999), None, 10).unwrap().0.len(), 1);
    // A peer that fetches it answer by answer has the same.
    let filled = open(other.path());
    filled.begin(SHARD, 2);
    let mut at = (0, 0);
    for found in answers {
        assert!(filled.fill(SHARD, at.1, &found.sets, at.0..found.next));
        at = (found.next, found.skip);
    }
    assert_eq!(filled.is_complete(SHARD, 2), (true, 0));
    assert!(read_through(&filled, 0).0 == changes);
    assert_eq!(filled.of_task(SHARD, named(1_999), None, 10).unwrap().0.len(), 1);
}

#[test]
fn what_a_crash_kept_from_the_history_is_written_when_the_log_is_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(opened(dir.path(), 0..10, 1));
    // Entries 10 to 14 were applied, and the process died.
    let history = open(dir.path());
    assert!(history.reaches(SHARD, 10) && !history.reaches(SHARD, 15));
    let before = history.standing(SHARD).bytes;
    (0..10).for_each(|index| history.record(SHARD, index, Some(set(index, 1))));
    history.sync();
    assert_eq!(history.standing(SHARD).bytes, before, "what is there is not written again");
    (10..15).for_each(|index| history.record(SHARD, index, Some(set(index, 1))));
    history.sync();
    assert!(history.reaches(SHARD, 15));
    assert_eq!(indexes(&history), (0..15).collect::<Vec<_>>());
}

/// A directory in which no database can be made until the test repairs it.
fn blocked() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (file, path) = (dir.path().join("data"), dir.path().join("data").join("history"));
    std::fs::write(&file, b"in the way").unwrap();
    (dir, file, path)
}

#[test]
fn what_cannot_be_written_is_kept_until_it_can() {
    let (dir, file, path) = blocked();
    let history = open(&path);
    (0..3).for_each(|index| history.record(SHARD, index, Some(set(index, 1))));
    assert!(!history.reaches(SHARD, 3) && history.is_held_back(SHARD));
    assert!(history.standing(SHARD).error.is_some(), "the status says why");
    std::fs::remove_file(file).unwrap();
    history.sync();
    assert!(history.reaches(SHARD, 3) && !history.is_held_back(SHARD));
    assert_eq!(indexes(&history), [0, 1, 2]);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names, ["data"], "nothing was set aside");
}

#[test]
fn beyond_its_queue_the_history_leaves_a_gap_that_holds_snapshots_back() {
    const MIB: usize = 1024 * 1024;
    let (_dir, file, path) = blocked();
    let history = open(&path);
    let over = (limits::HISTORY_QUEUED_BYTES_MAX / MIB) as u64 + 8;
    for index in 0..over {
        let queued = index as usize * MIB;
        assert_eq!(history.is_behind(), queued >= limits::HISTORY_QUEUED_BYTES_SOFT_MAX, "after {index}");
        history.record(SHARD, index, Some(set(index, MIB)));
    }
    assert!(history.standing(SHARD).queued_bytes < limits::HISTORY_QUEUED_BYTES_MAX as u64 + 2 * MIB as u64);
    std::fs::remove_file(file).unwrap();
    while history.is_behind() {
        history.sync();
    }
    history.sync();
    history.record(SHARD, over, Some(set(over, 1)));
    history.sync();
    let gap = history.gap(SHARD).unwrap();
    assert_eq!(gap.end, over, "{gap:?}");
    assert!(!history.reaches(SHARD, over + 1) && history.reaches(SHARD, gap.start));
    assert!(history.fill(SHARD, 0, &sets(gap.clone()), gap));
    history.sync();
    assert!(history.reaches(SHARD, over + 1));
}

#[test]
fn a_damaged_database_is_set_aside_each_time_and_none_is_ever_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    for nth in 1..=3 {
        drop(opened(&path, 0..4, 1));
        std::fs::write(path.join("version"), b"rubbish").unwrap();
        let history = open(&path);
        history.begin(SHARD, 4);
        assert_eq!(history.gap(SHARD), Some(0..4), "it is filled again");
        assert!(history.fill(SHARD, 0, &sets(0..4), 0..4));
        assert!((1..=nth).all(|nth| dir.path().join(format!("history.damaged-{nth}")).join("version").exists()));
    }
}

#[test]
fn a_database_of_another_version_is_left_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let database = fjall::Database::builder(&path).open().unwrap();
    drop(database.keyspace("history", fjall::KeyspaceCreateOptions::default).unwrap());
    drop(database);
    let history = open(&path);
    let error = history.standing(SHARD).error.unwrap();
    assert!(error.contains("move it away"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_too_old_goes_by_whole_segments_and_readers_are_told_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let options = HistoryOptions { retention_ms: 16_000, ..HistoryOptions::default() };
    let history = History::open(dir.path(), options);
    for index in 0..40 {
        history.record(SHARD, index, Some(set(index, 1)));
    }
    history.sync();
    let tables = history.inner.tables().unwrap();
    let segments = tables.database.keyspace_count();
    let now = LogInstant::from_raw(20_000);
    history.retain(SHARD, Some(now));
    // There are three entries to a segment, and the segments whose entries are all from before 4,000 ms are gone.
    assert_eq!(segments - tables.database.keyspace_count(), 2);
    let (complete, begins) = history.is_complete(SHARD, 40);
    assert_eq!((complete, begins), (true, 6));
    let found = history.changes(SHARD, 3, 0, usize::MAX).unwrap();
    assert_eq!((found.sets.len(), found.next), (0, 3));
    assert_eq!(found.edge.lacks(3), Some((0, 6)));
    assert_eq!(found.edge.begins_at, Some(LogInstant::from_raw(3_000)));
    assert_eq!(read_through(&history, 6).0.len(), 34);
    assert_eq!(history.of_task(SHARD, task(), None, 100).unwrap().0.len(), 34);
    drop((tables, history));
    let history = History::open(dir.path(), options);
    assert_eq!((history.is_complete(SHARD, 40), history.gap(SHARD)), ((true, 6), None), "a restart knows it too");
}

#[test]
fn whoever_reads_while_segments_go_is_told_of_the_edge_and_never_of_a_whole_that_lacks_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = HistoryOptions { retention_ms: 16_000, ..HistoryOptions::default() };
    let history = History::open(dir.path(), options);
    (0..90).for_each(|index| history.record(SHARD, index, Some(set(index, 1))));
    history.sync();
    let read = || {
        let mut last_begins = 0;
        while last_begins < 60 {
            let found = history.changes(SHARD, last_begins, 0, usize::MAX).unwrap();
            let read: Vec<u64> = found.sets.iter().map(|set| set.index).collect();
            assert_eq!(read, (last_begins..found.next).collect::<Vec<_>>(), "{:?}", found.edge);
            let page = history.transitions(SHARD, task(), None, 100, 90).unwrap();
            assert!(page.complete);
            let read: Vec<u64> = page.records.iter().map(|record| record.index).collect();
            let kept = read.iter().position(|index| *index >= page.begins).unwrap();
            assert_eq!(read[kept..], (page.begins..90).collect::<Vec<_>>(), "from {}", page.begins);
            last_begins = page.begins.max(found.edge.begins);
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(read);
        (0..30).for_each(|_| drop(history.inner.take_oldest(SHARD).unwrap()));
        reader.join().unwrap();
    });
}

#[test]
fn a_segment_that_is_not_there_is_no_part_that_changed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..4, 1);
    drop(history.inner.tables().unwrap().remove(SHARD, 0).unwrap());
    assert!(history.changes(SHARD, 0, 0, usize::MAX).is_err());
    assert!(history.transitions(SHARD, task(), None, 10, 4).is_err());
}

#[test]
fn nobody_waits_while_the_files_of_an_old_segment_go() {
    let dir = tempfile::tempdir().unwrap();
    let options = HistoryOptions { retention_ms: 16_000, ..HistoryOptions::default() };
    let history = History::open(dir.path(), options);
    (0..12).for_each(|index| history.record(SHARD, index, Some(set(index, 1))));
    history.sync();
    let gone = history.inner.take_oldest(SHARD).unwrap().expect("there are several");
    let files = gone.path().to_owned();
    assert!(history.inner.writing.try_lock().is_ok(), "whoever writes would wait for the removal");
    assert!(history.standing(SHARD).begins > 0, "readers are told before that");
    history.record(SHARD, 12, Some(set(12, 1)));
    history.sync();
    assert_eq!(history.standing(SHARD).next, 13);
    assert!(files.exists());
    drop((gone, history));
    assert!(!files.exists());
}

#[test]
fn what_is_too_much_goes_and_what_is_before_it_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = HistoryOptions { bytes_max: 160 * 1024, ..HistoryOptions::default() };
    let history = History::open(dir.path(), options);
    (10..110).for_each(|index| history.record(SHARD, index, Some(set(index, 4_096))));
    history.sync();
    history.retain(SHARD, None);
    let standing = history.standing(SHARD);
    assert!(standing.bytes <= options.bytes_max && standing.bytes > options.bytes_max / 2, "{standing:?}");
    assert!(standing.begins > 10 && standing.next == 110, "{standing:?}");
    assert_eq!(history.gap(SHARD), None);
}

#[test]
fn on_a_full_disk_whole_segments_go_until_the_least_is_left_and_never_the_one_that_is_written_to() {
    const KIB: usize = 1024;
    let dir = tempfile::tempdir().unwrap();
    let least = limits::HISTORY_BYTES_LEAST;
    let options = HistoryOptions { bytes_max: 4 * least, ..HistoryOptions::default() };
    let segment = options.segment_bytes();
    let history = History::open(dir.path(), options);
    let entries = 2 * least / (64 * KIB as u64);
    (0..entries).for_each(|index| history.record(SHARD, index, Some(set(index, 64 * KIB))));
    history.sync();
    let full = history.standing(SHARD);
    history.retain(SHARD, None);
    assert_eq!(history.standing(SHARD), full, "neither too old nor too much");
    history.give_back(SHARD);
    let given = history.standing(SHARD);
    assert!(full.bytes - given.bytes >= segment && full.bytes - given.bytes < 2 * segment, "one at a time");
    (0..100).for_each(|_| history.give_back(SHARD));
    let left = history.standing(SHARD);
    assert!(left.bytes >= least && left.bytes < least + 2 * segment, "{left:?}");
    assert_eq!(left.given_back, left.begins, "it is counted");
    assert_eq!((left.next, history.gap(SHARD)), (entries, None));
    assert_eq!(read_through(&history, left.begins).0.len() as u64, entries - left.begins);
}

#[test]
fn of_several_shards_the_one_with_the_longest_history_gives_room() {
    let dir = tempfile::tempdir().unwrap();
    let other = ShardId(2);
    let options = HistoryOptions { bytes_max: 4 * limits::HISTORY_BYTES_LEAST, ..HistoryOptions::default() };
    let history = History::open(dir.path(), options);
    let large = |index: u64| Some(set(index, 256 * 1024));
    (0..80).for_each(|index| history.record(SHARD, index, large(index)));
    (0..40).for_each(|index| history.record(other, index, large(index)));
    history.sync();
    history.give_back(other);
    assert_eq!(history.standing(other).given_back, 0);
    history.give_back(SHARD);
    assert!(history.standing(SHARD).given_back > 0);
}

#[test]
fn a_gap_below_a_full_history_is_not_worth_filling() {
    let dir = tempfile::tempdir().unwrap();
    let options = HistoryOptions { bytes_max: 160 * 1024, ..HistoryOptions::default() };
    let history = History::open(dir.path(), options);
    (10..48).for_each(|index| history.record(SHARD, index, Some(set(index, 4_096))));
    history.sync();
    let gap = history.gap(SHARD).unwrap();
    assert_eq!(gap, 0..10);
    assert!(history.is_full_below(SHARD, gap.end), "it would be the first to go");
    history.lose(SHARD, gap);
    assert_eq!((history.gap(SHARD), history.standing(SHARD).begins), (None, 10));
}

#[test]
fn opening_reads_one_row_of_each_segment_however_many_there_are_in_it() {
    let read = |rows: u64| {
        let dir = tempfile::tempdir().unwrap();
        drop(opened(dir.path(), 0..rows, 1));
        let opened = Tables::open_or_set_aside(dir.path()).unwrap();
        assert!(opened.shelves[&SHARD].is_complete(rows));
        opened.rows_read
    };
    assert_eq!((read(10), read(5_000)), (1, 1));
}

#[test]
fn the_last_resort_leaves_a_gap_that_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..4, 1);
    // Entries 4 to 8 were applied and never written; a snapshot covers them.
    history.let_go(SHARD, 9);
    assert!(history.reaches(SHARD, 9));
    assert_eq!(history.gap(SHARD), Some(4..9));
    drop(history);
    let history = open(dir.path());
    history.begin(SHARD, 9);
    assert_eq!(history.gap(SHARD), Some(4..9));
    assert_eq!(history.standing(SHARD).missing, 5);
}
