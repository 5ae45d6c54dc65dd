//! Who is let in to the API, how many at a time, and what becomes of those for whom there is no place.
//!
//! Each connection takes one of the descriptors that a process may have, and a node whose descriptors are all taken could
//! neither reach peers nor go on with its logs. So there are as many places as it can spare. For one connection more there is
//! an answer that says so, a few at a time, and then it is closed; others wait to be accepted.
//!
//! Some places are kept for whoever looks after the node: they are given out last, at its socket only, for calls and for no
//! streams, and for a while only, however many others watch or say nothing. And nobody keeps any place of whom no call is let in.
//!
//! A port is open to every user of the machine, the socket only to the node's own. So connections over TCP have few places, which
//! are none of the socket's, and those that have shown no token yet have fewer still, for less time.
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

use crate::failure::Failed;
use crate::unread::{Page, PagePlaces};

/// How long a connection for which there is no place is listened to, so that it hears why.
const REFUSED_FOR: Duration = Duration::from_millis(500);
/// How long a connection has to read why its stream was refused, when it has a place that is kept for others.
const GOES_WITHIN: Duration = Duration::from_millis(50);
/// Pauses after an accept that failed, doubled as long as it does.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the log says what goes on at the doors.
const SAID_EVERY: Duration = Duration::from_secs(60);

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

/// What there is for those who come in by one door, which nobody takes from them who comes in by the other.
#[derive(Debug)]
struct Gate {
    max: usize,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    failed: Seldom,
    full: Seldom,
}

impl Gate {
    fn new(max: usize) -> Self {
        // One more: the listener waits for a connection that it may have to refuse.
        let refusals = Arc::new(Semaphore::new(limits::API_REFUSALS_MAX + 1));
        let (failed, full) = Default::default();
        Self { max, places: Arc::new(Semaphore::new(max)), refusals, failed, full }
    }

    fn open(&self) -> usize {
        self.max.saturating_sub(self.places.available_permits())
    }
}

#[derive(Debug)]
struct Places {
    /// Places for anybody at the socket.
    socket: Gate,
    /// Places over TCP.
    tcp: Gate,
    /// Of those, places for connections that have shown no token yet.
    strangers: Arc<Semaphore>,
    /// Places for streams that last: as many as there are for connections, but for those that are kept.
    lasting_max: usize,
    lasting: Arc<Semaphore>,
    /// Places at the socket that are kept.
    reserved: Arc<Semaphore>,
}

/// The places of the API, for both listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Doors(Arc<Places>);

impl Doors {
    /// So many places, within the limits that there are in any case; some of them over TCP, if it listens there.
    pub(crate) fn new(connections: usize, over_tcp: bool) -> Self {
        let max = connections.clamp(limits::API_CONNECTIONS_MIN, limits::API_CONNECTIONS_MAX);
        let tcp = if over_tcp { limits::API_TCP_CONNECTIONS_MAX.min(max / 4) } else { 0 };
        let lasting_max = max - limits::API_CONNECTIONS_RESERVED;
        Self(Arc::new(Places {
            socket: Gate::new(lasting_max - tcp),
            tcp: Gate::new(tcp),
            strangers: Arc::new(Semaphore::new(limits::API_TCP_STRANGERS_MAX)),
            lasting_max,
            lasting: Arc::new(Semaphore::new(lasting_max)),
            reserved: Arc::new(Semaphore::new(limits::API_CONNECTIONS_RESERVED)),
        }))
    }

    fn gate<D: Door>(&self) -> &Gate {
        if D::IS_TCP { &self.0.tcp } else { &self.0.socket }
    }

    /// A place for a stream that lasts, as a call asks for it; refused if there is none. A connection whose own place is kept
    /// for others gets none, and goes.
    pub(crate) fn lasting(&self, caller: Option<&LetIn>) -> Result<Lasting, Failed> {
        let Places { lasting, lasting_max, .. } = &*self.0;
        if let Some(LetIn { presence, .. }) = caller.filter(|caller| caller.presence.is_brief) {
            presence.goes.store(true, Ordering::Relaxed);
            return Err(Failed::only_calls(self.open()));
        }
        let place = Arc::clone(lasting).try_acquire_owned();
        place.map(Lasting).map_err(|_| Failed::too_many_streams(*lasting_max))
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
            let refusal = Arc::clone(&self.gate::<D>().refusals).acquire_owned().await.ok();
            match door.accepted().await {
                Ok(io) => return self.seat::<D>(io, refusal),
                Err(error) => {
                    drop(refusal);
                    if self.gate::<D>().failed.is_due() {
                        let open = self.open();
                        tracing::warn!(%error, open, "the API cannot accept a connection: it goes on with those it has");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// How many connections there are.
    fn open(&self) -> usize {
        let Places { socket, tcp, reserved, .. } = &*self.0;
        socket.open() + tcp.open() + limits::API_CONNECTIONS_RESERVED.saturating_sub(reserved.available_permits())
    }

    /// Gives a connection its place, or none.
    fn seat<D: Door>(&self, io: D::Io, refusal: Option<OwnedSemaphorePermit>) -> Guest<D::Io> {
        let seat = if D::IS_TCP { self.seat_over_tcp() } else { self.seat_at_socket() };
        if let Some((place, presence)) = seat {
            let within = if D::IS_TCP { limits::API_TCP_LET_IN_MS } else { limits::API_LET_IN_MS };
            let stay = Stay::UnlessLetIn(after(Duration::from_millis(within)));
            return Guest {
                io,
                refused: None,
                stay,
                presence: Arc::new(presence),
                ahead: Vec::new(),
                _place: Some(place),
            };
        }
        let open = if D::IS_TCP { self.0.tcp.open() } else { self.open() };
        if self.gate::<D>().full.is_due() {
            let over_tcp = D::IS_TCP;
            tracing::warn!(open, over_tcp, "the API has as many connections as it may: it refuses more");
        }
        let refused = Some(Refused { open, over_tcp: D::IS_TCP });
        Guest {
            io,
            refused,
            stay: Stay::Until(after(REFUSED_FOR)),
            presence: Arc::default(),
            ahead: Vec::new(),
            _place: refusal,
        }
    }
}

impl Doors {
    fn seat_at_socket(&self) -> Option<(OwnedSemaphorePermit, Presence)> {
        let ordinary = Arc::clone(&self.0.socket.places).try_acquire_owned().ok();
        let is_brief = ordinary.is_none();
        let place = ordinary.or_else(|| Arc::clone(&self.0.reserved).try_acquire_owned().ok())?;
        Some((place, Presence { is_brief, ..Presence::default() }))
    }

    fn seat_over_tcp(&self) -> Option<(OwnedSemaphorePermit, Presence)> {
        let stranger = Arc::clone(&self.0.strangers).try_acquire_owned().ok()?;
        let place = Arc::clone(&self.0.tcp.places).try_acquire_owned().ok()?;
        Some((place, Presence { stranger: Mutex::new(Some(stranger)), ..Presence::default() }))
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
    /// Whether it has shown that it knows the token, without telling it.
    proven: AtomicBool,
    /// Whether it is to go at once.
    goes: Arc<AtomicBool>,
    /// Its places for pages that wait to be read.
    pages: PagePlaces,
    /// Its place among those that have shown no token, until it has.
    stranger: Mutex<Option<OwnedSemaphorePermit>>,
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
            let soon = after(GOES_WITHIN);
            // Whoever asks again and again gains no time by it.
            if !matches!(self, Self::Until(at) if at.deadline() <= soon.deadline()) {
                *self = Self::Until(soon);
            }
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
    /// What was read ahead and is to be read again.
    ahead: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<Io> Guest<Io> {
    /// Has what was read of it first read again.
    pub(crate) fn unread(&mut self, first: &[u8]) {
        self.ahead.extend_from_slice(first);
    }

    /// It has shown that it knows the token, without telling it.
    pub(crate) fn has_proved(&self) {
        self.presence.proven.store(true, Ordering::Relaxed);
    }
}

/// What calls of a connection know of it.
#[derive(Clone, Debug)]
pub(crate) struct GuestInfo<Info> {
    /// Of the connection itself.
    pub(crate) of: Info,
    refused: Option<Refused>,
    presence: Arc<Presence>,
}

/// The connection of a call that was let in.
#[derive(Clone, Debug)]
pub(crate) struct LetIn {
    presence: Arc<Presence>,
    page: Page,
}

impl LetIn {
    /// What the answer to the call is written on, if it is a page.
    pub(crate) fn page(&self) -> &Page {
        &self.page
    }
}

impl<Info> GuestInfo<Info> {
    /// Whether it has shown that it knows the token, so that its calls need none.
    pub(crate) fn is_proven(&self) -> bool {
        self.presence.proven.load(Ordering::Relaxed)
    }

    /// Lets a call in, unless its connection has no place.
    pub(crate) fn let_in(&self) -> Result<LetIn, Failed> {
        if let Some(Refused { open, over_tcp }) = self.refused {
            return Err(Failed::too_many_connections(open, over_tcp));
        }
        self.presence.let_in.store(true, Ordering::Relaxed);
        drop(self.presence.stranger.lock().unwrap_or_else(PoisonError::into_inner).take());
        let page = Page::of(&self.presence.pages, &self.presence.goes);
        Ok(LetIn { presence: Arc::clone(&self.presence), page })
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
        if !guest.ahead.is_empty() {
            let count = guest.ahead.len().min(buffer.remaining());
            let again: Vec<u8> = guest.ahead.drain(..count).collect();
            buffer.put_slice(&again);
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
pub(crate) mod tests;
