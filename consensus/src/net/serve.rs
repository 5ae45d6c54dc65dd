//! Answering the calls of peers.
//!
//! A stream may rest for as long as its connection lives. But whoever opens one has something to ask, what was begun is
//! finished, and what is answered is read, each in the time that its bytes take on the slowest link, and [`FRAME_PATIENCE`]:
//! or the stream is closed, so that neither its place nor those of its calls are kept. The peer opens another.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::frame::{FrameKind, HEADER_BYTES, Header};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::budget::{AnswerRoom, Budget, Held, Waits};
use super::calls::{Begun, Class, begin_frame, frame};
use super::peers::{Peer, Peers};
use crate::threads::Threads;

/// How long a frame may take, beside the time for its bytes at 64 kbit/s: long enough for what is more urgent to go first on a
/// link that is thin and far away. A peer that takes longer is stuck, and not slow.
const FRAME_PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing may come of a body that has begun, on a quick link, while others wait for the room that is held for it.
const STALL_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that are read at a time of what is not kept.
const PASSED_OVER_AT_ONCE: usize = 16 * 1024;
/// Why a stream was closed, for its peer: its answers were not read.
const UNREAD: quinn::VarInt = quinn::VarInt::from_u32(1);

/// What is wrong with a frame of which no more comes.
const CUT_SHORT: &str = "the stream ended within a frame";

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) node: NodeId,
    pub(crate) raft_id: RaftId,
}

/// The answer to a call, or the reason why there is none.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;
/// Whether a call is read, or the reason why it is not.
pub(crate) type Judgement = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The class of the streams on which calls of a kind go.
pub(crate) type ClassOf = fn(FrameKind) -> Class;

/// Answers calls. Implemented by the service that owns the shards.
pub(crate) trait Dispatch: Send + Sync + 'static {
    /// Judges a call by its header, before anything of it is kept.
    fn admit(&self, _who: Who, _header: Header) -> Judgement {
        Box::pin(std::future::ready(Ok(())))
    }

    /// How many bytes the answer to a call may have, if it may be large and room for it is taken before the call is answered, and
    /// what it waits for.
    fn large_answer(&self, _header: Header, _body: &[u8]) -> Option<(usize, Waits)> {
        None
    }

    /// Answers a call. One that waits until there is something to tell takes room then.
    fn call(&self, who: Who, header: Header, body: Bytes, room: AnswerRoom) -> Answer;
}

/// Accepts the streams of a connection until it ends; the reason why it did. To be called on the control thread: Raft's
/// streams stay there.
pub(super) async fn serve(
    peer: Arc<Peer>,
    peers: Peers,
    (dispatch, class_of): (Arc<dyn Dispatch>, ClassOf),
    threads: Threads,
) -> String {
    let Some(connection) = peer.link.connection().cloned() else { return "it accepts nothing".to_owned() };
    let budget = Budget::new(peers.budget.clone());
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => {
                let (peer, dispatch) = (Arc::clone(&peer), Arc::clone(&dispatch));
                let (peers, threads, budget) = (peers.clone(), threads.clone(), budget.clone());
                let served = Served { peer, peers, dispatch, class_of, threads, budget };
                tokio::spawn(sort(served, send, receive));
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// What answers the calls of one stream.
struct Served {
    peer: Arc<Peer>,
    peers: Peers,
    dispatch: Arc<dyn Dispatch>,
    class_of: ClassOf,
    threads: Threads,
    budget: Budget,
}

/// A call that came.
struct Came {
    header: Header,
    /// What it asks; or why it is not read.
    body: Result<(Bytes, Held), String>,
}

/// Why a frame did not come, or go.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// The stream is broken, or what came is no frame.
    Broken(String),
    /// It was not there after so long.
    TooSlow(Duration),
}

/// What is done on a stream in time.
async fn within<T>(patience: Duration, done: impl Future<Output = Result<T, String>>) -> Result<T, Cut> {
    match tokio::time::timeout(patience, done).await {
        Ok(done) => done.map_err(Cut::Broken),
        Err(_) => Err(Cut::TooSlow(patience)),
    }
}

/// Reads the rest of the header of a frame that has begun. `patience`: for so many bytes.
async fn rest_of_header(
    begun: Begun,
    receive: &mut (impl AsyncRead + Unpin),
    patience: impl Fn(usize) -> Duration,
) -> Result<Header, Cut> {
    within(patience(HEADER_BYTES), begun.header(receive)).await
}

/// Reads the body of a frame. Nothing of it may come for so long while others wait for its room.
async fn body_of(
    header: &Header,
    receive: &mut (impl AsyncRead + Unpin),
    patience: impl Fn(usize) -> Duration,
    (stall_patience, is_waited_for): (Duration, impl Fn() -> bool),
) -> Result<Bytes, Cut> {
    let bytes = header.body_bytes as usize;
    let read = async {
        let (mut body, mut there) = (vec![0_u8; bytes], 0_usize);
        while let Some(left) = body.get_mut(there..).filter(|left| !left.is_empty()) {
            match tokio::time::timeout(stall_patience, receive.read(left)).await {
                Ok(Ok(0)) => return Err(Cut::Broken(CUT_SHORT.to_owned())),
                Ok(Ok(read)) => there += read,
                Ok(Err(error)) => return Err(Cut::Broken(error.to_string())),
                Err(_) if is_waited_for() => return Err(Cut::TooSlow(stall_patience)),
                Err(_) => {}
            }
        }
        Ok(Bytes::from(body))
    };
    let patience = patience(bytes);
    tokio::time::timeout(patience, read).await.unwrap_or(Err(Cut::TooSlow(patience)))
}

/// Reads the body of a frame and keeps nothing of it.
async fn pass_over(
    header: &Header,
    receive: &mut (impl AsyncRead + Unpin),
    patience: impl Fn(usize) -> Duration,
) -> Result<(), Cut> {
    let bytes = header.body_bytes as usize;
    let pass = async {
        let (mut left, mut some) = (bytes, vec![0; bytes.min(PASSED_OVER_AT_ONCE)]);
        while left > 0 {
            let wanted = left.min(some.len());
            let Some(part) = some.get_mut(..wanted) else { break };
            match receive.read(part).await {
                Ok(0) => return Err(CUT_SHORT.to_owned()),
                Ok(read) => left -= read,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    };
    within(patience(bytes), pass).await
}

/// An answer to be written, and what it holds until then.
type Written = (Vec<u8>, Holds);

/// What an answer holds until it is written: the place of its call, and its bytes if it may be large.
#[derive(Debug, Default)]
struct Holds {
    _place: Option<OwnedSemaphorePermit>,
    _large: Option<Held>,
    _room: AnswerRoom,
}

/// Writes answers until there are no more. `patience`: for so many bytes.
async fn write_all_of(
    answers: &mut mpsc::Receiver<Written>,
    send: &mut (impl AsyncWrite + Unpin),
    patience: impl Fn(usize) -> Duration,
) -> Result<(), Cut> {
    // Its place, and what it holds, are given back once it is written.
    while let Some((answer, _held)) = answers.recv().await {
        let write = async { send.write_all(&answer).await.map_err(|e| e.to_string()) };
        within(patience(answer.len()), write).await?;
    }
    Ok(())
}

impl Served {
    /// The first frame of a stream; none as for [`next`](Self::next).
    async fn first(&self, receive: &mut quinn::RecvStream) -> Option<Came> {
        let begun = within(self.peer.patience(FRAME_PATIENCE, HEADER_BYTES), begin_frame(receive)).await;
        self.rest(begun, receive).await
    }

    /// The next frame; none at the end of the stream, if it does not come in time, and if it is malformed: then the connection
    /// is closed.
    async fn next(&self, receive: &mut quinn::RecvStream) -> Option<Came> {
        let begun = begin_frame(receive).await.map_err(Cut::Broken);
        self.rest(begun, receive).await
    }

    async fn rest(&self, begun: Result<Option<Begun>, Cut>, receive: &mut quinn::RecvStream) -> Option<Came> {
        let read = match begun {
            Ok(Some(begun)) => self.read(begun, receive).await,
            Ok(None) => return None,
            Err(cut) => Err(cut),
        };
        match read {
            Ok(came) => return Some(came),
            Err(_) if !self.peer.link.is_open() => {}
            Err(Cut::Broken(error)) => {
                if let Some(more) = self.peers.malformed.happened() {
                    tracing::warn!(peer = %self.peer.node, %error, more, "a malformed frame; the connection is closed");
                }
                self.peer.link.close(2, error.as_bytes());
            }
            Err(Cut::TooSlow(patience)) => {
                tracing::warn!(peer = %self.peer.node, ?patience, "a frame has not come in time; its stream is closed");
            }
        }
        None
    }

    /// Reads a frame that has begun: judged by its header, and once there is room for it.
    async fn read(&self, begun: Begun, receive: &mut quinn::RecvStream) -> Result<Came, Cut> {
        let patience = |bytes| self.peer.patience(FRAME_PATIENCE, bytes);
        let header = rest_of_header(begun, receive, patience).await?;
        let body = match self.dispatch.admit(self.who(), header).await {
            Ok(()) => {
                let of = (header.kind, (self.class_of)(header.kind));
                let held = self.budget.call(header.body_bytes as usize, of).await;
                let stalls = (self.peer.patience(STALL_PATIENCE, 0), || held.is_waited_for());
                let body = body_of(&header, receive, patience, stalls).await?;
                Ok((body, held))
            }
            Err(why) => {
                pass_over(&header, receive, patience).await?;
                Err(why)
            }
        };
        Ok(Came { header, body })
    }

    fn who(&self) -> Who {
        Who { node: self.peer.node, raft_id: self.peer.raft_id() }
    }
}

/// Writes the answers of one stream, until there are no more or nobody reads them.
async fn write_answers(peer: Arc<Peer>, mut answers: mpsc::Receiver<Written>, mut send: quinn::SendStream) {
    let patience = |bytes| peer.patience(FRAME_PATIENCE, bytes);
    match write_all_of(&mut answers, &mut send, patience).await {
        Ok(()) => _ = send.finish(),
        Err(Cut::Broken(_)) => {}
        Err(Cut::TooSlow(patience)) => {
            tracing::warn!(peer = %peer.node, ?patience, "answers are not read; their stream is closed");
            let _ = send.reset(UNREAD);
        }
    }
}

/// Has a stream served where its class belongs, as its first frame says.
async fn sort(served: Served, send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let Some(first) = served.first(&mut receive).await else { return };
    let runtime = (served.class_of)(first.header.kind).runtime(&served.threads).clone();
    runtime.spawn(serve_stream(served, first, send, receive));
}

async fn serve_stream(served: Served, first: Came, send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let (frames, queue) = mpsc::channel(limits::CALLS_IN_FLIGHT_MAX);
    let in_flight = Arc::new(Semaphore::new(limits::CALLS_IN_FLIGHT_MAX));
    // Answers are as urgent as their calls.
    let _ = send.set_priority((served.class_of)(first.header.kind).priority());
    tokio::spawn(write_answers(Arc::clone(&served.peer), queue, send));
    let (served, mut next) = (Arc::new(served), Some(first));
    loop {
        let next = match next.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                next = served.next(&mut receive) => next,
                // Nobody hears what else is asked on it.
                () = frames.closed() => None,
            },
        };
        let Some(came) = next else { return };
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        // A frame on a stream of another class is answered where its own belongs.
        let runtime = (served.class_of)(came.header.kind).runtime(&served.threads);
        runtime.spawn(answer(Arc::clone(&served), came, frames.clone(), permit));
    }
}

/// Answers one call. What it waits for keeps no other call of its stream waiting.
async fn answer(served: Arc<Served>, came: Came, frames: mpsc::Sender<Written>, place: OwnedSemaphorePermit) {
    let (header, room) = (came.header, AnswerRoom::within(&served.budget));
    let mut holds = Holds { _place: Some(place), _large: None, _room: room.clone() };
    let (kind, answer) = match came.body {
        Ok((body, held)) => {
            // Where nobody reads what was asked, nothing more is made.
            if let Some((bytes, waits)) = served.dispatch.large_answer(header, &body) {
                holds._large = Some(served.budget.answer(bytes, waits).await);
            }
            let answer = served.dispatch.call(served.who(), header, body, room).await;
            drop(held);
            answer.map_or_else(|why| (FrameKind::Refused, why.into_bytes()), |answer| (FrameKind::Reply, answer))
        }
        Err(why) => (FrameKind::Refused, why.into_bytes()),
    };
    let clock = served.peers.clocks().known(header.shard).and_then(|clock| clock.for_frames());
    let _ = frames.send((frame(kind, header.shard, clock, header.call, &answer), holds)).await;
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::ShardId;

    use super::super::pace::Pace;
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(1_200);

    fn patience(bytes: usize) -> Duration {
        Pace::default().patience(FRAME_PATIENCE, ROUND_TRIP, bytes)
    }

    /// Reads a frame of which so much has come, and after that nothing.
    async fn read(bytes: &[u8]) -> Result<(Header, Bytes), Cut> {
        let (mut peer, mut receive) = tokio::io::duplex(bytes.len());
        peer.write_all(bytes).await.unwrap();
        let begun = begin_frame(&mut receive).await.unwrap().unwrap();
        let read = rest(begun, &mut receive).await;
        drop(peer);
        read
    }

    /// Reads the rest of a frame that has begun.
    async fn rest(begun: Begun, receive: &mut tokio::io::DuplexStream) -> Result<(Header, Bytes), Cut> {
        let header = rest_of_header(begun, receive, patience).await?;
        let body = body_of(&header, receive, patience, (STALL_PATIENCE, || false)).await?;
        Ok((header, body))
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_is_begun_and_does_not_go_on_is_not_waited_for_for_ever() {
        let whole = frame(FrameKind::Query, ShardId::FIRST, None, 7, &[5; 1_000]);
        let (header, body) = read(&whole).await.unwrap();
        assert_eq!((header.kind, header.call, body.as_ref()), (FrameKind::Query, 7, [5; 1_000].as_slice()));
        for cut in [1, HEADER_BYTES - 1] {
            assert_eq!(read(&whole[..cut]).await, Err(Cut::TooSlow(patience(HEADER_BYTES))), "cut to {cut}");
        }
        for cut in [HEADER_BYTES, whole.len() - 1] {
            assert_eq!(read(&whole[..cut]).await, Err(Cut::TooSlow(patience(1_000))), "cut to {cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up_soon_while_others_wait_for_its_room_and_a_slow_one_is_not() {
        let body = [5; 1_000];
        let whole = frame(FrameKind::Query, ShardId::FIRST, None, 7, &body);
        for comes in [false, true] {
            let (mut peer, mut receive) = tokio::io::duplex(whole.len());
            peer.write_all(&whole[..HEADER_BYTES]).await.unwrap();
            let header = begin_frame(&mut receive).await.unwrap().unwrap().header(&mut receive).await.unwrap();
            let read = body_of(&header, &mut receive, patience, (STALL_PATIENCE, || true));
            let write = async {
                for part in body.chunks(250).filter(|_| comes) {
                    tokio::time::sleep(STALL_PATIENCE / 2).await;
                    peer.write_all(part).await.unwrap();
                }
            };
            let (read, ()) = tokio::join!(read, write);
            match comes {
                true => assert_eq!(read.unwrap().as_ref(), body),
                false => assert_eq!(read, Err(Cut::TooSlow(STALL_PATIENCE))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_kept_is_read_to_its_end_and_what_comes_behind_it_is_a_frame_again() {
        let bytes = 3 * PASSED_OVER_AT_ONCE + 7;
        let (mut peer, mut receive) = tokio::io::duplex(bytes + HEADER_BYTES);
        let header =
            Header { kind: FrameKind::Append, shard: ShardId::FIRST, clock: None, call: 1, body_bytes: bytes as u32 };
        peer.write_all(&vec![5; bytes]).await.unwrap();
        peer.write_all(&frame(FrameKind::Query, ShardId::FIRST, None, 2, &[])).await.unwrap();
        pass_over(&header, &mut receive, patience).await.unwrap();
        let begun = begin_frame(&mut receive).await.unwrap().unwrap();
        assert_eq!(rest_of_header(begun, &mut receive, patience).await.unwrap().call, 2);
        drop(peer);
        assert!(matches!(pass_over(&header, &mut receive, patience).await, Err(Cut::Broken(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_reads_are_not_kept_for_ever() {
        let (mut peer, mut send) = tokio::io::duplex(64);
        let (answers, mut queue) = mpsc::channel(4);
        answers.send((vec![1; 64], Holds::default())).await.unwrap();
        answers.send((vec![2; 65], Holds::default())).await.unwrap();
        let written = write_all_of(&mut queue, &mut send, patience).await;
        assert_eq!(written, Err(Cut::TooSlow(patience(65))), "the first found room on its way");
        let mut came = [0; 64];
        tokio::io::AsyncReadExt::read_exact(&mut peer, &mut came).await.unwrap();
        assert_eq!(came, [1; 64]);
    }

    #[test]
    fn a_link_of_256_kbit_a_second_that_takes_600_ms_one_way_has_the_time_that_it_needs() {
        const BYTES_PER_S: f64 = 32.0 * 1024.0;
        for bytes in [HEADER_BYTES, limits::SNAPSHOT_CHUNK_BYTES_MAX, limits::FRAME_BYTES_MAX] {
            let needs = ROUND_TRIP + Duration::from_secs_f64(bytes as f64 / BYTES_PER_S);
            assert!(patience(bytes) >= 2 * needs, "{bytes} bytes need {needs:?}");
        }
    }
}
