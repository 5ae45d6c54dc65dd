//! Links that are slow, thin or cut for good: a site works on them, and does not wait for better ones.

use std::time::Duration;

use skep_protocol::frame::FrameKind;
use skep_protocol::ids::NodeId;
use skep_protocol::outcome::ProposeOutcome;
use tokio::time::Instant;

use super::site::{Nodes, SHARD};
use super::watch::Watch;
use super::{answers, leader, run, step, three, workload};

/// The longest time, in virtual time, for what a site does at once on a quick network.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a thin link has shown that it is thin: after the first calls, which are as large as on any other link.
const THIN_SEEN_WITHIN: Duration = Duration::from_secs(10);
/// The longest that heartbeats may wait behind entries from then on. That is time for one or two entries of 16 KiB at
/// 32 KiB a second, and not for all that a call may carry, which takes 3.5 s.
const THIN_WAITS_MAX: Duration = Duration::from_secs(2);

/// Creates a task through the leader; returns how long that took.
pub(super) async fn create(nodes: &mut Nodes, watch: &Watch, payload_bytes: usize) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some((_, shard)) = nodes.ready().pop() {
            let request = workload::create_task(&shard, nodes.random(), payload_bytes);
            let outcome = shard.propose(request.into_iter().collect()).await;
            if let [ProposeOutcome::Applied { .. }] = outcome.as_slice() {
                return begun.elapsed();
            }
        }
        step(nodes).await;
    }
    watch.violate("L1", "no write is done");
    begun.elapsed()
}

fn terms(watch: &Watch) -> u64 {
    watch.outcome().coverage.leaders
}

/// Writes with pauses in between: a leader that is not heard loses its lease in them.
async fn write_with_pauses(nodes: &mut Nodes, watch: &Watch, count: usize) {
    for _ in 0..count {
        create(nodes, watch, 64).await;
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_millis(1_500) {
            step(nodes).await;
        }
    }
}

async fn round_trip_of(one_way_ms: u64, watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    nodes.fabric.set_quality(0, (one_way_ms, one_way_ms));
    leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    let led = terms(&watch);
    write_with_pauses(&mut nodes, &watch, 20).await;
    if !answers(&mut nodes, PATIENCE).await {
        watch.violate("L1", "no read is answered");
    }
    if terms(&watch) > led {
        watch.violate("L2", &format!("{} elections after the first", terms(&watch) - led));
    }
}

#[test]
fn a_site_works_whatever_the_round_trip() {
    for one_way in [0, 30, 60, 200, 600] {
        let outcome = run(|watch| round_trip_of(one_way, watch));
        assert_eq!(outcome.violation, None, "{one_way} ms one way; {:#?}", outcome.story);
    }
}

async fn leader_dies_at(one_way_ms: u64, watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    nodes.fabric.set_quality(0, (one_way_ms, one_way_ms));
    let (id, _) = leader(&mut nodes).await;
    write_with_pauses(&mut nodes, &watch, 3).await;
    let at = nodes.all.iter().position(|node| node.id == id).unwrap();
    nodes.kill(at);
    create(&mut nodes, &watch, 64).await;
}

#[test]
fn a_leader_is_replaced_whatever_the_round_trip() {
    for one_way in [0, 30, 200, 600] {
        let outcome = run(|watch| leader_dies_at(one_way, watch));
        assert_eq!(outcome.violation, None, "{one_way} ms one way; {:#?}", outcome.story);
    }
}

/// Delays that change all the time, and links that lose some messages.
async fn changing(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    leader(&mut nodes).await;
    for (shortest, longest) in [(0, 300), (250, 300), (5, 10), (0, 600), (100, 100), (0, 2)] {
        nodes.fabric.set_quality(0, (shortest, longest));
        write_with_pauses(&mut nodes, &watch, 4).await;
    }
}

#[test]
fn delays_that_change_stop_nobody() {
    let outcome = run(changing);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// Five voters, one of them down; the leader reaches one of the others, which reaches all.
async fn not_transitive(watch: Watch) {
    let (mut nodes, ids) = super::group(7, 5, 5, &watch).await;
    let (led_by, _) = leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    let others: Vec<NodeId> = ids.iter().copied().filter(|id| *id != led_by).collect();
    let down = nodes.all.iter().position(|node| node.id == others[0]).unwrap();
    nodes.kill(down);
    let unreached = [others[1], others[2]];
    nodes.fabric.cut(unreached.iter().flat_map(|other| [(*other, led_by), (led_by, *other)]));
    let cut = Instant::now();
    loop {
        step(&mut nodes).await;
        if nodes.ready().iter().any(|(at, _)| nodes.all[*at].id != led_by) {
            break;
        }
        if cut.elapsed() > PATIENCE {
            return watch.violate("L1", "a connected quorum has no leader");
        }
    }
    // The leader stays: a deposed node that reaches a voter does not disturb it.
    create(&mut nodes, &watch, 64).await;
    let led = terms(&watch);
    write_with_pauses(&mut nodes, &watch, 10).await;
    if terms(&watch) > led + 1 {
        watch.violate("L2", "the lead goes to and fro");
    }
}

#[test]
fn a_cut_that_is_not_transitive_leaves_a_leader() {
    let outcome = run(not_transitive);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The lead is handed to a voter that does not hear of it, and the third voter hears both.
async fn handed_over_to_nobody(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (led_by, shard) = leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    let to = ids.iter().copied().find(|id| *id != led_by).unwrap();
    // Until the connection ends, the leader believes that it reaches the voter.
    nodes.fabric.cut([(led_by, to)]);
    let _ = shard.transfer_leader(Some(to)).await;
    create(&mut nodes, &watch, 64).await;
}

#[test]
fn a_lead_that_is_handed_over_to_nobody_is_soon_somebodys() {
    let outcome = run(handed_over_to_nobody);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A follower that is far behind, on a link that stays thin.
async fn thin(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (led_by, _) = leader(&mut nodes).await;
    let behind = nodes.all.iter().position(|node| node.id != led_by).unwrap();
    nodes.kill(behind);
    let mut taken = Duration::ZERO;
    for _ in 0..40 {
        taken += create(&mut nodes, &watch, 16 * 1024).await;
    }
    let (led, node) = (terms(&watch), nodes.all[behind].id);
    nodes.fabric.thin(node, 32 * 1024);
    nodes.start(behind).await;
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    let target = nodes.ready().pop().and_then(|(_, shard)| shard.status().applied);
    loop {
        step(&mut nodes).await;
        create(&mut nodes, &watch, 64).await;
        if begun.elapsed() > THIN_SEEN_WITHIN {
            longest = longest.max(nodes.fabric.waits(led_by, node));
        }
        let process = nodes.all[behind].process.clone();
        let applied = process.and_then(|process| process.shard()).and_then(|shard| shard.status().applied);
        if applied >= target {
            break;
        }
        if begun.elapsed() > Duration::from_secs(300) {
            return watch.violate("L3", &format!("it is at {applied:?} of {target:?} after {:?}", begun.elapsed()));
        }
    }
    if longest > THIN_WAITS_MAX {
        watch.violate("L3", &format!("entries keep others waiting for {longest:?} on a link that was seen to be thin"));
    }
    if terms(&watch) > led {
        watch.violate("L2", "a follower that catches up makes an election");
    }
}

#[test]
fn a_follower_far_behind_catches_up_on_a_thin_link_while_others_write() {
    let outcome = run(thin);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// Bytes of a node's snapshot of the shard; none if it has none.
fn snapshot_bytes(nodes: &Nodes, at: usize) -> Option<u64> {
    let process = nodes.all[at].process.as_ref()?;
    let stored = process.shards.parts.store.snapshots().load(SHARD).ok()??;
    Some(stored.data.len() as u64)
}

fn applied(nodes: &Nodes, at: usize) -> Option<u64> {
    nodes.all[at].process.as_ref()?.shard()?.status().applied
}

/// Keeps a follower down until it needs a snapshot. Returns the position of the leader, that of the follower, and the
/// snapshot's length in bytes.
async fn outrun(nodes: &mut Nodes, watch: &Watch) -> (usize, usize, u64) {
    let (led_by, leading) = leader(nodes).await;
    let leads = nodes.all.iter().position(|node| node.id == led_by).unwrap();
    let behind = nodes.all.iter().position(|node| node.id != led_by).unwrap();
    let last = applied(nodes, behind);
    nodes.kill(behind);
    for n in 0.. {
        create(nodes, watch, if n < 32 { 32 * 1024 } else { 64 }).await;
        // The leader purges nothing that is on its way to a member: it first has to give up on the one that is down.
        step(nodes).await;
        if leading.status().purged > last.map(|last| last + 20) || n == 600 {
            break;
        }
    }
    let whole = snapshot_bytes(nodes, leads).unwrap();
    assert!(whole >= 1024 * 1024, "{whole} bytes");
    (leads, behind, whole)
}

/// A follower that needs a snapshot, on a link that stays thin and is cut now and then.
async fn thin_and_cut(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (leads, behind, whole) = outrun(&mut nodes, &watch).await;
    let led = terms(&watch);
    let (node, before) = (nodes.all[behind].id, nodes.fabric.bytes_sent(FrameKind::SnapshotChunk));
    let others = ids.iter().filter(|id| **id != node);
    let pairs: Vec<(NodeId, NodeId)> = others.flat_map(|other| [(*other, node), (node, *other)]).collect();
    nodes.fabric.thin(node, 32 * 1024);
    nodes.start(behind).await;
    let target = applied(&nodes, leads);
    let (begun, mut cuts) = (Instant::now(), 0);
    loop {
        step(&mut nodes).await;
        create(&mut nodes, &watch, 64).await;
        let sent = nodes.fabric.bytes_sent(FrameKind::SnapshotChunk) - before;
        if applied(&nodes, behind) >= target {
            let most = whole + whole / 5 * 3;
            if sent > most {
                watch.violate("L3", &format!("{sent} bytes were sent for a snapshot of {whole}"));
            }
            assert_eq!(cuts, 3, "it came before its link was cut");
            break;
        }
        // The cuts come when a quarter, a half, and three quarters of it have arrived.
        if cuts < 3 && sent >= whole / 4 * (cuts + 1) {
            cuts += 1;
            nodes.fabric.cut(pairs.clone());
            let cut = Instant::now();
            while cut.elapsed() < Duration::from_secs(5) {
                step(&mut nodes).await;
                create(&mut nodes, &watch, 64).await;
            }
            nodes.fabric.join_again(pairs.clone());
        }
        if begun.elapsed() > Duration::from_secs(300) {
            return watch.violate("L3", &format!("{sent} bytes of {whole} were sent after {:?}", begun.elapsed()));
        }
    }
    if terms(&watch) > led {
        watch.violate("L2", "a follower that needs a snapshot makes an election");
    }
}

#[test]
fn a_snapshot_goes_on_where_it_was_cut_off_while_others_write() {
    let outcome = run(thin_and_cut);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A follower that needs a snapshot, after a link that took next to no time comes to take 300 ms.
async fn longer_way(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (leads, behind, whole) = outrun(&mut nodes, &watch).await;
    nodes.fabric.lengthen(300);
    nodes.start(behind).await;
    let (target, begun) = (applied(&nodes, leads), Instant::now());
    while applied(&nodes, behind) < target {
        step(&mut nodes).await;
        // In chunks of 4 KiB, one a round trip, the snapshot would take more than 150 s.
        if begun.elapsed() > Duration::from_secs(90) {
            let sent = nodes.fabric.bytes_sent(FrameKind::SnapshotChunk);
            return watch.violate("L3", &format!("{sent} bytes of {whole} were sent after {:?}", begun.elapsed()));
        }
    }
}

#[test]
fn a_snapshot_comes_as_fast_on_a_way_that_has_become_a_longer_one() {
    let outcome = run(longer_way);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// How long each batch of a slow disk takes, in milliseconds.
const SLOW_MS: [u64; 2] = [3_000, 10_000];
/// Number of entries, and bytes of each, that are written to slow disks after as many small ones have shown that the
/// followers are slow.
const SLOW_ENTRIES: usize = 10;
const SLOW_ENTRY_BYTES: usize = 16 * 1024;

/// Every batch of every disk takes seconds.
async fn slow_disks(slow_ms: u64, watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    for at in 0..nodes.all.len() {
        nodes.slow_down(at, slow_ms);
    }
    let led = terms(&watch);
    write_with_pauses(&mut nodes, &watch, SLOW_ENTRIES).await;
    let before = nodes.fabric.bytes_sent(FrameKind::Append);
    for _ in 0..SLOW_ENTRIES {
        create(&mut nodes, &watch, SLOW_ENTRY_BYTES).await;
    }
    // Each entry goes to each follower. As many bytes again are for all else, such as heartbeats.
    let once = (ids.len() - 1) * SLOW_ENTRIES * SLOW_ENTRY_BYTES;
    let sent = nodes.fabric.bytes_sent(FrameKind::Append) - before;
    if sent > 2 * once as u64 {
        watch.violate("L3", &format!("{sent} bytes were sent of entries of {once}: they are not waited for"));
    }
    if terms(&watch) > led {
        watch.violate("L2", &format!("{} elections by slow disks", terms(&watch) - led));
    }
}

#[test]
fn disks_that_take_seconds_depose_nobody_and_get_each_entry_once() {
    for slow_ms in SLOW_MS {
        let outcome = run(|watch| slow_disks(slow_ms, watch));
        assert_eq!(outcome.violation, None, "{slow_ms} ms; {:#?}", outcome.story);
    }
}

/// The leader dies, and the next one needs two seconds to write a vote down.
async fn elected_on_slow_disks(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (id, _) = leader(&mut nodes).await;
    for at in 0..nodes.all.len() {
        nodes.slow_down(at, 2_000);
    }
    write_with_pauses(&mut nodes, &watch, 2).await;
    let at = nodes.all.iter().position(|node| node.id == id).unwrap();
    nodes.kill(at);
    create(&mut nodes, &watch, 64).await;
}

#[test]
fn a_leader_is_replaced_on_disks_that_take_seconds() {
    let outcome = run(elected_on_slow_disks);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
