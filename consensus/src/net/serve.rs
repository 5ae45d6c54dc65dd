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
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};

use super::calls::{Begun, Class, begin_frame, frame, read_body};
use super::peers::{Peer, Peers};
use crate::threads::Threads;

/// How long a frame may take, beside the time for its bytes at 64 kbit/s: long enough for what is more urgent to go first on a
/// link that is thin and far away. A peer that takes longer is stuck, and not slow.
const FRAME_PATIENCE: Duration = Duration::from_secs(60);
/// Why a stream was closed, for its peer: its answers were not read.
const UNREAD: quinn::VarInt = quinn::VarInt::from_u32(1);

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) node: NodeId,
    pub(crate) raft_id: RaftId,
}

/// The answer to a call, or the reason why there is none.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Answers calls. Implemented by the service that owns the shards.
pub(crate) trait Dispatch: Send + Sync + 'static {
    /// Answers a call.
    fn call(&self, who: Who, header: Header, body: Bytes) -> Answer;
}

/// Accepts the streams of a connection until it ends; the reason why it did. To be called on the control thread: Raft's
/// streams stay there.
pub(super) async fn serve(peer: Arc<Peer>, peers: Peers, dispatch: Arc<dyn Dispatch>, threads: Threads) -> String {
    let Some(connection) = peer.link.connection().cloned() else { return "it accepts nothing".to_owned() };
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => {
                let (peer, dispatch) = (Arc::clone(&peer), Arc::clone(&dispatch));
                let served = Served { peer, peers: peers.clone(), dispatch, threads: threads.clone() };
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
    threads: Threads,
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

/// Reads the rest of a frame that has begun. `patience`: for so many bytes.
async fn read_rest(
    begun: Begun,
    receive: &mut (impl AsyncRead + Unpin),
    patience: impl Fn(usize) -> Duration,
) -> Result<(Header, Bytes), Cut> {
    let header = within(patience(HEADER_BYTES), begun.header(receive)).await?;
    let body = within(patience(header.body_bytes as usize), read_body(receive, &header)).await?;
    Ok((header, body))
}

/// Writes answers until there are no more. `patience`: for so many bytes.
async fn write_all_of(
    answers: &mut mpsc::Receiver<Vec<u8>>,
    send: &mut (impl AsyncWrite + Unpin),
    patience: impl Fn(usize) -> Duration,
) -> Result<(), Cut> {
    while let Some(answer) = answers.recv().await {
        let write = async { send.write_all(&answer).await.map_err(|e| e.to_string()) };
        within(patience(answer.len()), write).await?;
    }
    Ok(())
}

impl Served {
    /// The first frame of a stream; none as for [`next`](Self::next).
    async fn first(&self, receive: &mut quinn::RecvStream) -> Option<(Header, Bytes)> {
        let begun = within(self.peer.patience(FRAME_PATIENCE, HEADER_BYTES), begin_frame(receive)).await;
        self.rest(begun, receive).await
    }

    /// The next frame; none at the end of the stream, if it does not come in time, and if it is malformed: then the connection
    /// is closed.
    async fn next(&self, receive: &mut quinn::RecvStream) -> Option<(Header, Bytes)> {
        let begun = begin_frame(receive).await.map_err(Cut::Broken);
        self.rest(begun, receive).await
    }

    async fn rest(
        &self,
        begun: Result<Option<Begun>, Cut>,
        receive: &mut quinn::RecvStream,
    ) -> Option<(Header, Bytes)> {
        let read = match begun {
            Ok(Some(begun)) => read_rest(begun, receive, |bytes| self.peer.patience(FRAME_PATIENCE, bytes)).await,
            Ok(None) => return None,
            Err(cut) => Err(cut),
        };
        match read {
            Ok(frame) => return Some(frame),
            Err(_) if !self.peer.link.is_open() => {}
            Err(Cut::Broken(error)) => {
                tracing::warn!(peer = %self.peer.node, %error, "a malformed frame; the connection is closed");
                self.peer.link.close(2, error.as_bytes());
            }
            Err(Cut::TooSlow(patience)) => {
                tracing::warn!(peer = %self.peer.node, ?patience, "a frame has not come in time; its stream is closed");
            }
        }
        None
    }
}

/// Writes the answers of one stream, until there are no more or nobody reads them.
async fn write_answers(peer: Arc<Peer>, mut answers: mpsc::Receiver<Vec<u8>>, mut send: quinn::SendStream) {
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
    let runtime = class_of(first.0.kind).runtime(&served.threads).clone();
    runtime.spawn(serve_stream(served, first, send, receive));
}

async fn serve_stream(served: Served, first: (Header, Bytes), send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let who = Who { node: served.peer.node, raft_id: served.peer.raft_id() };
    let (frames, queue) = mpsc::channel(limits::CALLS_IN_FLIGHT_MAX);
    let in_flight = Arc::new(Semaphore::new(limits::CALLS_IN_FLIGHT_MAX));
    // Answers are as urgent as their calls.
    let _ = send.set_priority(class_of(first.0.kind).priority());
    tokio::spawn(write_answers(Arc::clone(&served.peer), queue, send));
    let mut next = Some(first);
    loop {
        let next = match next.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                next = served.next(&mut receive) => next,
                // Nobody hears what else is asked on it.
                () = frames.closed() => None,
            },
        };
        let Some((header, body)) = next else { return };
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let (frames, dispatch, peers) = (frames.clone(), Arc::clone(&served.dispatch), served.peers.clone());
        // A frame on a stream of another class is answered where its own belongs.
        class_of(header.kind).runtime(&served.threads).spawn(async move {
            let (kind, answer) = match dispatch.call(who, header, body).await {
                Ok(answer) => (FrameKind::Reply, answer),
                Err(why) => (FrameKind::Refused, why.into_bytes()),
            };
            let clock = peers.clocks().known(header.shard).and_then(|clock| clock.for_frames());
            let _ = frames.send(frame(kind, header.shard, clock, header.call, &answer)).await;
            drop(permit);
        });
    }
}

fn class_of(kind: FrameKind) -> Class {
    match kind {
        FrameKind::Append => Class::Append,
        FrameKind::Heartbeat | FrameKind::Claims | FrameKind::Pull | FrameKind::Leads => Class::Agents,
        FrameKind::End => Class::End,
        FrameKind::Propose => Class::Propose,
        FrameKind::Query => Class::Query,
        FrameKind::SnapshotHead | FrameKind::SnapshotChunk | FrameKind::SnapshotInstall => Class::Snapshot,
        FrameKind::Hello
        | FrameKind::Forgot
        | FrameKind::Clock
        | FrameKind::Twin
        | FrameKind::Beat
        | FrameKind::Vote
        | FrameKind::PreVote
        | FrameKind::TransferLeader
        | FrameKind::Reply
        | FrameKind::Refused => Class::Urgent,
    }
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
        let read = read_rest(begun, &mut receive, patience).await;
        drop(peer);
        read
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
    async fn answers_that_nobody_reads_are_not_kept_for_ever() {
        let (mut peer, mut send) = tokio::io::duplex(64);
        let (answers, mut queue) = mpsc::channel(4);
        answers.send(vec![1; 64]).await.unwrap();
        answers.send(vec![2; 65]).await.unwrap();
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
