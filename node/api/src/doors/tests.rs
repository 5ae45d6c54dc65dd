use std::collections::VecDeque;

use skep_protocol::code::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

/// A door at which these things happen, one after another. After them no connection comes any more.
pub(crate) struct Scripted(Mutex<VecDeque<io::Result<DuplexStream>>>);

impl Door for Scripted {
    type Io = DuplexStream;
    const IS_TCP: bool = false;

    async fn accepted(&self) -> io::Result<DuplexStream> {
        let next = self.0.lock().unwrap().pop_front();
        match next {
            Some(next) => next,
            None => std::future::pending().await,
        }
    }
}

/// The same door as a TCP port.
pub(crate) struct Port(pub(crate) Scripted);

impl Door for Port {
    type Io = DuplexStream;
    const IS_TCP: bool = true;

    async fn accepted(&self) -> io::Result<DuplexStream> {
        self.0.accepted().await
    }
}

pub(crate) fn door(happens: impl IntoIterator<Item = io::Result<DuplexStream>>) -> Scripted {
    Scripted(Mutex::new(happens.into_iter().collect()))
}

fn connections(count: usize) -> (Vec<io::Result<DuplexStream>>, Vec<DuplexStream>) {
    (0..count).map(|_| tokio::io::duplex(64)).map(|(here, there)| (Ok(here), there)).unzip()
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_fails_is_tried_again_after_longer_and_longer_pauses() {
    let (come, _there) = connections(1);
    let fail = || Err(io::Error::from_raw_os_error(24));
    let doors = Doors::new(10, false);
    let begun = tokio::time::Instant::now();
    let mut guests = Box::pin(doors.guests(door((0..20).map(|_| fail()).chain(come))));
    let guest = guests.next().await.unwrap().unwrap();
    assert_eq!(guest.refused, None);
    // The pauses double until each is a second.
    let took = begun.elapsed();
    assert!(took > PAUSE_MAX * 12 && took < PAUSE_MAX * 20, "{took:?} of virtual time");
}

/// The first `count` connections at a door, one after another.
async fn all<D: Door>(doors: &Doors, door: D, count: usize) -> Vec<Guest<D::Io>> {
    doors.guests(door).take(count).map(Result::unwrap).collect().await
}

fn is_let_in(guest: &Guest<DuplexStream>) -> bool {
    guest.connect_info().let_in().is_ok()
}

/// A place for a stream, as a call of a connection asks for it.
fn lasting(doors: &Doors, guest: &Guest<DuplexStream>) -> Result<Lasting, Failed> {
    doors.lasting(Some(&guest.connect_info().let_in().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_is_told_so_and_closed_and_its_place_is_anothers_then() {
    let max = limits::API_CONNECTIONS_MIN;
    let (come, _there) = connections(max + 2);
    let doors = Doors::new(max, false);
    let mut guests = Box::pin(doors.guests(door(come)));
    let mut seated = Vec::new();
    for _ in 0..max {
        seated.push(guests.next().await.unwrap().unwrap());
    }
    assert!(seated.iter().all(is_let_in));
    let mut refused = guests.next().await.unwrap().unwrap();
    let why = refused.connect_info().let_in().unwrap_err();
    assert!(why.failure.message.contains(&format!("{max} are open")), "{why:?}");
    // The refused connection says nothing, and does not stay.
    assert_eq!(refused.read(&mut [0; 8]).await.unwrap(), 0);
    drop((seated.pop(), refused));
    let guest = guests.next().await.unwrap().unwrap();
    assert!(is_let_in(&guest));
}

#[tokio::test(start_paused = true)]
async fn callers_that_stay_leave_the_operator_a_way_in() {
    let max = limits::API_CONNECTIONS_MIN;
    let (come, mut there) = connections(max);
    let doors = Doors::new(max, false);
    let mut seated = all(&doors, door(come), max).await;
    assert!(seated.iter().all(is_let_in));
    // A connection on a reserved place goes after a while; one on an ordinary place stays.
    let mut kept = seated.split_off(max - limits::API_CONNECTIONS_RESERVED);
    for guest in &mut kept {
        assert_eq!(guest.read(&mut [0; 8]).await.unwrap(), 0, "it is told to go");
    }
    for (there, here) in there.iter_mut().zip(&mut seated) {
        there.write_all(b"still here").await.unwrap();
        assert_eq!(here.read(&mut [0; 64]).await.unwrap(), 10);
    }
    drop(kept);
    let (come, _operator) = connections(1);
    assert!(is_let_in(&all(&doors, door(come), 1).await[0]));
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_which_no_call_is_let_in_is_closed() {
    let (come, _there) = connections(2);
    let doors = Doors::new(0, false);
    let mut guests = all(&doors, door(come), 2).await;
    let mut lasts = guests.pop().unwrap();
    assert!(is_let_in(&lasts));
    assert_eq!(guests[0].read(&mut [0; 8]).await.unwrap(), 0);
    let mut buffer = [0; 8];
    let waits = tokio::time::timeout(Duration::from_secs(3_600), lasts.read(&mut buffer));
    assert!(waits.await.is_err(), "it may say nothing for as long as it likes");
}

#[tokio::test(start_paused = true)]
async fn streams_that_last_leave_places_for_calls() {
    let doors = Doors::new(0, false);
    let most = limits::API_CONNECTIONS_MIN - limits::API_CONNECTIONS_RESERVED;
    let lasting = || doors.lasting(None);
    let mut open: Vec<_> = (0..most).map(|_| Box::pin(lasting().unwrap().around(stream::pending::<()>()))).collect();
    let why = lasting().unwrap_err();
    assert!(why.failure.message.contains(&format!("{most} are open")), "{why:?}");
    open.pop();
    assert!(lasting().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stream_finds_no_place_on_a_connection_that_is_to_go_soon() {
    let max = limits::API_CONNECTIONS_MIN;
    let (come, _there) = connections(max);
    let doors = Doors::new(max, false);
    let mut seated = all(&doors, door(come), max).await;
    assert!(lasting(&doors, &seated[0]).is_ok());
    let last = seated.last_mut().unwrap();
    let why = lasting(&doors, last).unwrap_err().failure;
    assert!(why.code == Code::TooManyStreams.as_str() && why.message.contains(&format!("{max} are open")), "{why:?}");
    let refused = tokio::time::Instant::now();
    assert_eq!(last.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(refused.elapsed() < Duration::from_millis(limits::API_RESERVED_MS), "it goes at once");
}

#[tokio::test(start_paused = true)]
async fn whoever_shows_no_token_takes_no_place_of_others_and_soon_goes() {
    let strangers = limits::API_TCP_STRANGERS_MAX;
    let doors = Doors::new(1_000, true);
    let (come, _there) = connections(strangers + 1);
    let mut silent = all(&doors, Port(door(come)), strangers + 1).await;
    let refused = silent.pop().unwrap();
    let why = refused.connect_info().let_in().unwrap_err();
    assert!(why.failure.message.contains(&format!("{strangers} are open")), "{why:?}");
    assert!(silent.iter().all(|guest| guest.refused.is_none()));
    // At the socket there are as many places as ever.
    let most = limits::API_TCP_CONNECTIONS_MAX;
    let (come, _at_socket) = connections(1_000 - most);
    let at_socket = all(&doors, door(come), 1_000 - most).await;
    assert!(at_socket.iter().all(is_let_in));
    // Connections that show the token make room for others, as long as there are places.
    let (come, _with_token) = connections(most - strangers + 2);
    let mut with_token = Vec::new();
    assert!(is_let_in(&silent.pop().unwrap()), "it goes, and leaves its place");
    let mut guests = Box::pin(doors.guests(Port(door(come))));
    for _ in 0..=most - strangers {
        let guest = guests.next().await.unwrap().unwrap();
        assert!(is_let_in(&guest), "{} were", with_token.len());
        with_token.push(guest);
    }
    // Connections over TCP get no place of the socket's, though these are free.
    drop(at_socket);
    assert!(guests.next().await.unwrap().unwrap().refused.is_some());
    let begun = tokio::time::Instant::now();
    for stranger in &mut silent {
        assert_eq!(stranger.read(&mut [0; 8]).await.unwrap(), 0, "it is closed");
    }
    assert!(begun.elapsed() < Duration::from_millis(limits::API_LET_IN_MS), "sooner than at the socket");
}

#[tokio::test(start_paused = true)]
async fn a_node_with_few_descriptors_has_places_at_both_doors() {
    let doors = Doors::new(0, true);
    let (come, _there) = connections(1);
    assert!(is_let_in(&all(&doors, Port(door(come)), 1).await[0]));
    let (come, _there) = connections(1);
    assert!(is_let_in(&all(&doors, door(come), 1).await[0]));
}
