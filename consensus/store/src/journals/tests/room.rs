//! Journals on a disk without room.

use rustix::io::Errno;

use super::*;
use crate::disk::tight::TightDisk;

fn open_on(disk: &Arc<dyn Disk>, dir: &Path) -> (Journals, mpsc::Receiver<JournalReport>) {
    loop {
        match Journals::open_on(disk, dir, [7; 16], fatal()) {
            Err(error) if error.why.contains("in use") => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn wait_for(journals: &Journals, pressure: DiskPressure) {
    let told = journals.pressure();
    while *told.borrow() != pressure {
        std::thread::yield_now();
    }
}

/// An end with the longest result.
fn end(entry: &JournalEntry) -> JournalStep {
    let result = vec![1; limits::ARGS_BYTES_MAX];
    step(entry, JournalPhase::Ended { outcome: CommandOutcome::Succeeded { result } })
}

#[test]
fn ends_are_written_into_room_of_their_own_when_nothing_is_left_and_survive_restarts_then() {
    let (disk, tightness) = TightDisk::with(Errno::NOSPC);
    let dir = tempfile::tempdir().unwrap();
    let (mut journals, mut reports) = open_on(&disk, dir.path());
    let head = opened(&journals, &mut reports, "r1").head;
    let mut entries: Vec<JournalEntry> = (1..=80).map(large).collect();
    write(&journals, &mut reports, "r1", entries.iter().cloned().map(JournalWrite::Put).collect());
    tightness.set(true);
    wait_for(&journals, DiskPressure::Exhausted);
    for entry in &mut entries {
        write(&journals, &mut reports, "r1", vec![JournalWrite::Step(end(entry))]);
        entry.take(end(entry));
    }
    for _ in 0..3 {
        drop((journals, reports));
        (journals, reports) = open_on(&disk, dir.path());
        let journal = JournalState::new(head, entries.clone());
        let told = JournalReport::Opened { shard: SHARD, agent: agent("r1"), journal: Box::new(journal) };
        assert_eq!(reports.blocking_recv(), Some(told));
    }
    write(&journals, &mut reports, "r1", entries.iter().map(|entry| JournalWrite::Remove(entry.seq)).collect());
    wait_for(&journals, DiskPressure::Exhausted);
    tightness.set(false);
    wait_for(&journals, DiskPressure::None);
    assert_eq!(opened(&journals, &mut reports, "r1").entries, []);
}

#[test]
fn what_finds_no_room_in_a_journal_is_reported_once_it_does_and_nothing_ends_for_it() {
    for shortage in [Errno::NOSPC, Errno::MFILE] {
        let (disk, tightness) = TightDisk::with(shortage);
        let dir = tempfile::tempdir().unwrap();
        let (journals, mut reports) = open_on(&disk, dir.path());
        let head = opened(&journals, &mut reports, "r1").head;
        tightness.set(true);
        let entry = large(1);
        // That is more than goes into the segments that are there.
        let (all, fit) = (600, 450);
        for n in 0..all {
            let entry = JournalEntry { seq: DeliverySeq { n, ..entry.seq }, ..entry.clone() };
            let writes = vec![JournalWrite::Put(entry)];
            journals.submit(JournalJob::Write { key: n, shard: SHARD, agent: agent("r1"), writes });
        }
        for n in 0..fit {
            assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key: n }));
        }
        wait_for(&journals, DiskPressure::Exhausted);
        tightness.set(false);
        for n in fit..all {
            assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key: n }), "{shortage}");
        }
        let (_journals, mut reports) = reopen(dir.path(), journals, reports);
        match reports.blocking_recv() {
            Some(JournalReport::Opened { journal, .. }) => {
                assert_eq!((journal.head, journal.entries.len() as u64), (head, all));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_log_of_journals_that_cannot_be_written_anew_goes_on_until_there_is_room() {
    let (disk, tightness) = TightDisk::with(Errno::NOSPC);
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = open_on(&disk, dir.path());
    let head = opened(&journals, &mut reports, "r1").head;
    tightness.set(true);
    wait_for(&journals, DiskPressure::Exhausted);
    let cursor = |n| JournalHead { cursor: upto(n), ..head };
    for n in 0..2 * RECORDS_MAX {
        let writes = vec![JournalWrite::Head(cursor(n))];
        journals.submit(JournalJob::Write { key: n, shard: SHARD, agent: agent("r1"), writes });
    }
    for n in 0..2 * RECORDS_MAX {
        assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key: n }));
    }
    tightness.set(false);
    wait_for(&journals, DiskPressure::None);
    write(&journals, &mut reports, "r1", vec![JournalWrite::Put(entry(1))]);
    let (journals, mut reports) = reopen(dir.path(), journals, reports);
    let journal = JournalState::new(cursor(2 * RECORDS_MAX - 1), vec![entry(1)]);
    let told = JournalReport::Opened { shard: SHARD, agent: agent("r1"), journal: Box::new(journal) };
    assert_eq!(reports.blocking_recv(), Some(told));
    drop(journals);
}
