use std::collections::BTreeSet;

use super::*;

const ONE: NodeId = NodeId::from_public_key([1; 32]);
const OTHER: NodeId = NodeId::from_public_key([2; 32]);

/// The floors after a restart of the process that remembers them.
fn restarted(floors: &Floors) -> Floors {
    Floors::decode(&floors.encode(), &[ONE, OTHER].into()).unwrap()
}

fn new_of(floors: &mut Floors, process: u64, sequences: impl IntoIterator<Item = u64>) -> Vec<u64> {
    sequences.into_iter().filter(|sequence| floors.take(ONE, process, *sequence)).collect()
}

#[test]
fn each_envelope_of_a_process_counts_once_and_late_ones_if_they_are_not_far_behind() {
    let mut floors = Floors::default();
    assert_eq!(new_of(&mut floors, 7, [1, 2, 2, 5, 3, 5, 4, 3]), [1, 2, 5, 3, 4]);
    assert_eq!(new_of(&mut floors, 7, [100_000, 99_999, 100_000, 99_100, 5, 6]), [100_000, 99_999, 99_100]);
    assert_eq!(new_of(&mut floors, 7, [u64::MAX, u64::MAX, u64::MAX - 1]), [u64::MAX, u64::MAX - 1]);
}

#[test]
fn what_is_seen_is_what_a_set_of_all_of_them_says() {
    for seed in 1..=50u64 {
        let (mut state, mut floors, mut model) = (seed, Floors::default(), BTreeSet::new());
        let mut random = |below: u64| {
            // These are Knuth's constants for MMIX.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut highest: u64 = 5_000;
        floors.take(ONE, 1, highest);
        for _ in 0..2_000 {
            let sequence = if random(4) == 0 { highest + random(300) } else { highest.saturating_sub(random(1_200)) };
            let behind = highest.saturating_sub(sequence);
            let taken = floors.take(ONE, 1, sequence);
            let expected = sequence > 5_000 && !model.contains(&sequence);
            // Whether an envelope between the two bounds counts depends on where the words end.
            if behind <= (WORDS as u64 - 1) * WORD {
                assert_eq!(taken, expected, "seed {seed}: {sequence} of {highest}");
            }
            assert!(expected || !taken, "seed {seed}: {sequence} counts twice");
            model.insert(sequence);
            highest = highest.max(sequence);
        }
    }
}

#[test]
fn of_an_earlier_process_of_its_sender_nothing_counts() {
    let mut floors = Floors::default();
    assert_eq!(new_of(&mut floors, 7, 1..=10), Vec::from_iter(1..=10u64));
    assert_eq!(new_of(&mut floors, 8, 1..=3), [1, 2, 3], "the sender was started again, and counts anew");
    assert!(new_of(&mut floors, 7, 1..=100).is_empty());
    assert!(floors.take(OTHER, 7, 1), "each has a floor of its own");
}

#[test]
fn what_is_old_is_old_after_a_restart_of_whoever_hears_it() {
    let mut floors = Floors::default();
    new_of(&mut floors, 7, [3, 9, 10]);
    let mut floors = restarted(&floors);
    assert!(new_of(&mut floors, 6, 1..=100).is_empty());
    assert_eq!(new_of(&mut floors, 7, 1..=12), [11, 12], "what came late before counts as seen, too");
    let mut floors = restarted(&floors);
    assert_eq!(new_of(&mut floors, 8, [1]), [1]);
}

#[test]
fn a_sender_that_is_connected_ends_its_earlier_processes_and_begins_its_own_whatever_its_number() {
    let mut floors = Floors::default();
    new_of(&mut floors, 7, 1..=10);
    floors.lives(ONE, 7);
    assert!(new_of(&mut floors, 7, 1..=10).is_empty(), "it is the same process");
    floors.lives(ONE, 9);
    assert!(new_of(&mut floors, 7, 11..=20).is_empty(), "before the new one has said anything");
    floors.lives(ONE, 4);
    assert_eq!(new_of(&mut floors, 4, [5, 4, 6]), [5, 6], "restored from a copy: the first counts, and none before it");
    for floors in [&mut floors.clone(), &mut restarted(&floors)] {
        for process in [3, 7, 9] {
            assert!(new_of(floors, process, [1, 50]).is_empty(), "{process} was before it");
        }
        assert_eq!(new_of(floors, 4, [7]), [7], "sending those again keeps no node from hearing it");
        assert_eq!(new_of(floors, 10, [1]), [1]);
    }
}

#[test]
fn who_only_says_that_it_is_a_sender_changes_nothing() {
    let mut floors = Floors::default();
    floors.take(ONE, 7, 1);
    assert!(!floors.is_old(ONE, u64::MAX, u64::MAX));
    assert!(floors.take(ONE, 7, 2));
}

#[test]
fn what_is_written_is_read_back_or_found_damaged() {
    let mut floors = Floors::default();
    assert_eq!(floors.take_news(), None);
    floors.take(ONE, 7, 3);
    floors.lives(OTHER, 5);
    let written = floors.take_news().unwrap();
    assert_eq!(floors.take_news(), None, "nothing is new");
    floors.not_written();
    assert_eq!(floors.take_news().as_ref(), Some(&written));
    let admitted: Speakers = [ONE].into();
    let read = Floors::decode(&written, &admitted).unwrap();
    assert_eq!(read.of.keys().collect::<Vec<_>>(), [&ONE], "of others nothing is kept");
    for at in 0..written.len() {
        let mut spoiled = written.clone();
        spoiled[at] ^= 1;
        assert!(Floors::decode(&spoiled, &admitted).is_none(), "byte {at}");
        assert!(Floors::decode(&written[..at], &admitted).is_none(), "cut to {at}");
    }
}

#[test]
fn senders_beyond_the_limit_are_not_remembered_and_not_heard_until_another_one_is_out() {
    let sender = |n: usize| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(n as u64).to_be_bytes());
        NodeId::from_public_key(key)
    };
    let mut floors = Floors::default();
    assert!((0..limits::MESH_SENDERS_MAX).all(|n| floors.take(sender(n), 7, 1)));
    assert!(!floors.take(ONE, 7, 1));
    floors.lives(ONE, 7);
    assert_eq!(floors.of.len(), limits::MESH_SENDERS_MAX);
    assert!(floors.take(sender(0), 7, 2), "those that are remembered go on");
    floors.keep(|kept| *kept != sender(5));
    assert!(floors.take(ONE, 7, 1));
}
