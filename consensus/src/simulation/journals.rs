//! The journals of commands on a disk that loses its power.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::command::{Command, CommandClass, DeliverySeq, SignedCommand, Steps, Target};
use skep_protocol::ids::{CommandId, Genesis, HomeEpoch, ShardId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalState, JournalWrite};
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;
use skep_store::{JournalJob, JournalReport, Journals, Store, StoreOptions};
use tokio::sync::mpsc;

use super::disk::Machine;

const DIR: &str = "/journals";
/// Bytes of a command's arguments: so many that the log is compacted again and again.
const ARGS_BYTES: usize = 2_000;
/// The longest that a report may take on this machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn agent(n: u64) -> AgentId {
    format!("r{n}").parse().unwrap()
}

fn open(machine: &Machine) -> (Journals, mpsc::Receiver<JournalReport>) {
    // The process of an earlier turn may still write after its disk is gone: that ends nothing in this test.
    let on_fatal: skep_store::OnFatal = Arc::new(|_| {});
    let options = StoreOptions { segment_bytes: 16_384, low_water_bytes: 0, on_fatal, ..StoreOptions::default() };
    let store = Store::open_simulated(&machine.mount(), Path::new(DIR), [7; 16], options, || Duration::ZERO);
    Journals::start(store.unwrap(), Path::new(DIR), Arc::new(|_| {})).unwrap()
}

fn place() -> Place {
    Place { site: "hall".parse().unwrap(), shard: ShardId::FIRST, genesis: Genesis::from_bytes([6; 16]) }
}

fn command() -> Arc<SignedCommand> {
    let by = OperatorSecret::from_seed(&[1; 32]);
    let command = Command {
        place: place(),
        id: CommandId::from_bytes([1; 16]),
        target: Target::All,
        verb: "goto".parse().unwrap(),
        content_type: "text/plain".parse().unwrap(),
        args: vec![1; ARGS_BYTES].into(),
        deadline: LogInstant::from_raw(9_000),
        class: CommandClass::Urgent,
        idempotent: false,
        supersedes: None,
        parent: None,
        trace: "".parse().unwrap(),
        waves: None,
        operator: by.key(),
    };
    Arc::new(command.sign(&by).unwrap())
}

fn seq(n: u64) -> DeliverySeq {
    DeliverySeq { home: HomeEpoch(1), class: CommandClass::Urgent, n }
}

/// The records for the next command, which takes the place of the last one.
fn next(head: &mut JournalHead, command: &Arc<SignedCommand>) -> Vec<JournalWrite> {
    let before = head.cursor.urgent;
    (head.home, head.cursor.urgent) = (HomeEpoch(1), before + 1);
    let (command, steps, phase) = (Arc::clone(command), Steps::default(), JournalPhase::Received);
    let entry = JournalEntry { seq: seq(before + 1), command, steps, phase, begun_before: false };
    vec![JournalWrite::Head(*head), JournalWrite::Put(entry), JournalWrite::Remove(seq(before))]
}

/// Checks that a record is there whole or not at all.
fn check(journal: &JournalState, least: u64) -> Result<(), String> {
    let cursor = journal.head.cursor.urgent;
    let held: Vec<u64> = journal.entries.iter().map(|entry| entry.seq.n).collect();
    let expected: Vec<u64> = Some(cursor).filter(|cursor| *cursor > 0).into_iter().collect();
    if cursor < least || held != expected {
        return Err(format!("it has come to {cursor} of at least {least}, and holds {held:?}"));
    }
    Ok(())
}

async fn report(reports: &mut mpsc::Receiver<JournalReport>) -> JournalReport {
    reports.recv().await.expect("journals report until they are let go of")
}

/// The cursors of two agents rise, and at some moment the power goes: what was reported as written is there afterwards.
async fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let machine = Machine::new(rng.random());
    let command = command();
    // For each agent, the least cursor that was reported as written.
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    for turn in 0..5 {
        let (journals, mut reports) = open(&machine);
        let mut heads: BTreeMap<u64, JournalHead> = BTreeMap::new();
        for n in 0..2 {
            journals.submit(JournalJob::Open { shard: ShardId::FIRST, agent: agent(n) });
            let journal = loop {
                match report(&mut reports).await {
                    JournalReport::Opened { agent: of, journal, .. } if of == agent(n) => break journal,
                    _ => {}
                }
            };
            let sound = check(&journal, known.get(&n).copied().unwrap_or(0));
            assert_eq!(sound, Ok(()), "seed {seed}, turn {turn}, r{n}");
            heads.insert(n, journal.head);
        }
        let writes = rng.random_range(1..150);
        let mut under_way = BTreeMap::new();
        for key in 0..writes {
            let n = rng.random_range(0..2);
            let Some(head) = heads.get_mut(&n) else { continue };
            let (shard, writes) = (ShardId::FIRST, next(head, &command));
            under_way.insert(key, (n, head.cursor.urgent));
            journals.submit(JournalJob::Write { key, shard, agent: agent(n), writes });
        }
        // The power goes right after one of the reports.
        for _ in 0..rng.random_range(0..writes) {
            if let JournalReport::Written { key } = report(&mut reports).await
                && let Some((n, cursor)) = under_way.remove(&key)
            {
                known.insert(n, cursor);
            }
        }
        machine.cut_power();
    }
}

#[test]
fn what_a_journal_was_said_to_hold_survives_the_loss_of_power() {
    for seed in super::seeds() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let run = tokio::time::timeout(PATIENCE, run(seed)).await;
            assert!(run.is_ok(), "seed {seed}: a report never came");
        });
    }
}
