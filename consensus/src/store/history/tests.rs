use skep_protocol::change::{Change, ChangeKind};
use skep_protocol::ids::ClaimEpoch;
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::*;

const SHARD: ShardId = ShardId(1);

fn task() -> TaskId {
    TaskId::from_bytes([7; 16])
}

/// One report of progress, with a checkpoint of so many bytes.
fn set(index: u64, checkpoint_bytes: usize) -> ChangeSet {
    let checkpoint = Some(vec![1; checkpoint_bytes].into());
    let note = Reason::truncated("on my way");
    let what = ChangeKind::Progressed { task: task(), epoch: ClaimEpoch(1), permille: 1, note, checkpoint };
    ChangeSet { index, term: 1, changes: vec![Change { at: LogInstant::ZERO, request: None, what }] }
}

fn opened(dir: &Path, indexes: std::ops::Range<u64>, checkpoint_bytes: usize) -> History {
    let history = History::open(dir);
    for index in indexes {
        history.record(SHARD, index, Some(set(index, checkpoint_bytes)));
    }
    history.sync();
    history
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
    assert!(!history.is_complete(SHARD, 8), "it began behind a snapshot");
    assert_eq!(history.gap(SHARD), Some((0, 5)));
    history.fill(SHARD, (0..5).map(|index| set(index, 1)).collect(), 0, 5);
    assert!(history.is_complete(SHARD, 8));
    assert!(!history.is_complete(SHARD, 9), "what is not written yet is lacking too");
}

#[test]
fn a_damaged_row_is_a_gap_that_a_peer_fills() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..4, 1);
    let tables = history.tables().unwrap();
    tables.rows.insert(index_key(SHARD, 2), b"rubbish that has no checksum").unwrap();
    assert!(history.of_task(SHARD, task(), None, 10).is_err());
    assert_eq!(history.gap(SHARD), Some((2, 3)));
    let (sets, next) = history.changes(SHARD, 0, usize::MAX).unwrap();
    assert_eq!((sets.len(), next), (2, 2), "what is before it can be read");
    history.fill(SHARD, vec![set(2, 1)], 2, 3);
    assert_eq!(history.of_task(SHARD, task(), None, 10).unwrap().0.len(), 4);
    assert!(history.is_complete(SHARD, 4));
}

#[test]
fn holders_of_other_tasks_are_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let history = opened(dir.path(), 0..1, 1);
    let by = AgentId::new("r1").unwrap();
    let other = TaskId::from_bytes([8; 16]);
    let what = ChangeKind::Claimed { task: other, by, epoch: ClaimEpoch(1), attempt: 1 };
    let changes = vec![Change { at: LogInstant::ZERO, request: None, what }];
    history.record(SHARD, 1, Some(ChangeSet { index: 1, term: 1, changes }));
    history.sync();
    assert_eq!(history.of_task(SHARD, task(), None, 10).unwrap().0.len(), 1);
    assert_eq!(history.of_task(SHARD, other, None, 10).unwrap().0.len(), 1);
}
