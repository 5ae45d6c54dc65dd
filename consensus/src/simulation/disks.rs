//! Full disks: which node leads then, and what clients hear.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use skep_protocol::fault::ShardFault;
use skep_protocol::frame::FrameKind;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::pressure::DiskPressure;

use super::laggards::outrun;
use super::site::{Nodes, Process, SHARD};
use super::watch::Watch;
use super::workload::{are_equal, create_one, new_request};
use super::{leader, run, three, within};
use crate::shard::Shard;

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the test watches that nothing comes: longer than the pause between two times that a node hands on the lead.
const QUIET: Duration = Duration::from_secs(150);

fn press(nodes: &Nodes, at: usize, pressure: DiskPressure) {
    let process = nodes.all[at].process.as_ref().expect("it runs");
    process.shards.parts.store.press(pressure);
}

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref().and_then(Process::shard)
}

fn is_ready(nodes: &Nodes, at: usize) -> bool {
    nodes.ready().iter().any(|(other, _)| *other == at)
}

fn has_fault(nodes: &Nodes, at: usize, fault: ShardFault) -> bool {
    let status = shard(nodes, at).map(|shard| shard.status());
    status.is_some_and(|status| status.faults.iter().any(|report| report.fault == fault))
}

async fn led_by(nodes: &mut Nodes) -> (usize, Shard) {
    let (id, shard) = leader(nodes).await;
    let at = nodes.all.iter().position(|node| node.id == id).expect("it is one of them");
    (at, shard)
}

/// The outcome of a new task.
async fn propose(shard: &Shard, rng: &mut SmallRng) -> ProposeOutcome {
    let request = new_request(rng, shard).expect("a leader knows the clock");
    shard.propose(vec![request]).await.pop().expect("each request has an outcome")
}

async fn fill_the_leader(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(5);
    let (mut nodes, _) = three(&watch).await;
    let (full, _) = led_by(&mut nodes).await;
    press(&nodes, full, DiskPressure::Low);
    let others: Vec<usize> = (0..3).filter(|at| *at != full).collect();
    let handed_on = within(&mut nodes, PATIENCE, |nodes| others.iter().any(|at| is_ready(nodes, *at)));
    assert!(handed_on.await, "it refuses work, and keeps the lead from those who would take it");
    let next = others.into_iter().find(|at| is_ready(&nodes, *at)).expect("it was ready a moment ago");
    let leading = shard(&nodes, next).expect("it leads");
    assert!(create_one(&leading, &mut rng, &watch).await.is_some());
    assert!(has_fault(&nodes, full, ShardFault::DiskNearlyFull));
    let named = within(&mut nodes, PATIENCE, |nodes| has_fault(nodes, next, ShardFault::VoterDiskNearlyFull));
    assert!(named.await, "the leader names the voter");
    // Once all disks are full, the leader goes on, and so do requests that end work.
    let term = leading.leads_term();
    (0..3).for_each(|at| press(&nodes, at, DiskPressure::Low));
    assert_eq!(propose(&leading, &mut rng).await, ProposeOutcome::DiskFull);
    let moved = within(&mut nodes, QUIET, |nodes| !is_ready(nodes, next)).await;
    assert!(!moved, "the lead is passed on among those who have no room either");
    let faults = leading.status().faults;
    let own = faults.iter().find(|report| report.fault == ShardFault::DiskNearlyFull).expect("its disk is full");
    assert!(own.detail.contains("keeps the lead: no other voter"), "{}", own.detail);
    assert_eq!(leading.leads_term(), term);
    // As soon as one voter has room, it leads.
    press(&nodes, full, DiskPressure::None);
    assert!(within(&mut nodes, PATIENCE, |nodes| is_ready(nodes, full)).await);
}

#[test]
fn a_leader_on_a_full_disk_hands_the_lead_to_a_voter_that_has_room_and_to_nobody_if_none_has() {
    let outcome = run(fill_the_leader);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

async fn fill_the_followers(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(6);
    let (mut nodes, ids) = three(&watch).await;
    let (at, leading) = led_by(&mut nodes).await;
    let full: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    full.iter().for_each(|at| press(&nodes, *at, DiskPressure::Exhausted));
    let named = within(&mut nodes, PATIENCE, |nodes| has_fault(nodes, at, ShardFault::VoterDiskNearlyFull)).await;
    assert!(named);
    tokio::time::sleep(Duration::from_secs(3)).await;
    match propose(&leading, &mut rng).await {
        ProposeOutcome::VotersFull { node } => assert!(full.iter().any(|at| ids[*at] == node)),
        other => panic!("no quorum would commit it: {other:?}"),
    }
    press(&nodes, full[0], DiskPressure::None);
    let mut taken = None;
    for _ in 0..200 {
        super::step(&mut nodes).await;
        taken = create_one(&leading, &mut rng, &watch).await;
        if taken.is_some() {
            break;
        }
    }
    assert!(taken.is_some(), "two of three write it down");
}

#[test]
fn work_that_full_followers_would_not_write_down_is_refused_by_name_and_not_left_unknown() {
    let outcome = run(fill_the_followers);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

async fn start_on_full_disks(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, _) = three(&watch).await;
    leader(&mut nodes).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // No voter knows the clock after this: the next leader must say so in the log.
    (0..3).for_each(|at| nodes.cut_power(at));
    for at in 0..3 {
        nodes.start(at).await;
    }
    // By then the stores have looked at their disks, and no voter stands yet.
    super::step(&mut nodes).await;
    (0..3).for_each(|at| press(&nodes, at, DiskPressure::Exhausted));
    assert!(within(&mut nodes, PATIENCE, |nodes| !nodes.ready().is_empty()).await, "no leader can say what is wrong");
    let (_, leading) = led_by(&mut nodes).await;
    assert_eq!(propose(&leading, &mut rng).await, ProposeOutcome::DiskFull);
    (0..3).for_each(|at| press(&nodes, at, DiskPressure::None));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_, leading) = led_by(&mut nodes).await;
    assert!(create_one(&leading, &mut rng, &watch).await.is_some(), "it goes on when there is room");
}

/// rabbitmq/rabbitmq-server#10723
#[test]
fn a_shard_that_starts_on_full_disks_has_a_leader_that_says_so() {
    let outcome = run(start_on_full_disks);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// Bytes of a snapshot beside its state; a read of only the header stays below this.
const HEADERS_BYTES: u64 = 4_096;
/// How long a follower that needs a snapshot is not reached: long enough for a few attempts to send it.
const UNREACHED: Duration = Duration::from_secs(30);

/// Bytes of a node's snapshot.
fn snapshot_bytes(nodes: &Nodes, at: usize) -> u64 {
    let process = nodes.all[at].process.as_ref().expect("it runs");
    let stored = process.shards.parts.store.snapshots().load(SHARD).expect("it can be read");
    stored.expect("there is one").data.len() as u64
}

/// A follower is outrun, and has no room for the snapshot that it needs.
async fn outrun_without_room(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(8);
    let (mut nodes, ids) = three(&watch).await;
    let (at, leading) = led_by(&mut nodes).await;
    let behind = (0..3).find(|other| *other != at).expect("there are three");
    let others = ids.iter().filter(|id| **id != ids[behind]);
    nodes.fabric.cut(others.flat_map(|other| [(*other, ids[behind]), (ids[behind], *other)]));
    let before = nodes.snapshot_bytes_read(at);
    outrun(&mut nodes, &leading, behind, &mut rng).await;
    within(&mut nodes, UNREACHED, |_| false).await;
    let read = nodes.snapshot_bytes_read(at) - before;
    assert!(read < HEADERS_BYTES, "{read} bytes were read for a follower that is not reached");
    // These entries come behind the snapshot.
    for _ in 0..3 {
        assert!(create_one(&leading, &mut rng, &watch).await.is_some());
    }
    nodes.refuse_snapshots(behind, true);
    let term = leading.leads_term();
    let before = nodes.snapshot_bytes_read(at);
    let (heads, chunks) =
        (nodes.fabric.sent(FrameKind::SnapshotHead), nodes.fabric.bytes_sent(FrameKind::SnapshotChunk));
    nodes.fabric.heal();
    assert!(!within(&mut nodes, QUIET, |nodes| are_equal(nodes, &ids)).await, "it found room where there is none");
    assert!(create_one(&leading, &mut rng, &watch).await.is_some(), "the others go on");
    let read = nodes.snapshot_bytes_read(at) - before;
    let (whole, sent) = (snapshot_bytes(&nodes, at), nodes.fabric.bytes_sent(FrameKind::SnapshotChunk) - chunks);
    assert!(read <= 3 * (whole + HEADERS_BYTES), "{read} bytes were read of a snapshot of {whole} that is refused");
    assert!(sent <= 2 * whole + HEADERS_BYTES, "{sent} bytes were sent of a snapshot of {whole}");
    let asked = nodes.fabric.sent(FrameKind::SnapshotHead) - heads;
    assert!(asked <= 50, "it was offered {asked} times");
    let has = |nodes: &Nodes, at: usize| shard(nodes, at).and_then(|shard| shard.status().snapshot);
    assert!(has(&nodes, behind) < has(&nodes, at), "it is said to be there before it is");
    nodes.refuse_snapshots(behind, false);
    assert!(within(&mut nodes, 4 * PATIENCE, |nodes| are_equal(nodes, &ids)).await, "it does not catch up");
    assert_eq!(leading.leads_term(), term);
}

#[test]
fn a_follower_without_room_for_a_snapshot_is_offered_it_seldom_and_catches_up_once_there_is() {
    let outcome = run(outrun_without_room);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// No disk writes anything, and candidates wait for their votes.
async fn stop_on_stuck_disks(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (at, _) = led_by(&mut nodes).await;
    (0..3).for_each(|at| nodes.slow_down(at, 24 * 3_600_000));
    nodes.kill(at);
    tokio::time::sleep(Duration::from_secs(10)).await;
    for other in (0..3).filter(|other| *other != at) {
        let stopping = shard(&nodes, other).expect("it runs");
        let stopped = tokio::time::timeout(PATIENCE, stopping.shut_down()).await;
        assert!(stopped.is_ok(), "it waits for a disk that does not answer");
    }
}

#[test]
fn a_shard_on_a_disk_that_does_not_answer_stops_all_the_same() {
    let outcome = run(stop_on_stuck_disks);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
