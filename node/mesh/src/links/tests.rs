use super::*;

const BOTH: [Dialled; 2] = [Dialled::Here, Dialled::There];

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

fn seen_from_there(dialled: Dialled) -> Dialled {
    match dialled {
        Dialled::Here => Dialled::There,
        Dialled::There => Dialled::Here,
    }
}

/// What a node closes of the connections 1 and 2 to a peer, which one process opens and identifies in these orders.
fn closed(local: PeerId, peer: PeerId, by: [Dialled; 2], opened: [usize; 2], heard: [usize; 2]) -> Vec<ConnectionId> {
    let now = Instant::now();
    let mut links = Links::new(local);
    opened.into_iter().for_each(|n| links.opened(peer, id(n), by[n - 1], now));
    heard.into_iter().flat_map(|n| links.heard(peer, id(n), Some("process".to_owned()), now)).collect()
}

#[test]
fn of_two_connections_made_at_once_both_sides_close_the_same_one() {
    let (a, b) = (PeerId::random(), PeerId::random());
    let orders = [[1, 2], [2, 1]];
    for by in [[Dialled::Here, Dialled::There], [Dialled::There, Dialled::Here]] {
        let by_there = by.map(seen_from_there);
        let mut all = Vec::new();
        for opened in orders {
            for heard in orders {
                all.push(closed(a, b, by, opened, heard));
                all.push(closed(b, a, by_there, opened, heard));
            }
        }
        assert!(all.iter().all(|gone| gone.len() == 1 && *gone == all[0]), "{by:?}: {all:?}");
    }
}

#[test]
fn a_process_that_came_again_takes_the_place_of_the_one_that_died_whoever_dialled_and_however_soon() {
    let now = Instant::now();
    for (local, peer) in [(1, 2), (2, 1)].map(|(a, b)| (identity(a), identity(b))) {
        for (earlier, later) in BOTH.into_iter().flat_map(|earlier| BOTH.map(|later| (earlier, later))) {
            for after in [0, 1, 500, 5_000, 600_000].map(Duration::from_millis) {
                let mut links = Links::new(local);
                links.opened(peer, id(1), earlier, now);
                assert!(links.heard(peer, id(1), Some("before".to_owned()), now).is_empty());
                links.opened(peer, id(2), later, now + after);
                let gone = links.heard(peer, id(2), Some("again".to_owned()), now + after);
                assert_eq!(gone, [id(1)], "{local} {earlier:?}, {later:?} after {after:?}");
            }
        }
    }
}

fn identity(seed: u8) -> PeerId {
    libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

/// hashicorp/consul#13037
#[test]
fn of_two_processes_that_come_again_and_again_the_one_that_was_met_first_stays() {
    let now = Instant::now();
    let (local, peer) = (identity(1), identity(2));
    let mut links = Links::new(local);
    let mut come = |n: usize, dialled: Dialled, process: &str| {
        let at = now + Duration::from_secs(n as u64);
        links.opened(peer, id(n), dialled, at);
        let gone = links.heard(peer, id(n), Some(process.to_owned()), at);
        (gone, links.shared(&peer).is_some())
    };
    use Dialled::{Here, There};
    assert_eq!(come(1, There, "first"), (vec![], false));
    // The copy may have been started again.
    assert_eq!(come(2, There, "copy"), (vec![id(1)], false));
    // It was not started again.
    assert_eq!(come(3, There, "first"), (vec![id(2)], true));
    for (n, dialled) in (4..40).zip([Here, There].into_iter().cycle()) {
        assert_eq!(come(n, dialled, "copy"), (vec![id(n)], true), "{n}");
    }
    // A process that is started again has the place of both, and keeps it.
    assert_eq!(come(40, There, "again").0, [id(3)]);
    links.closed(peer, id(40));
    let at = now + Duration::from_secs(50);
    links.opened(peer, id(50), There, at);
    assert!(links.heard(peer, id(50), Some("copy".to_owned()), at).is_empty(), "no other process is there");
}

#[test]
fn a_connection_that_may_be_dead_is_not_preferred_to_one_that_lives() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let said = || Some("process".to_owned());
    for (local, peer) in [(1, 2), (2, 1)].map(|(a, b)| (identity(a), identity(b))) {
        for (earlier, latest) in BOTH.into_iter().flat_map(|earlier| BOTH.map(|latest| (earlier, latest))) {
            let mut links = Links::new(local);
            links.opened(peer, id(1), earlier, now);
            links.heard(peer, id(1), said(), now);
            links.opened(peer, id(2), latest, later);
            assert!(links.heard(peer, id(2), None, later).is_empty(), "of which process the new one is, is not known");
            assert!(links.heard(peer, id(2), said(), later).is_empty(), "the earlier one may be dead");
            // The earlier connection is not dead.
            let gone = links.heard(peer, id(1), None, later);
            let stays = if local < peer { Dialled::Here } else { Dialled::There };
            let kept = if earlier == stays && latest != stays { id(1) } else { id(2) };
            assert_eq!(gone.len(), 1);
            assert_ne!(gone, [kept], "{local} {earlier:?} {latest:?}");
        }
    }
}

#[test]
fn whatever_is_known_of_them_some_connection_stays() {
    let now = Instant::now();
    let opened = [0, 10, 20].map(|s| now + Duration::from_secs(s));
    let heard = [None, Some(0), Some(10), Some(19), Some(20)].map(|at| at.map(|s| now + Duration::from_secs(s)));
    let process = [None, Some("a".to_owned()), Some("b".to_owned())];
    let each = |n: usize| {
        let (heard, process) = (&heard, &process);
        let since = opened[n - 1];
        BOTH.into_iter().flat_map(move |dialled| {
            heard.iter().flat_map(move |heard| {
                let of = move |process: &Option<String>| Link {
                    id: id(n),
                    dialled,
                    since,
                    heard: *heard,
                    process: process.clone(),
                };
                process.iter().map(of)
            })
        })
    };
    for (first, second) in each(1).flat_map(|first| each(2).map(move |second| (first.clone(), second))) {
        for third in each(3) {
            let links = [first.clone(), second.clone(), third];
            for (count, stays) in (1..=links.len()).flat_map(|count| BOTH.map(|stays| (count, stays))) {
                let links = &links[..count];
                let named = links.iter().filter_map(|link| link.process.as_ref());
                let whose: Vec<Option<&String>> = match named.clone().count() {
                    0 => vec![None],
                    _ => named.map(Some).collect(),
                };
                for process in whose {
                    assert!(surplus(links, stays, process).len() < count, "{links:?}");
                }
            }
        }
    }
}

#[test]
fn a_connection_that_ended_is_in_nobodys_way() {
    let now = Instant::now();
    let (a, b) = (PeerId::random(), PeerId::random());
    let said = || Some("process".to_owned());
    let mut links = Links::new(a);
    links.opened(b, id(1), Dialled::Here, now);
    links.heard(b, id(1), said(), now);
    links.closed(b, id(1));
    links.opened(b, id(2), Dialled::There, now);
    assert!(links.heard(b, id(2), said(), now).is_empty());
    assert!(links.heard(b, id(1), said(), now).is_empty(), "what it said before is heard late");
    links.opened(b, id(3), Dialled::Here, now);
    assert_eq!(links.heard(b, id(3), said(), now).len(), 1);
}
