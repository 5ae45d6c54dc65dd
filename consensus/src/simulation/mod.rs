//! The real software in virtual time: openraft, our adapter, our store and our shards, over disks that lose what was
//! not synced and a network that loses, delays and cuts.
//!
//! One seed, one thread, and one clock that jumps to the next instant at which something happens. The seed decides all
//! that goes wrong, and when. It does not decide the order in which tokio wakes tasks that wait for one thing. So a
//! seed that found something finds it again soon, not each time, and tells what happened in it.

mod copies;
mod cuts;
mod disk;
mod disks;
mod fabric;
mod faults;
mod journals;
mod laggards;
mod links;
mod members;
mod pulls;
mod replaced;
mod restarts;
mod rubbish;
mod site;
mod slow;
mod status;
mod strangers;
mod versions;
mod watch;
mod workload;

use std::cell::Cell;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::ids::NodeId;
use skep_protocol::query::{Query, QueryFailure};

use crate::shard::Shard;

pub(crate) use fabric::MemoryLink;
use faults::Faults;
use site::{Nodes, SHARD, charter};
use watch::{Coverage, Outcome, Watch};
use workload::Workload;

thread_local! {
    static UNDER_WAY: Cell<bool> = const { Cell::new(false) };
    /// Panics of this thread while a simulation was under way, also in tasks of its own.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Counts panics of simulations, and then does with a panic what is done anyway.
fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if is_under_way() {
                PANICS.set(PANICS.get() + 1);
            }
            before(panic);
        }));
    });
}

/// Whether this thread runs a simulation.
pub(crate) fn is_under_way() -> bool {
    UNDER_WAY.get()
}

/// Interval between two looks at everything, in virtual time.
const STEP: Duration = Duration::from_millis(25);
/// How long things go wrong, and how long they may take to come right again, in virtual time.
const TROUBLE: Duration = Duration::from_secs(25);
const RECOVERY: Duration = Duration::from_secs(90);

/// Runs a simulation in a time of its own.
fn run<Run: Future<Output = ()>>(drive: impl FnOnce(Watch) -> Run) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else {
        return Outcome { violation: Some("no runtime".to_owned()), ..Outcome::default() };
    };
    count_panics();
    PANICS.set(0);
    UNDER_WAY.set(true);
    let watch = Watch::default();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(drive(watch.clone()));
    }));
    drop(runtime);
    UNDER_WAY.set(false);
    if panicked.is_err() || PANICS.get() > 0 {
        watch.violate("S15", "a panic");
    }
    watch.outcome()
}

async fn drive(seed: u64, watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (count, voters) = if rng.random_bool(0.3) { (6, 5) } else { (4, 3) };
    let mut nodes = Nodes::new(count, rng.random(), watch.clone());
    for at in 0..count {
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let ids: Vec<_> = nodes.all[..voters].iter().map(|node| node.id).collect();
    let Some(first) = nodes.all[0].process.clone() else { return watch.violate("L1", "a fresh node does not start") };
    let created = match first.shards.open(SHARD).await {
        Ok(shard) => shard.initialize(&ids, charter()).await.map_err(|e| e.to_string()),
        Err(why) => Err(why),
    };
    if let Err(why) = created {
        return watch.violate("L1", &format!("no shard: {why}"));
    }
    let mut workload = Workload::new(rng.random());
    let mut faults = Faults::new(rng.random(), ids);
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < TROUBLE && watch.violation().is_none() {
        step(&mut nodes).await;
        workload.step(&nodes);
        faults.step(&mut nodes).await;
    }
    let healed = tokio::time::Instant::now();
    faults.heal(&mut nodes).await;
    while watch.violation().is_none() {
        step(&mut nodes).await;
        workload.step(&nodes);
        faults.mend(&mut nodes).await;
        if faults.is_well(&nodes) && workload.is_settled(&nodes) && workload::are_equal(&nodes, &faults.voters()) {
            workload::check_acknowledged(&nodes, &faults.voters());
            return;
        }
        workload.wind_down(healed.elapsed() > Duration::from_secs(5));
        if healed.elapsed() > RECOVERY {
            let state = workload::describe(&nodes);
            return watch.violate("L3", &format!("it does not come right again: {state}"));
        }
    }
}

/// Waits until a node is ready to lead; returns the node and its shard.
async fn leader(nodes: &mut Nodes) -> (NodeId, Shard) {
    loop {
        step(nodes).await;
        if let Some((at, shard)) = nodes.ready().pop() {
            return (nodes.all[at].id, shard);
        }
    }
}

/// Lets the run go on until something holds; returns whether that was in time.
async fn within(nodes: &mut Nodes, patience: Duration, holds: impl Fn(&Nodes) -> bool) -> bool {
    let begun = tokio::time::Instant::now();
    while !holds(nodes) {
        if begun.elapsed() > patience {
            return false;
        }
        step(nodes).await;
    }
    true
}

/// Whether a leader answers a linearizable read in time, as only one with a quorum can.
async fn answers(nodes: &mut Nodes, patience: Duration) -> bool {
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < patience {
        step(nodes).await;
        if let Some((_, shard)) = nodes.ready().pop()
            && shard.query_linearizable(Query::Counts).await.is_ok()
        {
            return true;
        }
    }
    false
}

async fn step(nodes: &mut Nodes) {
    tokio::time::sleep(STEP).await;
    nodes.end_failed();
    nodes.fabric.connect();
    nodes.look();
}

/// The seeds to run; the runner of mutants, and long runs, ask for more.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let from = number("SKEP_SIM_FROM", 1);
    from..from + number("SKEP_SIM_SEEDS", 12)
}

#[test]
fn every_invariant_holds_whatever_disks_and_networks_do() {
    let mut coverage = Coverage::default();
    for seed in seeds() {
        let outcome = run(|watch| drive(seed, watch));
        coverage.add(&outcome.coverage);
        if seed.is_multiple_of(50) {
            eprintln!("up to seed {seed}: {coverage:?}");
        }
        if let Some(violation) = outcome.violation {
            let again = "SKEP_SIM_SEEDS=1 cargo test -p skep-consensus simulation";
            panic!("seed {seed}: {violation}; again with SKEP_SIM_FROM={seed} {again}; {:#?}", outcome.story);
        }
    }
    println!("{coverage:?}");
    let met = coverage.counts();
    let all = seeds().count() >= 12;
    assert!(met.iter().all(|(_, count)| *count > 0 || !all), "something was never met: {met:?}");
}

/// Three nodes and their shard.
async fn three(watch: &Watch) -> (Nodes, Vec<NodeId>) {
    three_of(3, watch).await
}

/// This many nodes, and a shard of the first three.
async fn three_of(count: usize, watch: &Watch) -> (Nodes, Vec<NodeId>) {
    three_seeded(7, count, watch).await
}

/// The same, with this seed.
async fn three_seeded(seed: u64, count: usize, watch: &Watch) -> (Nodes, Vec<NodeId>) {
    group(seed, count, 3, watch).await
}

/// This many nodes, and a shard of the first `voters` of them.
async fn group(seed: u64, count: usize, voters: usize, watch: &Watch) -> (Nodes, Vec<NodeId>) {
    let mut nodes = Nodes::new(count, seed, watch.clone());
    for at in 0..count {
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let ids: Vec<_> = nodes.all[..voters].iter().map(|node| node.id).collect();
    let first = nodes.all[0].process.clone().unwrap();
    first.shards.open(SHARD).await.unwrap().initialize(&ids, charter()).await.unwrap();
    (nodes, ids)
}

async fn take_a_leader_out(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (id, shard) = leader(&mut nodes).await;
    let handed_over = shard.remove_voter(id).await;
    let Err(crate::MembershipError::HandedOver { leader: next }) = handed_over else { panic!("{handed_over:?}") };
    assert_ne!(next, id);
    // The new leader takes the old one out, and in again.
    let at = nodes.all.iter().position(|node| node.id == next).unwrap();
    let shard = nodes.all[at].process.clone().unwrap().shards.open(SHARD).await.unwrap();
    loop {
        step(&mut nodes).await;
        match shard.remove_voter(id).await {
            Err(crate::MembershipError::NotLeader { .. }) => {}
            removed => break assert_eq!(removed, Ok(())),
        }
    }
    assert_eq!(shard.voters().len(), 2);
    assert_eq!(shard.add_voter(id).await, Ok(()));
    assert_eq!(shard.voters().len(), 3);
}

#[test]
fn a_leader_hands_the_lead_over_before_it_is_taken_out() {
    let outcome = run(take_a_leader_out);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// S9: the other voters may have elected another leader and gone on.
async fn cut_off_a_leader(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, shard) = leader(&mut nodes).await;
    assert!(shard.query_linearizable(Query::Counts).await.is_ok());
    let others = ids.iter().filter(|other| **other != id);
    nodes.fabric.cut(others.flat_map(|other| [(*other, id), (id, *other)]));
    let answer = shard.query_linearizable(Query::Counts).await;
    assert_eq!(answer.unwrap_err(), QueryFailure::NoQuorum);
}

#[test]
fn a_leader_that_is_cut_off_answers_no_linearizable_read() {
    let outcome = run(cut_off_a_leader);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// S11: the node is a member of the group, gets the log, and no quorum waits for it.
async fn add_a_voter_that_is_not_reached(watch: Watch) {
    let (mut nodes, ids) = three_of(4, &watch).await;
    let (_, shard) = leader(&mut nodes).await;
    let stranger = nodes.all[3].id;
    nodes.fabric.cut(ids.iter().flat_map(|id| [(*id, stranger), (stranger, *id)]));
    let added = shard.add_voter(stranger).await;
    assert!(matches!(added, Err(crate::MembershipError::Raft(_))), "{added:?}");
    let counted: Vec<NodeId> = shard.status().voters.iter().map(|voter| voter.node).collect();
    assert_eq!(counted.len(), 3, "{counted:?}");
    assert!(!counted.contains(&stranger), "{counted:?}");
    assert!(shard.query_linearizable(Query::Counts).await.is_ok());
}

#[test]
fn a_node_that_did_not_catch_up_is_not_counted_as_a_voter() {
    let outcome = run(add_a_voter_that_is_not_reached);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
