//! What lies between two nodes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::ShardId;
use skep_protocol::time::LogInstant;

use super::calls::{CallError, CallStream, Class};
use crate::threads::Threads;

/// A call on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) class: Class,
    pub(crate) kind: FrameKind,
    pub(crate) shard: ShardId,
    pub(crate) clock: Option<LogInstant>,
    pub(crate) body: &'a [u8],
    pub(crate) deadline: Duration,
}

/// How long the way there and back takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrips {
    /// Of late, smoothed.
    pub(crate) late: Duration,
    /// The shortest since the connection was made.
    pub(crate) shortest: Duration,
}

/// An established connection.
pub(crate) enum Link {
    Quic(QuicLink),
    /// Within one process, for tests in virtual time.
    #[cfg(test)]
    Memory(crate::simulation::MemoryLink),
}

impl Link {
    pub(super) fn quic(connection: quinn::Connection, threads: Threads) -> Self {
        Self::Quic(QuicLink { connection, threads, streams: Box::default() })
    }

    /// The QUIC connection, if it is one.
    pub(super) fn connection(&self) -> Option<&quinn::Connection> {
        match self {
            Self::Quic(link) => Some(&link.connection),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    pub(super) async fn call(&self, call: Outgoing<'_>) -> Result<Bytes, CallError> {
        match self {
            Self::Quic(link) => link.call(call).await,
            #[cfg(test)]
            Self::Memory(link) => link.call(call).await,
        }
    }

    /// The round trip of late, and the shortest: what the way takes, and not the other side.
    pub(super) fn round_trips(&self) -> RoundTrips {
        match self {
            Self::Quic(link) => RoundTrips { late: link.connection.rtt(), shortest: link.connection.min_rtt() },
            #[cfg(test)]
            Self::Memory(link) => link.round_trips(),
        }
    }

    /// How many of a thousand packets that were sent are lost.
    pub(super) fn lost_permille(&self) -> Option<u32> {
        let path = self.connection()?.stats().path;
        u32::try_from((path.lost_packets * 1_000).checked_div(path.sent_packets)?).ok()
    }

    /// Bytes that congestion control lets go out in a second.
    pub(super) fn bytes_per_s(&self) -> Option<u64> {
        let path = self.connection()?.stats().path;
        path.cwnd.saturating_mul(1_000_000).checked_div(u64::try_from(path.rtt.as_micros()).ok()?)
    }

    /// Bytes that congestion control lets be under way.
    pub(super) fn window(&self) -> u64 {
        match self {
            Self::Quic(link) => link.connection.stats().path.cwnd,
            #[cfg(test)]
            Self::Memory(link) => link.window(),
        }
    }

    /// How often the other side has said that something arrived. It grows while that is asked anything, if it lives.
    pub(super) fn acknowledgements(&self) -> u64 {
        self.connection().map_or(0, |connection| connection.stats().frame_rx.acks)
    }

    /// Where the other side is; none within one process.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.connection().map(quinn::Connection::remote_address)
    }

    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Quic(link) => link.connection.close_reason().is_none(),
            #[cfg(test)]
            Self::Memory(link) => link.is_open(),
        }
    }

    pub(super) fn close(&self, code: u32, why: &[u8]) {
        match self {
            Self::Quic(link) => link.connection.close(quinn::VarInt::from_u32(code), why),
            #[cfg(test)]
            Self::Memory(link) => link.close(),
        }
    }
}

/// A QUIC connection with its long-lived streams.
pub(crate) struct QuicLink {
    connection: quinn::Connection,
    threads: Threads,
    /// By class. Each has a lock of its own: who opens one may have to wait for the peer to allow it.
    streams: Box<[tokio::sync::Mutex<Option<CallStream>>; Class::COUNT]>,
}

impl QuicLink {
    async fn call(&self, call: Outgoing<'_>) -> Result<Bytes, CallError> {
        self.stream(call.class).await?.call(call.kind, call.shard, call.clock, call.body, call.deadline).await
    }

    async fn stream(&self, class: Class) -> Result<CallStream, CallError> {
        let mut known = self.streams[class as usize].lock().await;
        if let Some(stream) = known.as_ref().filter(|stream| stream.is_open()) {
            return Ok(stream.clone());
        }
        let (send, receive) = self.open(class).await?;
        let stream = CallStream::new(send, receive, class.runtime(&self.threads));
        *known = Some(stream.clone());
        Ok(stream)
    }

    async fn open(&self, class: Class) -> Result<(quinn::SendStream, quinn::RecvStream), CallError> {
        let (send, receive) = self.connection.open_bi().await.map_err(|e| CallError::NotSent(e.to_string()))?;
        let _ = send.set_priority(class.priority());
        Ok((send, receive))
    }
}
