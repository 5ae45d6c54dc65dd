use super::way::{Counts, LINE_DATAGRAMS_MAX, Law, Line, WAY_BYTES_MAX, WAY_DATAGRAMS_MAX, Way};
use super::{Links, Relay};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// When each datagram leaves, by its first byte, if it is taken as soon as possible.
fn leavings(way: &mut Way) -> Vec<(u64, u8)> {
    let mut all = Vec::new();
    while let Some(now) = way.next_us() {
        let datagram = way.leave(now).unwrap();
        all.push((now, datagram[0]));
    }
    all
}

fn enter_all(way: &mut Way, count: u8, every_us: u64) {
    (0..count).for_each(|n| way.enter(&[n; 100], u64::from(n) * every_us));
}

#[test]
fn a_datagram_leaves_when_its_delay_is_over_and_not_before() {
    let mut way = Way::new(Law::delay(35), 1);
    way.enter(b"a", 10 * MS);
    way.enter(b"b", 12 * MS);
    assert_eq!(way.leave(45 * MS - 1), None);
    assert_eq!(way.leave(45 * MS), Some(b"a".to_vec()));
    assert_eq!(way.leave(45 * MS), None);
    assert_eq!(way.leave(SECOND), Some(b"b".to_vec()), "a late look finds it too");
    assert_eq!(way.next_us(), None);
}

#[test]
fn without_a_law_everything_leaves_at_once_and_in_order() {
    let mut way = Way::new(Law::default(), 1);
    enter_all(&mut way, 200, 0);
    let all = leavings(&mut way);
    assert_eq!(all, (0..200).map(|n| (0, n)).collect::<Vec<_>>());
}

#[test]
fn jitter_is_the_same_within_a_second_and_another_in_the_next() {
    let mut way = Way::new(Law { jitter_ms: 500, ..Law::delay(10) }, 7);
    let mut delays = Vec::new();
    for second in 0..20 {
        for part in [0, 400, 900] {
            let now = second * SECOND + part * MS;
            way.enter(b"x", now);
            let left = way.next_us().unwrap();
            way.leave(left).unwrap();
            delays.push(left - now);
        }
    }
    assert!(delays.chunks(3).all(|of| of[0] == of[1] && of[1] == of[2]), "{delays:?}");
    assert!(delays.iter().all(|delay| (10 * MS..=510 * MS).contains(delay)), "{delays:?}");
    let distinct: std::collections::BTreeSet<_> = delays.iter().collect();
    assert!(distinct.len() > 10, "{delays:?}");
}

#[test]
fn what_is_held_back_is_overtaken() {
    let mut way = Way::new(Law { held_back_permille: 200, held_back_ms: 60, ..Law::delay(5) }, 3);
    enter_all(&mut way, 250, MS);
    let all = leavings(&mut way);
    let held_back = all.iter().filter(|(left, n)| left - u64::from(*n) * MS == 65 * MS).count();
    let others = all.iter().filter(|(left, n)| left - u64::from(*n) * MS == 5 * MS).count();
    assert_eq!(held_back + others, 250, "nothing is lost");
    assert!((20..80).contains(&held_back), "{held_back} of 250");
    assert!(all.windows(2).any(|pair| pair[0].1 > pair[1].1), "somebody was overtaken");
}

#[test]
fn what_is_doubled_arrives_twice_and_what_is_lost_never() {
    let mut way = Way::new(Law { doubled_permille: 1_000, ..Law::delay(5) }, 1);
    way.enter(b"a", 0);
    assert_eq!(leavings(&mut way), [(5 * MS, b'a'), (6 * MS, b'a')]);
    let mut way = Way::new(Law { lost_permille: 300, ..Law::default() }, 1);
    enter_all(&mut way, 200, MS);
    let left = leavings(&mut way).len();
    assert!((100..180).contains(&left), "{left} of 200");
    assert_eq!(way.counts().lost, 200 - left as u64);
}

#[test]
fn a_line_sends_no_faster_than_its_rate_and_drops_what_its_queue_cannot_hold() {
    let line = Line { bytes_per_s: 100_000, queue_bytes: 1_000 };
    let mut way = Way::new(Law::delay(20).through(line), 1);
    // 100 bytes take a millisecond; ten of these datagrams fill the queue.
    enter_all(&mut way, 12, 0);
    assert_eq!(way.counts().overflowed, 2);
    let all = leavings(&mut way);
    assert_eq!(all, (0..10).map(|n| (21 * MS + u64::from(n) * MS, n)).collect::<Vec<_>>());
    // What has been sent makes room, even before it has arrived.
    let mut way = Way::new(Law::delay(20).through(line), 1);
    enter_all(&mut way, 10, 0);
    way.enter(&[10; 100], MS - 1);
    assert_eq!(way.counts().overflowed, 1);
    way.enter(&[11; 100], MS);
    assert_eq!(way.counts().overflowed, 1);
    assert_eq!(leavings(&mut way).last(), Some(&(31 * MS, 11)));
    // A line that was idle does not send faster later.
    way.enter(&[12; 100], SECOND);
    way.enter(&[13; 100], SECOND);
    assert_eq!(leavings(&mut way), [(SECOND + 21 * MS, 12), (SECOND + 22 * MS, 13)]);
}

#[test]
fn a_datagram_that_finds_nobody_waiting_passes_however_large_it_is() {
    let mut way = Way::new(Law::default().through(Line { bytes_per_s: 1_000, queue_bytes: 10 }), 1);
    way.enter(&[1; 500], 0);
    way.enter(&[2; 1], 0);
    assert_eq!(leavings(&mut way), [(SECOND / 2, 1)]);
    assert_eq!(way.counts(), Counts { entered: 2, left: 1, lost: 0, overflowed: 1 });
}

#[test]
fn a_way_holds_a_bounded_number_of_datagrams_and_bytes() {
    let mut way = Way::new(Law::delay(1_000), 1);
    (0..WAY_DATAGRAMS_MAX + 3).for_each(|_| way.enter(b"x", 0));
    assert_eq!(way.counts().overflowed, 3);
    assert_eq!(leavings(&mut way).len(), WAY_DATAGRAMS_MAX);
    let large = vec![0; 60_000];
    let room = WAY_BYTES_MAX / large.len();
    (0..room + 2).for_each(|_| way.enter(&large, 0));
    assert_eq!(leavings(&mut way).len(), room);
    let line = Line { bytes_per_s: 1, queue_bytes: usize::MAX };
    let mut way = Way::new(Law::default().through(line), 1);
    (0..LINE_DATAGRAMS_MAX + 5).for_each(|_| way.enter(b"x", 0));
    assert_eq!(way.counts().overflowed, 5);
}

#[test]
fn a_cut_takes_what_is_under_way_and_another_law_does_not() {
    let mut way = Way::new(Law::delay(100), 1);
    way.enter(b"a", 0);
    way.obey(Law::delay(10));
    way.enter(b"b", 0);
    assert_eq!(leavings(&mut way), [(10 * MS, b'b'), (100 * MS, b'a')]);
    way.enter(b"c", SECOND);
    way.obey(way.law().cut());
    way.enter(b"d", SECOND);
    assert_eq!(way.next_us(), None);
    assert_eq!(way.counts().lost, 2);
    way.obey(Law::default());
    way.enter(b"e", 2 * SECOND);
    assert_eq!(leavings(&mut way), [(2 * SECOND, b'e')]);
}

#[test]
fn the_same_seed_hits_the_same_datagrams() {
    let law = Law { lost_permille: 100, held_back_permille: 100, held_back_ms: 30, jitter_ms: 50, ..Law::delay(10) };
    let run = |seed| {
        let mut way = Way::new(law, seed);
        enter_all(&mut way, 250, 20 * MS);
        leavings(&mut way)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// A node that only sends and receives.
struct Node(std::net::UdpSocket);

impl Node {
    fn new() -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        Self(socket)
    }

    fn receive(&self) -> (Vec<u8>, std::net::SocketAddr) {
        let mut buffer = [0; 2_000];
        let (bytes, from) = self.0.recv_from(&mut buffer).unwrap();
        (buffer[..bytes].to_vec(), from)
    }
}

#[test]
fn nodes_see_each_other_under_addresses_that_stay_and_strangers_are_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = [Node::new(), Node::new(), Node::new()];
    let listening: Vec<_> = nodes.iter().map(|node| node.0.local_addr().unwrap()).collect();
    let links = Links { law: Law::default(), seed: 1 };
    let relay = Relay::start(dir.path(), listening.clone(), &links, None).unwrap();
    let seen: Vec<_> = (0..3).map(|at| relay.address(at)).collect();
    let stranger = Node::new();
    stranger.0.send_to(b"stranger", seen[1]).unwrap();
    nodes[0].0.send_to(b"question", seen[1]).unwrap();
    assert_eq!(nodes[1].receive(), (b"question".to_vec(), seen[0]));
    nodes[1].0.send_to(b"answer", seen[0]).unwrap();
    assert_eq!(nodes[0].receive(), (b"answer".to_vec(), seen[1]));
    // A cut of one direction leaves the other directions as they are.
    relay.set(0, 1, Law::default().cut());
    nodes[0].0.send_to(b"into the cut", seen[1]).unwrap();
    nodes[1].0.send_to(b"back", seen[0]).unwrap();
    nodes[2].0.send_to(b"from beside", seen[1]).unwrap();
    assert_eq!(nodes[0].receive(), (b"back".to_vec(), seen[1]));
    assert_eq!(nodes[1].receive(), (b"from beside".to_vec(), seen[2]));
    assert_eq!((relay.counts(0, 1).left, relay.counts(1, 0).left, relay.counts(2, 1).left), (1, 2, 1));
    drop(relay);
    let again = Relay::start(dir.path(), listening, &links, None).unwrap();
    assert_eq!((0..3).map(|at| again.address(at)).collect::<Vec<_>>(), seen);
}

#[test]
fn datagrams_of_one_way_keep_their_order_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = [Node::new(), Node::new()];
    let listening: Vec<_> = nodes.iter().map(|node| node.0.local_addr().unwrap()).collect();
    let relay = Relay::start(dir.path(), listening, &Links { law: Law::delay(20), seed: 1 }, None).unwrap();
    for round in 0..20_u8 {
        for n in 0..20 {
            nodes[0].0.send_to(&[round, n], relay.address(1)).unwrap();
        }
        for n in 0..20 {
            assert_eq!(nodes[1].receive().0, [round, n]);
        }
    }
}
