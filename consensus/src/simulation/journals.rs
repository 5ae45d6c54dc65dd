//! The journals of commands on a disk whose power goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::ids::{HomeEpoch, ShardId};
use skep_protocol::journal::{JournalHead, JournalWrite};
use skep_protocol::text::AgentId;
use tokio::sync::mpsc;

use super::disk::Machine;
use crate::store::{JournalJob, JournalReport, Journals, Store, StoreOptions};

const DIR: &str = "/journals";
/// How long a report may take on this machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn agent(n: u64) -> AgentId {
    format!("r{n}").parse().unwrap()
}

fn open(machine: &Machine) -> (Journals, mpsc::Receiver<JournalReport>) {
    // The process of an earlier turn may still write when its disk is gone: that ends nothing here.
    let on_fatal: crate::store::OnFatal = Arc::new(|_| {});
    let options = StoreOptions { segment_bytes: 16_384, low_water_bytes: 0, on_fatal, ..StoreOptions::default() };
    let store = Store::open_simulated(&machine.mount(), Path::new(DIR), [7; 16], options, || Duration::ZERO);
    Journals::start(store.unwrap(), Path::new(DIR), Arc::new(|_| {})).unwrap()
}

async fn report(reports: &mut mpsc::Receiver<JournalReport>) -> JournalReport {
    reports.recv().await.expect("journals report until they are let go of")
}

/// The cursors of two agents go up, and at some moment the power goes: what was said to be written is there afterwards.
async fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let machine = Machine::new(rng.random());
    // Agents, and the cursor that each was said to have at least.
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    for turn in 0..4 {
        let (journals, mut reports) = open(&machine);
        let mut heads: BTreeMap<u64, JournalHead> = BTreeMap::new();
        for n in 0..2 {
            journals.submit(JournalJob::Open { shard: ShardId::FIRST, agent: agent(n) });
            let head = loop {
                match report(&mut reports).await {
                    JournalReport::Opened { agent: of, journal, .. } if of == agent(n) => break journal.head,
                    _ => {}
                }
            };
            let least = known.get(&n).copied().unwrap_or(0);
            let cursor = head.cursor.urgent;
            assert!(cursor >= least, "seed {seed}, turn {turn}: {cursor} of {least} for r{n}");
            heads.insert(n, head);
        }
        let writes = rng.random_range(1..40);
        let mut under_way = BTreeMap::new();
        for key in 0..writes {
            let n = rng.random_range(0..2);
            let Some(head) = heads.get_mut(&n) else { continue };
            (head.home, head.cursor.urgent) = (HomeEpoch(1), head.cursor.urgent + 1);
            under_way.insert(key, (n, head.cursor.urgent));
            let (shard, writes) = (ShardId::FIRST, vec![JournalWrite::Head(*head)]);
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
