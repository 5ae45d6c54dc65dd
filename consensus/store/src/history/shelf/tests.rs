use super::*;

fn covered(ranges: &[(u64, u64)]) -> Shelf {
    let mut shelf = Shelf::default();
    ranges.iter().for_each(|(from, end)| shelf.cover(*from..*end));
    shelf
}

fn at(ms: u64) -> LogInstant {
    LogInstant::from_raw(ms)
}

#[test]
fn the_latest_gap_is_filled_first_from_any_end() {
    let mut shelf = covered(&[(5, 8), (20, 30)]);
    assert_eq!(shelf.latest_gap(), Some(8..20));
    shelf.cover(16..20);
    assert_eq!(shelf.latest_gap(), Some(8..16));
    shelf.cover(10..12);
    assert_eq!(shelf.latest_gap(), Some(12..16));
    shelf.cover(12..16);
    shelf.cover(8..10);
    assert_eq!(shelf.latest_gap(), Some(0..5));
    shelf.cover(0..5);
    assert_eq!(shelf.latest_gap(), None);
    assert!(shelf.is_complete(30) && !shelf.is_complete(31));
}

#[test]
fn only_what_can_be_applied_again_holds_a_snapshot_back() {
    let mut shelf = covered(&[(0, 4)]);
    shelf.begin(10);
    assert!(shelf.reaches(10), "what is behind the snapshot comes from others or not at all");
    assert_eq!(shelf.latest_gap(), Some(4..10));
    shelf.cover(12..14);
    assert!(!shelf.reaches(14) && shelf.is_held_back());
    assert!(shelf.reaches(10));
    shelf.cover(10..12);
    assert!(shelf.reaches(14) && !shelf.is_held_back());
    assert!(!shelf.reaches(15), "it is not there yet");
    shelf.cover(16..17);
    shelf.lose(14..16);
    assert!(shelf.reaches(17), "nothing waits for what nobody has");
}

#[test]
fn what_is_lost_below_everything_is_before_the_edge() {
    let mut shelf = covered(&[(10, 20), (30, 40)]);
    shelf.lose(20..30);
    assert_eq!((shelf.floor(), shelf.missing()), (0, (10, 10)));
    let edge = shelf.edge(25);
    assert_eq!(edge.missing, Some(Missing { from: 20, end: 30, lost: true }));
    shelf.lose(0..6);
    assert_eq!((shelf.floor(), shelf.latest_gap()), (6, Some(6..10)));
    assert!(shelf.holds(3), "it need not come again");
    assert_eq!(shelf.edge(3).begins, 6);
    assert_eq!(shelf.readable(3), 3..3);
    assert_eq!(shelf.readable(12), 12..20);
}

#[test]
fn a_row_that_turns_out_to_be_damaged_is_a_gap_again() {
    let mut shelf = covered(&[(0, 10)]);
    shelf.miss(4..5);
    shelf.miss(5..6);
    assert_eq!(shelf.latest_gap(), Some(4..6));
    shelf.miss(12..13);
    assert_eq!(shelf.next(), 10, "what never was there is not missed");
    for index in 0..limits::HISTORY_GAPS_MAX as u64 * 2 + 4 {
        shelf.cover(10 + 2 * index + 1..10 + 2 * index + 2);
    }
    assert!(shelf.gaps.len() <= limits::HISTORY_GAPS_MAX, "there is a bound, and what is between is fetched again");
    assert!(!shelf.is_complete(10));
}

const OPTIONS: HistoryOptions = HistoryOptions { retention_ms: 16_000, bytes_max: 16_000 };

#[test]
fn segments_are_begun_at_either_end_once_that_one_is_full() {
    let mut shelf = Shelf::default();
    let put = |shelf: &mut Shelf, index: u64, bytes: u64, ms: u64| {
        let number = shelf.place(index, &OPTIONS);
        shelf.note(number, bytes, at(ms));
        shelf.cover(index..index + 1);
        number
    };
    assert_eq!(put(&mut shelf, 100, 600, 5_000), 0);
    assert_eq!(put(&mut shelf, 101, 600, 5_001), 0, "until it is full");
    assert_eq!(put(&mut shelf, 102, 10, 5_002), 1, "by its bytes");
    assert_eq!(put(&mut shelf, 103, 10, 6_100), 1);
    assert_eq!(put(&mut shelf, 104, 10, 6_200), 2, "by its time");
    assert_eq!(put(&mut shelf, 90, 700, 4_000), 3, "the first one is full too");
    assert_eq!(put(&mut shelf, 80, 10, 3_900), 3);
    assert_eq!(put(&mut shelf, 95, 10, 4_001), 3, "what lies within a segment belongs to it");
    assert_eq!(shelf.segments_of(&(85..103)), [3, 0, 1]);
    assert_eq!(shelf.drop_oldest(), Some(3));
    assert_eq!((shelf.floor(), shelf.latest_gap()), (100, None));
}

#[test]
fn what_segments_say_of_themselves_makes_the_same_shelf_again() {
    let mut shelf = Shelf::default();
    for index in (100..140).filter(|index| index % 7 != 3) {
        let number = shelf.place(index, &OPTIONS);
        shelf.note(number, 300, at(index * 10));
        shelf.cover(index..index + 1);
    }
    let number = shelf.place(60, &OPTIONS);
    shelf.note(number, 10, at(1));
    shelf.cover(60..80);
    shelf.lose(0..60);
    let metas = |shelf: &Shelf| {
        let numbers: Vec<u64> = shelf.segments.values().map(|segment| segment.number).collect();
        numbers.into_iter().map(|number| (number, shelf.meta(number).unwrap())).collect::<Vec<_>>()
    };
    assert!(metas(&shelf).len() > 5);
    assert_eq!(Shelf::load(metas(&shelf)), shelf);
    shelf.drop_oldest();
    assert_eq!(Shelf::load(metas(&shelf)), shelf);
}

#[test]
fn what_is_between_two_eras_makes_nothing_older() {
    let mut shelf = Shelf::default();
    let later = at(0).next_era();
    for (index, stamp) in [(0, at(1_000)), (1, at(9_000)), (2, later.plus_ms(5_000))] {
        let number = shelf.begin_segment(index);
        shelf.note(number, 1, stamp);
        shelf.cover(index..index + 1);
    }
    let now = later.plus_ms(12_000);
    assert_eq!(shelf.oldest_age_ms(Some(now)), 8_000 + 12_000, "and not the age of the world");
    assert!(shelf.is_outdated(Some(now), &OPTIONS));
    shelf.drop_oldest();
    assert!(!shelf.is_outdated(Some(now), &OPTIONS));
}
