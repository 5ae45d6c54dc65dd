//! Who is let in to the API, how many at a time, and what becomes of those for whom there is no place.
//!
//! Each connection takes one of the descriptors that a process may have, and a node whose descriptors are all taken could
//! neither reach peers nor go on with its logs. So there are as many places as it can spare. For one connection more there is
//! an answer that says so, a few at a time, and then it is closed; others wait to be accepted. Streams that last, and
//! connections over TCP, leave some places free: whoever looks after the node finds one at its socket.
//!
//! Accepting may fail all the same. Then it is tried again after a pause, and said seldom.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, stream};
use skep_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;
use tonic::transport::server::Connected;

use crate::failure::Failed;

/// How long a connection for which there is no place is listened to, so that it hears why.
const REFUSED_FOR: Duration = Duration::from_millis(500);
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
    max: usize,
    all: Arc<Semaphore>,
    over_tcp: Arc<Semaphore>,
    lasting_max: usize,
    lasting: Arc<Semaphore>,
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
        let lasting_max = max - limits::API_CONNECTIONS_RESERVED;
        Self(Arc::new(Places {
            max,
            all: Arc::new(Semaphore::new(max)),
            over_tcp: Arc::new(Semaphore::new(lasting_max)),
            lasting_max,
            lasting: Arc::new(Semaphore::new(lasting_max)),
            refusals: Arc::new(Semaphore::new(limits::API_REFUSALS_MAX + LISTENERS)),
            failed: Seldom::default(),
            full: Seldom::default(),
        }))
    }

    /// A place for a stream that lasts; refused if there is none.
    pub(crate) fn lasting(&self) -> Result<Lasting, Status> {
        let Places { lasting, lasting_max, .. } = &*self.0;
        let place = Arc::clone(lasting).try_acquire_owned();
        place.map(Lasting).map_err(|_| Failed::too_many_streams(*lasting_max).into_status())
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
        self.0.max.saturating_sub(self.0.all.available_permits())
    }

    /// Gives a connection its place, or none.
    fn seat<D: Door>(&self, io: D::Io, refusal: Option<OwnedSemaphorePermit>) -> Guest<D::Io> {
        let wanted = [Some(&self.0.all), D::IS_TCP.then_some(&self.0.over_tcp)].into_iter().flatten();
        let places: Option<Vec<_>> = wanted.map(|of| Arc::clone(of).try_acquire_owned().ok()).collect();
        if let Some(places) = places {
            return Guest { io, refused: None, leaves: None, _places: places };
        }
        let open = self.open();
        if self.0.full.is_due() {
            tracing::warn!(open, "the API has as many connections as it may: it refuses more");
        }
        let leaves = Some(Box::pin(tokio::time::sleep(REFUSED_FOR)));
        Guest { io, refused: Some(open), leaves, _places: refusal.into_iter().collect() }
    }
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

/// A connection, and the place that it has, or none.
#[derive(Debug)]
pub(crate) struct Guest<Io> {
    io: Io,
    /// How many had a place when there was none for it.
    refused: Option<usize>,
    /// When it is closed, if it has no place.
    leaves: Option<Pin<Box<Sleep>>>,
    _places: Vec<OwnedSemaphorePermit>,
}

/// What calls of a connection know of it.
#[derive(Clone, Debug)]
pub(crate) struct GuestInfo<Info> {
    /// Of the connection itself.
    pub(crate) of: Info,
    refused: Option<usize>,
}

impl<Info> GuestInfo<Info> {
    /// Refuses a call of a connection that has no place.
    pub(crate) fn check(&self) -> Result<(), Status> {
        self.refused.map_or(Ok(()), |open| Err(Failed::too_many_connections(open).into_status()))
    }
}

impl<Io: Connected> Connected for Guest<Io> {
    type ConnectInfo = GuestInfo<Io::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        GuestInfo { of: self.io.connect_info(), refused: self.refused }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Guest<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guest = self.get_mut();
        if let Some(leaves) = &mut guest.leaves
            && (leaves.is_elapsed() || leaves.as_mut().poll(cx).is_ready())
        {
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

    use tokio::io::{AsyncReadExt as _, DuplexStream};

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
        assert!(seated.iter().all(|guest| guest.connect_info().check().is_ok()));
        let mut refused = guests.next().await.unwrap().unwrap();
        let why = refused.connect_info().check().unwrap_err();
        assert!(why.message().contains(&format!("{max} are open")), "{why}");
        // It says nothing, and does not stay.
        assert_eq!(refused.read(&mut [0; 8]).await.unwrap(), 0);
        drop((seated.pop(), refused));
        let guest = guests.next().await.unwrap().unwrap();
        assert!(guest.connect_info().check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_last_leave_places_for_calls() {
        let doors = Doors::new(0);
        let most = limits::API_CONNECTIONS_MIN - limits::API_CONNECTIONS_RESERVED;
        let mut open: Vec<_> =
            (0..most).map(|_| Box::pin(doors.lasting().unwrap().around(stream::pending::<()>()))).collect();
        let why = doors.lasting().unwrap_err();
        assert!(why.message().contains(&format!("{most} are open")), "{why}");
        open.pop();
        assert!(doors.lasting().is_ok());
    }
}
