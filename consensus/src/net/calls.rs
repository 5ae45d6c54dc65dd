//! Calls to one peer over one long-lived stream.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::frame::{FrameKind, HEADER_BYTES, Header};
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::time::LogInstant;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::threads::Threads;

/// What a stream carries. Each class has its own stream, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// Heartbeats, votes, and who is to lead.
    Urgent,
    /// Entries.
    Append,
    /// Agents: heartbeats to the leader, and what they hold from it.
    Agents,
    /// Requests that end work, on their way to the leader. Apart from those that can wait, with as many in flight.
    End,
    /// Requests that can wait, on their way to the leader.
    Propose,
    /// Queries.
    Query,
    /// Snapshots.
    Snapshot,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Snapshot as usize + 1;

    /// The stream's priority for quinn: higher first.
    pub(super) fn priority(self) -> i32 {
        match self {
            Self::Urgent => 6,
            Self::Append => 5,
            Self::Agents => 4,
            Self::End => 3,
            Self::Propose => 2,
            Self::Query => 1,
            Self::Snapshot => 0,
        }
    }

    /// Where its streams are read and written, and its calls answered: Raft's own on the control thread, all others beside it.
    pub(super) fn runtime(self, threads: &Threads) -> &Handle {
        match self {
            Self::Urgent | Self::Append => threads.control(),
            Self::Agents | Self::End | Self::Propose | Self::Query | Self::Snapshot => threads.work(),
        }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer is not connected: the call was not sent.
    #[error("{0}")]
    NotSent(String),
    /// The connection ended: the call may have been carried out.
    #[error("the connection ended: {0}")]
    Lost(String),
    /// No answer within the deadline: the call may have been carried out.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer would not answer: the call was not carried out.
    #[error("refused: {0}")]
    Refused(String),
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<(Header, Bytes)>>>>;

/// Frames on their way out.
pub(super) type FrameQueue = mpsc::Sender<Vec<u8>>;

/// The calling side of a stream.
#[derive(Clone)]
pub(super) struct CallStream {
    frames: FrameQueue,
    waiting: Waiting,
    next_call: Arc<AtomicU64>,
    /// Whether no more answers come.
    ended: Arc<AtomicBool>,
}

/// A frame as bytes.
pub(super) fn frame(kind: FrameKind, shard: ShardId, clock: Option<LogInstant>, call: u64, body: &[u8]) -> Vec<u8> {
    let header = Header { kind, shard, clock, call, body_bytes: body.len() as u32 };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(body);
    bytes
}

/// A frame of which something has come.
pub(super) struct Begun {
    header: [u8; HEADER_BYTES],
    there: usize,
}

/// Waits until a frame begins; none at the end of the stream.
pub(super) async fn begin_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Begun>, String> {
    let mut header = [0; HEADER_BYTES];
    let there = stream.read(&mut header).await.map_err(|e| e.to_string())?;
    Ok((there > 0).then_some(Begun { header, there }))
}

impl Begun {
    /// Reads the rest of its header.
    pub(super) async fn header(mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Header, String> {
        stream.read_exact(&mut self.header[self.there..]).await.map_err(|e| e.to_string())?;
        Header::decode(&self.header).map_err(|e| e.to_string())
    }
}

/// Reads what follows a header.
pub(super) async fn read_body(stream: &mut (impl AsyncRead + Unpin), header: &Header) -> Result<Bytes, String> {
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).await.map_err(|e| e.to_string())?;
    Ok(Bytes::from(body))
}

/// Reads one frame; none at the end of the stream.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<(Header, Bytes)>, String> {
    let Some(begun) = begin_frame(stream).await? else { return Ok(None) };
    let header = begun.header(stream).await?;
    let body = read_body(stream, &header).await?;
    Ok(Some((header, body)))
}

/// Writes queued frames until the queue is closed or the stream fails.
async fn write_frames(mut stream: quinn::SendStream, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
    let _ = stream.finish();
}

impl CallStream {
    /// Takes over both halves of a stream, which are written and read on a runtime whoever calls.
    pub(super) fn new(send: quinn::SendStream, mut receive: quinn::RecvStream, runtime: &Handle) -> Self {
        let (frames, queue) = mpsc::channel(limits::FRAMES_QUEUED_MAX);
        let waiting = Waiting::default();
        runtime.spawn(write_frames(send, queue));
        let (answered, ended) = (Arc::clone(&waiting), Arc::<AtomicBool>::default());
        let ends = Arc::clone(&ended);
        runtime.spawn(async move {
            while let Ok(Some((header, body))) = read_frame(&mut receive).await {
                let waiter = answered.lock().unwrap_or_else(PoisonError::into_inner).remove(&header.call);
                if let Some(waiter) = waiter {
                    let _ = waiter.send((header, body));
                }
            }
            ends.store(true, Ordering::Relaxed);
            // Dropping the senders tells every waiter that no answer will come.
            answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Self { frames, waiting, next_call: Arc::new(AtomicU64::new(1)), ended }
    }

    /// Whether calls are sent and answered on it. Another one is opened if not.
    pub(super) fn is_open(&self) -> bool {
        !self.frames.is_closed() && !self.ended.load(Ordering::Relaxed)
    }

    /// Sends a call and waits for its answer.
    pub(super) async fn call(
        &self,
        kind: FrameKind,
        shard: ShardId,
        clock: Option<LogInstant>,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(call, answer);
        let _forget = Forget { waiting: &self.waiting, call };
        // Whoever is on the list only now was not told of the end.
        if self.ended.load(Ordering::Relaxed) {
            return Err(CallError::NotSent("the stream to the peer has ended".to_owned()));
        }
        self.frames
            .try_send(frame(kind, shard, clock, call, body))
            .map_err(|e| CallError::NotSent(format!("the stream to the peer is {e}")))?;
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok((header, body))) if header.kind == FrameKind::Reply => Ok(body),
            Ok(Ok((_, body))) => Err(CallError::Refused(String::from_utf8_lossy(&body).into_owned())),
            Ok(Err(_)) => Err(CallError::Lost("the stream was closed".to_owned())),
            Err(_) => Err(CallError::Timeout(deadline)),
        }
    }
}

/// Takes a call off the list of those that wait, however its wait ended.
struct Forget<'a> {
    waiting: &'a Waiting,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.call);
    }
}
