use std::collections::BTreeMap;

use skep_protocol::command::{Command, CommandClass, CommandOutcome, DeliverySeq, PerClass, Steps, Target};
use skep_protocol::ids::{CommandId, Genesis, HomeEpoch};
use skep_protocol::journal::{JournalEntry, JournalPhase, JournalStep, Serials};
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::{AgentId, Reason, TraceParent};
use skep_protocol::time::LogInstant;

use super::*;
use crate::{Snapshots, StoredSnapshot};

mod room;

const SHARD: ShardId = ShardId(1);

fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

fn fatal() -> OnFatal {
    Arc::new(|error| panic!("{error}"))
}

fn place() -> Place {
    Place { site: "hall".parse().unwrap(), shard: SHARD, genesis: Genesis::from_bytes([6; 16]) }
}

fn entry(n: u64) -> JournalEntry {
    let by = OperatorSecret::from_seed(&[1; 32]);
    let command = Command {
        place: place(),
        id: CommandId::from_bytes([n as u8; 16]),
        target: Target::All,
        verb: "goto".parse().unwrap(),
        content_type: "text/plain".parse().unwrap(),
        args: vec![n as u8; 100].into(),
        deadline: LogInstant::from_raw(9_000),
        class: CommandClass::Routine,
        idempotent: false,
        supersedes: None,
        parent: None,
        trace: TraceParent::new("").unwrap(),
        waves: None,
        operator: by.key(),
    };
    let seq = DeliverySeq { home: HomeEpoch(1), class: CommandClass::Routine, n };
    let command = Arc::new(command.sign(&by).unwrap());
    JournalEntry { seq, command, steps: Steps::default(), phase: JournalPhase::Received, begun_before: false }
}

fn upto(n: u64) -> PerClass<u64> {
    PerClass { routine: n, urgent: n / 2 }
}

fn opened(journals: &Journals, reports: &mut mpsc::Receiver<JournalReport>, name: &str) -> JournalState {
    journals.submit(JournalJob::Open { shard: SHARD, agent: agent(name) });
    match reports.blocking_recv().unwrap() {
        JournalReport::Opened { agent: of, journal, .. } if of == agent(name) => *journal,
        other => panic!("{other:?}"),
    }
}

fn write(journals: &Journals, reports: &mut mpsc::Receiver<JournalReport>, name: &str, writes: Vec<JournalWrite>) {
    journals.submit(JournalJob::Write { key: 7, shard: SHARD, agent: agent(name), writes });
    assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key: 7 }));
}

/// Drops the journals and waits until another handle can have them.
fn reopen(
    dir: &Path,
    journals: Journals,
    reports: mpsc::Receiver<JournalReport>,
) -> (Journals, mpsc::Receiver<JournalReport>) {
    drop((journals, reports));
    loop {
        match Journals::open(dir, [7; 16], fatal()) {
            Err(error) if error.why.contains("in use") => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn what_was_reported_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let first = opened(&journals, &mut reports, "r1");
    assert_eq!((first.head.home, first.entries.len()), (HomeEpoch(0), 0));
    assert_ne!(opened(&journals, &mut reports, "r10").head.id, first.head.id);
    let head = JournalHead { home: HomeEpoch(1), cursor: upto(2), ..first.head };
    let writes = vec![JournalWrite::Head(head), JournalWrite::Put(entry(1)), JournalWrite::Put(entry(2))];
    write(&journals, &mut reports, "r1", writes);
    write(&journals, &mut reports, "r1", vec![JournalWrite::Remove(entry(1).seq)]);
    let (journals, mut reports) = reopen(dir.path(), journals, reports);
    // A journal that holds something is reported without a question.
    let journal = JournalState::new(head, vec![entry(2)]);
    let told = JournalReport::Opened { shard: SHARD, agent: agent("r1"), journal: Box::new(journal.clone()) };
    assert_eq!(reports.blocking_recv(), Some(told));
    assert_eq!(opened(&journals, &mut reports, "r1"), journal);
    // Another agent whose name has the same beginning has a journal of its own.
    assert_eq!(opened(&journals, &mut reports, "r10").entries, []);
    assert_eq!(opened(&journals, &mut reports, "r").entries, []);
}

#[test]
fn what_was_begun_is_known_after_a_restart_until_the_floor_has_passed_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let begun = |n: u64| {
        let (command, deadline) = (CommandId::from_bytes([n as u8; 16]), LogInstant::from_raw(n * 1_000));
        JournalWrite::Begun { command, deadline }
    };
    let names = |journal: &JournalState| journal.begun.keys().map(|id| id.as_bytes()[0]).collect::<Vec<_>>();
    let head = opened(&journals, &mut reports, "r1").head;
    let writes = vec![begun(3), begun(5), begun(9), JournalWrite::ClockFloor(LogInstant::from_raw(4_000)), begun(2)];
    write(&journals, &mut reports, "r1", writes);
    for round in 0..2 {
        let journal = opened(&journals, &mut reports, "r1");
        assert_eq!((names(&journal), journal.clock_floor), (vec![5, 9], LogInstant::from_raw(4_000)), "round {round}");
        // All journals are written anew meanwhile.
        for key in 0..=RECORDS_MAX {
            let writes = vec![JournalWrite::Head(head)];
            journals.submit(JournalJob::Write { key, shard: SHARD, agent: agent("r1"), writes });
        }
        for key in 0..=RECORDS_MAX {
            assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key }));
        }
        (journals, reports) = reopen(dir.path(), journals, reports);
    }
    // The number never falls.
    write(&journals, &mut reports, "r1", vec![JournalWrite::ClockFloor(LogInstant::from_raw(1)), begun(4)]);
    write(&journals, &mut reports, "r1", vec![JournalWrite::ClockFloor(LogInstant::from_raw(9_000))]);
    assert_eq!(names(&opened(&journals, &mut reports, "r1")), []);
}

#[test]
fn what_is_not_believed_any_more_of_operators_is_not_after_a_restart_nor_when_the_log_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let head = opened(&journals, &mut reports, "r1").head;
    let operator = |n: u8| OperatorSecret::from_seed(&[n; 32]).key();
    let stated = |n: u8, serial| JournalWrite::Stated { operator: operator(n), serial };
    write(&journals, &mut reports, "r1", vec![stated(1, 2), stated(2, 5), stated(1, 3), JournalWrite::Put(entry(1))]);
    for n in 0..2 * RECORDS_MAX {
        let writes = vec![JournalWrite::Head(JournalHead { cursor: upto(n), ..head })];
        journals.submit(JournalJob::Write { key: n, shard: SHARD, agent: agent("r1"), writes });
    }
    for n in 0..2 * RECORDS_MAX {
        assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key: n }));
    }
    let (_journals, mut reports) = reopen(dir.path(), journals, reports);
    let head = JournalHead { cursor: upto(2 * RECORDS_MAX - 1), ..head };
    let mut stated = Serials::default();
    stated.raise(&head, operator(1), 3);
    stated.raise(&head, operator(2), 5);
    let journal = JournalState { stated, ..JournalState::new(head, vec![entry(1)]) };
    let told = JournalReport::Opened { shard: SHARD, agent: agent("r1"), journal: Box::new(journal) };
    assert_eq!(reports.blocking_recv(), Some(told));
}

#[test]
fn what_is_not_believed_any_more_of_operators_ends_with_the_shard_that_it_was_stated_for() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let head = opened(&journals, &mut reports, "r1").head;
    let of = |n: u8| JournalWrite::Head(JournalHead { genesis: Some(Genesis::from_bytes([n; 16])), ..head });
    let known = |journal: JournalState| (*journal.stated.of(&journal.head)).clone();
    let operator = OperatorSecret::from_seed(&[1; 32]).key();
    let stated = |serial| JournalWrite::Stated { operator, serial };
    write(&journals, &mut reports, "r1", vec![of(6), stated(2), of(6)]);
    assert_eq!(known(opened(&journals, &mut reports, "r1")), BTreeMap::from([(operator, 2)]));
    write(&journals, &mut reports, "r1", vec![of(7)]);
    assert_eq!(known(opened(&journals, &mut reports, "r1")), BTreeMap::new());
    write(&journals, &mut reports, "r1", vec![stated(1)]);
    let (journals, mut reports) = reopen(dir.path(), journals, reports);
    assert_eq!(known(opened(&journals, &mut reports, "r1")), BTreeMap::from([(operator, 1)]));
}

#[test]
fn what_is_not_believed_any_more_of_operators_is_kept_once_for_all_agents_that_take_the_same_word() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let operator = OperatorSecret::from_seed(&[1; 32]).key();
    let mut heads = Vec::new();
    for (name, genesis) in [("r1", 6), ("r2", 6), ("r3", 7)] {
        let head = opened(&journals, &mut reports, name).head;
        let head = JournalHead { genesis: Some(Genesis::from_bytes([genesis; 16])), ..head };
        write(&journals, &mut reports, name, vec![JournalWrite::Head(head)]);
        heads.push(head);
    }
    write(&journals, &mut reports, "r1", vec![JournalWrite::Stated { operator, serial: 4 }]);
    write(&journals, &mut reports, "r2", vec![JournalWrite::Stated { operator, serial: 2 }]);
    // The agent whose journal wrote it is gone for good.
    write(&journals, &mut reports, "r1", vec![JournalWrite::Forget]);
    for round in 0..2 {
        let known = ["r2", "r3", "new"].map(|name| {
            let journal = opened(&journals, &mut reports, name);
            (journal.stated.last(&journal.head, &operator), journal.stated.last(&heads[0], &operator))
        });
        assert_eq!(known, [(Some(4), Some(4)), (None, Some(4)), (None, Some(4))], "round {round}");
        // All journals are written anew meanwhile.
        for key in 0..=RECORDS_MAX {
            let writes = vec![JournalWrite::Head(heads[2])];
            journals.submit(JournalJob::Write { key, shard: SHARD, agent: agent("r3"), writes });
        }
        for key in 0..=RECORDS_MAX {
            assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key }));
        }
        (journals, reports) = reopen(dir.path(), journals, reports);
    }
    // The numbers go with the last journal for which they hold.
    write(&journals, &mut reports, "r2", vec![JournalWrite::Forget]);
    let head = opened(&journals, &mut reports, "r2").head;
    write(&journals, &mut reports, "r2", vec![JournalWrite::Head(JournalHead { genesis: heads[1].genesis, ..head })]);
    assert_eq!(opened(&journals, &mut reports, "r2").stated, Serials::default());
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    assert!(Journals::open(dir.path(), [7; 16], fatal()).is_err());
}

#[test]
fn no_flipped_byte_of_a_journal_goes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let head = opened(&journals, &mut reports, "r1").head;
    let head = JournalHead { home: HomeEpoch(1), cursor: upto(3), ..head };
    let entries: Vec<JournalEntry> = (1..=3).map(entry).collect();
    let writes = entries.iter().cloned().map(JournalWrite::Put).chain([JournalWrite::Head(head)]).collect();
    write(&journals, &mut reports, "r1", writes);
    let whole = JournalState::new(head, entries);
    let (journals, reports) = reopen(dir.path(), journals, reports);
    drop((journals, reports));
    let mut noticed = 0;
    for path in files_in(dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        // All that was written, and some of the zeros that are kept for more.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        for at in (0..written).step_by(7).chain(written..(written + 9).min(bytes.len())) {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 0x10;
            std::fs::write(copy.path().join(path.strip_prefix(dir.path()).unwrap()), &spoiled).unwrap();
            let Ok((_journals, mut reports)) = Journals::open(copy.path(), [7; 16], fatal()) else {
                noticed += 1;
                continue;
            };
            let same = JournalReport::Opened { shard: SHARD, agent: agent("r1"), journal: Box::new(whole.clone()) };
            assert_eq!(reports.blocking_recv(), Some(same), "{} byte {at}", path.display());
        }
    }
    assert!(noticed > 0);
}

#[test]
fn the_log_is_let_go_of_and_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let head = opened(&journals, &mut reports, "r1").head;
    write(&journals, &mut reports, "r1", vec![JournalWrite::Put(entry(1))]);
    for n in 0..2 * RECORDS_MAX {
        let writes = vec![JournalWrite::Head(JournalHead { cursor: upto(n), ..head })];
        journals.submit(JournalJob::Write { key: n, shard: SHARD, agent: agent("r1"), writes });
    }
    for n in 0..2 * RECORDS_MAX {
        assert_eq!(reports.blocking_recv(), Some(JournalReport::Written { key: n }), "in order");
    }
    let (_journals, mut reports) = reopen(dir.path(), journals, reports);
    let head = JournalHead { cursor: upto(2 * RECORDS_MAX - 1), ..head };
    let journal = JournalState::new(head, vec![entry(1)]);
    let told = JournalReport::Opened { shard: SHARD, agent: agent("r1"), journal: Box::new(journal) };
    assert_eq!(reports.blocking_recv(), Some(told));
    let segments = files_in(&dir.path().join("wal")).len();
    assert!(segments <= 2 + limits::JOURNAL_SPARE_SEGMENTS, "{segments} segments are kept");
}

/// A command with arguments of the greatest size.
fn large(n: u64) -> JournalEntry {
    let by = OperatorSecret::from_seed(&[1; 32]);
    let entry = entry(n);
    let command = Command { args: vec![n as u8; limits::ARGS_BYTES_MAX].into(), ..entry.command.statement().clone() };
    JournalEntry { command: Arc::new(command.sign(&by).unwrap()), ..entry }
}

fn step(entry: &JournalEntry, phase: JournalPhase) -> JournalStep {
    JournalStep { seq: entry.seq, steps: entry.steps, phase, begun_before: false }
}

#[test]
fn journals_that_are_larger_than_any_record_are_written_anew_and_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let mut expected = Vec::new();
    for name in ["r1", "r2", "r3"] {
        let head = opened(&journals, &mut reports, name).head;
        let entries: Vec<JournalEntry> = (1..=80).map(large).collect();
        write(&journals, &mut reports, name, entries.iter().cloned().map(JournalWrite::Put).collect());
        let failed = CommandOutcome::Failed { reason: Reason::truncated("blocked") };
        let ended = JournalPhase::Ended { outcome: failed };
        write(&journals, &mut reports, name, vec![JournalWrite::Step(step(&entries[3], ended.clone()))]);
        let mut journal = JournalState::new(head, entries);
        journal.entries[3].phase = ended;
        expected.push((name, journal));
    }
    // So many commands come and go that the log is dropped again and again.
    let passing: Vec<JournalEntry> = (100..110).map(large).collect();
    for n in 0..300 {
        write(&journals, &mut reports, "r2", passing.iter().cloned().map(JournalWrite::Put).collect());
        write(&journals, &mut reports, "r2", passing.iter().map(|entry| JournalWrite::Remove(entry.seq)).collect());
        write(&journals, &mut reports, if n % 2 == 0 { "r1" } else { "r3" }, vec![JournalWrite::Put(large(7))]);
    }
    let (_journals, mut reports) = reopen(dir.path(), journals, reports);
    for (name, journal) in expected {
        let told = JournalReport::Opened { shard: SHARD, agent: agent(name), journal: Box::new(journal) };
        assert_eq!(reports.blocking_recv(), Some(told));
    }
    let segments = files_in(&dir.path().join("wal")).len();
    assert!(segments <= 20, "{segments} segments of 2 MiB are kept for 4 MB of journals, and 60 MB were written");
}

#[test]
fn journals_of_agents_that_come_and_go_are_forgotten_and_never_one_that_is_used_or_holds_something() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let release = |journals: &Journals, name: &str| {
        journals.submit(JournalJob::Release { shard: SHARD, agent: agent(name) });
    };
    let used = opened(&journals, &mut reports, "used").head.id;
    let holds = opened(&journals, &mut reports, "holds").head.id;
    write(&journals, &mut reports, "holds", vec![JournalWrite::Put(entry(1))]);
    release(&journals, "holds");
    let first = opened(&journals, &mut reports, "first").head.id;
    release(&journals, "first");
    let names: Vec<String> = (0..limits::JOURNALS_KEPT_MAX).map(|n| format!("a{n}")).collect();
    let mut ids = Vec::new();
    for name in &names[1..] {
        ids.push(opened(&journals, &mut reports, name).head.id);
        release(&journals, name);
    }
    assert_eq!(opened(&journals, &mut reports, "first").head.id, first, "there is room for as many");
    release(&journals, "first");
    opened(&journals, &mut reports, &names[0]);
    release(&journals, &names[0]);
    // There is one too many: the journal that was used longest ago is forgotten.
    let (journals, mut reports) = reopen(dir.path(), journals, reports);
    assert!(matches!(reports.blocking_recv(), Some(JournalReport::Opened { agent: of, .. }) if of == agent("holds")));
    assert_eq!(opened(&journals, &mut reports, "first").head.id, first);
    assert_ne!(opened(&journals, &mut reports, &names[1]).head.id, ids[0], "it is another journal now");
    assert_eq!(opened(&journals, &mut reports, &names[2]).head.id, ids[1]);
    assert_eq!(opened(&journals, &mut reports, "used").head.id, used);
    let kept = opened(&journals, &mut reports, "holds");
    assert_eq!((kept.head.id, kept.entries), (holds, vec![entry(1)]));
}

#[test]
fn journals_of_an_earlier_skep_are_refused_and_not_misread() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let (journals, reports) = reopen(dir.path(), journals, reports);
    drop((journals, reports));
    let snapshots = dir.path().join("snapshots");
    let snapshot = StoredSnapshot { index: 10, meta: Bytes::new(), data: Bytes::from_static(b"an image of all") };
    Snapshots::open(Arc::new(SystemDisk), &snapshots).unwrap().save(LOG, &snapshot).unwrap();
    let refused = loop {
        match Journals::open(dir.path(), [7; 16], fatal()) {
            Err(error) if error.why.contains("in use") => std::thread::yield_now(),
            opened => break opened.err().expect("it is refused"),
        }
    };
    assert!(refused.to_string().contains("earlier Skep"), "{refused}");
}

/// A case like ches/docker-kafka#28: the advice fits what happened. Moving the data directory away would lose a
/// replica, and repair no journal.
#[test]
fn journals_that_are_damaged_are_the_only_ones_to_be_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, reports) = Journals::open(dir.path(), [7; 16], fatal()).unwrap();
    let in_use = Journals::open(dir.path(), [7; 16], fatal()).err().unwrap().to_string();
    assert!(in_use.contains("stop that one") && !in_use.contains("moved away"), "{in_use}");
    let (journals, reports) = reopen(dir.path(), journals, reports);
    drop((journals, reports));
    let refused = || loop {
        match Journals::open(dir.path(), [7; 16], fatal()) {
            Err(error) if error.why.contains("in use") => std::thread::yield_now(),
            opened => break opened.err().expect("it is refused").to_string(),
        }
    };
    let foreign = dir.path().join("wal").join("x.bak");
    std::fs::write(&foreign, "somebody's").unwrap();
    let told = refused();
    assert!(told.contains("remove it") && !told.contains("moved away"), "{told}");
    std::fs::remove_file(foreign).unwrap();
    let segments = files_in(&dir.path().join("wal"));
    segments.iter().for_each(|path| std::fs::write(path, [1_u8; 20]).unwrap());
    let told = refused();
    assert!(told.contains("damaged") && told.contains("indeterminate"), "{told}");
    assert!(!told.contains("add-voter") && !told.contains("move the data directory"), "{told}");
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
