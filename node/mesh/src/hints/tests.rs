use std::time::Duration;

use super::*;

fn peer(n: u8) -> PeerId {
    let mut seed = [1; 32];
    seed[0] = n;
    libp2p::identity::Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id()
}

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn tcp(host: u8, port: u16) -> Multiaddr {
    at(&format!("/ip4/10.0.0.{host}/tcp/{port}"))
}

/// A table in which peer 1 is listed.
fn listed(configured: Option<Multiaddr>) -> (Hints, PeerId, Instant) {
    let now = Instant::now();
    let mut hints = Hints::new(false, now);
    hints.list(peer(1), configured);
    (hints, peer(1), now)
}

fn known(hints: &Hints, peer: &PeerId) -> Vec<Multiaddr> {
    hints.of[peer].hints.iter().map(|hint| hint.address.clone()).collect()
}

/// What the node dials in two attempts: one of them tries hints.
fn dialled(hints: &mut Hints, peer: &PeerId, now: Instant) -> Vec<Multiaddr> {
    let mut addresses = hints.next_dials(peer, now);
    addresses.extend(hints.next_dials(peer, now));
    addresses.sort();
    addresses.dedup();
    addresses
}

#[test]
fn an_address_is_of_one_host_over_quic_or_tcp_and_of_the_peer_that_it_is_told_of() {
    let (of, other) = (peer(1), peer(2));
    let usable = |text: &str, on_loopback| usable(&at(text), &of, on_loopback).is_some();
    assert!(usable("/ip4/127.0.0.1/udp/1/quic-v1", true));
    assert!(!usable("/ip4/127.0.0.1/udp/1/quic-v1", false));
    assert!(!usable("/ip6/::ffff:127.0.0.1/udp/1/quic-v1", false), "loopback in another form");
    assert!(usable("/ip4/10.0.0.1/tcp/1", false));
    assert!(!usable("/ip4/10.0.0.1/tcp/1", true));
    assert!(usable(&format!("/ip4/10.0.0.1/tcp/1/p2p/{of}"), false));
    assert!(!usable(&format!("/ip4/10.0.0.1/tcp/1/p2p/{other}"), false));
    for bad in [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip4/224.0.0.1/udp/1/quic-v1",
        "/ip6/ff02::1/tcp/1",
        "/ip4/10.0.0.1/tcp/0",
        "/ip4/10.0.0.1/udp/53",
        "/ip4/10.0.0.1",
        "/dns4/victim.example/tcp/1",
        "/ip4/10.0.0.1/tcp/1/ws",
        "/memory/1",
        "",
    ] {
        assert!(!usable(bad, false), "{bad}");
    }
}

#[test]
fn of_strangers_nothing_is_kept() {
    let (mut hints, _, now) = listed(None);
    assert!(!hints.hear(&peer(2), &tcp(1, 1), Word::Lan));
    hints.reached(&peer(2), &tcp(1, 1));
    assert!(hints.next_dials(&peer(2), now).is_empty());
    assert_eq!(hints.of.len(), 1);
}

#[test]
fn a_liar_pushes_out_neither_what_worked_nor_what_is_configured_nor_what_the_peer_says() {
    let configured = tcp(1, 1);
    let (mut hints, of, mut now) = listed(Some(configured.clone()));
    hints.reached(&of, &tcp(1, 2));
    hints.hear(&of, &tcp(1, 3), Word::Own);
    for n in 0..60_000u32 {
        let [_, _, host, _] = n.to_be_bytes();
        let word = if n % 2 == 0 { Word::Lan } else { Word::Other };
        hints.hear(&of, &tcp(host.max(2), 1 + n as u16), word);
        assert!(known(&hints, &of).len() <= HINTS_PER_PEER_MAX);
    }
    for _ in 0..4 {
        let dialled = dialled(&mut hints, &of, now);
        now += Duration::from_secs(30);
        assert!([configured.clone(), tcp(1, 2)].iter().all(|address| dialled.contains(address)), "{dialled:?}");
    }
    assert!(known(&hints, &of).contains(&tcp(1, 3)));
}

#[test]
fn whoever_answers_at_a_wrong_address_keeps_nobody_from_the_right_one() {
    let (mut hints, of, now) = listed(None);
    hints.reached(&of, &tcp(1, 1));
    hints.hear(&of, &tcp(9, 1), Word::Lan);
    // A wrong answer ends an attempt, so that one of two has to be without hints.
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1)]);
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1), tcp(9, 1)]);
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1)]);
}

#[test]
fn a_hint_that_an_attempt_did_not_try_is_known_to_be_untried_until_another_one_does() {
    let (mut hints, of, now) = listed(Some(tcp(1, 1)));
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1)]);
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1)]);
    assert!(!hints.has_untried(&of));
    assert!(hints.hear(&of, &tcp(9, 1), Word::Other));
    // The node dials the peer for the hint, and this is the turn of the proved address.
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1)]);
    assert!(hints.has_untried(&of));
    // Another hint comes while the node dials the peer.
    assert!(hints.hear(&of, &tcp(8, 1), Word::Lan));
    assert_eq!(hints.next_dials(&of, now), [tcp(1, 1), tcp(9, 1), tcp(8, 1)]);
    assert!(!hints.has_untried(&of));
    assert!(!hints.hear(&of, &tcp(9, 1), Word::Other) && !hints.has_untried(&of), "it is not new");
    hints.reached(&of, &tcp(7, 1));
    assert!(!hints.has_untried(&of) && !hints.has_untried(&peer(2)));
}

#[test]
fn a_hint_that_the_pace_held_back_is_untried_until_an_attempt_tries_it() {
    let (mut hints, of, now) = listed(None);
    // Other peers are said to be at that host too, and the node looked for them there.
    for _ in 0..TRIES_PER_HOST.burst {
        assert!(has_turn(&mut hints.hosts, "10.0.0.9".parse().unwrap(), now));
    }
    assert!(hints.hear(&of, &tcp(9, 1), Word::Other));
    assert!(hints.next_dials(&of, now).is_empty());
    assert!(hints.has_untried(&of));
    assert_eq!(hints.next_dials(&of, now + Duration::from_secs(1)), [tcp(9, 1)]);
    assert!(!hints.has_untried(&of));
}

#[test]
fn hints_that_are_more_than_one_attempt_tries_are_untried_until_each_was() {
    let (mut hints, of, now) = listed(None);
    for host in 1..=HINTS_PER_DIAL_MAX as u8 + 1 {
        assert!(hints.hear(&of, &tcp(host, 1), Word::Other));
    }
    assert_eq!(hints.next_dials(&of, now).len(), HINTS_PER_DIAL_MAX);
    assert!(hints.has_untried(&of));
    hints.next_dials(&of, now);
    assert!(!hints.has_untried(&of));
}

#[test]
fn what_others_say_is_forgotten_once_it_has_failed_for_long_and_what_worked_is_not() {
    let (mut hints, of, _) = listed(None);
    hints.reached(&of, &tcp(1, 1));
    hints.hear(&of, &tcp(2, 1), Word::Own);
    hints.hear(&of, &tcp(3, 1), Word::Other);
    let with_peer = |address: Multiaddr| address.with_p2p(of).unwrap();
    for _ in 1..FORGOTTEN_AFTER {
        hints.failed(&of, &with_peer(tcp(3, 1)));
    }
    assert!(known(&hints, &of).contains(&tcp(3, 1)), "it may not be up yet");
    for _ in 0..FORGOTTEN_AFTER {
        (1..=3).for_each(|host| hints.failed(&of, &with_peer(tcp(host, 1))));
    }
    let mut left = known(&hints, &of);
    left.sort();
    assert_eq!(left, [tcp(1, 1), tcp(2, 1)]);
    assert_eq!(hints.take_forgotten(), [(of, tcp(3, 1))]);
    // The peer may have moved: what it said of itself makes room in this case.
    for host in 10..10 + HINTS_PER_PEER_MAX as u8 {
        assert!(hints.hear(&of, &tcp(host, 1), Word::Other));
    }
    assert!(known(&hints, &of).contains(&tcp(1, 1)));
    assert!(!known(&hints, &of).contains(&tcp(2, 1)));
}

#[test]
fn where_somebody_else_is_the_peer_is_not_looked_for_any_more_unless_it_was_there() {
    let (mut hints, of, _) = listed(None);
    hints.reached(&of, &tcp(1, 1));
    hints.hear(&of, &tcp(2, 1), Word::Own);
    hints.hear(&of, &tcp(3, 1), Word::Lan);
    (1..=3).for_each(|host| hints.wrong(&of, &tcp(host, 1)));
    assert_eq!(known(&hints, &of), [tcp(1, 1)]);
    assert_eq!(hints.take_forgotten(), [(of, tcp(2, 1)), (of, tcp(3, 1))]);
}

#[test]
fn a_peer_that_moves_again_and_again_is_known_where_it_was_last() {
    let (mut hints, of, _) = listed(None);
    for host in 1..=50 {
        hints.hear(&of, &tcp(host, 1), Word::Own);
        hints.reached(&of, &tcp(host, 1));
    }
    let known = known(&hints, &of);
    assert_eq!(known.len(), HINTS_PER_PEER_MAX);
    assert!((43..=50).all(|host| known.contains(&tcp(host, 1))), "{known:?}");
    let reached = hints.of[&of].hints.iter().filter(|hint| hint.word == Word::Reached).count();
    assert_eq!(reached, REACHED_PER_PEER_MAX);
}

#[test]
fn no_host_is_named_more_than_twice_by_others() {
    let (mut hints, of, _) = listed(None);
    for port in 1..1_000 {
        hints.hear(&of, &tcp(7, port), Word::Lan);
    }
    assert_eq!(known(&hints, &of), [tcp(7, 998), tcp(7, 999)]);
    assert!(hints.hear(&of, &tcp(8, 1), Word::Lan), "there is room for what is true");
}

#[test]
fn a_host_is_tried_at_a_pace_however_many_peers_are_said_to_be_there() {
    let begun = Instant::now();
    let mut hints = Hints::new(false, begun);
    let peers: Vec<PeerId> = (1..=100).map(peer).collect();
    for (n, of) in peers.iter().enumerate() {
        hints.list(*of, None);
        hints.hear(of, &tcp(66, 1 + n as u16), Word::Lan);
    }
    let mut tries = 0;
    for second in 0..60 {
        let now = begun + Duration::from_secs(second);
        tries += peers.iter().map(|of| hints.next_dials(of, now).len()).sum::<usize>();
    }
    let most = TRIES_PER_HOST.burst + 60 * TRIES_PER_HOST.per_s;
    assert!(tries as u64 <= most && tries as u64 >= most / 2, "{tries}");
}

#[test]
fn hosts_that_were_tried_are_remembered_in_a_table_that_is_bounded() {
    let now = Instant::now();
    let mut hosts = BTreeMap::new();
    let tried = (0..10_000u32).filter(|n| has_turn(&mut hosts, Ipv4Addr::from(*n).into(), now)).count();
    assert_eq!((tried, hosts.len()), (HOSTS_MAX, HOSTS_MAX));
    assert!(has_turn(&mut hosts, Ipv4Addr::from(10_000u32).into(), now + Duration::from_secs(60)));
    assert_eq!(hosts.len(), 1);
}

#[test]
fn others_are_told_only_what_is_configured_worked_or_was_said_by_the_peer_itself() {
    let (mut hints, of, _) = listed(Some(tcp(1, 1)));
    hints.reached(&of, &tcp(2, 1));
    hints.hear(&of, &tcp(3, 1), Word::Own);
    hints.hear(&of, &tcp(4, 1), Word::Other);
    hints.hear(&of, &tcp(5, 1), Word::Lan);
    let told: Vec<u8> = (1..=6).filter(|host| hints.is_for_others(&of, &tcp(*host, 1))).collect();
    assert_eq!(told, [1, 2, 3]);
}
