//! Ids, deadlines, eras, snapshots and digests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState, SnapshotError};
use skep_protocol::entry::{Entry, EntryBody};
use skep_protocol::outcome::Reply;
use skep_protocol::refusal::{Refusal, RequestRefusal};
use support::*;

#[test]
fn a_retry_returns_the_first_answer_whatever_happened_since() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let request = shard.request(take(1, "a"));
    let first = shard.send(&request);
    shard.ok(complete(1, "a", 1));
    assert_eq!(shard.send(&request), first);
    let refused = shard.request(take(1, "b"));
    let refusal = shard.send(&refused);
    assert_eq!(shard.send(&refused), refusal, "a refusal is remembered too");
}

#[test]
fn the_same_request_twice_in_one_entry_is_done_once() {
    let mut shard = Shard::new();
    let request = shard.request(create(1, spec()));
    let applied = shard.apply(EntryBody::Requests(vec![request.clone(), request]));
    assert_eq!(applied.replies[0], applied.replies[1]);
    assert_eq!(applied.changes.len(), 1);
}

#[test]
fn another_body_under_a_used_id_is_refused() {
    let mut shard = Shard::new();
    let request = shard.request(create(1, spec()));
    shard.send(&request);
    let mut other = request;
    other.op = create(2, spec());
    assert_eq!(shard.send(&other), Reply::Refused(Refusal::Request(RequestRefusal::IdReused)));
}

#[test]
fn after_its_deadline_a_request_is_expired_and_its_id_forgotten() {
    let mut shard = Shard::new();
    let request = shard.request(create(1, spec()));
    shard.send(&request);
    assert_eq!(shard.state.dedup_ids(), 1);
    shard.pass(60_000);
    assert!(matches!(shard.send(&request), Reply::Done(_)), "on its deadline it is still known");
    shard.pass(1);
    assert!(matches!(shard.send(&request), Reply::Refused(Refusal::Request(RequestRefusal::Expired { .. }))));
    assert_eq!(shard.state.dedup_ids(), 0);
}

#[test]
fn a_full_memory_raises_its_floor_and_never_executes_what_it_may_have_forgotten() {
    let mut shard = Shard::with_limits(FleetLimits { dedup_ids_max: 3, ..FleetLimits::default() });
    let mut requests = Vec::new();
    for n in 1..=5 {
        let request = shard.request(create(n, spec()));
        assert!(matches!(shard.send(&request), Reply::Done(_)));
        requests.push(request);
        shard.pass(10);
    }
    assert_eq!(shard.state.dedup_ids(), 3);
    for forgotten in &requests[..2] {
        assert!(matches!(shard.send(forgotten), Reply::Refused(Refusal::Request(RequestRefusal::Forgotten { .. }))));
    }
    for known in &requests[2..] {
        assert!(matches!(shard.send(known), Reply::Done(_)));
    }
}

#[test]
fn requests_that_were_first_sent_ahead_of_the_clock_do_not_keep_others_out() {
    let mut shard = Shard::with_limits(FleetLimits { dedup_ids_max: 8, ..FleetLimits::default() });
    let ahead = |shard: &mut Shard, n| {
        let mut request = shard.request(create(n, spec()));
        request.first_sent = shard.now.plus_ms(50_000);
        request
    };
    let taken = ahead(&mut shard, 1);
    let first = shard.send(&taken);
    assert!(matches!(first, Reply::Done(_)));
    let other = ahead(&mut shard, 2);
    assert!(matches!(shard.send(&other), Reply::Done(_)));
    let refused = ahead(&mut shard, 3);
    assert!(
        matches!(shard.send(&refused), Reply::Refused(Refusal::Request(RequestRefusal::SentAhead { .. }))),
        "a quarter of the table is full"
    );
    for n in 10..40 {
        // A little under way, as requests are.
        let request = shard.request(create(n, spec()));
        shard.pass(3);
        assert!(matches!(shard.send(&request), Reply::Done(_)), "task {n}");
    }
    assert_eq!(shard.state.dedup_ids(), 8);
    assert_eq!(shard.send(&taken), first, "what is ahead is forgotten last");
    shard.pass(50_000);
    assert!(matches!(shard.send(&refused), Reply::Done(_)), "the clock has come so far");
}

#[test]
fn a_snapshot_is_handed_on_in_parts() {
    let mut shard = Shard::new();
    for n in 1..=200 {
        let payload = vec![n; 4_096];
        shard.ok(create(n, skep_protocol::task::TaskSpec { payload, ..spec() }));
    }
    let (mut bytes, mut largest) = (Vec::new(), 0);
    let taken: Result<(), SnapshotError> = shard.state.write_snapshot(&mut |part: &[u8]| {
        largest = largest.max(part.len());
        bytes.extend_from_slice(part);
        Ok(())
    });
    taken.unwrap();
    assert_eq!(bytes, shard.state.to_snapshot().unwrap());
    assert!(bytes.len() > 800_000 && largest < 80_000, "{} bytes, {largest} at once", bytes.len());
    let mut parts = 0;
    let refused = shard.state.write_snapshot(&mut |_: &[u8]| {
        parts += 1;
        Err(SnapshotError::Empty)
    });
    assert_eq!((refused, parts), (Err(SnapshotError::Empty), 1), "nothing is written after a failure");
}

#[test]
fn clock_readings_that_cannot_be_are_refused() {
    let mut shard = Shard::new();
    let mut impossible = |change: fn(&mut skep_protocol::entry::Request)| {
        let mut request = shard.request(create(1, spec()));
        change(&mut request);
        assert!(matches!(
            shard.send(&request),
            Reply::Refused(Refusal::Request(RequestRefusal::ClockImpossible { .. }))
        ));
    };
    impossible(|r| r.first_sent = r.first_sent.plus_ms(100_000));
    impossible(|r| r.deadline = r.first_sent.plus_ms(25 * 3_600_000));
    impossible(|r| std::mem::swap(&mut r.first_sent, &mut r.deadline));
}

#[test]
fn a_deposed_leaders_entry_changes_nothing_and_may_be_sent_again() {
    let mut shard = Shard::new();
    let request = shard.request(create(1, spec()));
    let entry = Entry { stamp: shard.now, term: 1, body: EntryBody::Requests(vec![request.clone()]) };
    shard.term = 2;
    let applied = shard.apply_entry(&entry);
    assert_eq!(applied.replies, [Reply::Refused(Refusal::Request(RequestRefusal::Deposed))]);
    assert!(applied.changes.is_empty());
    assert!(matches!(shard.send(&request), Reply::Done(_)));
}

#[test]
fn a_lost_clock_expires_every_deadline_given_before() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let mut old = shard.request(create(2, spec()));
    old.deadline = old.first_sent.plus_ms(24 * 3_600_000);
    shard.apply(EntryBody::ClockLost);
    assert_eq!(shard.state.clock().era(), 1);
    assert_eq!(shard.state.dedup_ids(), 0);
    shard.now = shard.state.clock();
    assert!(matches!(shard.send(&old), Reply::Refused(Refusal::Request(RequestRefusal::Expired { .. }))));
}

#[test]
fn the_clock_never_runs_back() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let before = shard.state.clock();
    shard.now = skep_protocol::time::LogInstant::from_raw(1);
    shard.apply(EntryBody::Decisions(Vec::new()));
    assert_eq!(shard.state.clock(), before);
}

#[test]
fn a_restored_snapshot_goes_on_exactly_as_the_original() {
    let mut shard = Shard::with_limits(FleetLimits { terminal_tasks_kept: 3, ..FleetLimits::default() });
    for n in 1..=9 {
        shard.ok(create(n, skep_protocol::task::TaskSpec { valid_for_ms: Some(50_000), ..spec() }));
        let by = format!("agent-{}", n % 4);
        shard.ask(take(n, &by));
        if n % 2 == 0 {
            shard.ask(complete(n, &by, 1));
        }
        shard.pass(500);
    }
    let bytes = shard.state.to_snapshot().unwrap();
    let mut restored = Shard::new();
    restored.state = FleetState::from_snapshot(&bytes).unwrap();
    (restored.now, restored.index, restored.term) = (shard.now, shard.index, shard.term);
    assert_eq!(restored.state.to_snapshot().unwrap(), bytes);
    assert_eq!(restored.state.digest(), shard.state.digest());
    let next =
        [take_any("agent-0"), take_any("agent-9"), fail(1, "agent-1", 1), complete(3, "agent-3", 1), create(1, spec())];
    for op in next {
        let request = shard.request(op);
        assert_eq!(restored.send(&request), shard.send(&request));
        assert_eq!(restored.state.digest(), shard.state.digest());
    }
}

#[test]
fn a_malformed_snapshot_is_refused_and_never_a_panic() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let bytes = shard.state.to_snapshot().unwrap();
    assert_eq!(FleetState::from_snapshot(&[]).unwrap_err(), SnapshotError::Empty);
    let mut newer = bytes.clone();
    newer[0] += 1;
    assert_eq!(FleetState::from_snapshot(&newer).unwrap_err(), SnapshotError::Format { found: newer[0] });
    newer[0] = 2;
    let older = FleetState::from_snapshot(&newer).unwrap_err();
    assert_eq!(older, SnapshotError::Format { found: 2 });
    assert!(older.to_string().contains("Run the Skep that wrote it"), "{older}");
    for length in 1..bytes.len() {
        assert!(FleetState::from_snapshot(&bytes[..length]).is_err(), "cut to {length}");
    }
    for at in 1..bytes.len() {
        for bit in 0..8 {
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 1 << bit;
            let _ = FleetState::from_snapshot(&spoiled);
        }
    }
}

#[test]
fn the_digest_tells_any_two_histories_apart() {
    let run = |ops: &[u8]| {
        let mut shard = Shard::new();
        ops.iter().for_each(|n| drop(shard.ask(create(*n, spec()))));
        shard.state.digest()
    };
    assert_eq!(run(&[1, 2]), run(&[1, 2]));
    assert_ne!(run(&[1, 2]), run(&[2, 1]));
    assert_ne!(run(&[1, 2]), run(&[1, 2, 2]));
}

#[test]
fn golden_digest_of_a_fixed_history() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "a"));
    shard.ok(complete(1, "a", 1));
    // Two versions that differ here would diverge in one group: a change of this number is a new fleet version.
    assert_eq!(format!("{:032x}", shard.state.digest()), GOLDEN_DIGEST);
}

const GOLDEN_DIGEST: &str = "fc143df22646956f167bcaff1492dcfd";
