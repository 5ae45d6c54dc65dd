//! Who is let in to the API, how many at a time, and what becomes of those for whom there is no place.
//!
//! Each connection takes one of the descriptors that a process may have, and a node whose descriptors are all taken could
//! neither reach peers nor go on with its logs. So there are as many places as it can spare. For one connection more there is
//! an answer that says so, a few at a time, and then it is closed; others wait to be accepted.
//!
//! Some places are kept for whoever looks after the node: they are given out last, at its socket only, for calls and for no
//! streams, and for a while only, however many others watch or say nothing. And nobody keeps any place of whom no call is let in.
//!
//! Accepting may fail all the same. Then it is tried again after a pause, and said seldom.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, stream};
use skep_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::failure::Failed;

/// How long a connection for which there is no place is listened to, so that it hears why.
const REFUSED_FOR: Duration = Duration::from_millis(500);
/// How long a connection has to read why its stream was refused, when it has a place that is kept for others.
const GOES_WITHIN: Duration = Duration::from_millis(50);
/// Pauses after an accept that failed, doubled as long as it does.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the log says what goes on at the doors.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How many listeners there are, each of which waits for a connection that it may have to refuse.
const LISTENERS: usize = 2;

/// Something that the log is to say seldom.
#[derive(Debug, Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it was not said for long; it is said then.
    fn is_due(&self) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|at| at.elapsed() >= SAID_EVERY);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}

#[derive(Debug)]
struct Places {
    /// Places for anybody, and as many for streams that last.
    ordinary_max: usize,
    ordinary: Arc<Semaphore>,
    lasting: Arc<Semaphore>,
    /// Those that are kept.
    reserved: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    failed: Seldom,
    full: Seldom,
}

/// The places of the API, for both listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Doors(Arc<Places>);

impl Doors {
    /// So many places, within the limits that there are in any case.
    pub(crate) fn new(connections: usize) -> Self {
        let max = connections.clamp(limits::API_CONNECTIONS_MIN, limits::API_CONNECTIONS_MAX);
        let ordinary_max = max - limits::API_CONNECTIONS_RESERVED;
        Self(Arc::new(Places {
            ordinary_max,
            ordinary: Arc::new(Semaphore::new(ordinary_max)),
            lasting: Arc::new(Semaphore::new(ordinary_max)),
            reserved: Arc::new(Semaphore::new(limits::API_CONNECTIONS_RESERVED)),
            refusals: Arc::new(Semaphore::new(limits::API_REFUSALS_MAX + LISTENERS)),
            failed: Seldom::default(),
            full: Seldom::default(),
        }))
    }

    /// A place for a stream that lasts, as a call asks for it; refused if there is none. A connection whose own place is kept
    /// for others gets none, and goes.
    pub(crate) fn lasting<T>(&self, request: &Request<T>) -> Result<Lasting, Status> {
        let Places { lasting, ordinary_max, .. } = &*self.0;
        if let Some(Caller(presence)) = request.extensions().get::<Caller>().filter(|caller| caller.0.is_brief) {
            presence.goes.store(true, Ordering::Relaxed);
            return Err(Failed::only_calls(self.open()).into_status());
        }
        let place = Arc::clone(lasting).try_acquire_owned();
        place.map(Lasting).map_err(|_| Failed::too_many_streams(*ordinary_max).into_status())
    }

    /// Those who come in by a door, one after another.
    pub(crate) fn guests<D: Door>(&self, door: D) -> impl Stream<Item = io::Result<Guest<D::Io>>> + use<D> {
        stream::unfold((self.clone(), door), |(doors, door)| async move {
            let guest = doors.next(&door).await;
            Some((Ok(guest), (doors, door)))
        })
    }

    async fn next<D: Door>(&self, door: &D) -> Guest<D::Io> {
        let mut pause = PAUSE_MIN;
        loop {
            // In case there is no place for it. It is never closed.
            let refusal = Arc::clone(&self.0.refusals).acquire_owned().await.ok();
            match door.accepted().await {
                Ok(io) => return self.seat::<D>(io, refusal),
                Err(error) => {
                    drop(refusal);
                    if self.0.failed.is_due() {
                        let open = self.open();
                        tracing::warn!(%error, open, "the API cannot accept a connection: it goes on with those it has");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn open(&self) -> usize {
        let Places { ordinary_max, ordinary, reserved, .. } = &*self.0;
        let max = ordinary_max + limits::API_CONNECTIONS_RESERVED;
        max.saturating_sub(ordinary.available_permits() + reserved.available_permits())
    }

    /// Gives a connection its place, or none.
    fn seat<D: Door>(&self, io: D::Io, refusal: Option<OwnedSemaphorePermit>) -> Guest<D::Io> {
        let ordinary = Arc::clone(&self.0.ordinary).try_acquire_owned().ok();
        let is_brief = ordinary.is_none();
        let kept = || if D::IS_TCP { None } else { Arc::clone(&self.0.reserved).try_acquire_owned().ok() };
        if let Some(place) = ordinary.or_else(kept) {
            let presence = Arc::new(Presence { is_brief, ..Presence::default() });
            let stay = Stay::UnlessLetIn(after(Duration::from_millis(limits::API_LET_IN_MS)));
            return Guest { io, refused: None, stay, presence, _place: Some(place) };
        }
        let open = self.open();
        if self.0.full.is_due() {
            tracing::warn!(open, "the API has as many connections as it may: it refuses more");
        }
        let refused = Some(Refused { open, over_tcp: D::IS_TCP });
        Guest { io, refused, stay: Stay::Until(after(REFUSED_FOR)), presence: Arc::default(), _place: refusal }
    }
}

fn after(time: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(time))
}

/// The place of a stream that lasts.
#[derive(Debug)]
pub(crate) struct Lasting(OwnedSemaphorePermit);

impl Lasting {
    /// A stream that has the place for as long as it lasts.
    pub(crate) fn around<S: Stream>(self, stream: S) -> impl Stream<Item = S::Item> {
        stream.map(move |item| {
            let Self(_held) = &self;
            item
        })
    }
}

/// Where connections come in.
pub(crate) trait Door: Send + Sync {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;
    /// Whether it is not the socket of the node's own user.
    const IS_TCP: bool;

    /// The next one.
    fn accepted(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Door for UnixListener {
    type Io = UnixStream;
    const IS_TCP: bool = false;

    async fn accepted(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Door for TcpListener {
    type Io = TcpStream;
    const IS_TCP: bool = true;

    async fn accepted(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small messages of a connection may be late");
        }
        Ok(stream)
    }
}

/// A connection, as its calls and whoever reads of it know it.
#[derive(Debug, Default)]
struct Presence {
    /// Whether its place is kept for those who soon go.
    is_brief: bool,
    /// Whether a call of it was let in.
    let_in: AtomicBool,
    /// Whether it is to go at once.
    goes: AtomicBool,
}

/// Until when a connection may stay.
#[derive(Debug)]
enum Stay {
    /// As long as it likes.
    Open,
    /// Until then, unless a call of it is let in before.
    UnlessLetIn(Pin<Box<Sleep>>),
    /// Until then.
    Until(Pin<Box<Sleep>>),
}

impl Stay {
    /// Whether the time has come.
    fn is_over(&mut self, presence: &Presence, cx: &mut Context<'_>) -> bool {
        if presence.goes.swap(false, Ordering::Relaxed) {
            *self = Self::Until(after(GOES_WITHIN));
        } else if matches!(self, Self::UnlessLetIn(_)) && presence.let_in.load(Ordering::Relaxed) {
            let brief = presence.is_brief.then(|| after(Duration::from_millis(limits::API_RESERVED_MS)));
            *self = brief.map_or(Self::Open, Self::Until);
        }
        match self {
            Self::Open => false,
            Self::UnlessLetIn(at) | Self::Until(at) => at.is_elapsed() || at.as_mut().poll(cx).is_ready(),
        }
    }
}

/// How many connections there were when there was no place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    open: usize,
    over_tcp: bool,
}

/// A connection, and the place that it has, or none.
#[derive(Debug)]
pub(crate) struct Guest<Io> {
    io: Io,
    /// Why it has no place.
    refused: Option<Refused>,
    stay: Stay,
    presence: Arc<Presence>,
    _place: Option<OwnedSemaphorePermit>,
}

/// What calls of a connection know of it.
#[derive(Clone, Debug)]
pub(crate) struct GuestInfo<Info> {
    /// Of the connection itself.
    pub(crate) of: Info,
    refused: Option<Refused>,
    presence: Arc<Presence>,
}

/// Whose call it is that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Presence>);

impl<Info> GuestInfo<Info> {
    /// Lets a call in, unless its connection has no place.
    pub(crate) fn let_in(&self) -> Result<Caller, Status> {
        if let Some(Refused { open, over_tcp }) = self.refused {
            return Err(Failed::too_many_connections(open, over_tcp).into_status());
        }
        self.presence.let_in.store(true, Ordering::Relaxed);
        Ok(Caller(Arc::clone(&self.presence)))
    }
}

impl<Io: Connected> Connected for Guest<Io> {
    type ConnectInfo = GuestInfo<Io::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        GuestInfo { of: self.io.connect_info(), refused: self.refused, presence: Arc::clone(&self.presence) }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Guest<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guest = self.get_mut();
        if guest.stay.is_over(&guest.presence, cx) {
            // Nothing more is read of it: that closes it.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut guest.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Guest<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// A door at which these things happen, one after another; then nobody comes any more.
    struct Scripted(Mutex<VecDeque<io::Result<DuplexStream>>>);

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

    fn door(happens: impl IntoIterator<Item = io::Result<DuplexStream>>) -> Scripted {
        Scripted(Mutex::new(happens.into_iter().collect()))
    }

    fn connections(count: usize) -> (Vec<io::Result<DuplexStream>>, Vec<DuplexStream>) {
        (0..count).map(|_| tokio::io::duplex(64)).map(|(here, there)| (Ok(here), there)).unzip()
    }

    #[tokio::test(start_paused = true)]
    async fn an_accept_that_fails_is_tried_again_after_longer_and_longer_pauses() {
        let (come, _there) = connections(1);
        let fail = || Err(io::Error::from_raw_os_error(24));
        let doors = Doors::new(10);
        let begun = tokio::time::Instant::now();
        let mut guests = Box::pin(doors.guests(door((0..20).map(|_| fail()).chain(come))));
        let guest = guests.next().await.unwrap().unwrap();
        assert_eq!(guest.refused, None);
        // The pauses are doubled until each is a second.
        let took = begun.elapsed();
        assert!(took > PAUSE_MAX * 12 && took < PAUSE_MAX * 20, "{took:?} of virtual time");
    }

    /// As many of those who come as there are, one after another.
    async fn all<D: Door>(doors: &Doors, door: D, count: usize) -> Vec<Guest<D::Io>> {
        doors.guests(door).take(count).map(Result::unwrap).collect().await
    }

    fn is_let_in(guest: &Guest<DuplexStream>) -> bool {
        guest.connect_info().let_in().is_ok()
    }

    /// A call of a connection, for something that lasts.
    fn call(guest: &Guest<DuplexStream>) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(guest.connect_info().let_in().unwrap());
        request
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_too_many_is_told_so_and_closed_and_its_place_is_anothers_then() {
        let max = limits::API_CONNECTIONS_MIN;
        let (come, _there) = connections(max + 2);
        let doors = Doors::new(max);
        let mut guests = Box::pin(doors.guests(door(come)));
        let mut seated = Vec::new();
        for _ in 0..max {
            seated.push(guests.next().await.unwrap().unwrap());
        }
        assert!(seated.iter().all(is_let_in));
        let mut refused = guests.next().await.unwrap().unwrap();
        let why = refused.connect_info().let_in().unwrap_err();
        assert!(why.message().contains(&format!("{max} are open")), "{why}");
        // It says nothing, and does not stay.
        assert_eq!(refused.read(&mut [0; 8]).await.unwrap(), 0);
        drop((seated.pop(), refused));
        let guest = guests.next().await.unwrap().unwrap();
        assert!(is_let_in(&guest));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_stay_leave_the_operator_a_way_in() {
        let max = limits::API_CONNECTIONS_MIN;
        let (come, mut there) = connections(max);
        let doors = Doors::new(max);
        let mut seated = all(&doors, door(come), max).await;
        assert!(seated.iter().all(is_let_in));
        // What is kept for others is theirs after a while; whoever has an ordinary place keeps it.
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
        let doors = Doors::new(0);
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
        let doors = Doors::new(0);
        let most = limits::API_CONNECTIONS_MIN - limits::API_CONNECTIONS_RESERVED;
        let lasting = || doors.lasting(&Request::new(()));
        let mut open: Vec<_> =
            (0..most).map(|_| Box::pin(lasting().unwrap().around(stream::pending::<()>()))).collect();
        let why = lasting().unwrap_err();
        assert!(why.message().contains(&format!("{most} are open")), "{why}");
        open.pop();
        assert!(lasting().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_finds_no_place_on_a_connection_that_is_to_go_soon() {
        let max = limits::API_CONNECTIONS_MIN;
        let (come, _there) = connections(max);
        let doors = Doors::new(max);
        let mut seated = all(&doors, door(come), max).await;
        assert!(doors.lasting(&call(&seated[0])).is_ok());
        let last = seated.last_mut().unwrap();
        let why = doors.lasting(&call(last)).unwrap_err();
        assert!(why.message().contains("SKEP-0010") && why.message().contains(&format!("{max} are open")), "{why}");
        let refused = tokio::time::Instant::now();
        assert_eq!(last.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(refused.elapsed() < Duration::from_millis(limits::API_RESERVED_MS), "it goes at once");
    }
}
